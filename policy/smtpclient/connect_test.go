package smtpclient_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// conversation is one attempt at a host, and what must come of it.
type conversation struct {
	name    string
	config  mxtest.Config
	replies []string // pairs of command and reply
	demand  string
	outcome string
	said    string
}

func converse(t *testing.T, all []conversation) {
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Set(tt.config)
			for pair := range slices.Chunk(tt.replies, 2) {
				b.Reply(pair[0], pair[1])
			}
			outcome, said := b.connect(b.target(tt.demand))
			if want := strings.ReplaceAll(tt.outcome, "~", "starttls-not-supported"); outcome != want {
				t.Errorf("outcome %q, want %q", outcome, want)
			}
			if said != tt.said {
				t.Errorf("said %q, want %q", said, tt.said)
			}
		})
	}
}

const (
	full = "EHLO STARTTLS EHLO QUIT" // what is said to a good host
	off  = "451 4.7.4 starttls starttls-not-supported"
)

func TestGreeting(t *testing.T) {
	converse(t, []conversation{
		{"SMTP-020 of several lines", mxtest.Config{}, []string{"GREETING", "220 a\n220 b\n220 c"}, "encrypt", "pkix", full},
		{"SMTP-020 only 220 greets", mxtest.Config{}, []string{"GREETING", "250 hello"}, "opportunistic", "451 4.5.0 greeting", ""},
		{"SMTP-021 521 is never", mxtest.Config{}, []string{"GREETING", "521 no mail here"}, "opportunistic", "556 5.3.2 greeting", "QUIT"},
		{"SMTP-021 521 with REQUIRETLS", mxtest.Config{}, []string{"GREETING", "521 no mail here"}, "pkix requiretls", "556 5.3.2 greeting", "QUIT"},
		{"SMTP-022 554 is for now", mxtest.Config{}, []string{"GREETING", "554 5.7.1 not you"}, "opportunistic", "451 4.7.1 greeting", "QUIT"},
		{"SMTP-022 without enhanced code", mxtest.Config{}, []string{"GREETING", "500 no"}, "opportunistic", "451 4.0.0 greeting", "QUIT"},
		{"SMTP-022 450", mxtest.Config{}, []string{"GREETING", "450 4.3.2 busy"}, "opportunistic", "450 4.3.2 greeting", "QUIT"},
		{"SMTP-027 421 in place of the greeting", mxtest.Config{}, []string{"GREETING", "421 4.3.2 going down"}, "opportunistic", "451 4.3.2 greeting", ""},
		{"SMTP-027 lost before the greeting", mxtest.Config{}, []string{"GREETING", mxtest.Drop}, "opportunistic", "451 4.4.2 greeting", ""},
		{"SMTP-025 code without text", mxtest.Config{}, []string{"GREETING", "220"}, "encrypt", "pkix", full},
	})
	t.Run("SMTP-020 the whole of it before a word", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			near, far := net.Pipe()
			b.client.Dial = dialer(near)
			done := make(chan error)
			go func() {
				_, err := b.client.Connect(t.Context(), b.target("encrypt"))
				done <- err
			}()
			for _, piece := range []string{"220-a\r\n", "220-b\r\n220", " c"} {
				io.WriteString(far, piece)
				synctest.Wait() // the client waits too, rather than to write
				far.SetReadDeadline(time.Now().Add(time.Second))
				if n, err := far.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("said something after %q", piece)
				}
			}
			far.SetReadDeadline(time.Time{})
			io.WriteString(far, "\r\n")
			if line, err := bufio.NewReader(far).ReadString('\n'); line != "EHLO client.example.net\r\n" {
				t.Errorf("said %q, %v", line, err)
			}
			far.Close()
			<-done
		})
	})
}

