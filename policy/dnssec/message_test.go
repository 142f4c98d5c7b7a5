package dnssec

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const testID = 4711

var tlsaQuestion = question{"_25._tcp.mx.example.org", dns.TypeTLSA}

// message packs a reply with the records of a zone text, by sections divided by
// "---" lines.
func message(t testing.TB, q question, rcode int, text string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.name), q.qtype)
	m.Id = testID
	m.Response, m.AuthenticatedData, m.Rcode = true, true, rcode
	m.Compress = true
	sections := [...]*[]dns.RR{&m.Answer, &m.Ns, &m.Extra}
	for i, part := range strings.Split(text, "---") {
		p := dns.NewZoneParser(strings.NewReader(part), ".", "")
		p.SetDefaultTTL(300)
		for rr, ok := p.Next(); ok; rr, ok = p.Next() {
			*sections[i] = append(*sections[i], rr)
		}
		if p.Err() != nil {
			t.Fatal(p.Err())
		}
	}
	m.SetEdns0(1232, true)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withRecord packs a reply whose one answer has this data, an OPT record behind.
func withRecord(q question, data string) []byte {
	b := appendQuery(nil, testID, q)
	b[2] |= 0x80
	b[7] = 1
	opt := len(b) - 11
	rr := []byte{0xc0, 12}
	rr = binary.BigEndian.AppendUint16(rr, q.qtype)
	rr = append(rr, 0, 1, 0, 0, 0, 60)
	rr = binary.BigEndian.AppendUint16(rr, uint16(len(data)))
	rr = append(rr, data...)
	return slices.Insert(b, opt, rr...)
}

// answer is what a client makes of a reply.
func answer[T any](msg []byte, q question, decode func(record) (T, error)) (part, []T, error) {
	r, err := parseReply(msg, testID, q)
	if err != nil {
		return part{}, nil, err
	}
	if e := rcodeError(r); e != nil {
		return part{}, nil, e
	}
	p, err := conclude(q, r, 0)
	if err != nil {
		return part{}, nil, err
	}
	var list []T
	for _, rr := range p.records {
		v, err := decode(rr)
		if err != nil {
			return part{}, nil, err
		}
		list = append(list, v)
	}
	return p, list, nil
}

func TestRecordData(t *testing.T) {
	for _, tt := range []struct {
		data string
		want TLSA
	}{
		{"", TLSA{}},
		{"\x03", TLSA{Usage: 3}},
		{"\x03\x01", TLSA{Usage: 3, Selector: 1}},
		{"\x03\x01\x02", TLSA{Usage: 3, Selector: 1, MatchingType: 2}},
		{"\x03\x01\x02\xff", TLSA{3, 1, 2, []byte{0xff}}},
	} {
		t.Run("DANE-043 TLSA "+hex.EncodeToString([]byte(tt.data)), func(t *testing.T) {
			p, got, err := answer(withRecord(tlsaQuestion, tt.data), tlsaQuestion, decodeTLSA)
			if err != nil || p.status != Found || len(got) != 1 {
				t.Fatal(p, got, err)
			}
			g := got[0]
			if g.Usage != tt.want.Usage || g.Selector != tt.want.Selector || g.MatchingType != tt.want.MatchingType || string(g.Data) != string(tt.want.Data) {
				t.Error(g)
			}
			if s := p.records[0].presentation(); !strings.Contains(s, "TLSA") {
				t.Error(s)
			}
		})
	}
	bad := func(name string, qtype uint16, data string, decode func(record) error) {
		t.Helper()
		q := question{"example.org", qtype}
		p, _, err := answer(withRecord(q, data), q, func(r record) (int, error) { return 0, decode(r) })
		if err == nil {
			t.Errorf("%s: %v", name, p)
		}
	}
	addr := func(r record) error { _, err := decodeAddr(r); return err }
	mx := func(r record) error { _, err := decodeMX(r); return err }
	txt := func(r record) error { _, err := decodeTXT(r); return err }
	cname := func(r record) error { _, err := decodeName(r); return err }
	bad("empty A", dns.TypeA, "", addr)
	bad("short A", dns.TypeA, "abc", addr)
	bad("long A", dns.TypeA, "abcde", addr)
	bad("short AAAA", dns.TypeAAAA, "abcd", addr)
	bad("empty MX", dns.TypeMX, "", mx)
	bad("MX without host", dns.TypeMX, "\x00\x0a", mx)
	bad("MX with a cut host", dns.TypeMX, "\x00\x0a\x03mx", mx)
	bad("MX with a host beyond its end", dns.TypeMX, "\x00\x0a\x03mxx", mx)
	bad("MX with more than a host", dns.TypeMX, "\x00\x0a\x02mx\x00\x00", mx)
	bad("MX that points at itself", dns.TypeMX, "\x00\x0a\xc0\x2b", mx)
	bad("empty TXT", dns.TypeTXT, "", txt)
	bad("cut TXT", dns.TypeTXT, "\x05abc", txt)
	bad("CNAME of nothing", dns.TypeCNAME, "", cname)
}

