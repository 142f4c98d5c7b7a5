package smtpclient_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

func TestClearText(t *testing.T) {
	broken := []struct {
		name   string
		config mxtest.Config
		reply  string // to STARTTLS
		stage  string
	}{
		{"not offered", mxtest.Config{NoSTARTTLS: true}, "", off},
		{"454", mxtest.Config{}, "454 4.7.0 no", off},
		{"handshake", mxtest.Config{Handshake: mxtest.Drop}, "", "451 4.7.5 handshake validation-failure"},
	}
	for _, how := range broken {
		for _, demand := range []string{"opportunistic", "encrypt", "pkix", "dane"} {
			t.Run("SMTP-043 "+demand+", "+how.name, func(t *testing.T) {
				b := newBed(t)
				b.Set(how.config)
				if how.reply != "" {
					b.Reply("STARTTLS", how.reply)
				}
				want := how.stage
				if demand == "opportunistic" {
					want = demand
				}
				if outcome, said := b.connect(b.target(demand)); outcome != want {
					t.Errorf("outcome %q, want %q; said %s", outcome, want, said)
				}
			})
		}
	}
	t.Run("SMTP-038 a new connection to the same address", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{MaxVersion: tls.VersionTLS11})
		s := b.open("opportunistic")
		r := b.send(s, "x\r\n", "b@example.org")
		i := s.Info()
		s.Close()
		if codes(r) != "250 2.0.0" || i.TLS || i.Remote != b.Addr() {
			t.Errorf("%s over %+v", codes(r), i)
		}
		if i.NoTLS == nil || i.NoTLS.Stage != smtpclient.StageHandshake || i.NoTLS.Result != "validation-failure" {
			t.Errorf("TLS failed because of %+v", i.NoTLS)
		}
		if said := b.said(); said != "EHLO STARTTLS | EHLO MAIL RCPT DATA . QUIT" {
			t.Errorf("said %q", said)
		}
	})
	t.Run("SMTP-051 no version dance", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{MaxVersion: tls.VersionTLS11})
		b.connect(b.target("opportunistic"))
		b.connect(b.target("encrypt"))
		hellos := 0
		for _, c := range b.Conns() {
			if c.Hello != nil {
				hellos++
			}
		}
		if hellos != 2 {
			t.Errorf("%d handshakes in two attempts", hellos)
		}
	})
	t.Run("SMTP-040 loss of STARTTLS is noticed", func(t *testing.T) {
		b := newBed(t)
		var log bytes.Buffer
		b.client.Log = slog.New(slog.NewTextHandler(&log, nil))
		s := b.open("opportunistic")
		s.Close()
		if s.Info().Lost || b.client.Lost() != 0 {
			t.Error("lost with TLS")
		}
		b.Set(mxtest.Config{NoSTARTTLS: true})
		s = b.open("opportunistic")
		r := b.send(s, "x\r\n", "b@example.org")
		s.Close()
		if !s.Info().Lost || b.client.Lost() != 1 || codes(r) != "250 2.0.0" {
			t.Errorf("lost %v, %d; replies %s", s.Info().Lost, b.client.Lost(), codes(r))
		}
		if !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("no warning: %s", &log)
		}
	})
	t.Run("SMTP-040 TLS that breaks is not lost", func(t *testing.T) {
		b := newBed(t)
		b.connect(b.target("opportunistic"))
		b.Set(mxtest.Config{Handshake: mxtest.Drop})
		if outcome, _ := b.connect(b.target("opportunistic")); outcome != "opportunistic" || b.client.Lost() != 0 {
			t.Errorf("%s, lost %d", outcome, b.client.Lost())
		}
	})
	t.Run("SMTP-040 a host that never did TLS loses nothing", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{NoSTARTTLS: true})
		for range 2 {
			b.connect(b.target("opportunistic"))
		}
		if b.client.Lost() != 0 {
			t.Error("lost what it never had")
		}
	})
}

