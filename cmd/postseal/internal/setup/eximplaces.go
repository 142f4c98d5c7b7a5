package setup

import (
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// debianSplit adds a file to each section of conf.d; no file of Debian's changes.
func (e *exim) debianSplit() error {
	e.found("Debian's split configuration in %s/conf.d", e.dir)
	entries, err := os.ReadDir(e.path(path.Join(e.dir, "conf.d/main")))
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
		{"main/00_postseal", e.macros(), "macros, and the ACL of messages: which need TLS, and which go without"},
		{"acl/50_postseal", e.include("acl"), "the ACL of messages from the command sendmail"},
		{"router/190_postseal", e.include("routers"), "asks postseal for each remote domain, before Debian's router is reached"},
		{"transport/40_postseal", e.include("transports"), "to MX hosts by policy, and into postseal"},
	} {
		c := Change{Path: path.Join(e.dir, "conf.d", f.name), After: []byte(f.text), Mode: 0o644,
			Lines: []Line{{Text: strings.TrimSuffix(f.text, "\n"), Why: f.why}}}
		var exists bool
		if c.Before, exists, err = e.read(c.Path); err != nil {
			return err
		}
		c.New = !exists
		e.change(c)
	}
	return nil
}

var eximConflict = regexp.MustCompile(`^\s*(CHECK_DATA_LOCAL_ACL_FILE|acl_not_smtp)\s*=`)

// conflicts refuses what the site has set itself and contrib/exim sets, too.
func (e *exim) conflicts(name string) error {
	text, _, err := e.read(name)
	if err != nil {
		return err
	}
	for i, line := range splitLines(text) {
		if m := eximConflict.FindStringSubmatch(line); m != nil && !strings.Contains(line, e.files) {
			return refuse("include "+e.files+"/acl_data or acl_not_smtp in yours by hand; the head of "+e.files+"/main says how",
				"%s:%d sets %s, which postseal sets too", name, i+1, m[1])
		}
	}
	return nil
}

// debianSingle puts the includes into exim4.conf.template, at the places that the split
// configuration has them.
func (e *exim) debianSingle() error {
	name := path.Join(e.dir, "exim4.conf.template")
	e.found("Debian's single-file configuration, %s", name)
	for _, file := range []string{name, path.Join(e.dir, "exim4.conf.localmacros")} {
		if err := e.conflicts(file); err != nil {
			return err
		}
	}
	c := Change{Path: name}
	var exists bool
	var err error
	if c.Before, exists, err = e.read(name); err != nil {
		return err
	}
	if !exists {
		return refuse("", "there is no %s", name)
	}
	missing := insert(&c, []insertion{
		{e.macros(), "macros, and the ACL of messages: which need TLS, and which go without", marker("main/01_exim4-config_listmacrosdefs"), e.files + "/main"},
		{e.include("acl"), "the ACL of messages from the command sendmail", behind("acl"), strings.TrimSpace(e.include("acl"))},
		{e.include("routers"), "asks postseal for each remote domain, before Debian's router is reached", marker("router/200_exim4-config_primary"), e.files + "/routers"},
		{e.include("transports"), "to MX hosts by policy, and into postseal", marker("retry/00_exim4-config_header"), e.files + "/transports"},
	})
	if missing != "" {
		return refuse("put the lines where the head of "+e.files+"/main says", "%s is no longer as Debian made it: there is no place for %q", name, strings.TrimSpace(missing))
	}
	e.change(c)
	return nil
}

// marker is the line of #s above the name of a file that Debian made the template of.
func marker(name string) func([]string) int {
	want := regexp.MustCompile(`^### ` + regexp.QuoteMeta(name) + `$`)
	return func(lines []string) int {
		at := lineOf(lines, want)
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
		if at := lineOf(lines, want); at >= 0 {
			return at + 1
		}
		return -1
	}
}

// monolith says what goes where in a configuration that the site wrote itself.
func (e *exim) monolith() error {
	name := e.config
	if own := path.Join(e.dir, "exim4.conf"); e.exists(own) {
		name = own
	}
	text, exists, err := e.read(name)
	if err != nil {
		return err
	}
	if !exists {
		return refuse("name its folder with --config-dir", "there is no configuration of Exim: %s", name)
	}
	e.found("a configuration file of your own, %s", name)
	lines := splitLines(text)
	at := func(want string) string {
		if i := lineOf(lines, regexp.MustCompile(want)); i >= 0 {
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
func (e *exim) mainOfMonolith() string {
	macros, _, _ := strings.Cut(e.macros(), "CHECK_DATA_LOCAL_ACL_FILE")
	return macros + "dns_dnssec_ok = 1\nlog_selector = MAIN_LOG_SELECTOR\n"
}