func TestHello(t *testing.T) {
	converse(t, []conversation{
		{"SMTP-023 EHLO first", mxtest.Config{}, nil, "encrypt", "pkix", full},
		{"SMTP-023 then HELO", mxtest.Config{}, []string{"EHLO", "502 5.5.1 what"}, "opportunistic", "opportunistic", "EHLO HELO QUIT"},
		{"SMTP-023 then HELO after 554", mxtest.Config{}, []string{"EHLO", "554 what"}, "opportunistic", "opportunistic", "EHLO HELO QUIT"},
		{"SMTP-023 HELO has no STARTTLS", mxtest.Config{}, []string{"EHLO", "500 what", "HELO", "250 mx\n250 STARTTLS"}, "pkix", off, "EHLO HELO QUIT"},
		{"SMTP-023 HELO has no STARTTLS for REQUIRETLS", mxtest.Config{}, []string{"EHLO", "500 what"}, "pkix requiretls", "550 5.7.10 starttls ~", "EHLO HELO QUIT"},
		{"SMTP-023 both refused", mxtest.Config{}, []string{"EHLO", "500 what", "HELO", "550 5.7.1 no"}, "opportunistic", "451 4.7.1 hello", "EHLO HELO QUIT"},
		{"SMTP-023 EHLO not now", mxtest.Config{}, []string{"EHLO", "450 4.7.0 later"}, "opportunistic", "450 4.7.0 hello", "EHLO QUIT"},
		{"SMTP-024 keywords without case", mxtest.Config{NoSTARTTLS: true, Keywords: []string{"sTaRtTlS", "x-unknown 1 2"}}, nil, "encrypt", "pkix", full},
		{"SMTP-024 the first line is no keyword", mxtest.Config{}, []string{"EHLO", "250 STARTTLS"}, "encrypt", off, "EHLO QUIT"},
		{"SMTP-025 250 alone", mxtest.Config{}, []string{"EHLO", "250"}, "opportunistic", "opportunistic", "EHLO QUIT"},
		{"SMTP-025 299", mxtest.Config{}, []string{"EHLO", "299 x"}, "opportunistic", "opportunistic", "EHLO QUIT"},
		{"SMTP-025 text does not count", mxtest.Config{}, []string{"EHLO", "250 550 access denied"}, "opportunistic", "opportunistic", "EHLO QUIT"},
		{"SMTP-025 650", mxtest.Config{}, []string{"EHLO", "650 x"}, "opportunistic", "451 4.5.0 hello", "EHLO"},
		{"SMTP-025 150", mxtest.Config{}, []string{"EHLO", "150 x"}, "opportunistic", "451 4.5.0 hello", "EHLO"},
		{"SMTP-025 354", mxtest.Config{}, []string{"EHLO", "354 x"}, "opportunistic", "451 4.5.0 hello", "EHLO"},
		{"SMTP-025 mixed codes", mxtest.Config{}, []string{"EHLO", "250 a\n220 b"}, "opportunistic", "451 4.5.0 hello", "EHLO"},
		{"SMTP-027 421 to EHLO", mxtest.Config{}, []string{"EHLO", "421 bye"}, "opportunistic", "451 4.0.0 hello", "EHLO"},
		{"SMTP-027 lost after EHLO", mxtest.Config{}, []string{"EHLO", mxtest.Drop}, "opportunistic", "451 4.4.2 hello", "EHLO"},
		{"SMTP-030 STARTTLS whenever offered", mxtest.Config{}, nil, "opportunistic", "pkix", full},
		{"SMTP-030 SEED-030 TLS is not STARTTLS", mxtest.Config{NoSTARTTLS: true, Keywords: []string{"TLS"}}, nil, "opportunistic", "opportunistic", "EHLO QUIT"},
		{"SEED-030 TLS is not STARTTLS", mxtest.Config{NoSTARTTLS: true, Keywords: []string{"TLS"}}, nil, "encrypt", off, "EHLO QUIT"},
	})
	t.Run("SMTP-023 with our name", func(t *testing.T) {
		b := newBed(t)
		b.connect(b.target("encrypt"))
		b.client.Hostname = ""
		b.connect(b.target("encrypt"))
		for i, want := range []string{"EHLO client.example.net", "EHLO [127.0.0.1]"} {
			if got := b.Conns()[i].Commands; got[0] != want || got[2] != want {
				t.Errorf("said %q, want %q", got, want)
			}
		}
	})
}

