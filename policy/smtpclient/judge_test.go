package smtpclient_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

func dialer(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}

const verify = "451 4.7.5 verify "

func TestNames(t *testing.T) {
	const mismatch = verify + "certificate-host-mismatch"
	for _, tt := range []struct {
		name   string
		mx     string
		config mxtest.Config
		want   string
	}{
		{"SMTP-056 the name", mx, mxtest.Config{}, "pkix"},
		{"SMTP-056 case and final dot", "MX.EXAMPLE.org.", mxtest.Config{}, "pkix"},
		{"SMTP-056 case in the certificate", mx, mxtest.Config{Names: []string{"Mx.Example.Org"}}, "pkix"},
		{"SMTP-056 A-labels", "mx.xn--bcher-kva.example", mxtest.Config{Names: []string{"mx.xn--bcher-kva.example"}}, "pkix"},
		{"SMTP-056 one of several", mx, mxtest.Config{Names: []string{"a.example", mx}}, "pkix"},
		{"SMTP-056 wildcard for one label", mx, mxtest.Config{Names: []string{"*.example.org"}}, "pkix"},
		{"SMTP-056 wildcard for two labels", "a." + mx, mxtest.Config{Names: []string{"*.example.org"}}, mismatch},
		{"SMTP-056 wildcard for no label", "example.org", mxtest.Config{Names: []string{"*.example.org"}}, mismatch},
		{"SMTP-056 partial wildcard", mx, mxtest.Config{Names: []string{"m*.example.org"}}, mismatch},
		{"SMTP-056 wildcard further right", mx, mxtest.Config{Names: []string{"mx.*.org"}}, mismatch},
		{"SMTP-056 other name", mx, mxtest.Config{Certificate: "wrongname"}, mismatch},
		{"SMTP-056 common name", mx, mxtest.Config{Certificate: "cnonly"}, mismatch},
		{"SMTP-057 address of an MX host", mx, mxtest.Config{Certificate: "ipsan"}, mismatch},
		{"SMTP-057 MX that is an address", "127.0.0.21", mxtest.Config{Certificate: "ipsan"}, mismatch},
		{"SMTP-057 MX that is an address in brackets", "[127.0.0.21]", mxtest.Config{Certificate: "ipsan"}, mismatch},
		{"SMTP-057 address literal", "", mxtest.Config{Certificate: "ipsan"}, "pkix"},
		{"SMTP-057 address literal with another certificate", "", mxtest.Config{}, mismatch},

		{"STS-092 the name in the MX record, not the alias's", mx, mxtest.Config{Names: []string{"mx.provider.example"}}, mismatch},
		{"STS-093 trusted, in date, for the MX", mx, mxtest.Config{}, "pkix"},
		{"STS-093 wildcard", "mail.example.org", mxtest.Config{Names: []string{"*.example.org"}}, "pkix"},
		{"STS-093 wildcard below", "a.mail.example.org", mxtest.Config{Names: []string{"*.example.org"}}, mismatch},
		{"STS-093 common name", mx, mxtest.Config{Certificate: "cnonly"}, mismatch},
		{"STS-093 address", mx, mxtest.Config{Certificate: "ipsan"}, mismatch},
		{"STS-093 expired", mx, mxtest.Config{Certificate: "expired"}, verify + "certificate-expired"},
		{"STS-093 not yet valid", mx, mxtest.Config{Certificate: "notyet"}, verify + "certificate-expired"},
		{"STS-093 self-signed", mx, mxtest.Config{Certificate: "selfsigned"}, verify + "certificate-not-trusted"},
		{"STS-093 unknown authority", mx, mxtest.Config{Certificate: "otherca"}, verify + "certificate-not-trusted"},
		{"STS-093 by an intermediate authority", mx, mxtest.Config{Certificate: "intermediate"}, "pkix"},
		{"STS-093 by one that has expired", mx, mxtest.Config{Certificate: "oldissuer"}, verify + "certificate-expired"},
		{"STS-094 certificate for another host of the policy", "mx2.example.org", mxtest.Config{Names: []string{"mx1.example.org"}}, mismatch},
		{"SEED-005 certificate names are not compared with patterns", "mx2.example.org", mxtest.Config{Names: []string{"mx1.example.org"}}, mismatch},
		{"STS-095 certificate for the domain alone", "mail.example.org", mxtest.Config{Names: []string{"example.org"}}, mismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Set(tt.config)
			target := smtpclient.Target{Name: tt.mx, Addr: b.Addr(), Demand: smtpclient.Demand{
				Security: smtpclient.PKIX,
				// The policy lists them all: the two checks are apart.
				STS: stsPolicy(t, "enforce", mx, "mx1.example.org", "mx2.example.org", "mx.provider.example", "*.example.org"),
			}}
			s, err := b.client.Connect(t.Context(), target)
			got := "pkix"
			if err == nil {
				s.Close()
			} else {
				f := err.(*smtpclient.Failure)
				got = strings.Join([]string{"451 4.7.5", f.Stage.String(), f.Result}, " ")
			}
			if got != tt.want {
				t.Errorf("outcome %q, want %q", got, tt.want)
			}
			if tt.want != "pkix" && b.said() != "EHLO STARTTLS QUIT" {
				t.Errorf("said %q", b.said())
			}
		})
	}
}

