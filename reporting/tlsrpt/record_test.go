package tlsrpt_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting/tlsrpt"
)

func TestRecordName(t *testing.T) {
	is := func(domain, want string) {
		t.Helper()
		if got, err := tlsrpt.RecordName(domain); got != want || (err == nil) != (want != "") {
			t.Errorf("RecordName(%q) = %q, %v; want %q", domain, got, err, want)
		}
	}
	t.Run("RPT-001 the record stands at _smtp._tls below the domain", func(t *testing.T) {
		is("example.com", "_smtp._tls.example.com")
		is("Bücher.Example.", "_smtp._tls.xn--bcher-kva.example")
		is("xn--bcher-kva.example", "_smtp._tls.xn--bcher-kva.example")
	})
	t.Run("RPT-002 of the domain concerned, a base domain too", func(t *testing.T) {
		is("mx.prov.example", "_smtp._tls.mx.prov.example")
	})
	t.Run("SEED-010 never at the name of the draft", func(t *testing.T) {
		if name, err := tlsrpt.RecordName("example.com"); err != nil || strings.Contains(name, "_smtp_tlsrpt") {
			t.Errorf("RecordName = %q, %v", name, err)
		}
	})
	t.Run("what is no domain has no record", func(t *testing.T) {
		for _, domain := range []string{"", ".", "[192.0.2.1]", "a b.example", "a..example", "-a.example", strings.Repeat("a", 64) + ".example", strings.Repeat("abcdefg.", 31) + "example"} {
			is(domain, "")
		}
	})
}

// uris are the targets of a record, as text.
func uris(r tlsrpt.Record) (list []string) {
	for _, t := range r.Targets {
		list = append(list, t.URI)
	}
	return list
}

