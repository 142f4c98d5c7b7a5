package mtasts_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts"
	"postseal/policy/mtasts/ststest"
)

const domain = "example.org"

// world is a domain with a policy host.
type world struct {
	dns   *dnstest.Server
	https *ststest.Server
	fetch *mtasts.Fetcher
}

func newWorld(t *testing.T) *world {
	t.Helper()
	https := ststest.New(t)
	https.Set(domain, p1)
	dns := dnstest.New(t, "mta-sts."+domain+". 300 IN A "+https.IP+"\n")
	return &world{dns, https, https.Fetcher(dns.Client())}
}

func (w *world) good(t *testing.T) *mtasts.Fetched {
	t.Helper()
	f, err := w.fetch.Fetch(t.Context(), domain)
	if err != nil {
		t.Fatal(err)
	}
	if f.Policy.Text == "" {
		t.Error("no text")
	}
	return f
}

func (w *world) bad(t *testing.T, result mtasts.Result, temporary bool, words string) *mtasts.FetchError {
	t.Helper()
	f, err := w.fetch.Fetch(t.Context(), domain)
	var failure *mtasts.FetchError
	if !errors.As(err, &failure) {
		t.Fatalf("Fetch = %+v, %v; want a FetchError", f, err)
	}
	if failure.Domain != domain || failure.Result != result || failure.Temporary != temporary || !strings.Contains(err.Error(), words) {
		t.Errorf("%v\nis %s, temporary %v; want %s, temporary %v, with %q", err, failure.Result, failure.Temporary, result, temporary, words)
	}
	if !strings.HasPrefix(err.Error(), "policy of "+domain+": ") {
		t.Errorf("the error does not begin with the domain: %v", err)
	}
	if strings.Contains(err.Error(), "(temporary)") != temporary {
		t.Errorf("%v does not tell whether it is temporary", err)
	}
	checkPrintable(t, err.Error(), 400)
	t.Log(err)
	return failure
}

func TestFetch(t *testing.T) {
	w := newWorld(t)
	f := w.good(t)
	if d := cmp.Diff([]string{"mail.example.com", "*.example.net"}, f.Policy.MX); d != "" {
		t.Error(d)
	}
	if f.Addr != netip.AddrPortFrom(netip.MustParseAddr(w.https.IP), w.https.Port) || f.TLSVersion != tls.VersionTLS13 ||
		f.Issuer != "CN=ststest CA" || f.NotAfter.Year() != 2100 || f.Took <= 0 || f.Warnings != nil {
		t.Errorf("%+v", f)
	}
	w.https.Set(domain, p1+"\n")
	if f := w.good(t); len(f.Warnings) != 1 {
		t.Errorf("warnings %q", f.Warnings)
	}
}

func TestFetchRequest(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("https_proxy", "http://127.0.0.1:1")
	w := newWorld(t)
	w.good(t)
	w.good(t)
	requests := w.https.Requests(domain)
	if len(requests) != 2 {
		t.Fatalf("%d requests, want 2", len(requests))
	}
	for _, r := range requests {
		t.Run("STS-030 URL", func(t *testing.T) {
			if r.Method != "GET" || r.URI != "/.well-known/mta-sts.txt" || r.Host != "mta-sts."+domain {
				t.Errorf("%s %s of host %s", r.Method, r.URI, r.Host)
			}
		})
		t.Run("STS-034 SNI", func(t *testing.T) {
			if r.ServerName != "mta-sts."+domain {
				t.Error(r.ServerName)
			}
		})
		// The server sent an ETag, Cache-Control and a cookie.
		t.Run("STS-037 STS-044 no condition and no cookie", func(t *testing.T) {
			want := map[string][]string{"Accept-Encoding": {"identity"}, "Connection": {"close"}, "User-Agent": {"postseal"}}
			if d := cmp.Diff(want, map[string][]string(r.Header)); d != "" {
				t.Errorf("header (-want +got):\n%s", d)
			}
		})
	}
	t.Run("STS-044 a connection for each fetch", func(t *testing.T) {
		if got := w.https.Conns(); got != 2 {
			t.Errorf("%d connections, want 2", got)
		}
	})
}

