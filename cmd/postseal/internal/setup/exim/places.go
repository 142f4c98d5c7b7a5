package exim

import (
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"

	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/edit"
)

// What each file of contrib/exim is for.
const (
	whyMacros     = "macros, and the ACL of messages: which need TLS, and which go without"
	whyACL        = "the ACL of messages from the command sendmail"
	whyRouters    = "asks postseal for each remote domain, before Debian's router is reached"
	whyTransports = "to MX hosts by policy, and into postseal"
)

// debianSplit adds a file to each section of conf.d; no file of Debian's changes.
func (e *planner) debianSplit() error {
	e.Saw("Debian's split configuration in %s/conf.d", e.dir)
	entries, err := os.ReadDir(e.Path(path.Join(e.dir, "conf.d/main")))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := path.Join(e.dir, "conf.d/main", entry.Name())
		if entry.Name() == "00_postseal" || !entry.Type().IsRegular() {
			continue
		}
		if err := e.conflicts(name); err != nil {
			return err
		}
	}
	for _, f := range []struct{ name, text, why string }{
		{"main/00_postseal", e.macros(), whyMacros},
		{"acl/50_postseal", e.include("acl"), whyACL},
		{"router/190_postseal", e.include("routers"), whyRouters},
		{"transport/40_postseal", e.include("transports"), whyTransports},
	} {
		c, err := edit.Of(e.System, path.Join(e.dir, "conf.d", f.name))
		if err != nil {
			return err
		}
		c.After = []byte(f.text)
		c.Lines = []edit.Line{{Text: strings.TrimSuffix(f.text, "\n"), Why: f.why}}
		e.Change(c)
	}
	return nil
}

var eximConflict = regexp.MustCompile(`^\s*(CHECK_DATA_LOCAL_ACL_FILE|acl_not_smtp)\s*=`)

// conflicts refuses what the site has set itself and contrib/exim sets, too.
func (e *planner) conflicts(name string) error {
	text, _, err := e.Lookup(name)
	if err != nil {
		return err
	}
	for i, line := range edit.Lines(text) {
		if m := eximConflict.FindStringSubmatch(line); m != nil && !strings.Contains(line, e.files) {
			return setup.Refuse("include "+e.files+"/acl_data or acl_not_smtp in yours by hand; the head of "+e.files+"/main says how",
				"%s:%d sets %s, which postseal sets too", name, i+1, m[1])
		}
	}
	return nil
}

// debianSingle puts the includes into exim4.conf.template, at the places that the split
// configuration has them.
func (e *planner) debianSingle() error {
	name := path.Join(e.dir, "exim4.conf.template")
	e.Saw("Debian's single-file configuration, %s", name)
	for _, file := range []string{name, path.Join(e.dir, "exim4.conf.localmacros")} {
		if err := e.conflicts(file); err != nil {
			return err
		}
	}
	c, err := edit.Of(e.System, name)
	if err != nil {
		return err
	}
	if c.New {
		return setup.Refuse("", "there is no %s", name)
	}
	missing := c.Insert([]edit.Block{
		{Text: e.macros(), Why: whyMacros, At: marker("main/01_exim4-config_listmacrosdefs"), Mark: e.files + "/main"},
		{Text: e.include("acl"), Why: whyACL, At: behind("acl"), Mark: strings.TrimSpace(e.include("acl"))},
		{Text: e.include("routers"), Why: whyRouters, At: marker("router/200_exim4-config_primary"), Mark: e.files + "/routers"},
		{Text: e.include("transports"), Why: whyTransports, At: marker("retry/00_exim4-config_header"), Mark: e.files + "/transports"},
	})
	if missing != "" {
		return setup.Refuse("put the lines where the head of "+e.files+"/main says", "%s is no longer as Debian made it: there is no place for %q", name, strings.TrimSpace(missing))
	}
	e.Change(c)
	return nil
}

// marker is the line of #s above the name of a file that Debian made the template of.
func marker(name string) func([]string) int {
	want := regexp.MustCompile(`^### ` + regexp.QuoteMeta(name) + `$`)
	return func(lines []string) int {
		at := edit.LineOf(lines, want)
		if at > 0 && strings.Trim(lines[at-1], "#\r\n") == "" && strings.HasPrefix(lines[at-1], "#") {
			return at - 1
		}
		return at
	}
}

// behind is the place right below "begin section".
func behind(section string) func([]string) int {
	want := regexp.MustCompile(`^begin\s+` + section + `\s*$`)
	return func(lines []string) int {
		if at := edit.LineOf(lines, want); at >= 0 {
			return at + 1
		}
		return -1
	}
}

// monolith says what goes where in a configuration that the site wrote itself.
func (e *planner) monolith() error {
	name := e.config
	if own := path.Join(e.dir, "exim4.conf"); e.Exists(own) {
		name = own
	}
	text, exists, err := e.Lookup(name)
	if err != nil {
		return err
	}
	if !exists {
		return setup.Refuse("name its folder with --config-dir", "there is no configuration of Exim: %s", name)
	}
	e.Saw("a configuration file of your own, %s", name)
	lines := edit.Lines(text)
	at := func(want string) string {
		if i := edit.LineOf(lines, regexp.MustCompile(want)); i >= 0 {
			return "line " + strconv.Itoa(i+1)
		}
		return "not found"
	}
	steps := []struct{ file, text string }{
		{"main", "in the main section, above everything else:\n" + strings.TrimSuffix(e.mainOfMonolith(), "\n")},
		{"acl_data", "in the ACL of acl_smtp_data (" + at(`^\s*acl_smtp_data\s*=`) + " names it), before its last accept: " + e.include("acl_data")},
		{"acl\n", "right below \"begin acl\" (" + at(`^begin\s+acl\s*$`) + "): " + e.include("acl")},
		{"routers", "before the router for remote domains, the first with driver = dnslookup (" + at(`^\s*driver\s*=\s*dnslookup\s*$`) + "): " + e.include("routers")},
		{"transports", "right below \"begin transports\" (" + at(`^begin\s+transports\s*$`) + "): " + e.include("transports")},
	}
	for _, step := range steps {
		if !strings.Contains(string(text), ".include "+e.files+"/"+step.file) {
			e.ByHand = append(e.ByHand, name+", "+strings.TrimSpace(step.text))
		}
	}
	e.After = append(e.After, "exim -bV && kill -HUP $(cat /run/exim.pid)   # or as your system has it")
	return nil
}

// mainOfMonolith is what Debian has of itself, and others must add.
func (e *planner) mainOfMonolith() string {
	macros, _, _ := strings.Cut(e.macros(), "CHECK_DATA_LOCAL_ACL_FILE")
	return macros + "dns_dnssec_ok = 1\nlog_selector = MAIN_LOG_SELECTOR\n"
}
