package send_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postseal/reporting/send"
	"postseal/reporting/tlsrpt"
)

func TestHTTPS(t *testing.T) {
	s := serveWeb(t)
	const path = "/status/201/a%2Fb//c;d?x=%20y&&z"
	reply, err := s.client().Send(t.Context(), s.uri(path)+"#fragment", report())
	if err != nil || reply != "201 Created" {
		t.Fatalf("%q, %v", reply, err)
	}
	all := s.taken()
	if len(all) != 1 {
		t.Fatalf("%d requests", len(all))
	}
	got := all[0]
	var want bytes.Buffer
	if err := report().EncodeGzip(&want); err != nil {
		t.Fatal(err)
	}
	t.Run("RPT-078 POST of the URI as published", func(t *testing.T) {
		if got.method != http.MethodPost || got.uri != path || got.host != "example.com:"+s.port {
			t.Errorf("%s %s of %s", got.method, got.uri, got.host)
		}
	})
	t.Run("RPT-078 the media type says gzip, and no Content-Encoding", func(t *testing.T) {
		wanted := http.Header{"User-Agent": {"postseal"}, "Content-Type": {"application/tlsrpt+gzip"}, "Connection": {"close"}, "Content-Length": {fmt.Sprint(want.Len())}}
		if fmt.Sprint(got.header) != fmt.Sprint(wanted) {
			t.Errorf("%v, want %v", got.header, wanted)
		}
	})
	t.Run("RPT-071 gzip", func(t *testing.T) {
		if !bytes.Equal(got.body, want.Bytes()) || got.length != int64(want.Len()) || !bytes.HasPrefix(got.body, []byte{0x1f, 0x8b}) {
			t.Errorf("%d bytes, length %d", len(got.body), got.length)
		}
	})
}