func TestFetchFaults(t *testing.T) {
	const (
		fetchError = mtasts.PolicyFetchError
		invalid    = mtasts.PolicyInvalid
		webPKI     = mtasts.WebPKIInvalid
		temporary  = true
		lasting    = false
	)
	for _, c := range []struct {
		name, fault string
		result      mtasts.Result
		temporary   bool
		words       string
	}{
		{"STS-031 common name only", "cnonly", webPKI, lasting, "certificate of mta-sts.example.org names no host (a common name"},
		{"STS-031 expired", "expired", webPKI, lasting, "certificate of mta-sts.example.org expired on 1999-01-02"},
		{"STS-031 not yet valid", "notyet", webPKI, lasting, "certificate of mta-sts.example.org is not valid before 2099-01-02"},
		{"STS-031 self-signed", "selfsigned", webPKI, lasting, "certificate of mta-sts.example.org is self-signed"},
		{"STS-031 expired issuer", "oldissuer", webPKI, lasting, `issuer "CN=ststest intermediate" of the certificate of mta-sts.example.org expired on 1999-01-02`},
		{"STS-031 no certificate at all", "badcert", webPKI, lasting, "failed to parse certificate"},
		{"STS-031 wrong name", "wrongname", webPKI, lasting, "certificate of mta-sts.example.org is only for mta-sts.wrong.test"},
		{"STS-035 status 204", "204", fetchError, lasting, "status 204"},
		{"STS-035 status 206", "206", fetchError, lasting, "status 206"},
		{"STS-035 status 304", "304", fetchError, lasting, "status 304"},
		{"STS-035 status 404", "404", fetchError, lasting, "status 404"},
		{"STS-035 status 404 whose body does not come", "hang404", fetchError, lasting, "status 404"},
		{"STS-035 status 500", "500", fetchError, temporary, "status 500"},
		{"STS-035 status 429", "429", fetchError, temporary, "status 429"},
		{"STS-036 redirect", "redirect", fetchError, lasting, "redirect (status 301)"},
		{"STS-036 status 302", "302", fetchError, lasting, "redirect"},
		{"STS-036 status 307", "307", fetchError, lasting, "redirect"},
		{"STS-036 status 308", "308", fetchError, lasting, "redirect"},
		{"STS-038 html", "html", invalid, lasting, `"text/html; charset=utf-8"`},
		{"STS-038 no media type", "nocontenttype", invalid, lasting, "no media type"},
		{"STS-040 too big by its Content-Length", "big", fetchError, lasting, "65536"},
		{"STS-040 gzip", "gzip", fetchError, lasting, `content encoding "gzip"`},
		{"STS-040 big header", "bigheader", fetchError, lasting, "larger than 32768"},
		{"STS-047 TLS 1.1", "tls11", fetchError, lasting, "protocol version"},
		{"STS-048 connection closed", "close", fetchError, temporary, "closed too early"},
		{"STS-048 body cut off", "truncate", fetchError, temporary, "closed too early"},
		{"STS-048 not HTTP", "garbage", fetchError, temporary, "malformed HTTP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.https.Fault(domain, c.fault)
			w.bad(t, c.result, c.temporary, c.words)
			wantGets := 1
			if c.result == webPKI || c.fault == "tls11" {
				wantGets = 0
			}
			if got := w.https.Gets(domain); got != wantGets { // STS-036: nor a request to the target
				t.Errorf("%d requests, want %d", got, wantGets)
			}
			w.https.Fault(domain, "")
			w.good(t)
		})
	}
}

func TestFetchCertificateNames(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name  string
		names []string
		ok    bool
	}{
		{"STS-031 domain only", []string{"example.org"}, false},
		{"STS-031 policy host", []string{"mta-sts.example.org"}, true},
		{"STS-031 policy host among others", []string{"a.example", "MTA-STS.Example.org"}, true},
		{"STS-032 wildcard", []string{"*.example.org"}, true},
		{"STS-032 part of a label", []string{"m*.example.org"}, false},
		{"STS-032 two wildcards", []string{"*.*.org"}, false},
		{"STS-032 wildcard for two labels", []string{"*.org"}, false},
		{"STS-032 bare wildcard", []string{"*"}, false},
		{"STS-033 provider", []string{"mta-sts.provider.test"}, false},
		{"STS-031 many strange names", []string{"a.test", strings.Repeat("b", 300) + ".test", "c.test", "d.test"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.https.Names(domain, c.names...)
			if c.ok {
				w.good(t)
				return
			}
			w.bad(t, mtasts.WebPKIInvalid, false, "certificate of mta-sts.example.org is only for ")
		})
	}
}