func TestConclude(t *testing.T) {
	a := question{"www.example.org", dns.TypeA}
	for _, tt := range []struct {
		name, text string
		rcode      int
		end        string // "" for an error
		n          int
		status     Status
		unfinished bool
	}{
		{"plain", "www.example.org. A 192.0.2.1", 0, "www.example.org", 1, Found, false},
		{"the case of the owner", "WWW.example.ORG. A 192.0.2.1", 0, "www.example.org", 1, Found, false},
		{"other owners are ignored", "www.example.org. A 192.0.2.1\nevil.example.org. A 192.0.2.66", 0, "www.example.org", 1, Found, false},
		{"only other owners", "evil.example.org. A 192.0.2.66", 0, "www.example.org", 0, NoData, false},
		{"other classes are ignored", "www.example.org. CH A 192.0.2.1", 0, "www.example.org", 0, NoData, false},
		{"other types are ignored", "www.example.org. TXT x\nwww.example.org. NS ns.", 0, "www.example.org", 0, NoData, false},
		{"other sections are ignored", "---www.example.org. A 192.0.2.1---www.example.org. A 192.0.2.1", 0, "www.example.org", 0, NoData, false},
		{"chain in any order", "b. A 192.0.2.1\na. CNAME b.\nwww.example.org. CNAME a.", 0, "b", 1, Found, false},
		{"records off the chain", "www.example.org. CNAME b.\nc. A 192.0.2.66\na. A 192.0.2.66", 0, "b", 0, Found, true},
		{"DANE-011 DNAME with its CNAME", "example.org. DNAME example.net.\nwww.example.org. CNAME www.example.net.\nwww.example.net. A 192.0.2.1", 0, "www.example.net", 1, Found, false},
		{"DNAME alone tells nothing", "example.org. DNAME example.net.", 0, "www.example.org", 0, NoData, false},
		{"unfinished with a foreign SOA", "www.example.org. CNAME b.test.---example.org. SOA . . 1 2 3 4 5", 0, "b.test", 0, Found, true},
		{"finished with its SOA", "www.example.org. CNAME b.test.---test. SOA . . 1 2 3 4 5", 0, "b.test", 0, NoData, false},
		{"NXDOMAIN of the target", "www.example.org. CNAME b.test.", 3, "b.test", 0, NXDomain, false},
		{"NXDOMAIN with records", "www.example.org. A 192.0.2.1", 3, "", 0, 0, false},
		{"DANE-010 circle", "www.example.org. CNAME a.\na. CNAME www.example.org.", 0, "", 0, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, list, err := answer(message(t, a, tt.rcode, tt.text), a, decodeAddr)
			if (err != nil) != (tt.end == "") {
				t.Fatal(err)
			}
			if p.name != tt.end || len(list) != tt.n || p.unfinished != tt.unfinished || !tt.unfinished && p.status != tt.status {
				t.Errorf("%+v", p)
			}
			if slices.Contains(list, netip.MustParseAddr("192.0.2.66")) {
				t.Error("a record of another owner")
			}
		})
	}
}