func TestDANE(t *testing.T) {
	records := func(r ...dnssec.TLSA) []dnssec.TLSA { return r }
	other := mxtest.New(t).Host(mx, "")
	const noMatch = verify + "certificate-not-trusted"
	for _, tt := range []struct {
		name    string
		config  mxtest.Config
		records func(h *mxtest.Host) []dnssec.TLSA
		want    string
		said    string
	}{
		{"DANE-050 the key matches", mxtest.Config{Certificate: "selfsigned"}, func(h *mxtest.Host) []dnssec.TLSA { return records(h.Record(3, 1, 1)) }, "dane", full},
		{"DANE-050 the anchor matches", mxtest.Config{}, func(h *mxtest.Host) []dnssec.TLSA { return records(h.Record(2, 1, 1)) }, "dane", full},
		{"DANE-050 no STARTTLS", mxtest.Config{NoSTARTTLS: true}, func(h *mxtest.Host) []dnssec.TLSA { return records(h.Record(3, 1, 1)) }, "451 4.7.4 starttls starttls-not-supported", "EHLO QUIT"},
		{"DANE-050 no handshake", mxtest.Config{Handshake: mxtest.Drop}, func(h *mxtest.Host) []dnssec.TLSA { return records(h.Record(3, 1, 1)) }, "451 4.7.5 handshake validation-failure", "EHLO STARTTLS"},
		{"DANE-050 another key", mxtest.Config{}, func(h *mxtest.Host) []dnssec.TLSA { return records(other.Record(3, 1, 1)) }, noMatch, "EHLO STARTTLS QUIT"},
		{"DANE-054 no mail over a session that failed", mxtest.Config{}, func(h *mxtest.Host) []dnssec.TLSA { return records(other.Record(3, 1, 1)) }, noMatch, "EHLO STARTTLS QUIT"},
		{"DANE-054 the anchor matches, the name does not", mxtest.Config{Certificate: "wrongname"}, func(h *mxtest.Host) []dnssec.TLSA { return records(h.Record(2, 1, 1)) }, verify + "certificate-host-mismatch", "EHLO STARTTLS QUIT"},
		{"DANE-054 the anchor matches, but expired", mxtest.Config{Certificate: "expired"}, func(h *mxtest.Host) []dnssec.TLSA { return records(h.Record(2, 1, 1)) }, verify + "certificate-expired", "EHLO STARTTLS QUIT"},
		{"DANE-110 a good PKIX certificate does not help", mxtest.Config{}, func(h *mxtest.Host) []dnssec.TLSA { return records(other.Record(3, 1, 1)) }, noMatch, "EHLO STARTTLS QUIT"},
		{"STS-130 nor does MTA-STS", mxtest.Config{}, func(h *mxtest.Host) []dnssec.TLSA { return records(other.Record(2, 1, 1)) }, noMatch, "EHLO STARTTLS QUIT"},
		{"DANE-075 a certificate that cannot be read", mxtest.Config{Certificate: "malformed"}, func(h *mxtest.Host) []dnssec.TLSA { return records(h.Record(3, 1, 1)) }, "451 4.7.5 handshake certificate-not-trusted", "EHLO STARTTLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Set(tt.config)
			target := b.target("dane")
			target.Demand = daneDemand(tt.records(b.Host)...)
			target.Demand.STS = stsPolicy(t, "enforce", mx)
			outcome, said := b.connect(target)
			if outcome != tt.want || said != tt.said {
				t.Errorf("outcome %q, want %q; said %q, want %q", outcome, tt.want, said, tt.said)
			}
		})
	}
	t.Run("DANE-055 each address by itself", func(t *testing.T) {
		b := newBed(t)
		second := b.net.Host(mx, "127.0.0.22")
		target := b.target("dane")
		if outcome, _ := b.connect(target); outcome != "dane" {
			t.Error(outcome)
		}
		target.Addr = second.Addr()
		_, err := b.client.Connect(t.Context(), target)
		if f, ok := err.(*smtpclient.Failure); !ok || f.Stage != smtpclient.StageVerify {
			t.Errorf("another key at the second address: %v", err)
		}
		second.Ended()
	})
	t.Run("DANE-099 a session for one next hop says nothing of another", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{Names: []string{"a.example"}})
		for next, want := range map[string]string{"a.example": "dane", "b.example": verify + "certificate-host-mismatch"} {
			target := b.target("dane")
			target.Demand = daneDemand(b.Record(2, 1, 1))
			target.Demand.Plan = &dane.Plan{NextHop: next, MXSecure: true}
			if outcome, _ := b.connect(target); outcome != want {
				t.Errorf("%s: %s, want %s", next, outcome, want)
			}
		}
	})
}

