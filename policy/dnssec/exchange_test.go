package dnssec_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
)

// raw is a server over UDP that replies with whatever answer says; it may be
// nothing.
func raw(t *testing.T, answer func(query []byte) [][]byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, p := range answer(buf[:n]) {
				conn.WriteTo(p, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().String()
}

// pack makes a reply to a query.
func pack(t *testing.T, query []byte, change func(*dns.Msg)) []byte {
	t.Helper()
	var q, r dns.Msg
	if err := q.Unpack(query); err != nil {
		t.Error(err)
		return nil
	}
	r.SetReply(&q)
	change(&r)
	b, err := r.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

func rr(t *testing.T, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestQuery(t *testing.T) {
	queries := make(chan dns.Msg, 2)
	addr := raw(t, func(query []byte) [][]byte {
		var m dns.Msg
		if err := m.Unpack(query); err != nil {
			t.Error(err)
		}
		queries <- m
		return [][]byte{pack(t, query, func(*dns.Msg) {})}
	})
	c := &dnssec.Client{Servers: []string{addr}}
	var ids []uint16
	for range 2 {
		if _, err := c.LookupTLSA(t.Context(), "_25._tcp.mx.example.org"); err != nil {
			t.Fatal(err)
		}
		m := <-queries
		ids = append(ids, m.Id)
		opt := m.IsEdns0()
		if !m.RecursionDesired || !m.AuthenticatedData || m.CheckingDisabled || m.Response || m.Opcode != dns.OpcodeQuery {
			t.Errorf("DANE-001: header %v", m.MsgHdr)
		}
		if opt == nil || opt.UDPSize() != 1232 || !opt.Do() || opt.Version() != 0 || len(opt.Option) != 0 {
			t.Errorf("DANE-014: EDNS %v", opt)
		}
		want := dns.Question{Name: "_25._tcp.mx.example.org.", Qtype: dns.TypeTLSA, Qclass: dns.ClassINET}
		if len(m.Question) != 1 || m.Question[0] != want || len(m.Answer)+len(m.Ns) != 0 || len(m.Extra) != 1 {
			t.Errorf("question %v", m)
		}
	}
	if ids[0] == ids[1] {
		// One of 65536 runs may see this by chance.
		if _, err := c.LookupA(t.Context(), "example.org"); err != nil || (<-queries).Id == ids[0] {
			t.Error("the id does not change")
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name, fault string
		kind        dnssec.Kind
		says        string
	}{
		{"DANE-005 SERVFAIL", "SERVFAIL", dnssec.ServFail, "server failure"},
		{"DANE-005 REFUSED", "REFUSED", dnssec.Refused, "query refused"},
		{"DANE-005 FORMERR", "FORMERR", dnssec.Malformed, "malformed reply"},
		{"DANE-005 NOTIMP", "NOTIMP", dnssec.Malformed, "malformed reply"},
		{"DANE-005 YXDOMAIN", "YXDOMAIN", dnssec.Malformed, "malformed reply"},
		{"DANE-005 an extended RCODE", "BADCOOKIE", dnssec.Malformed, "malformed reply"},
		{"DANE-005 timeout", "TIMEOUT", dnssec.Timeout, "timeout"},
		{"DANE-005 malformed", "GARBAGE", dnssec.Malformed, "malformed reply"},
		{"DANE-003 bogus", "BOGUS", dnssec.Bogus, "DNSSEC validation failure"},
		{"another question", "WRONGQUESTION", dnssec.Malformed, "malformed reply"},
		{"another id", "WRONGID", dnssec.Malformed, "malformed reply"},
		{"DANE-014 no TCP", "TRUNCATE-NOTCP", dnssec.Timeout, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := dnstest.New(t, testZone, "example.org")
			s.Fail("mx.example.org", "A", tt.fault)
			c := s.Client()
			a, err := c.LookupA(t.Context(), "mx.example.org")
			e := kind(t, err, tt.kind)
			if e.Name != "mx.example.org" || e.Type != "A" || e.Server != s.Addr || a.Records != nil || a.Secure {
				t.Errorf("%+v %+v", e, a)
			}
			if !strings.HasPrefix(err.Error(), "A lookup of mx.example.org: "+tt.says+" from 127.0.0.1:") {
				t.Error(err)
			}
			// The fault is that of one name and type, and met on an alias too.
			if _, err := c.LookupAAAA(t.Context(), "mx.example.org"); err != nil {
				t.Error(err)
			}
			if tt.kind != dnssec.Timeout { // to save time
				_, err = c.LookupA(t.Context(), "alias.example.org")
				kind(t, err, tt.kind)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	addr := dnstest.Refused(t)
	c := &dnssec.Client{Servers: []string{addr}, Timeout: time.Hour, TryTimeout: time.Hour}
	_, err := c.LookupA(t.Context(), "example.org")
	if e := kind(t, err, dnssec.Timeout); e.Server != addr || e.Err == nil {
		t.Errorf("%+v", e)
	}
	_, err = (&dnssec.Client{Servers: []string{"resolver.example.org:53"}}).LookupA(t.Context(), "example.org")
	kind(t, err, dnssec.Malformed)
}

func TestExtendedError(t *testing.T) {
	for _, tt := range []struct {
		name  string
		codes []uint16
		text  string
		kind  dnssec.Kind
		want  string
	}{
		{"DANE-003 signature expired", []uint16{7}, "expired", dnssec.Bogus, "Signature Expired: expired"},
		{"DANE-003 indeterminate", []uint16{5}, "", dnssec.Bogus, "DNSSEC Indeterminate"},
		{"the DNSSEC one counts", []uint16{23, 9}, "", dnssec.Bogus, "DNSKEY Missing"},
		{"network", []uint16{23}, "down", dnssec.ServFail, "Network Error: down"},
		{"stale", []uint16{3}, "", dnssec.ServFail, "Stale Answer"},
		{"cached error", []uint16{13}, "", dnssec.ServFail, "Cached Error"},
		{"unknown", []uint16{4711}, "", dnssec.ServFail, "extended error 4711"},
		{"not printable", []uint16{6}, "a\r\nb\x1b[1mü", dnssec.Bogus, "DNSSEC Bogus: a??b?[1m??"},
		{"bounded", []uint16{6}, strings.Repeat("x", 500), dnssec.Bogus, "DNSSEC Bogus: " + strings.Repeat("x", 103) + "..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := raw(t, func(query []byte) [][]byte {
				return [][]byte{pack(t, query, func(m *dns.Msg) {
					m.Rcode = dns.RcodeServerFailure
					m.SetEdns0(1232, true)
					for _, code := range tt.codes {
						m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: tt.text})
					}
				})}
			})
			_, err := (&dnssec.Client{Servers: []string{addr}}).LookupMX(t.Context(), "example.org")
			e := kind(t, err, tt.kind)
			if e.Extended != tt.want {
				t.Errorf("extended %q, want %q", e.Extended, tt.want)
			}
			if !strings.HasSuffix(e.Error(), " ("+tt.want+")") {
				t.Error(e)
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	var zone strings.Builder
	for range 60 {
		zone.WriteString("big.example.org. TXT \"" + strings.Repeat("x", 200) + "\"\n")
	}
	for i := range 40 {
		zone.WriteString("many.example.org. TXT \"" + strings.Repeat("y", 200) + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "\"\n")
	}
	zone.WriteString("small.example.org. A 192.0.2.1\n")
	s := dnstest.New(t, zone.String(), "example.org")
	s.Fail("small.example.org", "A", "TRUNCATE")
	t.Run("DANE-014 the reply over TCP is used", func(t *testing.T) {
		a, err := s.Client().LookupTXT(t.Context(), "many.example.org")
		if err != nil || len(a.Records) != 40 || !a.Secure {
			t.Fatal(len(a.Records), err)
		}
		b, err := s.Client().LookupA(t.Context(), "small.example.org")
		if err != nil || len(b.Records) != 1 || !b.Secure || s.Count("A", "small.example.org") != 2 {
			t.Fatal(b, err)
		}
	})
}

// A reply that is not ours does not end the waiting for the one that is.
func TestForgedReplies(t *testing.T) {
	good := rr(t, "example.org. 60 IN A 192.0.2.1")
	evil := rr(t, "example.org. 60 IN A 192.0.2.66")
	with := func(query []byte, change func(*dns.Msg)) []byte {
		return pack(t, query, func(m *dns.Msg) { m.Answer = []dns.RR{evil}; change(m) })
	}
	addr := raw(t, func(query []byte) [][]byte {
		return [][]byte{
			nil, {1}, query, query[:12],
			with(query, func(m *dns.Msg) { m.Id++ }),
			with(query, func(m *dns.Msg) { m.Response = false }),
			with(query, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }),
			with(query, func(m *dns.Msg) { m.Question[0].Name = "example.net." }),
			with(query, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }),
			with(query, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }),
			with(query, func(m *dns.Msg) { m.Question = nil }),
			with(query, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
			pack(t, query, func(m *dns.Msg) { m.Question[0].Name = "EXAMPLE.org."; m.Answer = []dns.RR{good} }),
		}
	})
	a, err := (&dnssec.Client{Servers: []string{addr}, TryTimeout: time.Minute}).LookupA(t.Context(), "example.org")
	if err != nil || len(a.Records) != 1 || a.Records[0].String() != "192.0.2.1" {
		t.Fatal(a, err)
	}
}

func TestCancel(t *testing.T) {
	forever := func(addr string) *dnssec.Client {
		return &dnssec.Client{Servers: []string{addr}, TryTimeout: time.Hour, Timeout: time.Hour}
	}
	run := func(t *testing.T, addr string, asked <-chan struct{}) {
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := forever(addr).LookupA(ctx, "example.org")
			failed <- err
		}()
		<-asked
		cancel()
		err := <-failed
		kind(t, err, dnssec.Canceled)
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	t.Run("UDP", func(t *testing.T) {
		asked := make(chan struct{}, 1)
		run(t, raw(t, func([]byte) [][]byte { asked <- struct{}{}; return nil }), asked)
	})
	t.Run("TCP", func(t *testing.T) {
		addr := raw(t, func(q []byte) [][]byte {
			return [][]byte{pack(t, q, func(m *dns.Msg) { m.Truncated = true })}
		})
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		asked, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			length := make([]byte, 2)
			io.ReadFull(conn, length)
			io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(length)))
			close(asked)
			io.Copy(io.Discard, conn) // until the client closes
		}()
		run(t, addr, asked)
		<-done
		l.Close()
	})
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := dnstest.New(t, testZone)
		_, err := s.Client().LookupA(ctx, "example.org")
		kind(t, err, dnssec.Canceled)
		if s.Queries() != nil {
			t.Error("asked")
		}
	})
	t.Run("deadline of the caller", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := forever(raw(t, func([]byte) [][]byte { return nil })).LookupA(ctx, "example.org")
		kind(t, err, dnssec.Canceled)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A resolver may stop in the middle of a chain; the rest is asked for.
func TestUnfinishedChain(t *testing.T) {
	s := dnstest.New(t, testZone+chain(20)+`
a.example.org. CNAME b.unsigned.test.
b.unsigned.test. CNAME mx.example.org.
d.example.org. CNAME sp\032ace.example.org.
`, "example.org")
	s.Fail("*", "", "NOCHAIN")
	ctx := t.Context()
	a, err := s.Client().LookupA(ctx, "alias.example.org")
	if err != nil || !a.Secure || len(a.Records) != 2 || a.Name != "mx.example.org" || len(a.Aliases) != 1 || a.TTL != 200*time.Second {
		t.Fatal(a, err)
	}
	a, err = s.Client().LookupA(ctx, "dangling.example.org")
	if err != nil || a.Status != dnssec.NXDomain || a.Name != "gone.example.org" || !a.Secure {
		t.Fatal(a, err)
	}
	for _, name := range []string{"c0.example.org", "loop1.example.org", "self.example.org"} {
		_, err = s.Client().LookupA(ctx, name)
		kind(t, err, dnssec.Loop)
	}
	_, err = s.Client().LookupA(ctx, "d.example.org")
	kind(t, err, dnssec.BadName)
	a, err = s.Client().LookupA(ctx, "a.example.org")
	if err != nil || a.Secure || len(a.Aliases) != 2 {
		t.Fatal("DANE-010: insecure in the middle", a, err)
	}
	s.Fail("mx.example.org", "A", "SERVFAIL")
	if _, err = s.Client().LookupA(ctx, "mx.example.org"); err == nil {
		t.Fatal("no error")
	}
}
