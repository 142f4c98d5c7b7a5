package dane_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/dane"
	"postseal/policy/dnssec"
)

func TestCheck(t *testing.T) {
	c := issue(t, nil, "mx.example.org")
	spki := c.RawSubjectPublicKeyInfo
	huge, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 16384, 1), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	odd := oddCertificate(t, c)

	for _, tt := range []struct {
		name                      string
		usage, selector, matching uint8
		data                      []byte
		usable                    bool
	}{
		{"DANE-060 usage 0", 0, 0, 1, make([]byte, 32), false},
		{"DANE-060 usage 1", 1, 1, 1, make([]byte, 32), false},
		{"DANE-061 usage 4", 4, 1, 1, make([]byte, 32), false},
		{"DANE-061 usage 255", 255, 1, 1, make([]byte, 32), false},
		{"DANE-061 selector 2", 3, 2, 1, make([]byte, 32), false},
		{"DANE-061 selector 255", 3, 255, 1, make([]byte, 32), false},
		{"DANE-061 matching type 9", 3, 1, 9, make([]byte, 32), false},
		{"DANE-061 matching type 255", 3, 1, 255, make([]byte, 32), false},
		{"DANE-061 SHA-256 of 31 octets", 3, 1, 1, make([]byte, 31), false},
		{"DANE-061 SHA-256 of 33 octets", 3, 1, 1, make([]byte, 33), false},
		{"DANE-061 SHA-256 of 64 octets", 3, 1, 1, make([]byte, 64), false},
		{"DANE-061 SHA-512 of 32 octets", 3, 1, 2, make([]byte, 32), false},
		{"DANE-061 SHA-512 of 63 octets", 2, 1, 2, make([]byte, 63), false},
		{"DANE-043 no data, SHA-256", 3, 1, 1, nil, false},
		{"DANE-043 no data, full certificate", 3, 0, 0, nil, false},
		{"DANE-043 no data, full key", 3, 1, 0, nil, false},
		{"DANE-043 no data, full anchor", 2, 0, 0, nil, false},
		{"DANE-061 3 0 0 is no certificate", 3, 0, 0, []byte("no certificate"), false},
		{"DANE-061 3 0 0 is a key", 3, 0, 0, spki, false},
		{"DANE-061 3 0 0 with a trailing octet", 3, 0, 0, append(bytes.Clone(c.Raw), 0), false},
		{"DANE-061 3 0 0 cut short", 3, 0, 0, c.Raw[:len(c.Raw)-1], false},
		{"DANE-061 3 1 0 is no key", 3, 1, 0, []byte("no key"), false},
		{"DANE-061 3 1 0 is a certificate", 3, 1, 0, c.Raw, false},
		{"DANE-061 3 1 0 with a trailing octet", 3, 1, 0, append(bytes.Clone(spki), 0), false},
		{"DANE-061 2 0 0 is a key", 2, 0, 0, spki, false},
		{"DANE-061 2 1 0 is a certificate", 2, 1, 0, c.Raw, false},
		{"DANE-061 2 1 0 is an RSA key of 16385 bits", 2, 1, 0, huge, false},
		{"DANE-061 2 0 0 cannot be worked with", 2, 0, 0, odd, false},
		{"DANE-075 3 0 0 is only compared", 3, 0, 0, odd, true},
		{"DANE-061 3 1 0 is only compared", 3, 1, 0, huge, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := dane.Check(dnssec.TLSA{Usage: tt.usage, Selector: tt.selector, MatchingType: tt.matching, Data: tt.data})
			if (err == nil) != tt.usable {
				t.Errorf("usable %v, want %v: %v", err == nil, tt.usable, err)
			}
		})
	}

	t.Run("DANE-062 all twelve combinations are usable", func(t *testing.T) {
		for usage := uint8(2); usage <= 3; usage++ {
			for selector := range uint8(2) {
				for matching := range uint8(3) {
					if err := dane.Check(tlsa(usage, selector, matching, c)); err != nil {
						t.Errorf("%d %d %d: %v", usage, selector, matching, err)
					}
				}
			}
		}
	})
}

// oddCertificate breaks an extension of c such that crypto/x509 rejects the whole,
// while its outer shape stays.
func oddCertificate(t testing.TB, c *cert) []byte {
	t.Helper()
	odd := bytes.Clone(c.Raw)
	keyUsage := []byte{0x06, 0x03, 0x55, 0x1d, 0x0f} // OID 2.5.29.15
	i := bytes.Index(odd, keyUsage)
	if i < 0 {
		t.Fatal("no key usage in the certificate")
	}
	// The extension is: OID, TRUE, OCTET STRING of BIT STRING. Make that an INTEGER.
	j := i + len(keyUsage) + bytes.IndexByte(odd[i+len(keyUsage):], 0x03)
	odd[j] = 0x02
	if _, err := x509.ParseCertificate(odd); err == nil {
		t.Fatal("crypto/x509 parses the odd certificate")
	}
	return odd
}