func TestStartTLS(t *testing.T) {
	const bad = "451 4.7.5 handshake validation-failure"
	converse(t, []conversation{
		{"SMTP-032 454, opportunistic", mxtest.Config{}, []string{"STARTTLS", "454 4.7.0 not now"}, "opportunistic", "opportunistic", "EHLO STARTTLS QUIT"},
		{"SMTP-032 502, opportunistic", mxtest.Config{}, []string{"STARTTLS", "502 5.5.1 what"}, "opportunistic", "opportunistic", "EHLO STARTTLS QUIT"},
		{"SMTP-032 554, opportunistic", mxtest.Config{}, []string{"STARTTLS", "554 no"}, "opportunistic", "opportunistic", "EHLO STARTTLS QUIT"},
		{"SMTP-032 250, opportunistic", mxtest.Config{}, []string{"STARTTLS", "250 what"}, "opportunistic", "opportunistic", "EHLO STARTTLS QUIT"},
		{"SMTP-038 lost at STARTTLS, opportunistic", mxtest.Config{}, []string{"STARTTLS", mxtest.Drop}, "opportunistic", "opportunistic", "EHLO STARTTLS | EHLO QUIT"},
		{"SMTP-032 lost at STARTTLS, demanded", mxtest.Config{}, []string{"STARTTLS", mxtest.Drop}, "encrypt", "451 4.4.2 starttls ~", "EHLO STARTTLS"},
		{"SMTP-032 454, demanded", mxtest.Config{}, []string{"STARTTLS", "454 4.7.0 not now"}, "encrypt", off, "EHLO STARTTLS QUIT"},
		{"SMTP-032 501, demanded", mxtest.Config{}, []string{"STARTTLS", "501 what"}, "encrypt", off, "EHLO STARTTLS QUIT"},
		{"SMTP-032 502, demanded", mxtest.Config{}, []string{"STARTTLS", "502 what"}, "pkix", off, "EHLO STARTTLS QUIT"},
		{"SMTP-032 554, demanded", mxtest.Config{}, []string{"STARTTLS", "554 what"}, "dane", off, "EHLO STARTTLS QUIT"},
		{"SMTP-032 454 with REQUIRETLS is for now", mxtest.Config{}, []string{"STARTTLS", "454 4.7.0 not now"}, "pkix requiretls", off, "EHLO STARTTLS QUIT"},
		{"SMTP-032 502 with REQUIRETLS is for good", mxtest.Config{}, []string{"STARTTLS", "502 what"}, "pkix requiretls", "550 5.7.10 starttls ~", "EHLO STARTTLS QUIT"},
		{"SMTP-027 421 to STARTTLS", mxtest.Config{}, []string{"STARTTLS", "421 bye"}, "opportunistic", "451 4.0.0 starttls ~", "EHLO STARTTLS"},
		{"SMTP-033 plain bytes behind 220 are fatal", mxtest.Config{Inject: "250-mx\r\n250 REQUIRETLS\r\n"}, nil, "encrypt", bad, "EHLO STARTTLS"},
		{"SMTP-033 for REQUIRETLS too", mxtest.Config{Inject: "250-mx\r\n250 REQUIRETLS\r\n"}, nil, "pkix requiretls", bad, "EHLO STARTTLS"},
		{"SMTP-033 and nothing of them is believed", mxtest.Config{Inject: "250 mx\r\n"}, nil, "opportunistic", "opportunistic", "EHLO STARTTLS | EHLO QUIT"},
		{"SMTP-035 EHLO again", mxtest.Config{}, nil, "opportunistic", "pkix", full},
		{"SMTP-036 no second STARTTLS", mxtest.Config{TLSKeywords: []string{"STARTTLS"}}, nil, "encrypt", "pkix", full},
		{"SMTP-037 QUIT before MAIL", mxtest.Config{Certificate: "selfsigned"}, nil, "pkix", "451 4.7.5 verify certificate-not-trusted", "EHLO STARTTLS QUIT"},
		{"SMTP-039 encrypt", mxtest.Config{NoSTARTTLS: true}, nil, "encrypt", off, "EHLO QUIT"},
		{"SMTP-052 TLS or nothing", mxtest.Config{NoSTARTTLS: true}, nil, "encrypt", off, "EHLO QUIT"},
		{"SMTP-044 a lost STARTTLS is a policy failure", mxtest.Config{NoSTARTTLS: true}, nil, "pkix", off, "EHLO QUIT"},
		{"RT-039 the keyword counts only after TLS", mxtest.Config{Keywords: []string{"REQUIRETLS"}, TLSKeywords: []string{"SIZE"}}, nil, "pkix requiretls", "550 5.7.30 keyword", full},
		{"SEED-022 the keyword in clear text is not enough", mxtest.Config{Keywords: []string{"REQUIRETLS"}, TLSKeywords: []string{}}, nil, "dane requiretls", "550 5.7.30 keyword", full},
		{"RT-039 the keyword inside TLS", mxtest.Config{TLSKeywords: []string{"requiretls"}}, nil, "pkix requiretls", "pkix", full},
		{"RT-039 after EHLO alone", mxtest.Config{}, []string{"EHLO", "250 mx\n250 STARTTLS", "HELO", "250 mx"}, "pkix requiretls", "550 5.7.30 keyword", full},
		{"SEED-023 an unverified certificate is never enough", mxtest.Config{Certificate: "selfsigned"}, nil, "pkix requiretls", "550 5.7.10 verify certificate-not-trusted", "EHLO STARTTLS QUIT"},
		{"SEED-023 whatever the demand beside it says", mxtest.Config{Certificate: "selfsigned"}, nil, "encrypt requiretls", "550 5.7.10 verify certificate-not-trusted", "EHLO STARTTLS QUIT"},
		{"STS-097 not offered", mxtest.Config{NoSTARTTLS: true}, nil, "pkix", off, "EHLO QUIT"},
		{"STS-097 454", mxtest.Config{}, []string{"STARTTLS", "454 not now"}, "pkix", off, "EHLO STARTTLS QUIT"},
		{"STS-097 no handshake", mxtest.Config{Handshake: mxtest.Drop}, nil, "pkix", bad, "EHLO STARTTLS"},
		{"STS-097 no TLS but text", mxtest.Config{Handshake: "250 fine"}, nil, "pkix", bad, "EHLO STARTTLS"},
		{"STS-097 broken", mxtest.Config{NeedCert: true}, nil, "pkix", bad, "EHLO STARTTLS"},
		{"SMTP-028 no reply to QUIT", mxtest.Config{}, []string{"QUIT", mxtest.Drop}, "pkix", "pkix", full},
		{"SMTP-028 odd reply to QUIT", mxtest.Config{}, []string{"QUIT", "xyzzy"}, "pkix", "pkix", full},
	})
	t.Run("SMTP-031 nothing is sent behind STARTTLS", func(t *testing.T) {
		b := newBed(t)
		b.connect(b.target("encrypt"))
		c := b.Conns()[0]
		for i, n := range c.Groups {
			if n != 1 {
				t.Errorf("group %d of %q has %d commands", i, c.Commands, n)
			}
		}
	})
	t.Run("SMTP-034 what was said in clear is forgotten", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{Keywords: []string{"SIZE 1000", "REQUIRETLS", "PIPELINING"}, TLSKeywords: []string{"8BITMIME"}})
		s := b.open("encrypt")
		defer s.Close()
		for keyword, want := range map[string]bool{"SIZE": false, "REQUIRETLS": false, "PIPELINING": false, "STARTTLS": false, "8bitmime": true} {
			if s.Offers(keyword) != want {
				t.Errorf("%s: %v, want %v", keyword, !want, want)
			}
		}
	})
	t.Run("SMTP-034 after HELO inside TLS nothing is left", func(t *testing.T) {
		b := newBed(t)
		b.Reply("EHLO", "250 mx\n250 STARTTLS\n250 SIZE 1000", "502 what")
		s := b.open("encrypt")
		defer s.Close()
		if s.Offers("SIZE") || s.Offers("STARTTLS") {
			t.Error("an extension of the clear phase is left")
		}
	})
}