func TestParseRecord(t *testing.T) {
	good := func(name string, want []string, notes int, txts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			r, err := tlsrpt.ParseRecord(txts)
			if diff := cmp.Diff(want, uris(r)); err != nil || diff != "" || len(r.Notes) != notes {
				t.Errorf("ParseRecord(%q) = %+v, %v; want %d notes, targets: %s", txts, r, err, notes, diff)
			}
		})
	}
	none := func(name string, want error, txts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			if r, err := tlsrpt.ParseRecord(txts); !errors.Is(err, want) || len(r.Targets) > 0 {
				t.Errorf("ParseRecord(%q) = %+v, %v; want %v", txts, r, err, want)
			}
		})
	}
	bad := func(name, reason string, txts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			r, err := tlsrpt.ParseRecord(txts)
			var malformed *tlsrpt.RecordError
			if !errors.As(err, &malformed) || !strings.Contains(malformed.Reason, reason) {
				t.Errorf("ParseRecord(%q) = %+v, %v; want a RecordError with %q", txts, r, err, reason)
			}
		})
	}
	mail := []string{"mailto:r@example.com"}
	const valid = "v=TLSRPTv1; rua=mailto:r@example.com"

	for _, txt := range []string{"v=TLSRPT1; rua=mailto:r@example.com", "V=TLSRPTv1; rua=mailto:r@example.com", "v=tlsrptv1;rua=mailto:r@example.com",
		"rua=mailto:r@example.com; v=TLSRPTv1", " v=TLSRPTv1; rua=mailto:r@example.com", "v=TLSRPTv1", "v=TLSRPTv1, rua=mailto:r@example.com",
		"v=TLSRPTv10; rua=mailto:r@example.com", "v= TLSRPTv1; rua=mailto:r@example.com"} {
		none("RPT-003 "+txt, tlsrpt.ErrNoRecord, txt)
	}
	none("SEED-010 the version of the draft", tlsrpt.ErrNoRecord, "v=TLSRPT1;rua=mailto:r@example.com")

	good("RPT-004 others are dropped first", mail, 0, "v=spf1 -all", valid, "", "v=TLSRPTv1")
	none("RPT-004 two", tlsrpt.ErrSeveralRecords, valid, "v=TLSRPTv1; rua=mailto:s@example.com")
	none("RPT-004 two that are equal", tlsrpt.ErrSeveralRecords, valid, valid)
	none("RPT-004 one of two is malformed", tlsrpt.ErrSeveralRecords, valid, "v=TLSRPTv1;")
	none("RPT-004 none", tlsrpt.ErrNoRecord)

	good("RPT-005 strings are joined without a gap", mail, 0, strings.Join([]string{"v=TLSRPTv1; rua=mai", "lto:r@exam", "ple.com"}, ""))

	for _, txt := range []string{"v=TLSRPTv1;rua=mailto:r@example.com", "v=TLSRPTv1 ; rua=mailto:r@example.com ;", "v=TLSRPTv1\t;\trua=mailto:r@example.com\t;\t", "v=TLSRPTv1;rua=mailto:r@example.com;"} {
		good("RPT-006 "+txt, mail, 0, txt)
	}
	bad("RPT-006 no rua", "rua is missing", "v=TLSRPTv1;")
	bad("RPT-006 no rua, but others", "rua is missing", "v=TLSRPTv1; ruf=mailto:r@example.com")
	bad("RPT-006 the name is compared with case", "rua is missing", "v=TLSRPTv1; RUA=mailto:r@example.com")
	bad("RPT-006 nothing between", "nothing between", "v=TLSRPTv1;; rua=mailto:r@example.com")
	bad("RPT-006 a field without value", `no "="`, "v=TLSRPTv1; rua")
	bad("RPT-006 an empty rua", "is empty", "v=TLSRPTv1; rua=")
	good("RPT-006 two rua", []string{"mailto:r@example.com", "mailto:s@example.com"}, 0, "v=TLSRPTv1; rua=mailto:r@example.com; rua=mailto:s@example.com")

	good("RPT-007 unknown fields are ignored", []string{"mailto:r@x.example"}, 0, "v=TLSRPTv1; ruf=x; rua=mailto:r@x.example; e-x.t_2=!<>")
	bad("RPT-007 a name without value", "value of field", valid+"; more=")
	bad("RPT-007 a name too long", "field name", valid+"; "+strings.Repeat("a", 33)+"=b")
	bad("RPT-007 a name of other characters", "field name", valid+"; 1%=a")
	bad("RPT-007 a value of other characters", "value of field", valid+"; test==")
	bad("RPT-007 a value of other bytes", "value of field", valid+"; test=\xff")

	good("RPT-008 several, with blanks around commas", []string{"mailto:a@x.example", "https://y.example/r%2C1"}, 0, "v=TLSRPTv1; rua=mailto:a@x.example \t, \t https://y.example/r%2C1  ")
	good("RPT-008 escapes of an address are undone", []string{"mailto:a!b@x.example"}, 0, "v=TLSRPTv1; rua=mailto:a%21b%40x.example")
	good("RPT-008 escapes in https are as published", []string{"https://y.example/a%2Cb%21c%3Bd?q=%2C&r=1"}, 0, "v=TLSRPTv1; rua=https://y.example/a%2Cb%21c%3Bd?q=%2C&r=1")
	good("RPT-008 an escaped quoted string", []string{`mailto:"a;b"@x.example`}, 0, `v=TLSRPTv1; rua=mailto:%22a%3Bb%22@x.example`)
	good("RPT-008 the domain in A-labels", []string{"mailto:A@xn--bcher-kva.example"}, 0, "v=TLSRPTv1; rua=MAILTO:A@B%C3%BCcher.Example")
	good("RPT-008 the same twice", mail, 1, valid+",mailto:r@EXAMPLE.com")
	bad("RPT-008 a raw semicolon ends the field", `no "="`, "v=TLSRPTv1; rua=https://x.example/a;b")
	bad("RPT-008 commas alone", "is empty", "v=TLSRPTv1; rua=,, ,")

	bad("RPT-009 http", "neither mailto nor https", "v=TLSRPTv1; rua=http://x.example/")
	good("RPT-009 ftp and mailto", mail, 1, "v=TLSRPTv1; rua=ftp://x.example/,mailto:r@example.com")
	good("RPT-009 https", []string{"HTTPS://x.example:8443/a?b=c"}, 0, "v=TLSRPTv1; rua=HTTPS://x.example:8443/a?b=c")

	t.Run("RPT-012 ten thousand targets", func(t *testing.T) {
		var list []string
		for i := range 10_000 {
			list = append(list, fmt.Sprintf("https://x.example/%d", i))
		}
		r, err := tlsrpt.ParseRecord([]string{"v=TLSRPTv1; rua=" + strings.Join(list, ",")})
		if err != nil || len(r.Targets) != tlsrpt.MaxTargets || len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "9990 more") {
			t.Errorf("%d targets, notes %q, %v", len(r.Targets), r.Notes, err)
		}
		r, err = tlsrpt.ParseRecord([]string{"v=TLSRPTv1; rua=" + strings.Repeat("x,", 10_000) + "mailto:r@example.com"})
		if err != nil || len(r.Targets) != 1 || len(r.Notes) != 9 || r.Notes[8] != "and 9992 more like these" {
			t.Errorf("%d targets, notes %q, %v", len(r.Targets), r.Notes, err)
		}
	})
}