// TestUnauthenticated is for demands that are met by whoever answers.
func TestUnauthenticated(t *testing.T) {
	converse(t, []conversation{
		{"DANE-051 self-signed is enough", mxtest.Config{Certificate: "selfsigned"}, nil, "encrypt", "encrypt", full},
		{"DANE-051 clear text is not", mxtest.Config{NoSTARTTLS: true}, nil, "encrypt", off, "EHLO QUIT"},
		{"DANE-051 nor after a failure", mxtest.Config{Handshake: mxtest.Drop}, nil, "encrypt", "451 4.7.5 handshake validation-failure", "EHLO STARTTLS"},
		{"DANE-052 opportunistic", mxtest.Config{Certificate: "wrongname"}, nil, "opportunistic", "encrypt", full},
		{"DANE-052 clear text after a failed handshake", mxtest.Config{Handshake: mxtest.Drop}, nil, "opportunistic", "opportunistic", "EHLO STARTTLS | EHLO QUIT"},
		{"DANE-052 clear text where the host insists on a client certificate", mxtest.Config{NeedCert: true}, nil, "opportunistic", "opportunistic", "EHLO STARTTLS | EHLO QUIT"},
		{"SMTP-059 certificate that cannot be read", mxtest.Config{Certificate: "malformed"}, nil, "opportunistic", "opportunistic", "EHLO STARTTLS | EHLO QUIT"},
	})
	t.Run("SMTP-059 opportunistic sessions are still judged", func(t *testing.T) {
		b := newBed(t)
		var log bytes.Buffer
		b.client.Log = slog.New(slog.NewTextHandler(&log, nil))
		b.Set(mxtest.Config{Certificate: "expired"})
		target := b.target("opportunistic")
		target.Demand = daneDemand(b.net.Host(mx, "").Record(3, 1, 1))
		target.Demand.Security = smtpclient.Opportunistic
		target.Demand.STS = stsPolicy(t, "testing", mx)
		s, err := b.client.Connect(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		for why, want := range map[error]string{
			s.Info().DANEErr: "certificate-not-trusted", s.Info().PKIXErr: "certificate-expired", s.Info().STSErr: "certificate-expired",
		} {
			if why == nil {
				t.Fatalf("info %+v", s.Info())
			}
			if result, reason := smtpclient.Classify(why); result != want || reason == "" {
				t.Errorf("%v: %s %s, want %s", why, result, reason, want)
			}
		}
		for _, want := range []string{"secured=encrypt", "demand=opportunistic", "pkix=", "dane=", "sts="} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s is not logged: %s", want, &log)
			}
		}
	})
	t.Run("SMTP-059 sessions that failed are judged too", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{Certificate: "expired"})
		target := b.target("dane")
		target.Demand = daneDemand(b.net.Host(mx, "").Record(3, 1, 1))
		target.Demand.STS = stsPolicy(t, "enforce", "mx2.example.org")
		_, err := b.client.Connect(t.Context(), target)
		i := b.failure(err).Info
		if !i.TLS || i.Version == 0 || i.Secured != smtpclient.Encrypt || i.Name != mx || i.Remote != b.Addr() || i.Local.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("info %+v", i)
		}
		for err, want := range map[error]string{i.DANEErr: "certificate-not-trusted", i.PKIXErr: "certificate-expired", i.STSErr: "validation-failure"} {
			if result, _ := smtpclient.Classify(err); result != want {
				t.Errorf("%v: %s, want %s", err, result, want)
			}
		}
	})
	t.Run("SMTP-059 clear text proves nothing", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{NoSTARTTLS: true})
		target := b.target("opportunistic")
		target.Demand = daneDemand(b.Record(3, 1, 1))
		target.Demand.Security = smtpclient.Opportunistic
		target.Demand.STS = stsPolicy(t, "testing", mx)
		s, err := b.client.Connect(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		for _, err := range []error{s.Info().DANEErr, s.Info().STSErr, s.Info().NoTLS} {
			if result, reason := smtpclient.Classify(err); result != "starttls-not-supported" || reason == "" {
				t.Errorf("%v: %s, %s", err, result, reason)
			}
		}
	})
	t.Run("STS-094 MX name and certificate, both", func(t *testing.T) {
		b := newBed(t)
		target := b.target("opportunistic")
		for mode, patterns := range map[string]string{"fine": mx, "not listed": "mx2.example.org"} {
			target.Demand.STS = stsPolicy(t, "testing", patterns)
			s, err := b.client.Connect(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			i := s.Info()
			if (i.STSErr == nil) != (mode == "fine") || i.PKIXErr != nil {
				t.Errorf("%s: %v, %v", mode, i.STSErr, i.PKIXErr)
			}
		}
	})
}

func TestWords(t *testing.T) {
	for certificate, want := range map[string]string{
		"expired":    "certificate has expired on 1999-01-02",
		"notyet":     "certificate is not valid before 2099-01-02",
		"selfsigned": "certificate is signed by an unknown authority",
		"wrongname":  "certificate is not for mx.example.org",
	} {
		b := newBed(t)
		b.Set(mxtest.Config{Certificate: certificate})
		_, err := b.client.Connect(t.Context(), b.target("pkix"))
		if got, want := b.failure(err).Reply.Text, (b.target("pkix")).String()+": "+want; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		b.Ended()
	}
}