func TestParseReply(t *testing.T) {
	good := message(t, tlsaQuestion, 0, "_25._tcp.mx.example.org. TLSA 3 1 1 00112233")
	for n := range good {
		if _, err := parseReply(good[:n], testID, tlsaQuestion); err == nil {
			t.Errorf("cut to %d octets it still parses", n)
		}
	}
	if _, err := parseReply(good, testID, tlsaQuestion); err != nil {
		t.Error(err)
	}

	// Servers that refuse may leave the question out; those that answer may not.
	header := func(rcode byte) []byte {
		return []byte{testID >> 8, testID & 0xff, 0x80, rcode, 0, 0, 0, 0, 0, 0, 0, 0}
	}
	for rcode, ok := range map[byte]bool{0: false, 1: true, 2: true, 3: false, 5: true} {
		if _, err := parseReply(header(rcode), testID, tlsaQuestion); (err == nil) != ok {
			t.Errorf("RCODE %d without question: %v", rcode, err)
		}
	}
}

func TestExtendedErrors(t *testing.T) {
	for _, tt := range []struct {
		options string
		want    []extendedError
	}{
		{"", nil},
		{"\x00\x0f\x00\x02\x00\x06", []extendedError{{6, ""}}},
		{"\x00\x0f\x00\x03\x00\x06x\x00\x0f\x00\x02\x00\x07", []extendedError{{6, "x"}, {7, ""}}},
		{"\x00\x0a\x00\x02ab\x00\x0f\x00\x02\x00\x07", []extendedError{{7, ""}}}, // behind a cookie
		{"\x00\x0f\x00\x01\x00", nil},
		{"\x00\x0f\x00\x09\x00\x06", nil},
		{"\x00\x0f\x00", nil},
		{strings.Repeat("\x00\x0f\x00\x02\x00\x06", 100), slices.Repeat([]extendedError{{6, ""}}, 8)},
	} {
		if got := extendedErrors([]byte(tt.options)); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v", tt.options, got)
		}
	}
}

