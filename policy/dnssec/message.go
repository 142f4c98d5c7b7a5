package dnssec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// udpSize is the reply size offered in EDNS: what fits into every IPv6 path
// without fragments (RFC 9715 §3.2, DNS flag day 2020).
const udpSize = 1232

const headerSize = 12

// question is what is asked: a canonical name ("" is the root) and a type; the
// class is always IN.
type question struct {
	name  string
	qtype uint16
}

func (q question) typ() string { return dns.TypeToString[q.qtype] }

// appendQuery appends the question as a message: RD and AD (RFC 6840 §5.7), and
// EDNS with DO (RFC 6891, RFC 3225).
func appendQuery(b []byte, id uint16, q question) []byte {
	const rd, ad = 0x01, 0x20
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, rd, ad, 0, 1, 0, 0, 0, 0, 0, 1)
	for rest := q.name; rest != ""; {
		var label string
		label, rest, _ = strings.Cut(rest, ".")
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, q.qtype)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)

	b = append(b, 0, 0, byte(dns.TypeOPT))
	b = binary.BigEndian.AppendUint16(b, udpSize)
	const do = 0x80
	return append(b, 0, 0, do, 0, 0, 0) // extended RCODE, version, flags, no options
}

// record is one resource record of a reply; its data lies in msg[off:end].
type record struct {
	name   string // canonical
	rtype  uint16
	ttl    uint32
	msg    []byte // the message up to the end of the data
	off    int
	header int // offset behind the owner name
}

func (r record) data() []byte { return r.msg[r.off:] }

// reply is what is needed of a message, checked to be a reply to the question.
type reply struct {
	rcode     int // extended (RFC 6891 §6.1.3)
	truncated bool
	ad        bool
	answer    []record // records of the type asked for, and CNAMEs
	authority []record // SOA only
	extended  []extendedError
}

// extendedError is one of RFC 8914.
type extendedError struct {
	code uint16
	text string
}

// errForeign is returned for a message that answers another question.
var errForeign = errors.New("reply to another question")

// parseReply reads a message. Its error is errForeign for whatever does not
// have our id and question (RFC 5452 §9.1), else it says what is malformed.
// Records other than those named in [reply] are skipped unread: it is no error
// of theirs that they are strange.
func parseReply(msg []byte, id uint16, q question) (reply, error) {
	if len(msg) < headerSize || binary.BigEndian.Uint16(msg) != id {
		return reply{}, errForeign
	}
	const qr, opcode, tc, ad = 0x80, 0x78, 0x02, 0x20
	if msg[2]&qr == 0 || msg[2]&opcode != 0 {
		return reply{}, errForeign
	}
	r := reply{rcode: int(msg[3] & 0x0f), truncated: msg[2]&tc != 0, ad: msg[3]&ad != 0}
	count := func(i int) int { return int(binary.BigEndian.Uint16(msg[4+2*i:])) }

	off := headerSize
	switch count(0) {
	case 1:
		name, next, err := dns.UnpackDomainName(msg, off)
		if err != nil || len(msg)-next < 4 || canonical(name) != q.name ||
			binary.BigEndian.Uint16(msg[next:]) != q.qtype || binary.BigEndian.Uint16(msg[next+2:]) != dns.ClassINET {
			return reply{}, errForeign
		}
		off = next + 4
	case 0:
		// Servers that refuse or do not understand may leave the question out.
		// Nothing but an error may come of this.
		if r.rcode == dns.RcodeSuccess || r.rcode == dns.RcodeNameError {
			return reply{}, errForeign
		}
	default:
		return reply{}, errForeign
	}
	if r.truncated {
		return r, nil // the rest is not worth reading; it is asked again over TCP
	}

	for section := 1; section <= 3; section++ {
		for range count(section) {
			rr, next, err := nextRecord(msg, off)
			if err != nil {
				return reply{}, err
			}
			off = next
			class := binary.BigEndian.Uint16(msg[rr.header+2:])
			switch {
			case section == 3 && rr.rtype == dns.TypeOPT:
				if rr.name != "" {
					return reply{}, errors.New("OPT record with an owner name")
				}
				r.rcode |= int(msg[rr.header+4]) << 4
				r.extended = extendedErrors(rr.data())
			case class != dns.ClassINET:
			case section == 1 && (rr.rtype == q.qtype || rr.rtype == dns.TypeCNAME):
				r.answer = append(r.answer, rr)
			case section == 2 && rr.rtype == dns.TypeSOA:
				r.authority = append(r.authority, rr)
			}
		}
	}
	return r, nil
}

