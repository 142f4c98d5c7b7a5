package mtasts_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/mtasts"
)

// p1 is the policy of the checklist.
const p1 = "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n"

// with returns a minimal good policy and these lines.
func with(lines ...string) string {
	return "version: STSv1\nmode: enforce\nmx: mail.example.com\nmax_age: 86400\n" + strings.Join(lines, "\n")
}

// withMX returns a good policy but for its one pattern.
func withMX(pattern string) string {
	return "version: STSv1\nmode: enforce\nmx: " + pattern + "\nmax_age: 86400\n"
}

func TestParsePolicy(t *testing.T) {
	good := func(name, body string, want mtasts.Policy, warnings ...string) {
		t.Helper()
		want.Text = body
		t.Run(name, func(t *testing.T) {
			t.Helper()
			p, warned, err := mtasts.ParsePolicy(body)
			if err != nil {
				t.Fatalf("ParsePolicy(%q): %v", body, err)
			}
			if want.MX == nil {
				want.MX = []string{}
			}
			if d := cmp.Diff(&want, p); d != "" {
				t.Errorf("ParsePolicy(%q) (-want +got):\n%s", body, d)
			}
			if len(warned) != len(warnings) {
				t.Fatalf("warnings %q, want %q", warned, warnings)
			}
			for i, w := range warnings {
				if !strings.Contains(warned[i], w) {
					t.Errorf("warning %q, want %q", warned[i], w)
				}
			}
		})
	}
	bad := func(name, reason, body string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			p, _, err := mtasts.ParsePolicy(body)
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("ParsePolicy(%q) = %+v, %v; want an error with %q", body, p, err, reason)
			}
		})
	}
	week := 604800 * time.Second
	enforce := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mail.example.com", "*.example.net"}, MaxAge: week}
	mail := mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mail.example.com"}, MaxAge: 24 * time.Hour}

	good("STS-050 LF", p1, enforce)
	good("STS-050 CRLF", strings.ReplaceAll(p1, "\n", "\r\n"), enforce)
	good("STS-050 mixed", strings.Replace(p1, "\n", "\r\n", 2), enforce)
	good("STS-050 no final line end", strings.TrimSuffix(p1, "\n"), enforce)
	bad("STS-050 CR only", "version", strings.ReplaceAll(p1, "\n", "\r"))
	bad("STS-050 final CR", "control character", strings.TrimSuffix(p1, "\n")+"\r")
	bad("STS-050 CR CR LF", "control character", strings.ReplaceAll(p1, "\n", "\r\r\n"))

	good("STS-051 no blank", strings.ReplaceAll(p1, ": ", ":"), enforce)
	good("STS-051 space and tab", strings.ReplaceAll(p1, ": ", ": \t"), enforce)
	bad("STS-051 Mode", "mode is missing", strings.Replace(p1, "mode", "Mode", 1))
	bad("STS-051 blank before the colon", "field name", strings.Replace(p1, "mode:", "mode :", 1))
	bad("STS-051 blank before the name", "field name", strings.Replace(p1, "mode:", " mode:", 1))
	bad("STS-051 equals sign", "name: value", strings.Replace(p1, "mode:", "mode=", 1))

	good("STS-052 blanks at the end", strings.ReplaceAll(p1, "\n", "  \t\n"), enforce)

	good("STS-053 blank lines", strings.ReplaceAll(p1, "\n", "\n\r\n")+"\n\n \t\n", enforce, "line 2 is blank")
	good("STS-053 blank first line", "\n"+p1, enforce, "line 1 is blank")

	bad("STS-054 missing", "version is missing", strings.Replace(p1, "version: STSv1\n", "", 1))
	for _, v := range []string{"STSv2", "STSv1x", "stsv1", "STSv1 x", `"STSv1"`, ""} {
		bad("STS-054 "+v, "is not STSv1", strings.Replace(p1, "STSv1", v, 1))
	}

	testing, none := enforce, enforce
	testing.Mode, none.Mode = mtasts.Testing, mtasts.None
	good("STS-055 testing", strings.Replace(p1, "enforce", "testing", 1), testing)
	good("STS-055 none", strings.Replace(p1, "enforce", "none", 1), none)
	for _, m := range []string{"enforced", "report", "Enforce", "", "enforce testing", "enforce, testing"} {
		bad("STS-055 "+m, "is not enforce, testing or none", strings.Replace(p1, "enforce", m, 1))
	}
	bad("STS-055 missing", "mode is missing", strings.Replace(p1, "mode: enforce\n", "", 1))

	for _, a := range []string{"-1", "+1", "1e6", "604800s", "", "12345678901", "00000000001", "1_000", "0x10", "1.5", "６０", "6 0"} {
		bad("STS-056 "+a, "is not 1 to 10 digits", strings.Replace(p1, "604800", a, 1))
	}
	good("STS-056 leading zeros", strings.Replace(p1, "604800", "0000604800", 1), enforce)
	bad("STS-056 missing", "max_age is missing", strings.Replace(p1, "max_age: 604800\n", "", 1))

	longest := enforce
	longest.MaxAge = mtasts.MaxMaxAge
	good("STS-057 the ceiling", strings.Replace(p1, "604800", "31557600", 1), longest)
	good("STS-057 just above", strings.Replace(p1, "604800", "31557601", 1), longest, "capped to 31557600")
	good("STS-057 ten digits", strings.Replace(p1, "604800", "9999999999", 1), longest, "capped to 31557600")

	good("STS-058 zero", "version: STSv1\nmode: none\nmax_age: 0\n", mtasts.Policy{})
	enforceNow := enforce
	enforceNow.MaxAge = 0
	good("STS-058 zero with enforce", strings.Replace(p1, "604800", "0", 1), enforceNow)

	for _, m := range []string{"enforce", "testing"} {
		bad("STS-059 "+m+" without mx", "no mx", "version: STSv1\nmode: "+m+"\nmax_age: 86400\n")
	}
	good("STS-059 none without mx", "version: STSv1\nmode: none\nmax_age: 86400\n", mtasts.Policy{MaxAge: 24 * time.Hour})

	bad("STS-060 comma", "neither a host name", withMX("a.example, b.example"))
	bad("STS-060 comma without blank", "neither a host name", withMX("a.example,b.example"))
	bad("STS-060 blank", "neither a host name", withMX("a.example b.example"))

	label63 := strings.Repeat("a", 63)
	longName := label63 + "." + label63 + "." + label63 + "." + strings.Repeat("b", 61) // 253
	for _, mx := range []string{
		"mail.example.com", "*.example.net", "localhost", "*.com", "a", "1.example", "3.1-2", "x--y.example",
		"xn--mnchen-3ya.example", label63 + ".example", longName,
	} {
		want := mail
		want.MX = []string{mx}
		good("STS-061 "+mx, withMX(mx), want)
	}
	upper := mail
	upper.MX = []string{"*.example.com"}
	good("STS-061 upper case", withMX("*.Example.COM"), upper)
	for _, mx := range []string{
		"*", "*.", ".example.com", "*.*.example.com", "mail.*.example.com", "mail*.example.com", "*mail.example.com",
		"mx.example.com.", "*.example.com.", ".", "..", "a..b", "münchen.example", "192.0.2.1/32", "[192.0.2.1]",
		"192.0.2.1", "*.0.2.1", "2001:db8::1", "[IPv6:2001:db8::1]", "under_score.example.com", "-a.example",
		"a-.example", "*.-a.example", "", "1", label63 + "a.example", longName + "b", "*." + longName,
		"mail.example.com:25", "<mail.example.com>", "mail.example.com servername=x", "a.example}{b", "a=b",
	} {
		bad("STS-061 "+mx, "neither a host name", withMX(mx))
	}

	bad("STS-062 one malformed mx", "line 6", p1+"mx: **.x\n")
	bad("STS-062 malformed mx in mode none", "line 4", "version: STSv1\nmode: none\nmax_age: 86400\nmx:\n")

	good("STS-063 UTF-8", with("note: für später"), mail)
	good("STS-063 name of 32", with("x"+strings.Repeat("y", 31)+": 1"), mail)
	good("STS-063 colons and braces", with("0-x_y.z: {a: b}"), mail)
	good("STS-063 no-break space", with("note: \u00a0x"), mail)
	bad("STS-063 name of 33", "field name", with("x"+strings.Repeat("y", 32)+": 1"))
	bad("STS-063 tab", "control character", with("note: a\tb"))
	bad("STS-063 NUL", "control character", with("note: a\x00b"))
	bad("STS-063 escape", "control character U+001B", with("note: \x1b[31m"))
	bad("STS-063 DEL", "control character", with("note: \x7f"))
	bad("STS-063 C1", "control character", with("note: \u009b31m"))
	bad("STS-063 not UTF-8", "not UTF-8", with("note: f\xfcr"))
	bad("STS-063 surrogate", "not UTF-8", with("note: \xed\xa0\x80"))
	bad("STS-063 no value", "no value", with("note:"))
	bad("STS-063 no name", "field name", with(": x"))
	bad("STS-063 name in UTF-8", "field name", with("nöte: x"))
	bad("STS-063 no colon", "name: value", with("note"))
	bad("STS-063 control character in mode", "control character", strings.Replace(p1, "enforce", "en\x00force", 1))

	twice := testing
	twice.MX = []string{"mail.example.com", "mail.example.com", "*.example.net"}
	good("STS-064 first mode wins", "mode: testing\nmx: mail.example.com\n"+p1, twice, "line 4: another mode")
	good("STS-064 first of each wins", p1+"version: STSv2\nmode: x\nmax_age: -1\n", enforce, "another version", "another mode", "another max_age")
	bad("STS-064 first is invalid", "mode", "mode: x\n"+p1)
	bad("STS-064 malformed duplicate", "control character", p1+"mode: \x00")

	good("STS-065 order is free", "mx: mail.example.com\nmax_age: 604800\nmx: *.example.net\nmode: enforce\nversion: STSv1\n", enforce)

	good("STS-066 byte order mark", "\ufeff"+p1, enforce, "byte order mark")
	bad("STS-066 two byte order marks", "field name", "\ufeff\ufeff"+p1)
	bad("STS-066 byte order mark elsewhere", "field name", p1+"\ufeffx: y")

	bad("SEED-002 JSON", "line 1", `{"version":"STSv1","mode":"enforce","mx":["mail.example.com"],"max_age":86400}`)
	bad("SEED-002 JSON on several lines", "line 1", "{\n\"version\": \"STSv1\",\n\"mode\": \"enforce\"\n}")
	bad("SEED-003 mode report", "mode \"report\"", strings.Replace(p1, "enforce", "report", 1))
	good("SEED-004 policy_id", with("policy_id: x"), mail)

	bad("empty", "empty", "")
	bad("only blank lines", "empty", "\n\n \n")
	bad("HTML", "line 1", "<!DOCTYPE html>\n<html></html>")
	bad("too many fields", "more than 2000 fields", with(strings.Repeat("a:b\n", 1997)))
	bad("too many patterns", "more than 1000 mx", with(strings.Repeat("mx:a\n", 1000)))
	full := with("x: ")
	full += strings.Repeat("y", mtasts.MaxBody-len(full))
	good("STS-040 65536 octets", full, mail)
	bad("STS-040 65537 octets", "larger than 65536", full+"y")
}