func TestUnreachable(t *testing.T) {
	b := newBed(t)
	target := b.target("dane requiretls")
	target.Addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.99"), target.Addr.Port())
	_, err := b.client.Connect(t.Context(), target)
	f, ok := errors.AsType[*smtpclient.Failure](err)
	if !ok || f.Stage != smtpclient.StageConnect || f.Policy() || !f.Temporary() {
		t.Fatalf("failure %+v", f)
	}
	want := smtpclient.Reply{Code: 451, Enhanced: "4.4.1", Text: target.String() + ": cannot connect: connection refused"}
	if diff := cmp.Diff(want, f.Reply); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.client.Connect(ctx, b.target("opportunistic"))
	if f := b.failure(err); !strings.HasSuffix(f.Error(), "no more time while connecting") || f.Reply.Enhanced != "4.4.1" {
		t.Error(f)
	}
}

func TestTargetString(t *testing.T) {
	for want, target := range map[string]smtpclient.Target{
		"mx.example.org[192.0.2.1]":      {Name: mx, Addr: netip.MustParseAddrPort("192.0.2.1:25")},
		"mx.example.org[2001:db8::1]":    {Name: mx, Addr: netip.MustParseAddrPort("[2001:db8::1]:25")},
		"mx.example.org[192.0.2.1]:2525": {Name: mx, Addr: netip.MustParseAddrPort("[::ffff:192.0.2.1]:2525")},
		"[192.0.2.1]":                    {Addr: netip.MustParseAddrPort("192.0.2.1:25")},
		"mx?.example[192.0.2.1]":         {Name: "mx\r.example", Addr: netip.MustParseAddrPort("192.0.2.1:25")},
	} {
		if got := target.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
