package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestManual: the manual page names every command and option that there is, and the
// help of each command has an example of it.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../contrib/man/postseal.8")
	if err != nil {
		t.Fatal(err)
	}
	items := map[string]string{} // what follows the command's name, as "report list"
	for line := range strings.Lines(string(text)) {
		if item, ok := strings.CutPrefix(line, ".It Cm "); ok {
			name, rest, _ := strings.Cut(strings.ReplaceAll(item, "Oo Cm list Oc", "list"), " O")
			name, _, _ = strings.Cut(name, " Fl ")
			name, _, _ = strings.Cut(name, " Ar ")
			items[strings.TrimSpace(name)] = rest
		}
	}
	for _, mta := range []string{"postfix", "exim", "sendmail"} {
		items["setup "+mta] = items["setup Cm postfix | exim | sendmail"]
	}
	for _, c := range newApp(nil, io.Discard, io.Discard).Commands {
		checkManual(t, string(text), items, "", c)
	}
}

func checkManual(t *testing.T, page string, items map[string]string, above string, c *cli.Command) {
	name := strings.TrimSpace(above + " " + c.Name)
	if !strings.Contains(c.Description+"\n", "postseal "+name+" ") && !strings.Contains(c.Description+"\n", "postseal "+name+"\n") {
		t.Errorf("postseal %s --help has no example", name)
	}
	for _, sub := range c.Subcommands {
		checkManual(t, page, items, name, sub)
	}
	if len(c.Subcommands) > 0 {
		return
	}
	item, known := items[name]
	if !known {
		t.Errorf("postseal.8 does not know the command postseal %s", name)
	}
	for _, flag := range c.Flags {
		option := "Fl Fl " + flag.Names()[0]
		if !strings.Contains(page, option+" ") && !strings.Contains(page, option+"\n") {
			t.Errorf("postseal.8 does not know %s of postseal %s", flag.Names()[0], name)
		}
		if option == "Fl Fl json" && !strings.Contains(item, option) {
			t.Errorf("postseal.8 does not know --json of postseal %s", name)
		}
	}
}