func TestVersions(t *testing.T) {
	const bad = "451 4.7.5 handshake validation-failure"
	old := mxtest.Config{MaxVersion: tls.VersionTLS11}
	converse(t, []conversation{
		{"SMTP-050 1.1 at most, demanded", old, nil, "encrypt", bad, "EHLO STARTTLS"},
		{"SMTP-050 1.1 at most, opportunistic", old, nil, "opportunistic", "opportunistic", "EHLO STARTTLS | EHLO QUIT"},
		{"SMTP-050 1.2 at most", mxtest.Config{MaxVersion: tls.VersionTLS12}, nil, "pkix", "pkix", full},
		{"STS-098 1.1 at most", old, nil, "pkix", bad, "EHLO STARTTLS"},
		{"STS-098 1.0 at most", mxtest.Config{MaxVersion: tls.VersionTLS10}, nil, "pkix", bad, "EHLO STARTTLS"},
		{"DANE-096 1.1 at most", old, nil, "dane", bad, "EHLO STARTTLS"},
		{"RT-041 1.1 at most", old, nil, "pkix requiretls", "550 5.7.10 handshake validation-failure", "EHLO STARTTLS"},
		{"RT-041 an alert", mxtest.Config{Handshake: alert("\x28")}, nil, "pkix requiretls", "550 5.7.10 handshake validation-failure", "EHLO STARTTLS"},
		{"RT-047 an alert over an error of its own", mxtest.Config{Handshake: alert("\x50")}, nil, "pkix requiretls", bad, "EHLO STARTTLS"},
		{"SEED-031 TLS 1.0 is not enough", mxtest.Config{MaxVersion: tls.VersionTLS10}, nil, "encrypt", bad, "EHLO STARTTLS"},
	})
}

// alert is a fatal one as it comes in clear (RFC 8446 §5.1, §6).
func alert(description string) string { return "\x15\x03\x03\x00\x02\x02" + description }

func TestClientHello(t *testing.T) {
	b := newBed(t)
	b.Set(mxtest.Config{AskCert: true})
	if outcome, _ := b.connect(b.target("dane")); outcome != "dane" {
		t.Fatal(outcome)
	}
	c := b.Conns()[0]
	hello := c.Hello
	t.Run("SMTP-050 versions", func(t *testing.T) {
		if diff := cmp.Diff([]uint16{tls.VersionTLS13, tls.VersionTLS12}, hello.SupportedVersions); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("SMTP-055 suites offered", func(t *testing.T) {
		for _, id := range []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_AES_128_GCM_SHA256,
		} {
			if !slices.Contains(hello.CipherSuites, id) {
				t.Errorf("%s is missing", tls.CipherSuiteName(id))
			}
		}
	})
	for _, item := range []string{"SMTP-054", "SEED-031", "DANE-097"} {
		t.Run(item+" suites never offered", func(t *testing.T) {
			for _, id := range hello.CipherSuites {
				name := tls.CipherSuiteName(id)
				aead := strings.Contains(name, "_GCM_") || strings.Contains(name, "_CHACHA20_POLY1305_")
				one3 := strings.HasPrefix(name, "TLS_AES_") || strings.HasPrefix(name, "TLS_CHACHA20_")
				if !aead || !one3 && !strings.HasPrefix(name, "TLS_ECDHE_") {
					t.Errorf("%s (%#04x) is offered", name, id)
				}
			}
		})
	}
	t.Run("SMTP-061 no client certificate", func(t *testing.T) {
		if !c.TLS || c.Certs != 0 {
			t.Errorf("TLS %v with %d certificates of ours", c.TLS, c.Certs)
		}
	})
	t.Run("SMTP-062 no ALPN", func(t *testing.T) {
		if len(hello.SupportedProtos) != 0 || slices.Contains(hello.Extensions, 16) {
			t.Errorf("protocols %q", hello.SupportedProtos)
		}
	})
	t.Run("DANE-074 raw public keys are not offered", func(t *testing.T) {
		for _, certificateType := range []uint16{19, 20} { // RFC 7250 §3
			if slices.Contains(hello.Extensions, certificateType) {
				t.Errorf("extension %d", certificateType)
			}
		}
	})
	t.Run("SMTP-060 no session is asked to be resumed", func(t *testing.T) {
		for _, resumption := range []uint16{35, 41} { // session_ticket, pre_shared_key
			if slices.Contains(hello.Extensions, resumption) {
				t.Errorf("extension %d", resumption)
			}
		}
	})
	t.Run("SMTP-053 no renegotiation", func(t *testing.T) {
		if b.client.TLSConfig(b.target("dane")).Renegotiation != tls.RenegotiateNever {
			t.Error("renegotiation is allowed")
		}
		// RFC 5746 §3.4: insecure renegotiation is refused.
		if !slices.Contains(hello.Extensions, 0xff01) && !slices.Contains(hello.CipherSuites, 0x00ff) {
			t.Error("no sign of secure renegotiation")
		}
	})
	t.Run("SMTP-053 no compression", func(t *testing.T) {
		if got := compressions(t); !bytes.Equal(got, []byte{0}) {
			t.Errorf("compression methods %v", got)
		}
	})
}

// compressions takes a ClientHello apart (RFC 5246 §7.4.1.2).
func compressions(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	client := &smtpclient.Client{Dial: dialer(near)}
	done := make(chan []byte)
	go func() {
		defer far.Close()
		r := bufio.NewReader(far)
		io.WriteString(far, "220 x\r\n")
		r.ReadString('\n')
		io.WriteString(far, "250-x\r\n250 STARTTLS\r\n")
		r.ReadString('\n')
		io.WriteString(far, "220 go\r\n")
		head := make([]byte, 5)
		io.ReadFull(r, head)
		record := make([]byte, int(head[3])<<8|int(head[4]))
		io.ReadFull(r, record)
		done <- record
	}()
	failed := make(chan error)
	go func() {
		_, err := client.Connect(t.Context(), smtpclient.Target{Name: mx, Addr: netip.MustParseAddrPort("192.0.2.1:25"), Demand: smtpclient.Demand{Security: smtpclient.Encrypt}})
		failed <- err
	}()
	p := <-done
	<-failed
	p = p[4+2+32:]                         // handshake header, version, random
	p = p[1+int(p[0]):]                    // session id
	p = p[2+int(p[0])<<8+int(p[1]):]       // suites
	return bytes.Clone(p[1 : 1+int(p[0])]) // compression methods
}

func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b := newBed(t)
		b.Set(mxtest.Config{MaxVersion: version})
		target := b.target("dane")
		s, err := b.client.Connect(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		b.send(s, "x\r\n", "b@example.org") // the tickets of TLS 1.3 come behind the handshake
		s.Close()
		t.Run("SMTP-060 verification runs each time, "+tls.VersionName(version), func(t *testing.T) {
			if outcome, _ := b.connect(target); outcome != "dane" {
				t.Error(outcome)
			}
			for _, c := range b.Conns() {
				if c.Resumed {
					t.Error("resumed")
				}
			}
		})
		t.Run("DANE-098 TLSA changed between two sessions, "+tls.VersionName(version), func(t *testing.T) {
			other := b.net.Host(mx, "")
			target.Demand = daneDemand(other.Record(3, 1, 1))
			if outcome, _ := b.connect(target); outcome != "451 4.7.5 verify certificate-not-trusted" {
				t.Error(outcome)
			}
		})
	}
}