// TestParseRecordTargets has what was seen behind rua, and what a stranger might try.
func TestParseRecordTargets(t *testing.T) {
	is := func(rua, want, note string) {
		t.Helper()
		// Another target keeps the record valid.
		r, err := tlsrpt.ParseRecord([]string{"v=TLSRPTv1; rua=" + rua + ", mailto:ok@ok.example"})
		if err != nil {
			t.Errorf("%s: %v", rua, err)
			return
		}
		got := ""
		if list := uris(r); len(list) == 2 {
			got = list[0]
		}
		told := strings.Join(r.Notes, "; ")
		if got != want || !strings.Contains(told, note) || (told == "") != (note == "") {
			t.Errorf("%s: target %q, notes %q; want %q, %q", rua, got, told, want, note)
		}
	}
	t.Run("RPT-009 suffixes of DMARC and of mailto are ignored", func(t *testing.T) {
		is("mailto:a@x.example!10m", "mailto:a@x.example", "size limit")
		is("mailto:a@x.example!500", "mailto:a@x.example", "size limit")
		is("mailto:a@x.example!", "", "no mail address")
		is("mailto:a@x.example!many", "", "no mail address")
		is("mailto://a@x.example", "mailto:a@x.example", "no //")
		is("mailto:a@x.example?subject=TLS%20report&bcc=b@y.example", "mailto:a@x.example", "header fields are ignored")
	})
	t.Run("RPT-009 what is no address", func(t *testing.T) {
		for _, rua := range []string{"mailto:", "mailto:a", "mailto:10", "mailto:!10", "mailto:@x.example", "mailto:a@", "mailto:root@localhost", "mailto:a@b.localhost", "mailto:a@[192.0.2.1]",
			"mailto:a..b@x.example", "mailto:.a@x.example", "mailto:a%20b@x.example", "mailto:a%0D%0Ab@x.example", "mailto:a%2Cb@x.example", "mailto:a@x.example%2Cb@y.example",
			"mailto:%C3%BC@x.example", "mailto:%3Ca@x.example%3E", "mailto:a@x_%20.example", "mailto:" + strings.Repeat("a", 65) + "@x.example"} {
			is(rua, "", "no mail address")
		}
	})
	t.Run("RPT-009 what is no https URL", func(t *testing.T) {
		is("https:", "", "no https URL")
		is("https:///r", "", "no https URL")
		is("https:x.example", "", "no https URL")
		is("https://u:p@x.example/", "", "user name")
		is("https://x.example:0/", "", "port")
		is("https://x.example:65536/", "", "port")
		is("https://x..example/", "", "host name")
		is("https://192.0.2.1/r", "https://192.0.2.1/r", "")
		is("https://[2001:db8::1]:8443/r", "https://[2001:db8::1]:8443/r", "")
		is("https://x.example/"+strings.Repeat("a", 1024), "", "longer than")
	})
	t.Run("RPT-009 what is no URI", func(t *testing.T) {
		is("noscheme", "", "no scheme")
		is("postmaster@x.example", "", "no scheme")
		is("http://bad.example/%", "", "does not begin an escape")
		is("mailto:a%4@x.example", "", "does not begin an escape")
		is("mailto:x@x.example other", "", "none of a URI")
		is("<mailto:x@x.example>", "", "none of a URI")
		is("https://x.example/\xff", "", "none of a URI")
		is("https://x.example/\x00", "", "none of a URI")
	})
}

func TestParseAddress(t *testing.T) {
	is := func(s, want string) {
		t.Helper()
		if got, err := tlsrpt.ParseAddress(s); got != want || (err == nil) != (want != "") {
			t.Errorf("ParseAddress(%q) = %q, %v; want %q", s, got, err, want)
		}
	}
	is("TLS.rpt+x@Example.ORG", "TLS.rpt+x@example.org")
	is(`"a\"b c"@x.example`, `"a\"b c"@x.example`)
	is(`"a"b"@x.example`, "")
	is(`"a\"@x.example`, "")
	is(`""@x.example`, "")
	is("Name <a@x.example>", "")
	is("a@x.example\r\nBcc: b@y.example", "")
	is(strings.Repeat("a", 64)+"@"+strings.Repeat("abcdefg.", 24)+"x", "")
}

func FuzzRecord(f *testing.F) {
	for _, txt := range []string{"v=TLSRPTv1; rua=mailto:a@x.example , https://y.example/r%2C1;", "v=TLSRPTv1;rua=mailto:a%22@x!10m?subject=x; e=1",
		"v=TLSRPTv1;rua=https://[::1]:1/", "v=TLSRPTv1 ;", "v=spf1"} {
		f.Add(txt)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		r, err := tlsrpt.ParseRecord([]string{txt})
		if err != nil {
			return
		}
		if len(r.Targets) == 0 || len(r.Targets) > tlsrpt.MaxTargets {
			t.Fatalf("%d targets", len(r.Targets))
		}
		for _, target := range r.Targets {
			if strings.Trim(target.URI, " \t\r\n") != target.URI || strings.ContainsAny(target.URI, "\r\n\x00") {
				t.Errorf("URI %q", target.URI)
			}
			if !target.Mail() {
				continue
			}
			if again, err := tlsrpt.ParseAddress(target.Address); err != nil || again != target.Address {
				t.Errorf("address %q is %q, %v", target.Address, again, err)
			}
		}
		for _, note := range r.Notes {
			if strings.ContainsFunc(note, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("note %q", note)
			}
		}
	})
}