func TestTrusts(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.53": true, "127.255.255.254": true, "::1": true, "::ffff:127.0.0.1": true,
		"127.0.0.11": false, "::ffff:127.0.0.11": false, "10.0.0.1": false, "192.168.0.1": false, "8.8.8.8": false,
		"fe80::1%lo": false, "::": false, "0.0.0.0": false, "2001:db8::1": false,
	} {
		ap, err := parseServer(addr)
		if err != nil || ap.Port() != 53 {
			t.Fatal(ap, err)
		}
		if got := new(Client).trusts(ap.Addr()); got != want {
			t.Errorf("DANE-001: %s: %t", addr, got)
		}
		if !(&Client{TrustAD: TrustAlways}).trusts(ap.Addr()) || (&Client{TrustAD: TrustNever}).trusts(ap.Addr()) {
			t.Error(addr)
		}
	}
	for _, s := range []string{"", "localhost", "localhost:53", "127.0.0.1:0", "127.0.0.1:", "127.0.0.1:65536", "[::1]", "::1:x"} {
		if ap, err := parseServer(s); err == nil {
			t.Errorf("%q: %v", s, ap)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	good := func(text string, want ...string) {
		t.Helper()
		if got := parseResolvConf([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	good("", "127.0.0.1")
	good("# nothing\n;nameserver 192.0.2.1\noptions trust-ad\nsearch example.org\n", "127.0.0.1")
	good("nameserver 192.0.2.1", "192.0.2.1")
	good("nameserver 192.0.2.1\r\n\tnameserver\t2001:db8::1 # two\n", "192.0.2.1", "2001:db8::1")
	good("nameserver fe80::1%eth0\n", "fe80::1%eth0")
	good("nameserver\nnameserver x.example.org\nnameservers 192.0.2.1\nnameserver 127.0.0.53\n", "127.0.0.53")
	good(strings.Repeat("nameserver 192.0.2.1\nnameserver ::1\n", 3), "192.0.2.1", "::1", "192.0.2.1")
}

// FuzzReply: whatever a server sends gives an error, or records that belong to
// the end of the chain of the name asked for.
func FuzzReply(f *testing.F) {
	types := [...]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeTLSA, dns.TypeTXT, dns.TypeCNAME}
	for i, qtype := range types {
		q := question{"www.example.org", qtype}
		seed := func(b []byte) { f.Add(b, uint8(i)) }
		for _, text := range []string{
			"www.example.org. A 192.0.2.1\nwww.example.org. MX 10 mx.\nwww.example.org. TXT a b\nwww.example.org. AAAA ::1\nwww.example.org. TLSA 3 1 1 00",
			"www.example.org. CNAME b.\nb. A 192.0.2.1\nb. MX 10 mx.\nb. TXT a b\nb. AAAA ::1\nb. TLSA 3 1 1 00\nc. A 192.0.2.2",
			"www.example.org. CNAME b.\nb. CNAME www.example.org.",
			"www.example.org. CNAME b.---. SOA . . 1 2 3 4 5",
		} {
			seed(message(f, q, 0, text))
			seed(message(f, q, 3, text))
		}
		seed(withRecord(q, ""))
		seed(withRecord(q, "\x03\x01"))
		seed(withRecord(q, "\x00\x0a\xc0\x2b"))
		seed(appendQuery(nil, testID, q))
	}
	f.Fuzz(func(t *testing.T, msg []byte, n uint8) {
		q := question{"www.example.org", types[int(n)%len(types)]}
		decode := map[uint16]func(record) (any, error){
			dns.TypeA:     func(r record) (any, error) { return decodeAddr(r) },
			dns.TypeAAAA:  func(r record) (any, error) { return decodeAddr(r) },
			dns.TypeMX:    func(r record) (any, error) { return decodeMX(r) },
			dns.TypeTLSA:  func(r record) (any, error) { return decodeTLSA(r) },
			dns.TypeTXT:   func(r record) (any, error) { return decodeTXT(r) },
			dns.TypeCNAME: func(r record) (any, error) { return decodeName(r) },
		}[q.qtype]
		p, list, err := answer(msg, q, decode)
		if err != nil {
			return
		}
		if (p.status == Found && !p.unfinished) != (len(list) > 0) || p.ttl < 0 || p.ttl > maxTTL || len(p.aliases) > maxAliases {
			t.Fatalf("%+v", p)
		}
		name := q.name
		for i, rr := range p.chain {
			target, err := decodeName(rr)
			if err != nil || rr.name != name || p.aliases[i] != name {
				t.Fatalf("broken chain: %+v", p)
			}
			name = target
		}
		if p.name != name {
			t.Fatalf("the chain ends with %q: %+v", name, p)
		}
		for _, rr := range p.records {
			if rr.name != name || rr.rtype != q.qtype {
				t.Fatalf("foreign record %+v", rr)
			}
			if s := rr.presentation(); len(s) > maxTracedBytes || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Fatalf("%q", s)
			}
		}
		// What a second reader makes of it, if it can read it at all.
		var m dns.Msg
		if m.Unpack(msg) != nil {
			return
		}
		same := func(rr dns.RR) bool { return canonical(rr.Header().Name) == name && rr.Header().Rrtype == q.qtype }
		if len(list) > 0 && !slices.ContainsFunc(m.Answer, same) {
			t.Fatalf("records that are not there: %+v", p)
		}
	})
}