func TestFetchTrust(t *testing.T) {
	t.Run("STS-102 other roots", func(t *testing.T) {
		w := newWorld(t)
		w.fetch.Roots = ststest.New(t).Roots
		w.bad(t, mtasts.WebPKIInvalid, false, `unknown authority, "CN=ststest CA", and came without an intermediate`)
		if w.https.Gets(domain) != 0 {
			t.Error("a request was made to a server without a trusted certificate")
		}
	})
	t.Run("STS-102 the system's roots", func(t *testing.T) {
		w := newWorld(t)
		w.fetch.Roots = nil
		w.bad(t, mtasts.WebPKIInvalid, false, "unknown authority")
	})
	t.Run("STS-031 at another time", func(t *testing.T) {
		w := newWorld(t)
		w.fetch.Now = func() time.Time { return time.Date(2111, 1, 1, 0, 0, 0, 0, time.UTC) }
		w.bad(t, mtasts.WebPKIInvalid, false, "expired on 2100-01-02")
	})
}

func TestFetchWithoutRoots(t *testing.T) {
	t.Run("STS-048 our own fault", func(t *testing.T) {
		err := mtasts.HandshakeError("mta-sts.example.org", &tls.CertificateVerificationError{
			Err: x509.SystemRootsError{Err: errors.New("permission denied")},
		}, time.Now())
		var failure *mtasts.FetchError
		if !errors.As(err, &failure) || failure.Result != mtasts.PolicyFetchError || !failure.Temporary {
			t.Errorf("%v", err)
		}
	})
}

func TestFetchAlias(t *testing.T) {
	w := newWorld(t)
	w.dns.SetZone(fmt.Sprintf("mta-sts.%s. 300 IN CNAME mta-sts.provider.test.\nmta-sts.provider.test. 300 IN A %s\n", domain, w.https.IP))
	t.Run("STS-033 certificate for the domain", func(t *testing.T) { w.good(t) })
	t.Run("STS-034 SNI is for the domain", func(t *testing.T) {
		if r := w.https.Requests(domain)[0]; r.ServerName != "mta-sts."+domain {
			t.Error(r.ServerName)
		}
	})
	t.Run("STS-033 certificate for the provider", func(t *testing.T) {
		w.https.Names(domain, "mta-sts.provider.test")
		w.bad(t, mtasts.WebPKIInvalid, false, "is only for mta-sts.provider.test")
	})
}

func TestFetchMediaTypes(t *testing.T) {
	for _, c := range []struct {
		header string
		ok     bool
	}{
		{"text/plain", true},
		{"Text/Plain; charset=UTF-8", true},
		{"text/plain; charset=us-ascii", true},
		{"text/plain; format=flowed", true},
		{"text/plain;", true},
		{"text/plain; charset", true},
		{"text/html", false},
		{"application/octet-stream", false},
		{"text/plain, text/html", false},
		{"text", false},
		{"", false},
		{"text/\xe9{}", false},
	} {
		t.Run("STS-038 "+c.header, func(t *testing.T) {
			w := newWorld(t)
			w.https.ContentType(domain, c.header)
			if c.ok {
				w.good(t)
				return
			}
			w.bad(t, mtasts.PolicyInvalid, false, "media type")
		})
	}
}

func TestFetchBody(t *testing.T) {
	full := p1 + "x: "
	full += strings.Repeat("y", mtasts.MaxBody-len(full))
	w := newWorld(t)
	good := func(name, fault, body string) {
		t.Run(name, func(t *testing.T) {
			w.https.Set(domain, body)
			w.https.Fault(domain, fault)
			if f := w.good(t); f.Policy.Text != body {
				t.Errorf("%d octets came as %d, or changed", len(body), len(f.Policy.Text))
			}
		})
	}
	good("STS-040 65536 octets", "", full)
	good("STS-040 65536 octets in chunks of one", "chunked", full)
	good("STS-035 interim response", "103", p1)
	t.Run("STS-040 65537 octets of unknown length", func(t *testing.T) {
		w.https.Set(domain, full+"y")
		w.bad(t, mtasts.PolicyFetchError, false, "larger than 65536")
	})
}