func nextRecord(msg []byte, off int) (record, int, error) {
	name, off, err := dns.UnpackDomainName(msg, off)
	if err != nil {
		return record{}, 0, fmt.Errorf("owner name: %w", err)
	}
	if len(msg)-off < 10 {
		return record{}, 0, errors.New("cut record header")
	}
	end := off + 10 + int(binary.BigEndian.Uint16(msg[off+8:]))
	if end > len(msg) {
		return record{}, 0, errors.New("cut record data")
	}
	rr := record{
		name:   canonical(name),
		rtype:  binary.BigEndian.Uint16(msg[off:]),
		ttl:    binary.BigEndian.Uint32(msg[off+4:]),
		msg:    msg[:end],
		off:    off + 10,
		header: off,
	}
	if rr.ttl > 1<<31-1 {
		rr.ttl = 0 // RFC 2181 §8
	}
	return rr, end, nil
}

// extendedErrors reads those of RFC 8914 from the options of an OPT record; a
// cut option ends the reading, it is of no more than informative value.
func extendedErrors(options []byte) []extendedError {
	var list []extendedError
	for len(options) >= 4 {
		code, length := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		options = options[4:]
		if length > len(options) {
			break
		}
		if code == dns.EDNS0EDE && length >= 2 && len(list) < 8 {
			list = append(list, extendedError{binary.BigEndian.Uint16(options), string(options[2:length])})
		}
		options = options[length:]
	}
	return list
}

var errShort = errors.New("record data of the wrong length")

// nameAt reads a domain name that fills the data from offset on.
func (r record) nameAt(off int) (string, error) {
	name, end, err := dns.UnpackDomainName(r.msg, off)
	if err != nil {
		return "", err
	}
	if end != len(r.msg) {
		return "", errShort
	}
	return canonical(name), nil
}

func decodeName(r record) (string, error) { return r.nameAt(r.off) }

func decodeMX(r record) (MX, error) {
	if len(r.data()) < 3 {
		return MX{}, errShort
	}
	host, err := r.nameAt(r.off + 2)
	return MX{Preference: binary.BigEndian.Uint16(r.data()), Host: host}, err
}

func decodeAddr(r record) (netip.Addr, error) {
	want := 4
	if r.rtype == dns.TypeAAAA {
		want = 16
	}
	if len(r.data()) != want {
		return netip.Addr{}, errShort
	}
	a, _ := netip.AddrFromSlice(r.data())
	return a, nil
}

// decodeTLSA takes whatever fields are there: a record that is too short must
// be seen, as an unusable one, and not be taken for absence (RFC 6698 §4.1).
func decodeTLSA(r record) (TLSA, error) {
	var t TLSA
	data := r.data()
	for _, field := range [...]*uint8{&t.Usage, &t.Selector, &t.MatchingType} {
		if len(data) == 0 {
			return t, nil
		}
		*field, data = data[0], data[1:]
	}
	t.Data = append([]byte(nil), data...)
	return t, nil
}

func decodeTXT(r record) (string, error) {
	data := r.data()
	if len(data) == 0 {
		return "", errShort // RFC 1035 §3.3.14: one or more strings
	}
	var b strings.Builder
	b.Grow(len(data) - 1)
	for len(data) > 0 {
		n := int(data[0])
		if len(data) < 1+n {
			return "", errShort
		}
		b.Write(data[1 : 1+n])
		data = data[1+n:]
	}
	return b.String(), nil
}

// soaMinimum reads the last field of an SOA.
func soaMinimum(r record) (uint32, bool) {
	_, off, err := dns.UnpackDomainName(r.msg, r.off)
	if err != nil {
		return 0, false
	}
	_, off, err = dns.UnpackDomainName(r.msg, off)
	if err != nil || len(r.msg)-off != 20 {
		return 0, false
	}
	return binary.BigEndian.Uint32(r.msg[off+16:]), true
}
