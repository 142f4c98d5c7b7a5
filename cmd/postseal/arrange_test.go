package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	good := func(line, want string) {
		t.Helper()
		app := newApp(strings.NewReader(""), io.Discard, io.Discard)
		got, err := arrange(app, append([]string{"postseal"}, strings.Fields(line)...))
		if err != nil || !slices.Equal(got[1:], strings.Fields(want)) {
			t.Errorf("%q:\ngot  %q, %v\nwant %q", line, got, err, want)
		}
	}
	good("", "")
	good("explain example.org", "explain -- example.org")
	good("explain example.org --json", "explain --json -- example.org")
	good("explain --json example.org --fresh", "explain --json --fresh -- example.org")
	good("explain example.org --config f", "--config f explain -- example.org")
	good("--config=f explain -json example.org", "--config=f explain -json -- example.org")
	good("query a b --map m c", "query --map m -- a b c")
	good("query --map -- a", "query --map -- -- a") // a value, whatever it looks like
	good("query -- --map x", "query -- --map x")
	good("query -", "query -- -")
	good("cache show example.org --json", "cache show --json -- example.org")
	good("override set --mode enforce --mx a.test,b.test .example.com pin --mx c.test", "override set --mode enforce --mx a.test,b.test --mx c.test -- .example.com pin")
	good("--help", "--help")
	good("explain -h example.org", "explain --help")
	good("help cache list", "cache list --help")
	good("cache help list", "cache list --help")
	good("--version", "version")

	bad := func(line, want, hint string) {
		t.Helper()
		app := newApp(strings.NewReader(""), io.Discard, io.Discard)
		_, err := arrange(app, append([]string{"postseal"}, strings.Fields(line)...))
		var b strings.Builder
		if code := report(&b, err); code != 2 || b.String() != "postseal: "+want+"\npostseal: hint: "+hint+"\n" {
			t.Errorf("%q: exit code %d:\n%s", line, code, &b)
		}
	}
	bad("sreve", `unknown command "sreve"`, `did you mean "postseal serve"?`)
	bad("cache purg x", `unknown command "purg"`, `did you mean "postseal cache purge"?`)
	bad("conf", `unknown command "conf"`, `did you mean "postseal config"?`)
	bad("override add", `unknown command "add"`, "postseal override has: list, set, remove")
	bad("query --mapp x y", "unknown option --mapp of postseal query", "did you mean --map?")
	bad("query -x y", "unknown option -x of postseal query", "see postseal query --help")
	bad("explain a.test --confg f", "unknown option --confg of postseal explain", "did you mean --config?")
	bad("cache --json list", "unknown option --json of postseal cache", "options of a command stand behind it")
	bad("serve --config", "option --config needs a value", "see postseal serve --help")
}

func TestEdits(t *testing.T) {
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"a", ""}: 1, {"", "ab"}: 2, {"serve", "sevre"}: 1, {"serve", "srve"}: 1, {"list", "lists"}: 1, {"show", "purge"}: 5,
	} {
		if got := edits(pair[0], pair[1]); got != want {
			t.Errorf("%q: %d, want %d", pair, got, want)
		}
	}
}

func FuzzArrange(f *testing.F) {
	f.Add("explain example.org --json")
	f.Add("help help -h --")
	f.Add("--config")
	f.Add("-=x cache -- list")
	f.Fuzz(func(t *testing.T, line string) {
		app := newApp(strings.NewReader(""), io.Discard, io.Discard)
		got, err := arrange(app, append([]string{"postseal"}, strings.Fields(line)...))
		if err == nil && got[0] != "postseal" {
			t.Errorf("%q: %q", line, got)
		}
	})
}
