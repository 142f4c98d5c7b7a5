package dane_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"testing"

	"postseal/policy/dane"
	"postseal/policy/dnssec"
)

const ok = dane.Failure(255) // in tables: no error

type verification struct {
	name    string
	records []dnssec.TLSA
	chain   [][]byte
	names   []string
	want    dane.Failure
}

func verify(t *testing.T, tests []verification) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			names := tt.names
			if names == nil {
				names = []string{"mx.example.org"}
			}
			r, err := dane.Verify(dane.Select(tt.records), tt.chain, names, now)
			if tt.want == ok {
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(tt.records, func(want dnssec.TLSA) bool {
					return r.Usage == want.Usage && r.Selector == want.Selector && r.MatchingType == want.MatchingType && bytes.Equal(r.Data, want.Data)
				}) {
					t.Errorf("authenticated by a record that was not given: %v", r)
				}
				return
			}
			e, is := errors.AsType[*dane.VerifyError](err)
			if !is {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if e.Failure != tt.want {
				t.Errorf("failure is %q (%v), want %q", e.Failure, e, tt.want)
			}
			if e.Reason == "" || len(e.Reason) > 200 {
				t.Errorf("reason has %d bytes", len(e.Reason))
			}
		})
	}
}

func TestVerifyEndEntity(t *testing.T) {
	leaf := issue(t, nil, "foo.invalid")
	other := issue(t, nil, "mx.example.org")
	old, young := issue(t, nil, "mx.example.org", expired), issue(t, nil, "mx.example.org", notYetValid)
	client := issue(t, nil, "mx.example.org", func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.KeyUsage = 0
		c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	})
	// The issuer is not what it says it is: no one looks at the signature.
	forged := issue(t, other, "mx.example.org")
	odd := oddCertificate(t, leaf)
	records := func(r ...dnssec.TLSA) []dnssec.TLSA { return r }

	var tests []verification
	for selector := range uint8(2) {
		for matching := range uint8(3) {
			tests = append(tests,
				verification{"DANE-062 matches", records(tlsa(3, selector, matching, leaf)), der(leaf), nil, ok},
				verification{"DANE-062 does not match", records(tlsa(3, selector, matching, other)), der(leaf), nil, dane.NoMatch},
				verification{"DANE-073 position 1 does not count", records(tlsa(3, selector, matching, other)), der(leaf, other), nil, dane.NoMatch},
			)
		}
	}
	verify(t, append(tests, []verification{
		{"DANE-070 no names", records(tlsa(3, 1, 1, leaf)), der(leaf), []string{}, ok},
		{"DANE-071 expired", records(tlsa(3, 1, 1, old)), der(old), nil, ok},
		{"DANE-071 not yet valid", records(tlsa(3, 1, 1, young)), der(young), nil, ok},
		{"DANE-072 key usage, unknown critical extension", records(tlsa(3, 0, 1, client)), der(client), nil, ok},
		{"DANE-072 chain is not looked at", records(tlsa(3, 1, 1, forged)), append(der(forged), []byte("garbage")), nil, ok},
		{"DANE-075 3 0 1 of what x509 rejects", records(dnssec.TLSA{Usage: 3, MatchingType: 1, Data: digest(1, odd)}), [][]byte{odd}, nil, ok},
		{"DANE-075 3 0 0 of what x509 rejects", records(dnssec.TLSA{Usage: 3, Data: odd}), [][]byte{odd}, nil, ok},
		{"DANE-075 3 1 1 of what x509 rejects", records(tlsa(3, 1, 1, leaf)), [][]byte{odd}, nil, ok},
		{"DANE-075 3 1 1, other key in what x509 rejects", records(tlsa(3, 1, 1, other)), [][]byte{odd}, nil, dane.NoMatch},
		{"DANE-075 3 1 1, no certificate", records(tlsa(3, 1, 1, leaf)), [][]byte{[]byte("garbage")}, nil, dane.Malformed},
		{"DANE-075 empty certificate", records(tlsa(3, 1, 1, leaf)), [][]byte{nil}, nil, dane.Malformed},
		{"DANE-075 nothing presented", records(tlsa(3, 1, 1, leaf)), nil, nil, dane.NoMatch},
		{"DANE-065 one of several", records(wrong(3, 1, 1), tlsa(3, 1, 1, leaf)), der(leaf), nil, ok},
		{"DANE-063 weaker digest that matches", records(tlsa(3, 1, 1, leaf), wrong(3, 1, 2)), der(leaf), nil, dane.NoMatch},
		{"DANE-063 other selector matches", records(wrong(3, 0, 2), tlsa(3, 1, 1, leaf)), der(leaf), nil, ok},
		{"DANE-060 usage 1 is not mapped to 3", records(tlsa(1, 1, 1, leaf)), der(leaf), nil, dane.NoMatch},
		{"DANE-061 no records", nil, der(leaf), nil, dane.NoMatch},
	}...))

	t.Run("DANE-060 unusable records authenticate nothing, even unselected", func(t *testing.T) {
		for _, r := range records(tlsa(0, 0, 1, leaf), tlsa(1, 1, 1, leaf), tlsa(3, 2, 0, leaf), tlsa(3, 1, 9, leaf), dnssec.TLSA{Usage: 3, Selector: 1}) {
			if _, err := dane.Verify([]dnssec.TLSA{r}, der(leaf), nil, now); err == nil {
				t.Errorf("%v authenticates", r)
			}
		}
	})
}