func TestServerName(t *testing.T) {
	sni := func(t *testing.T, target smtpclient.Target) string {
		t.Helper()
		b := newBed(t)
		target.Addr = b.Addr()
		b.connect(target)
		return b.Conns()[0].Hello.ServerName
	}
	expanded := daneDemand(mxtest.New(t).Host(mx, "").Record(3, 1, 1))
	expanded.Host.Base = "mxbackup.example.net"
	expanded.Host.Expanded = expanded.Host.Base
	for _, tt := range []struct {
		name   string
		target smtpclient.Target
		want   string
	}{
		{"SMTP-058 the MX name", smtpclient.Target{Name: "MX.Example.org."}, mx},
		{"SMTP-058 none for a literal", smtpclient.Target{}, ""},
		{"STS-096 the MX name", smtpclient.Target{Name: mx, Demand: smtpclient.Demand{Security: smtpclient.PKIX}}, mx},
		{"DANE-095 the base", smtpclient.Target{Name: mx, Demand: expanded}, "mxbackup.example.net"},
		{"DANE-095 the base without demand", smtpclient.Target{Name: mx, Demand: smtpclient.Demand{Plan: expanded.Plan, Host: expanded.Host}}, "mxbackup.example.net"},
		{"STS-096 whatever the base is", smtpclient.Target{Name: mx, Demand: smtpclient.Demand{Security: smtpclient.PKIX, Plan: expanded.Plan, Host: expanded.Host}}, mx},
		{"DANE-095 no TLSA: the host's name", smtpclient.Target{Name: mx, Demand: smtpclient.Demand{Plan: expanded.Plan, Host: nil}}, mx},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := sni(t, tt.target); got != tt.want {
				t.Errorf("SNI %q, want %q", got, tt.want)
			}
		})
	}
}
