package requiretls_test

import (
	"errors"
	"strings"
	"testing"

	"postseal/policy/requiretls"
)

func TestSaysNo(t *testing.T) {
	good := func(value string) {
		t.Helper()
		if ok, err := requiretls.SaysNo(value); !ok || err != nil {
			t.Errorf("%q: %v, %v, want true", value, ok, err)
		}
	}
	bad := func(values ...string) error {
		t.Helper()
		ok, err := requiretls.SaysNo(values...)
		if ok || err == nil {
			t.Errorf("%q: %v, %v, want false with an error", values, ok, err)
		}
		return err
	}
	t.Run("RT-020 No in any case, folded, with blanks around", func(t *testing.T) {
		good("No")
		good("no")
		good("nO")
		good("NO")
		good(" No")
		good("\tNo \t")
		good("\n No")      // as a milter hands it over
		good("\r\n No")    // as it stood
		good(" \n\t\n No") // folded twice
		good("No\r\n ")    // an empty continuation
	})
	t.Run("RT-021 any other value is ignored with a reason", func(t *testing.T) {
		bad("")
		bad("Yes")
		bad("No;x")
		bad("No, no")
		bad("No (really)") // RFC 8689 §3 has no comments
		bad("\"No\"")
		bad("N o")
		bad("No\nSubject: x") // a line break that folds nothing
		bad("\u039do")        // a Greek capital Nu
		err := bad("Yes\x1b[2J\nforged: line " + strings.Repeat("x", 1000))
		if s := err.Error(); len(s) > 200 || strings.ContainsAny(s, "\x1b\n") {
			t.Errorf("the reason is %q", s)
		}
	})
	t.Run("RT-022 two fields count as none, even if they agree", func(t *testing.T) {
		if err := bad("No", "No"); !errors.Is(err, requiretls.ErrTwice) {
			t.Errorf("got %v", err)
		}
		bad("No", "Yes")
		bad("No", "")
	})
	t.Run("no field says nothing", func(t *testing.T) {
		if ok, err := requiretls.SaysNo(); ok || err != nil {
			t.Errorf("got %v, %v", ok, err)
		}
	})
}

func TestField(t *testing.T) {
	for name, want := range map[string]string{
		"TLS-Required":          requiretls.TLSRequired,
		"tls-required \t":       requiretls.TLSRequired,
		"REQUIRE-TLS-ESMTP":     requiretls.Request,
		"x-postseal-route":      requiretls.Route,
		"X-Postseal-Route ":     requiretls.Route,
		"X-Postseal-Routes":     "",
		" X-Postseal-Route":     "",
		"X-Po\u017ftseal-Route": "", // the long s folds to s in Unicode, not in a header
		"":                      "",
	} {
		if got := requiretls.Field(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	t.Run("SEED-021 the names of the drafts are no fields of ours", func(t *testing.T) {
		for _, name := range []string{"Require-TLS", "RequireTLS", "requiretls", "REQUIRE-TLS"} {
			if got := requiretls.Field(name); got != "" || !requiretls.Draft(name) {
				t.Errorf("%s: %q, %v", name, got, requiretls.Draft(name))
			}
		}
		// Postfix's own header is no draft.
		if requiretls.Draft(requiretls.Request) || requiretls.Draft(requiretls.TLSRequired) {
			t.Error("a name in use is taken for a draft's")
		}
	})
}

func TestRequested(t *testing.T) {
	for value, want := range map[string]bool{"yes": true, " Yes ": true, "\n\tYES": true, "no": false, "": false, "yes, please": false} {
		if got := requiretls.Requested(value); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if !requiretls.Requested("no", "yes") || requiretls.Requested() {
		t.Error("one of several fields is enough, none is not")
	}
}

func TestParameter(t *testing.T) {
	check := func(params string, want, wantErr bool) {
		t.Helper()
		got, err := requiretls.Parameter(strings.Fields(params))
		if got != want || (err != nil) != wantErr {
			t.Errorf("%q: %v, %v", params, got, err)
		}
	}
	t.Run("RT-003 the parameter counts in any case, without a value", func(t *testing.T) {
		check("REQUIRETLS", true, false)
		check("SIZE=500 requiretls BODY=8BITMIME", true, false)
		check("SIZE=500", false, false)
		check("", false, false)
		check("REQUIRETLS=", false, true)
		check("REQUIRETLS=YES", false, true)
		check("REQUIRETLSX XREQUIRETLS", false, false)
		check("ENVID=REQUIRETLS", false, false)
		check("REQUIRETLS REQUIRETLS", true, true)
	})
	t.Run("SEED-020 the options of the drafts are errors and ask for nothing", func(t *testing.T) {
		check("REQUIRETLS=CHAIN", false, true)
		check("REQUIRETLS=DANE,DNSSEC", false, true)
		check("REQUIRETLS=NO", false, true)
	})
}

func TestSuffix(t *testing.T) {
	for _, m := range []requiretls.Mode{requiretls.Normal, requiretls.Required, requiretls.Relaxed} {
		a := requiretls.AddSuffix("user@example.org", m)
		if plain, got := requiretls.CutSuffix(a); plain != "user@example.org" || got != m {
			t.Errorf("%s: %q, %v", a, plain, got)
		}
		if plain, got := requiretls.CutSuffix(strings.ToUpper(a)); plain != "USER@EXAMPLE.ORG" || got != m {
			t.Errorf("%s: %q, %v", strings.ToUpper(a), plain, got)
		}
	}
	t.Run("RT-016 no spelling leaves a tag behind", func(t *testing.T) {
		for s, want := range map[string]requiretls.Mode{
			"user@example.org.relaxed.invalid.":                                    requiretls.Relaxed,
			"user@example.org.relaxed.invalid..relaxed.invalid..":                  requiretls.Relaxed,
			"user@example.org.relaxed.invalid.relaxed.invalid":                     requiretls.Relaxed,
			"user@example.org.requiretls.invalid.relaxed.invalid":                  requiretls.Required,
			"user@example.org.RELAXED.invalid.relaxed.invalid.requiretls.invalid.": requiretls.Required,
		} {
			if plain, got := requiretls.CutSuffix(s); plain != "user@example.org" || got != want {
				t.Errorf("%s: %q, %v", s, plain, got)
			}
		}
	})
	for _, s := range []string{"", "user@example.org.", ".requiretls.invalid", "user@example.org", "user@requiretls.invalid.example.org"} {
		if plain, got := requiretls.CutSuffix(s); plain != s || got != requiretls.Normal {
			t.Errorf("%s: %q, %v", s, plain, got)
		}
	}
}

func FuzzSaysNo(f *testing.F) {
	for _, s := range []string{"No", "\r\n no", "No\nNo", "\x00\n \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		ok, err := requiretls.SaysNo(value)
		if ok != (err == nil) || ok && !strings.EqualFold(strings.Trim(value, " \t\r\n"), "no") {
			t.Fatalf("%q: %v, %v", value, ok, err)
		}
		if err != nil && (len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\r\n")) {
			t.Fatalf("the reason is %q", err)
		}
	})
}

func FuzzParameter(f *testing.F) {
	f.Add("SIZE=1 REQUIRETLS")
	f.Add("REQUIRETLS=CHAIN requiretls requireTLS")
	f.Fuzz(func(t *testing.T, params string) {
		ok, err := requiretls.Parameter(strings.Split(params, " "))
		if ok != (strings.Contains(" "+strings.ToUpper(params)+" ", " REQUIRETLS ")) && !strings.ContainsFunc(params, func(r rune) bool { return r > 127 }) {
			t.Fatalf("%q: %v, %v", params, ok, err)
		}
	})
}