func TestPolicyWarningsAreBounded(t *testing.T) {
	_, warnings, err := mtasts.ParsePolicy(p1 + strings.Repeat("mode: x\n\n", 900))
	if err != nil || len(warnings) > 16 {
		t.Errorf("%d warnings, %v", len(warnings), err)
	}
}

func TestPolicyErrorIsPrintable(t *testing.T) {
	_, _, err := mtasts.ParsePolicy(p1 + "mx: \xff\u202e" + strings.Repeat("é", 9000))
	checkPrintable(t, err.Error(), 500)
	_, _, err = mtasts.ParsePolicy(p1 + strings.Repeat("\x1b", 9000))
	checkPrintable(t, err.Error(), 500)
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"STS-067 as written", p1, []string{"version: STSv1", "mode: enforce", "mx: mail.example.com", "mx: *.example.net", "max_age: 604800"}},
		{
			"STS-067 unknown field and odd spacing", "version:   STSv1\r\nx-Unknown:  a  {b}\nmx:mail.Example.COM\nmode: none  \nmax_age: 1",
			[]string{"version:   STSv1", "x-Unknown:  a  {b}", "mx:mail.Example.COM", "mode: none  ", "max_age: 1"},
		},
		{
			"STS-053 no blank lines", "\n" + with("", " \t", "\r", ""),
			[]string{"version: STSv1", "mode: enforce", "mx: mail.example.com", "max_age: 86400"},
		},
		{
			"STS-066 no byte order mark", "\ufeffversion: STSv1\n\nmode:\tnone\t\nmax_age: 1\r\n\r\n",
			[]string{"version: STSv1", "mode: none ", "max_age: 1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _, err := mtasts.ParsePolicy(c.body)
			if err != nil {
				t.Fatal(err)
			}
			if p.Text != c.body {
				t.Errorf("Text %q, want %q", p.Text, c.body)
			}
			if d := cmp.Diff(c.want, slices.Collect(p.Lines())); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			for range p.Lines() {
				break // is allowed
			}
		})
	}
}

