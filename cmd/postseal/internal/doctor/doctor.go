// Package doctor finds out why a set-up does not do what it should: the mail server
// asks nobody, or asks in a dialect that it does not know; its resolver proves nothing;
// a socket cannot be reached from its chroot; its log says too little; the daemon does
// not run; reports are signed with a key that nobody can find. Most of these fail
// without a word, and mail simply goes unprotected, or waits.
//
// Every check is a function of its own, and looks at one subject. They run side by
// side, ask the daemon where there is one, and get along without it, without a network
// and without root; what they could not look at is a finding, too. A [Finding] that is
// not ok says what to type.
//
// Sources: postconf(5), socketmap_table(5), resolv.conf(5), RFC 7672 §2.1.1, RFC 8461
// §4.2, RFC 8460 §3, and what real mail servers were seen to do.
package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
)

// Level says how much a finding matters.
type Level string

const (
	OK      Level = "ok"
	Hint    Level = "hint"    // could be better, or could not be looked at
	Warning Level = "warning" // something does not work, mail is as safe as before
	Error   Level = "error"   // mail waits, or goes without the protection that it should have
)

// Finding is what a check has to say. All text is one line and printable.
type Finding struct {
	Level Level  `json:"level"`
	Check string `json:"check"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"` // what to type, or to set; never absent unless the level is ok

	line string // FILE:LINE of this package that made it: each must have been seen in a test
}

func ok(text string) Finding          { return finding(OK, text, "") }
func hint(text, do string) Finding    { return finding(Hint, text, do) }
func warning(text, do string) Finding { return finding(Warning, text, do) }
func failure(text, do string) Finding { return finding(Error, text, do) }

// finding is called by the four above only: it looks two calls up.
func finding(level Level, text, do string) Finding {
	_, file, line, _ := runtime.Caller(2)
	return Finding{Level: level, Text: text, Do: do, line: fmt.Sprintf("%s:%d", filepath.Base(file), line)}
}

// Report is the outcome of all checks.
type Report struct {
	Level    Level     `json:"level"`  // the worst of all
	MTAs     []string  `json:"mtas"`   // that were looked at
	Daemon   bool      `json:"daemon"` // answers
	Config   string    `json:"config"` // file
	Findings []Finding `json:"findings"`
}

// DefaultSTSDomain has had a policy in mode enforce since 2019. A closed network may not
// know it.
const DefaultSTSDomain = "gmail.com"

// Options of Run. Config must be set.
type Options struct {
	Config    *config.Config
	ConfigErr error // why the configuration cannot be used; Config is the defaults then

	Status  func(context.Context) (control.Status, error)               // of the daemon
	Explain func(context.Context, string) (*control.Explanation, error) // by the daemon, or alone

	MTAs        []string // "postfix", "exim", "sendmail"; empty: those that are found
	STSDomains  []string // known to have a policy in mode enforce; empty: DefaultSTSDomain
	DANEDomains []string // known to have TLSA records
	OneDANE     bool     // they are dns.self_test_signed, nobody's choice: one of them is enough

	Machine Machine // where to look
}

const (
	// limit bounds everything: a monitor waits for it.
	limit = 13 * time.Second
	// readLimit is for what all checks rest on: the daemon's state, and what the mail
	// servers say of themselves.
	readLimit = 4 * time.Second
)

// check is one subject. It returns when ctx ends, at the latest.
type check struct {
	name string
	run  func(ctx context.Context, e *env) []Finding
}