func TestFetchTimeout(t *testing.T) {
	for _, fault := range []string{"slow", "drip"} {
		t.Run("STS-039 "+fault, func(t *testing.T) {
			w := newWorld(t)
			w.https.Fault(domain, fault)
			w.fetch.Timeout = 300 * time.Millisecond
			failure := w.bad(t, mtasts.PolicyFetchError, true, "no complete answer within 300ms")
			if !errors.Is(failure, context.DeadlineExceeded) {
				t.Error("is no context.DeadlineExceeded")
			}
		})
	}
	t.Run("STS-039 no handshake", func(t *testing.T) {
		w := newWorld(t)
		ln, err := net.Listen("tcp4", "127.0.0.1:0") // takes connections and says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		w.fetch.Port = uint16(ln.Addr().(*net.TCPAddr).Port)
		w.fetch.Timeout = 300 * time.Millisecond
		w.bad(t, mtasts.PolicyFetchError, true, "no complete answer")
	})
	t.Run("STS-039 caller's end", func(t *testing.T) {
		w := newWorld(t)
		w.https.Fault(domain, "slow")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := w.fetch.Fetch(ctx, domain)
		var failure *mtasts.FetchError
		if !errors.As(err, &failure) || failure.Result != mtasts.PolicyFetchError || !failure.Temporary {
			t.Errorf("%v", err)
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is no context.Canceled", err)
		}
	})
	t.Run("STS-118 an answer held back for a while", func(t *testing.T) {
		w := newWorld(t)
		w.https.Delay(time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() {
			for w.https.Gets(domain) == 0 && t.Context().Err() == nil {
				runtime.Gosched()
			}
			w.https.Delay(0)
		})
		w.good(t)
		wg.Wait()
	})
	t.Run("STS-118 caller's deadline", func(t *testing.T) {
		w := newWorld(t)
		w.https.Delay(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := w.fetch.Fetch(ctx, domain); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is no context.DeadlineExceeded", err)
		}
	})
}

func TestFetchConnection(t *testing.T) {
	t.Run("STS-041 refused", func(t *testing.T) {
		w := newWorld(t)
		w.dns.SetZone("mta-sts." + domain + ". 300 IN A 127.0.0.2\n") // where nothing listens
		w.bad(t, mtasts.PolicyFetchError, true, fmt.Sprintf("cannot connect to mta-sts.example.org: 127.0.0.2:%d: connection refused", w.https.Port))
	})
	t.Run("STS-041 reset", func(t *testing.T) {
		w := newWorld(t)
		w.https.Down()
		w.bad(t, mtasts.PolicyFetchError, true, "mta-sts.example.org")
		w.https.Up()
		w.good(t)
	})
	t.Run("addresses by turns", func(t *testing.T) {
		w := newWorld(t)
		zone := ""
		for _, a := range []string{"A 127.0.0.2", "A 127.0.0.3", "A " + w.https.IP, "AAAA ::1"} {
			zone += "mta-sts." + domain + ". 300 IN " + a + "\n"
		}
		w.dns.SetZone(zone)
		if f := w.good(t); f.Addr.Addr().String() != w.https.IP {
			t.Errorf("fetched from %v", f.Addr)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		w := newWorld(t)
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if conn, err := ln.Accept(); err == nil {
				conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				conn.Read(make([]byte, 4096))
				conn.Close()
			}
		}()
		defer func() { ln.Close(); <-done }()
		w.fetch.Port = uint16(ln.Addr().(*net.TCPAddr).Port)
		w.bad(t, mtasts.PolicyFetchError, false, "does not speak TLS")
	})
}