func TestVerifyTrustAnchor(t *testing.T) {
	root := issue(t, nil, "root", authority)
	oldRoot := issueKey(t, root.key, nil, "root", authority, expired)
	mid := issue(t, root, "mid", authority)
	oldMid := issueKey(t, mid.key, root, "mid", authority, expired)
	youngMid := issueKey(t, mid.key, root, "mid", authority, notYetValid)
	leaf := issue(t, mid, "mx.example.org")
	direct := issue(t, root, "mx.example.org")
	old := issue(t, mid, "mx.example.org", expired)
	self := issue(t, nil, "mx.example.org")
	selfCA := issue(t, nil, "mx.example.org", authority, names("mx.example.org"))
	stranger := issue(t, nil, "root", authority) // the same name, another key
	noCA := issue(t, root, "mid")
	belowNoCA := issue(t, noCA, "mx.example.org")
	client := issue(t, mid, "mx.example.org", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	records := func(r ...dnssec.TLSA) []dnssec.TLSA { return r }

	var tests []verification
	for selector := range uint8(2) {
		for matching := range uint8(3) {
			tests = append(tests,
				verification{"DANE-080 anchor at position 2", records(tlsa(2, selector, matching, root)), der(leaf, mid, root), nil, ok},
				verification{"DANE-080 anchor at position 1", records(tlsa(2, selector, matching, root)), der(direct, root), nil, ok},
				verification{"DANE-086 anchor is an intermediate, no root", records(tlsa(2, selector, matching, mid)), der(leaf, mid), nil, ok},
				verification{"DANE-086 anchor is an intermediate, root expired", records(tlsa(2, selector, matching, mid)), der(leaf, mid, oldRoot), nil, ok},
				verification{"DANE-080 anchor presented, leaf of another", records(tlsa(2, selector, matching, root)), der(self, root), nil, dane.Untrusted},
				verification{"DANE-080 namesake of the anchor", records(tlsa(2, selector, matching, stranger)), der(leaf, mid, root, stranger), nil, dane.Untrusted},
				verification{"DANE-085 matches the leaf alone", records(tlsa(2, selector, matching, self)), der(self), nil, dane.NoMatch},
				verification{"DANE-085 matches the leaf, which is a CA", records(tlsa(2, selector, matching, selfCA)), der(selfCA), nil, dane.NoMatch},
				verification{"DANE-085 matches the leaf, presented twice", records(tlsa(2, selector, matching, selfCA)), der(selfCA, selfCA), nil, dane.NoMatch},
				verification{"DANE-085 matches the leaf alone, issued", records(tlsa(2, selector, matching, leaf)), der(leaf, mid, root), nil, dane.NoMatch},
			)
			if matching != 0 {
				tests = append(tests, verification{"DANE-080 anchor not presented, digest", records(tlsa(2, selector, matching, root)), der(leaf, mid), nil, dane.NoMatch})
			}
		}
	}
	verify(t, append(tests, []verification{
		{"DANE-080 order of the chain does not matter", records(tlsa(2, 0, 1, root)), der(leaf, root, mid), nil, ok},
		{"DANE-080 garbage in the chain does not matter", records(tlsa(2, 0, 1, root)), append(der(leaf, mid), []byte("garbage"), root.Raw), nil, ok},
		{"DANE-080 intermediate missing", records(tlsa(2, 0, 1, root)), der(leaf, root), nil, dane.Untrusted},
		{"DANE-080 anchor is no CA", records(tlsa(2, 0, 1, noCA)), der(belowNoCA, noCA), nil, dane.Untrusted},
		{"DANE-080 intermediate is no CA", records(tlsa(2, 0, 1, root)), der(belowNoCA, noCA, root), nil, dane.Untrusted},
		{"DANE-080 leaf is for clients", records(tlsa(2, 0, 1, root)), der(client, mid, root), nil, dane.Untrusted},
		{"DANE-075 leaf that x509 rejects", records(tlsa(2, 0, 1, root)), [][]byte{oddCertificate(t, leaf), mid.Raw, root.Raw}, nil, dane.Malformed},

		{"DANE-081 2 0 0, anchor from DNS", records(tlsa(2, 0, 0, root)), der(direct), nil, ok},
		{"DANE-081 2 0 0, anchor from DNS above an intermediate", records(tlsa(2, 0, 0, root)), der(leaf, mid), nil, ok},
		{"DANE-081 2 0 0, anchor from DNS is the intermediate", records(tlsa(2, 0, 0, mid)), der(leaf), nil, ok},
		{"DANE-081 2 0 0, other anchor", records(tlsa(2, 0, 0, stranger)), der(direct), nil, dane.Untrusted},
		{"DANE-081 2 0 0, anchor from DNS expired", records(tlsa(2, 0, 0, oldRoot)), der(direct), nil, dane.Expired},

		{"DANE-082 2 1 0, leaf signed by the key", records(tlsa(2, 1, 0, root)), der(direct), nil, ok},
		{"DANE-082 2 1 0, intermediate signed by the key", records(tlsa(2, 1, 0, root)), der(leaf, mid), nil, ok},
		{"DANE-082 2 1 0, other key", records(tlsa(2, 1, 0, stranger)), der(leaf, mid), nil, dane.NoMatch},
		{"DANE-082 2 1 0, leaf expired", records(tlsa(2, 1, 0, mid)), der(old), nil, dane.Expired},
		{"DANE-082 2 1 0, intermediate expired", records(tlsa(2, 1, 0, root)), der(leaf, oldMid), nil, dane.Expired},
		{"DANE-082 2 1 0, intermediate is no CA", records(tlsa(2, 1, 0, root)), der(belowNoCA, noCA), nil, dane.NoMatch},
		{"DANE-082 2 1 0, signed certificate is not above the leaf", records(tlsa(2, 1, 0, root)), der(self, mid), nil, dane.Untrusted},
		{"DANE-082 2 1 0, leaf for clients", records(tlsa(2, 1, 0, mid)), der(client), nil, dane.Untrusted},
		{"DANE-082 2 1 0, self-signed leaf", records(tlsa(2, 1, 0, self)), der(self), nil, dane.NoMatch},
		{"DANE-082 2 1 0, name differs", records(tlsa(2, 1, 0, mid)), der(leaf), []string{"mx.example.net"}, dane.NameMismatch},
		{"DANE-082 2 1 0, presented anchor with the key is expired", records(tlsa(2, 1, 0, root)), der(direct, oldRoot), nil, dane.Expired},

		{"DANE-084 leaf expired", records(tlsa(2, 0, 1, root)), der(old, mid, root), nil, dane.Expired},
		{"DANE-084 intermediate expired", records(tlsa(2, 0, 1, root)), der(leaf, oldMid, root), nil, dane.Expired},
		{"DANE-084 intermediate not yet valid", records(tlsa(2, 0, 1, root)), der(leaf, youngMid, root), nil, dane.Expired},
		{"DANE-084 one of two paths expired", records(tlsa(2, 0, 1, root)), der(leaf, oldMid, mid, root), nil, ok},
		{"DANE-084 anchor expired, as in OpenSSL", records(tlsa(2, 0, 1, oldRoot)), der(leaf, mid, oldRoot), nil, dane.Expired},
		{"DANE-084 unrelated certificate expired", records(tlsa(2, 0, 1, root)), der(self, oldMid, root), nil, dane.Untrusted},

		{"DANE-065 stale 3 1 1, good 2 1 1", records(wrong(3, 1, 1), tlsa(2, 1, 1, root)), der(leaf, mid, root), nil, ok},
		{"DANE-065 good 3 1 1, stale 2 1 1", records(wrong(2, 1, 1), tlsa(3, 1, 1, old)), der(old), nil, ok},
		{"DANE-065 one of two anchors", records(tlsa(2, 0, 1, stranger), tlsa(2, 0, 1, root)), der(leaf, stranger, mid, root), nil, ok},
	}...))
}

func TestVerifyConstraints(t *testing.T) {
	root := issue(t, nil, "root", authority, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	mid := issue(t, root, "mid", authority)
	leaf := issue(t, mid, "mx.example.org")
	direct := issue(t, root, "mx.example.org")

	bound := issue(t, nil, "bound", authority, func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.org"}, true
	})
	barred := issue(t, nil, "barred", authority, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"example.net"} })
	inside, outside := issue(t, bound, "mx.example.org"), issue(t, bound, "mx.example.net")
	common := issue(t, bound, "mx.example.net", names())
	commonBarred := issue(t, barred, "mx.example.net", names())
	net := []string{"mx.example.net"}
	records := func(r ...dnssec.TLSA) []dnssec.TLSA { return r }

	verify(t, []verification{
		{"DANE-083 path length kept", records(tlsa(2, 0, 0, root)), der(direct), nil, ok},
		{"DANE-083 path length exceeded", records(tlsa(2, 0, 0, root)), der(leaf, mid), nil, dane.Untrusted},
		{"DANE-083 path length exceeded, presented", records(tlsa(2, 0, 1, root)), der(leaf, mid, root), nil, dane.Untrusted},
		{"DANE-083 inside permitted names", records(tlsa(2, 0, 0, bound)), der(inside), nil, ok},
		{"DANE-083 outside permitted names", records(tlsa(2, 0, 0, bound)), der(outside), net, dane.Untrusted},
		{"DANE-083 common name outside permitted names", records(tlsa(2, 0, 0, bound)), der(common), net, dane.NameMismatch},
		{"DANE-083 common name among excluded names", records(tlsa(2, 0, 1, barred)), der(commonBarred, barred), net, dane.NameMismatch},
	})
}

