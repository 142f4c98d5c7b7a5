package store

import (
	"bytes"
	"encoding/json"
	"net/netip"

	"postseal/reporting"
	"postseal/reporting/tlsrpt"
)

// appendKey puts the domain first, so that those of one domain stand together. The
// texts are printable ASCII, which the recorder sees to, so that a zero ends them.
func appendKey(dst []byte, k *reporting.Key) []byte {
	dst = append(append(dst, k.Domain...), 0)
	dst = append(dst, k.Policy[:]...)
	dst = append(dst, byte(k.Standing))
	for _, s := range []string{string(k.Source), string(k.Result), k.Reason, k.MXHost, k.MXHelo} {
		dst = append(append(dst, s...), 0)
	}
	for _, a := range []netip.Addr{k.SendingIP, k.MXIP} {
		raw := a.AsSlice()
		dst = append(append(dst, byte(len(raw))), raw...)
	}
	return dst
}

func decodeKey(b []byte) (k reporting.Key, ok bool) {
	text := func() string {
		s, rest, found := bytes.Cut(b, []byte{0})
		if !found {
			ok = false
			return ""
		}
		b = rest
		return string(s)
	}
	ok = true
	k.Domain = text()
	if !ok || len(b) < len(k.Policy)+1 {
		return k, false
	}
	copy(k.Policy[:], b)
	k.Standing = reporting.Standing(b[len(k.Policy)])
	b = b[len(k.Policy)+1:]
	k.Source, k.Result = reporting.Source(text()), tlsrpt.ResultType(text())
	k.Reason, k.MXHost, k.MXHelo = text(), text(), text()
	for _, a := range []*netip.Addr{&k.SendingIP, &k.MXIP} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return k, false
		}
		n := int(b[0])
		addr, isAddr := netip.AddrFromSlice(b[1 : 1+n])
		if n != 0 && !isAddr {
			return k, false
		}
		*a, b = addr, b[1+n:]
	}
	return k, ok && len(b) == 0 && k.Standing <= reporting.Unverified
}

// policy is how a policy is stored.
type policy struct {
	Type    tlsrpt.PolicyType `json:"t"`
	Domain  string            `json:"d,omitempty"`
	Strings []string          `json:"s,omitempty"`
	MX      []string          `json:"m,omitempty"`
}

func encodePolicy(p reporting.Policy) []byte {
	b, err := json.Marshal(policy(p))
	if err != nil { // of strings, there is none
		return nil
	}
	return b
}

// decodePolicy gives no policy for what cannot be read.
func decodePolicy(b []byte) reporting.Policy {
	var p policy
	if json.Unmarshal(b, &p) != nil {
		return reporting.Policy{}
	}
	return reporting.Policy(p)
}