func TestFetchDNS(t *testing.T) {
	t.Run("STS-048 no address", func(t *testing.T) {
		w := newWorld(t)
		w.dns.SetZone("mta-sts." + domain + ". 300 IN TXT \"x\"\n")
		w.bad(t, mtasts.PolicyFetchError, false, "mta-sts.example.org has no address")
	})
	t.Run("STS-048 both lookups fail", func(t *testing.T) {
		w := newWorld(t)
		w.dns.Fail("mta-sts."+domain, "*", "SERVFAIL")
		failure := w.bad(t, mtasts.PolicyFetchError, true, "server failure")
		var lookup *dnssec.Error
		if !errors.As(failure, &lookup) {
			t.Error("no dnssec.Error inside")
		}
	})
	t.Run("one lookup fails", func(t *testing.T) {
		w := newWorld(t)
		w.dns.Fail("mta-sts."+domain, "AAAA", "SERVFAIL")
		w.good(t)
	})
	t.Run("one lookup is never answered", func(t *testing.T) {
		w := newWorld(t)
		w.dns.Fail("mta-sts."+domain, "AAAA", "TIMEOUT")
		w.good(t)
	})
	t.Run("one lookup fails, the other finds nothing", func(t *testing.T) {
		w := newWorld(t)
		w.dns.SetZone("")
		w.dns.Fail("mta-sts."+domain, "A", "SERVFAIL")
		w.bad(t, mtasts.PolicyFetchError, true, "A lookup")
	})
	t.Run("STS-008 long domain", func(t *testing.T) {
		w := newWorld(t)
		long := strings.Repeat("a.", 124) + "ab"
		_, err := w.fetch.Fetch(t.Context(), long)
		checkPrintable(t, fmt.Sprint(err), 800)
		for _, strange := range []string{"", ".", "example.org/x", "example.org:1", "a b", "exa\nmple.org", "192.0.2.1", "user@example.org"} {
			_, err := w.fetch.Fetch(t.Context(), strange)
			if err == nil {
				t.Errorf("fetched from %q", strange)
			}
			checkPrintable(t, fmt.Sprint(err), 400)
		}
		if q := w.dns.Queries(); len(q) != 0 {
			t.Errorf("queries %q", q)
		}
	})
}

func TestFetchPrivateAddress(t *testing.T) {
	for _, a := range []string{"A 127.0.0.1", "AAAA ::ffff:127.0.0.1", "AAAA 64:ff9b::7f00:1", "A 10.0.0.1", "AAAA ::1"} {
		t.Run("STS-045 "+a, func(t *testing.T) {
			w := newWorld(t)
			w.fetch.AllowPrivate = false
			w.dns.SetZone("mta-sts." + domain + ". 300 IN " + a + "\n")
			w.bad(t, mtasts.PolicyFetchError, false, "mta-sts.example.org has no public address")
			if w.https.Conns() != 0 {
				t.Error("connected")
			}
		})
	}
}

func TestFetchInvalidPolicy(t *testing.T) {
	w := newWorld(t)
	for name, body := range map[string]string{
		"STS-048 garbage":          "hello",
		"STS-062 malformed mx":     p1 + "mx: **.x\n",
		"SEED-002 JSON":            `{"version":"STSv1","mode":"enforce","mx":["mail.example.com"],"max_age":86400}`,
		"SEED-003 mode report":     strings.Replace(p1, "enforce", "report", 1),
		"STS-048 control sequence": "\x1b[31m" + strings.Repeat("\xff", 1000),
	} {
		t.Run(name, func(t *testing.T) {
			w.https.Set(domain, body)
			w.bad(t, mtasts.PolicyInvalid, false, "line ")
		})
	}
}

func TestFetchSeeds(t *testing.T) {
	t.Run("SEED-006 no other place", func(t *testing.T) {
		w := newWorld(t)
		w.https.Fault(domain, "404")
		w.bad(t, mtasts.PolicyFetchError, false, "status 404")
		if got := w.https.Gets(domain); got != 1 {
			t.Errorf("%d requests", got)
		}
		for _, q := range w.dns.Queries() {
			if !strings.HasSuffix(q, " mta-sts."+domain) {
				t.Errorf("query %s", q)
			}
		}
	})
	t.Run("SEED-007 no trust on first use", func(t *testing.T) {
		w := newWorld(t)
		w.https.Fault(domain, "selfsigned")
		w.bad(t, mtasts.WebPKIInvalid, false, "self-signed")
	})
}