func TestVerifyNames(t *testing.T) {
	root := issue(t, nil, "root", authority)
	anchor := []dnssec.TLSA{tlsa(2, 0, 0, root)}
	match := func(item string, cn string, sans, refs []string, want dane.Failure) verification {
		return verification{item, anchor, der(issue(t, root, cn, names(sans...))), refs, want}
	}
	mx := []string{"mx.example.org"}
	list := func(s ...string) []string { return s }

	verify(t, []verification{
		match("DANE-087 base", "", mx, mx, ok),
		match("DANE-087 letter case", "", list("MX.Example.ORG"), mx, ok),
		match("DANE-087 any reference identifier", "", list("example.com"), list("mx.example.com", "example.com"), ok),
		match("DANE-087 none", "", list("mx.example.net"), mx, dane.NameMismatch),
		match("DANE-087 no references", "", mx, []string{}, dane.NameMismatch),
		match("DANE-087 empty reference", "", nil, list(""), dane.NameMismatch),
		match("DANE-088 next hop, secure MX", "", list("example.com"), list("mx.example.com", "example.com"), ok),
		match("DANE-089 next hop, insecure MX", "", list("example.com"), list("mx.example.com"), dane.NameMismatch),
		match("DANE-091 DNS-ID differs, CN matches", "mx.example.org", list("other.example.org"), mx, dane.NameMismatch),
		match("DANE-091 no DNS-ID, CN matches", "mx.example.org", nil, mx, ok),
		match("DANE-091 no DNS-ID, CN differs", "mx.example.net", nil, mx, dane.NameMismatch),
		match("DANE-091 no DNS-ID, wildcard CN", "*.example.org", nil, mx, ok),
		match("DANE-091 no names at all", "", nil, mx, dane.NameMismatch),
		match("DANE-092 one label", "", list("*.example.com"), list("mx1.example.com"), ok),
		match("DANE-092 letter case", "", list("*.EXAMPLE.com"), list("mx1.example.com"), ok),
		match("DANE-092 two labels", "", list("*.example.com"), list("a.b.example.com"), dane.NameMismatch),
		match("DANE-092 no label", "", list("*.example.com"), list("example.com"), dane.NameMismatch),
		match("DANE-092 part of a label, CN", "mx*.example.com", nil, list("mx1.example.com"), dane.NameMismatch),
		match("DANE-092 part of a label", "", list("mx*.example.com"), list("mx1.example.com"), dane.NameMismatch),
		match("DANE-092 inner label", "", list("mx.*.example.com"), list("mx.a.example.com"), dane.NameMismatch),
		match("DANE-092 below a top-level domain", "", list("*.com"), list("example.com"), dane.NameMismatch),
		match("DANE-092 bare star", "", list("*"), list("localhost"), dane.NameMismatch),
		match("DANE-092 wildcard as reference", "", list("*.example.com"), list("*.example.com"), dane.NameMismatch),
		match("DANE-091 control characters", "mx.example.org\x00.example.net", nil, mx, dane.NameMismatch),
	})
}