// checks are all of them, in the order in which they are shown: what others rest on
// comes first.
func checks() []check {
	return []check{
		{"configuration", checkConfiguration},
		{"daemon", checkDaemon},
		{"listeners", checkListeners},
		{"state", checkState},
		{"clock", checkClock},
		{"authorities", checkAuthorities},
		{"resolver", checkResolver},
		{"resolv.conf", checkResolvConf},
		{"network", checkNetwork},
		{"answers", checkAnswers},
		{"sockets", checkSockets},
		{"postfix", checkPostfix},
		{"postfix policy", checkPostfixPolicy},
		{"postfix milter", checkPostfixMilter},
		{"postfix delivery", checkPostfixDelivery},
		{"postfix tlsrpt", checkPostfixTLSRPT},
		{"exim", checkExim},
		{"sendmail", checkSendmail},
		{"logs", checkLogs},
		{"reports", checkReports},
		{"own domain", checkOwnDomain},
	}
}

// Run makes all checks. It takes no longer than 13 s.
func Run(ctx context.Context, o Options) Report {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reading, read := context.WithTimeout(ctx, readLimit)
	e := newEnv(reading, o)
	read()
	all := checks()
	found := make([][]Finding, len(all))
	var g sync.WaitGroup
	for i, c := range all {
		g.Go(func() { found[i] = c.run(ctx, e) })
	}
	g.Wait()
	r := Report{Level: OK, MTAs: e.MTAs, Daemon: e.statusErr == nil, Config: o.Config.Origin(), Findings: []Finding{}}
	for i, c := range all {
		for _, f := range found[i] {
			f.Check, f.Text, f.Do = c.name, clean(f.Text), clean(f.Do)
			r.Findings = append(r.Findings, f)
			r.Level = worse(r.Level, f.Level)
		}
	}
	return r
}

func worse(a, b Level) Level {
	order := []Level{OK, Hint, Warning, Error}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// clean makes one printable line: some of it comes from files and from strangers.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}

// env is what the checks look at: read once, then shared and not changed.
type env struct {
	Options
	status    control.Status
	statusErr error // no daemon answers

	postfix  *postfix  // nil: not looked at
	exim     *exim     // the same
	sendmail *sendmail // the same
	notRead  []Finding // mail servers that could not be
}

// file is where settings belong.
func (e *env) file() string {
	if e.Config.File == "" {
		return config.DefaultFile
	}
	return e.Config.File
}

func newEnv(ctx context.Context, o Options) *env {
	o.Machine = o.Machine.complete()
	if len(o.STSDomains) == 0 {
		o.STSDomains = []string{DefaultSTSDomain}
	}
	e := &env{Options: o}
	var g sync.WaitGroup
	g.Go(func() { e.status, e.statusErr = o.Status(ctx) })
	if len(e.MTAs) == 0 {
		e.MTAs = found(&o.Machine)
	}
	for _, name := range e.MTAs {
		var err error
		switch name {
		case "postfix":
			e.postfix, err = readPostfix(ctx, &o.Machine)
		case "exim":
			e.exim, err = readExim(ctx, &o.Machine)
		case "sendmail":
			e.sendmail, err = readSendmail(ctx, &o.Machine)
		}
		if err != nil {
			e.notRead = append(e.notRead, warning(name+" cannot be looked at: "+err.Error(), "run it as root, or name another mail server with --mta"))
		}
	}
	g.Wait()
	return e
}

// found are the mail servers of this machine, by their programs and configurations. A
// program alone may be another server's stand-in, as /usr/sbin/sendmail is.
func found(m *Machine) []string {
	list := []string{}
	for _, mta := range []struct {
		name     string
		programs []string
		files    []string
	}{
		{"postfix", []string{"postconf"}, []string{"/etc/postfix/main.cf", "/usr/local/etc/postfix/main.cf"}},
		{"exim", []string{"exim4", "exim"}, []string{"/etc/exim4", "/etc/exim", "/etc/exim.conf", "/usr/local/etc/exim"}},
		{"sendmail", []string{"sendmail"}, []string{"/etc/mail/sendmail.cf"}},
	} {
		program := slices.ContainsFunc(mta.programs, func(p string) bool { return m.Program(p) != "" })
		file := slices.ContainsFunc(mta.files, m.Exists)
		if program && file {
			list = append(list, mta.name)
		}
	}
	return list
}