func TestSelect(t *testing.T) {
	a, b := issue(t, nil, "a.example.org"), issue(t, nil, "b.example.org")
	short := wrong(3, 1, 2)
	short.Data = short.Data[:32]

	for _, tt := range []struct {
		name     string
		records  []dnssec.TLSA
		strength []uint8
		want     []int // indexes of records
	}{
		{"DANE-060 none", []dnssec.TLSA{wrong(0, 0, 1), wrong(1, 1, 1)}, nil, nil},
		{"DANE-063 strongest digest only", []dnssec.TLSA{tlsa(3, 1, 1, a), wrong(3, 1, 2)}, nil, []int{1}},
		{"DANE-063 all of the strongest digest", []dnssec.TLSA{tlsa(3, 1, 2, a), tlsa(3, 1, 1, a), tlsa(3, 1, 2, b)}, nil, []int{0, 2}},
		{"DANE-063 unusable ones are discarded first", []dnssec.TLSA{short, tlsa(3, 1, 1, a)}, nil, []int{1}},
		{"DANE-063 other selector", []dnssec.TLSA{wrong(3, 0, 2), tlsa(3, 1, 1, a)}, nil, []int{0, 1}},
		{"DANE-063 other usage", []dnssec.TLSA{wrong(2, 1, 2), tlsa(3, 1, 1, a)}, nil, []int{0, 1}},
		{"DANE-063 full is kept beside", []dnssec.TLSA{tlsa(3, 1, 0, a), wrong(3, 1, 2), tlsa(3, 1, 1, a)}, nil, []int{0, 1}},
		{"DANE-064 order reversed", []dnssec.TLSA{wrong(3, 1, 2), tlsa(3, 1, 1, a)}, []uint8{1, 2}, []int{1}},
		{"DANE-064 one digest alone", []dnssec.TLSA{wrong(3, 1, 2), tlsa(3, 0, 0, a)}, []uint8{1}, []int{1}},
		{"DANE-064 type 0 is no digest", []dnssec.TLSA{tlsa(3, 1, 0, a), tlsa(3, 1, 0, b), tlsa(3, 1, 1, a)}, []uint8{0, 1}, []int{0, 1, 2}},
		{"DANE-061 empty set", nil, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []dnssec.TLSA
			for _, i := range tt.want {
				want = append(want, tt.records[i])
			}
			before := slices.Clone(tt.records)
			got := dane.Select(tt.records, tt.strength...)
			if len(got) != len(want) || len(got) > 0 && !cmp.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if diff := cmp.Diff(before, tt.records); diff != "" {
				t.Errorf("the argument was changed: %s", diff)
			}
		})
	}
}

// FuzzUsable feeds RDATA of TLSA records, two at a time.
func FuzzUsable(f *testing.F) {
	c := issue(f, nil, "mx.example.org")
	f.Add(append([]byte{3, 0, 0}, c.Raw...), append([]byte{3, 1, 0}, c.RawSubjectPublicKeyInfo...))
	f.Add(append([]byte{2, 0, 0}, c.Raw...), append([]byte{2, 1, 0}, c.RawSubjectPublicKeyInfo...))
	f.Add(append([]byte{3, 1, 1}, make([]byte, 32)...), append([]byte{3, 1, 2}, make([]byte, 64)...))
	f.Add([]byte{3, 0, 0}, []byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, x, y []byte) {
		var records []dnssec.TLSA
		usable := 0
		for _, rdata := range [][]byte{x, y} {
			if len(rdata) < 3 {
				continue
			}
			r := dnssec.TLSA{Usage: rdata[0], Selector: rdata[1], MatchingType: rdata[2], Data: rdata[3:]}
			records = append(records, r)
			if dane.Check(r) == nil {
				usable++
			}
		}
		got := dane.Select(records)
		if len(got) > usable || (len(got) == 0) != (usable == 0) {
			t.Errorf("%d selected of %d usable", len(got), usable)
		}
		if _, err := dane.Verify(got, [][]byte{c.Raw, x, y}, []string{"mx.example.org"}, now); err == nil {
			ok := false
			for _, r := range got {
				ok = ok || r.MatchingType == 0 || len(r.Data) >= 32
			}
			if !ok {
				t.Error("verified without a record that could")
			}
		}
	})
}