// FuzzVerify feeds any chain to any record.
func FuzzVerify(f *testing.F) {
	root := issue(f, nil, "root", authority)
	leaf := issue(f, root, "mx.example.org")
	for usage := uint8(2); usage <= 3; usage++ {
		for selector := range uint8(2) {
			f.Add(leaf.Raw, root.Raw, usage, selector, uint8(0), tlsa(usage, selector, 0, root).Data)
			f.Add(leaf.Raw, root.Raw, usage, selector, uint8(1), tlsa(usage, selector, 1, root).Data)
		}
	}
	f.Add(oddCertificate(f, leaf), []byte{}, uint8(3), uint8(1), uint8(0), leaf.RawSubjectPublicKeyInfo)
	f.Fuzz(func(t *testing.T, first, second []byte, usage, selector, matching uint8, data []byte) {
		r := dnssec.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: data}
		for _, chain := range [][][]byte{{first}, {first, second}, {first, second, first}} {
			got, err := dane.Verify([]dnssec.TLSA{r}, chain, []string{"mx.example.org"}, now)
			if err == nil && (usage != 2 && usage != 3 || !bytes.Equal(got.Data, data)) {
				t.Errorf("%v authenticates", r)
			}
			if e, is := errors.AsType[*dane.VerifyError](err); err != nil && (!is || e.Reason == "") {
				t.Errorf("error without a reason: %#v", err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	root := issue(b, nil, "root", authority)
	mid := issue(b, root, "mid", authority)
	leaf := issue(b, mid, "mx.example.org")
	chain := der(leaf, mid, root)
	for _, r := range []dnssec.TLSA{tlsa(3, 1, 1, leaf), tlsa(2, 1, 1, root), tlsa(2, 1, 0, root)} {
		b.Run(fmt.Sprintf("%d-%d-%d", r.Usage, r.Selector, r.MatchingType), func(b *testing.B) {
			for b.Loop() {
				if _, err := dane.Verify([]dnssec.TLSA{r}, chain, []string{"mx.example.org"}, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