func TestHTTPSStatus(t *testing.T) {
	s := serveWeb(t)
	good := func(name, path, want string) {
		t.Run("RPT-080 "+name, func(t *testing.T) {
			if reply, err := s.client().Send(t.Context(), s.uri(path), report()); err != nil || reply != want {
				t.Errorf("%q, %v", reply, err)
			}
		})
	}
	good("200", "/status/200", "200 OK")
	good("202", "/status/202", "202 Accepted")
	good("behind a 103", "/hints", "201 Created")
	good("without a path", "", "200 OK")
	good("of which the body has no end", "/gigabyte/200", "200 OK")
	good("of which the body does not come", "/stallbody/200", "200 OK")
	good("redirect 307", "/moved/307?to=/status/201", "201 Created")
	good("redirect 308, absolute", "/moved/308?to="+s.uri("/status/201"), "201 Created")
	good("redirect, host in capitals", "/moved/308?to=HTTPS://EXAMPLE.com.:"+s.port+"/status/201", "201 Created")

	bad := func(name, path string, want ...string) {
		t.Run("RPT-080 failure: "+name, func(t *testing.T) {
			h := s.client()
			h.Timeout = 10 * time.Second
			if strings.HasPrefix(path, "/stall") {
				h.Timeout = 300 * time.Millisecond
			}
			_, err := h.Send(t.Context(), s.uri(path), report())
			f := failure(t, err, true, false)
			for _, want := range append(want, "example.com") {
				if !strings.Contains(f.Error(), want) {
					t.Errorf("no %q in: %v", want, f)
				}
			}
		})
	}
	bad("404", "/status/404", "status 404 Not Found")
	bad("500", "/status/500", "status 500")
	bad("301", "/status/301", "status 301")
	bad("302", "/moved/302?to=/status/201", "status 302")
	bad("303", "/moved/303?to=/status/201", "status 303")
	bad("304", "/status/304", "status 304")
	bad("101", "/switch", "101")
	bad("redirects in a circle", "/loop", "more than 3 times")
	bad("redirect to another host", "/moved/307?to=https://www.example.com:"+s.port+"/", "another server")
	bad("redirect to another port", "/moved/307?to=https://example.com/", "another server")
	bad("redirect to an address", "/moved/307?to=https://127.0.0.1:"+s.port+"/", "another server")
	bad("redirect without TLS", "/moved/307?to=http://example.com:"+s.port+"/", "not https")
	bad("redirect with a user", "/moved/308?to=https://a:b@example.com:"+s.port+"/", "user name")
	bad("redirect to nowhere", "/moved/307", "Location")
	bad("redirect to no URL", "/moved/307?to=%25%25", "no URL")
	bad("a gigabyte", "/gigabyte/404", "status 404", `: "gigabyte gigabyte`)
	bad("header without end", "/header", "larger than 32768 bytes")
	bad("header line without end", "/line", "larger than 32768 bytes")
	bad("no HTTP", "/garbage", "HTTP")
	bad("no answer", "/close", "connection was closed")
	bad("stalled", "/stall", "no complete answer within 300ms")
	bad("refusal of which the body does not come", "/stallbody/404", "status 404")
	bad("unprintable", "/unprintable", `500 \x1b[31mno\xff: "red \x1b[31m\x00 alert"`)
	bad("in words", "/words?type=text/plain%3Bcharset=utf-8", `400 Bad Request: "no such domain here"`)
	t.Run("RPT-080 failure: three redirects are followed and no more", func(t *testing.T) {
		before := len(s.taken())
		_, err := s.client().Send(t.Context(), s.uri("/loop"), report())
		failure(t, err, true, false)
		if n := len(s.taken()) - before; n != 4 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("RPT-080 failure: a page is not quoted", func(t *testing.T) {
		_, err := s.client().Send(t.Context(), s.uri("/words?type=text/html"), report())
		if f := failure(t, err, true, false); strings.Contains(f.Error(), "domain here") {
			t.Error(f)
		}
	})
	t.Run("RPT-080 failure: refused before it was read", func(t *testing.T) {
		err := s.client().Post(t.Context(), s.uri("/early"), make([]byte, 64<<20))
		if f := failure(t, err, true, false); !strings.Contains(f.Error(), "status 413") {
			t.Error(f)
		}
	})
}

func TestHTTPSCertificate(t *testing.T) {
	s := serveWeb(t)
	later := func() time.Time { return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		change func(*send.HTTPS)
		uri    string
		reason string
	}{
		"expired":    {func(h *send.HTTPS) { h.Now = later }, s.uri("/status/201"), "expired"},
		"wrong name": {func(*send.HTTPS) {}, "https://example.net:" + s.port + "/status/201", "not example.net"},
		"unknown CA": {func(h *send.HTTPS) { h.Roots = x509.NewCertPool() }, s.uri("/status/201"), "unknown authority"},
	} {
		t.Run("RPT-079 "+name+": refused", func(t *testing.T) {
			h := s.client()
			c.change(h)
			before := len(s.taken())
			_, err := h.Send(t.Context(), c.uri, report())
			if f := failure(t, err, true, false); !strings.Contains(f.Error(), c.reason) {
				t.Error(f)
			}
			if len(s.taken()) != before {
				t.Error("posted all the same")
			}
		})
		t.Run("RPT-079 "+name+": posted and logged", func(t *testing.T) {
			h := s.client()
			c.change(h)
			var logged bytes.Buffer
			h.Insecure, h.Log = true, slog.New(slog.NewTextHandler(&logged, nil))
			if reply, err := h.Send(t.Context(), c.uri, report()); err != nil || reply != "201 Created" {
				t.Errorf("%q, %v", reply, err)
			}
			host := strings.TrimSuffix(strings.TrimPrefix(c.uri, "https://"), ":"+s.port+"/status/201")
			for _, want := range []string{"level=WARN", "host=" + host, c.reason} {
				if !strings.Contains(logged.String(), want) {
					t.Errorf("no %q in: %s", want, &logged)
				}
			}
		})
	}
	t.Run("RPT-079 nothing is logged of a valid one", func(t *testing.T) {
		h := s.client()
		var logged bytes.Buffer
		h.Insecure, h.Log = true, slog.New(slog.NewTextHandler(&logged, nil))
		for _, uri := range []string{s.uri("/"), "https://127.0.0.1:" + s.port + "/"} {
			if _, err := h.Send(t.Context(), uri, report()); err != nil || logged.Len() > 0 {
				t.Errorf("%v, %s", err, &logged)
			}
		}
	})
}

func TestHTTPSAddresses(t *testing.T) {
	s := serveWeb(t)
	addrs := func(texts ...string) func(context.Context, string) ([]netip.Addr, error) {
		return func(context.Context, string) (all []netip.Addr, _ error) {
			for _, text := range texts {
				all = append(all, netip.MustParseAddr(text))
			}
			return all, nil
		}
	}
	public := func(addr netip.Addr) bool { return !addr.IsPrivate() && !addr.IsLinkLocalUnicast() }
	nowhere := []string{"127.1.1.1", "127.1.1.2", "127.1.1.3", "127.1.1.4", "127.1.1.5", "127.1.1.6", "127.1.1.7"}
	for name, c := range map[string]struct {
		lookup        func(context.Context, string) ([]netip.Addr, error)
		uri, want     string
		target, final bool
	}{
		"a private address":                   {addrs("10.0.0.1"), s.uri("/"), "no public address, only 10.0.0.1", true, false},
		"a mapped private address":            {addrs("::ffff:169.254.169.254"), s.uri("/"), "no public address", true, false},
		"a private address in the URI":        {addrs("127.0.0.1"), "https://192.168.1.1/", "no public address", true, true},
		"a mapped private address in the URI": {addrs("127.0.0.1"), "https://[::ffff:10.0.0.1]/", "no public address", true, true},
		"a public one among private ones":     {addrs("10.0.0.1", "127.0.0.1", "192.168.0.1"), s.uri("/"), "", false, false},
		"no address":                          {addrs(), s.uri("/"), "has no address", true, false},
		"the eighth":                          {addrs(append(nowhere, "127.0.0.1")...), s.uri("/"), "", false, false},
		"the ninth":                           {addrs(append(append(nowhere, "127.1.1.8"), "127.0.0.1")...), s.uri("/"), "127.1.1.8", true, false},
		"families by turns": {addrs("fe00::1", "fe00::2", "fe00::3", "fe00::4", "fe00::5", "fe00::6", "fe00::7", "fe00::8", "127.0.0.1"),
			s.uri("/"), "", false, false},
		"DNS fails": {func(context.Context, string) ([]netip.Addr, error) {
			return nil, errors.New("SERVFAIL \x1b" + strings.Repeat("x", 1000))
		},
			s.uri("/"), "SERVFAIL", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := s.client()
			h.Lookup, h.Public = c.lookup, public
			_, err := h.Send(t.Context(), c.uri, report())
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f := failure(t, err, c.target, c.final); !strings.Contains(f.Error(), c.want) {
				t.Error(f)
			}
		})
	}
	t.Run("U-labels are looked up as A-labels", func(t *testing.T) {
		h := s.client()
		var asked string
		h.Insecure, h.Lookup = true, func(_ context.Context, host string) ([]netip.Addr, error) {
			asked = host
			return []netip.Addr{loopback}, nil
		}
		if _, err := h.Send(t.Context(), "https://b%C3%BCcher.EXAMPLE.:"+s.port+"/", report()); err != nil || asked != "xn--bcher-kva.example" {
			t.Errorf("%q, %v", asked, err)
		}
	})
}

func TestHTTPSRefuses(t *testing.T) {
	s := serveWeb(t)
	for _, uri := range []string{
		"", "http://example.com/", "https:///x", "https:example.com", "https://a@example.com/", "https://example.com:0/",
		"https://example.com:65536/", "https://exa mple.com/", "https://ex_a..com/", "https://example.com/" + strings.Repeat("x", 3000), "mailto:a@example.com",
	} {
		_, err := s.client().Send(t.Context(), uri, report())
		failure(t, err, true, true)
	}
	_, err := s.client().Send(t.Context(), s.uri("/"), &tlsrpt.Report{})
	failure(t, err, false, true)
	if all := s.taken(); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

func TestHTTPSEnds(t *testing.T) {
	s := serveWeb(t)
	t.Run("with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		over := errors.New("over")
		time.AfterFunc(50*time.Millisecond, func() { cancel(over) })
		_, err := s.client().Send(ctx, s.uri("/stall"), report())
		if failure(t, err, false, false); !errors.Is(err, over) {
			t.Error(err)
		}
	})
	t.Run("with the patience of the caller", func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("no answer within 50ms"))
		defer cancel()
		_, err := s.client().Send(ctx, s.uri("/stall"), report())
		if f := failure(t, err, true, false); !strings.Contains(f.Error(), "no answer within 50ms") {
			t.Error(f)
		}
	})
	t.Run("in the handshake", func(t *testing.T) {
		h := s.client()
		h.Timeout = 50 * time.Millisecond
		_, port, _ := strings.Cut(deaf(t), ":")
		_, err := h.Send(t.Context(), "https://example.com:"+port+"/", report())
		if f := failure(t, err, true, false); !strings.Contains(f.Error(), "no complete answer within 50ms") {
			t.Error(f)
		}
	})
}