func TestPolicyIsCompact(t *testing.T) {
	p, _, err := mtasts.ParsePolicy(p1)
	if err != nil {
		t.Fatal(err)
	}
	for _, mx := range p.MX {
		at := uintptr(unsafe.Pointer(unsafe.StringData(mx)))
		text := uintptr(unsafe.Pointer(unsafe.StringData(p.Text)))
		if at < text || at >= text+uintptr(len(p.Text)) {
			t.Errorf("%s is a copy", mx)
		}
	}
	if cap(p.MX) != len(p.MX) {
		t.Errorf("room for %d patterns, there are %d", cap(p.MX), len(p.MX))
	}
}

func TestMode(t *testing.T) {
	if got := fmt.Sprint(mtasts.None, mtasts.Testing, mtasts.Enforce, mtasts.Mode(9)); got != "none testing enforce mode 9" {
		t.Error(got)
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, s := range []string{
		p1, "\ufeff" + p1, strings.ReplaceAll(p1, "\n", "\r\n\r\n"), with("note: für später"), with("mode: testing"),
		withMX("*.*.example"), withMX("192.0.2.1"), withMX("A.Example"), "version: STSv1\nmode: none\nmax_age: 9999999999",
		`{"version":"STSv1"}`, "mx: \xff", "mode:\t none\t\nversion:STSv1\nmax_age:0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		p, warnings, err := mtasts.ParsePolicy(body)
		for _, w := range warnings {
			checkPrintable(t, w, 200)
		}
		if err != nil {
			checkPrintable(t, err.Error(), 500)
			return
		}
		if p.Text != body || p.MaxAge < 0 || p.MaxAge > mtasts.MaxMaxAge || p.Mode > mtasts.Enforce {
			t.Errorf("%+v", p)
		}
		if p.Mode != mtasts.None && len(p.MX) == 0 {
			t.Error("no patterns")
		}
		for _, mx := range p.MX {
			if mx == "" || strings.Trim(mx, "abcdefghijklmnopqrstuvwxyz0123456789-.*") != "" || strings.Contains(strings.TrimPrefix(mx, "*."), "*") {
				t.Errorf("pattern %q", mx)
			}
			if host := strings.Replace(mx, "*", "a", 1); !p.Match(host) || !p.Match(strings.ToUpper(host)+".") {
				t.Errorf("pattern %q does not match %q", mx, host)
			}
		}
		count := 0
		for line := range p.Lines() {
			count++
			if strings.ContainsFunc(line, unicode.IsControl) || !utf8.ValidString(line) || strings.TrimSpace(line) == "" {
				t.Errorf("line %q", line)
			}
		}
		if count < 3 {
			t.Errorf("%d lines", count)
		}
	})
}

func BenchmarkParsePolicy(b *testing.B) {
	for b.Loop() {
		if _, _, err := mtasts.ParsePolicy(p1); err != nil {
			b.Fatal(err)
		}
	}
}
