// Package sendmail plans what Sendmail 8.17 and later needs so that it asks postseal.
//
// sendmail.cf is made by m4 from sendmail.mc, so that is what is changed: two lines that
// include files of contrib/sendmail, postseal.m4 above the MAILER lines, where maps, the
// milter and DAEMON_OPTIONS are defined, and postseal_rules.m4 below them, where rules
// may follow. A few definitions go before the first: ports, if the daemon listens
// elsewhere, and whether a mailertable of the site's own keeps its place. A sendmail.cf
// that was written by hand, or FEATURE(sts) in use already, is refused.
//
// Sources: Sendmail's cf/README, doc/op/op.me (-d0.13, sockets of maps); contrib/sendmail.
package sendmail

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/edit"
	"postseal/cmd/postseal/internal/setup/sidecar"
	sendmailfiles "postseal/contrib/sendmail"
)

// localPort is where Sendmail takes local recipients of tagged messages back.
const localPort = "8467"

// planner is what is known of the Sendmail at hand while a plan is made.
type planner struct {
	*host.System
	*setup.Plan
	options setup.Options
	daemon  *sidecar.File
	dir     string
	files   string
	name    string // its own, $j
}

// Plan makes the plan for Sendmail that is configured by a sendmail.mc.
func Plan(ctx context.Context, s *host.System, o setup.Options) (*setup.Plan, error) {
	m := &planner{System: s, Plan: &setup.Plan{MTA: "sendmail"}, options: o, dir: o.Dir}
	if m.dir == "" {
		m.dir = "/etc/mail"
	}
	var err error
	if m.daemon, err = sidecar.Open(s, o.Config); err != nil {
		return nil, err
	}
	dane, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	if m.files, err = m.Include(s, "postseal.m4", sendmailfiles.Files); err != nil {
		return nil, err
	}
	if err := m.needs(dane); err != nil {
		return nil, err
	}
	daemon, err := m.daemon.Change()
	if err != nil {
		return nil, err
	}
	m.Change(daemon)
	return m.Plan, m.place(dane)
}

var (
	sendmailVersion = regexp.MustCompile(`(?m)^Version (8\.(\d+)\S*)`)
	comment         = regexp.MustCompile(`#.*`) // of a file of names (cf/README: FEATURE(use_cw_file))
	sendmailName    = regexp.MustCompile(`(?m)\$j = (\S+\.\S+)$`)
)

// look asks Sendmail what it was built with, and whether it can do DANE.
func (m *planner) look(ctx context.Context) (dane bool, err error) {
	out, err := m.Output(ctx, "sendmail", "-d0.13", "-bt")
	version := sendmailVersion.FindStringSubmatch(out)
	if version == nil {
		if err == nil {
			err = fmt.Errorf("the command sendmail is of another mail server")
		}
		return false, setup.Refuse("name its root with --root if it is elsewhere", "there is no Sendmail: %v", err)
	}
	words := strings.Fields(out)
	var missing []string
	for _, word := range []string{"SOCKETMAP", "MILTER", "STARTTLS", "_FFR_MTA_STS", "_FFR_TLS_ALTNAMES"} {
		if !slices.Contains(words, word) {
			missing = append(missing, word)
		}
	}
	if len(missing) > 0 {
		return false, setup.Refuse("Debian's is built with all of them", "this Sendmail %s was built without %s", version[1], strings.Join(missing, ", "))
	}
	if j := sendmailName.FindStringSubmatch(out); j != nil {
		m.name = j[1]
	}
	m.Saw("Sendmail %s with all that is needed", version[1])
	if !slices.Contains(words, "DANE") {
		m.Saw("built without DANE, which came with 8.18: postseal does it (host.dane = false)")
		return false, nil
	}
	// Sendmail asks the resolver itself and reads AD, with trust-ad or without.
	return m.DANE(ctx, m.System, m.daemon.Config, m.options, false)
}

// needs is what the daemon must do.
func (m *planner) needs(dane bool) error {
	m.daemon.Need(sidecar.Key{Table: "host", Name: "dane", Value: dane, Must: true, Why: "whether Sendmail can do DANE itself"})
	m.daemon.Need(sidecar.Key{Table: "milter", Name: "route", Value: "recipient", Must: true, Why: "Sendmail routes by suffixes of recipients"})
	for _, d := range []struct {
		sidecar.Door
		why string
	}{
		{sidecar.Map, "where Sendmail asks"},
		{sidecar.Milter, "where Sendmail has messages tagged"},
		{sidecar.Delivery, "where Sendmail hands over what it cannot do itself"},
		{sidecar.RequireTLS, "where messages go that require TLS"},
		{sidecar.Relaxed, "where messages go that say TLS-Required: No"},
	} {
		m.daemon.UseTCP(d.Door, d.why)
	}
	text, _, err := m.Lookup(path.Join(m.dir, "local-host-names"))
	if err != nil {
		return err
	}
	local := []string{}
	names := strings.Fields(comment.ReplaceAllString(string(text), ""))
	for _, name := range append(names, m.name) {
		if strings.Contains(name, ".") && !slices.Contains(local, name) {
			local = append(local, name)
		}
	}
	if m.name != "" {
		m.daemon.Need(sidecar.Key{Table: "delivery", Name: "hostname", Value: m.name, Must: true, Why: "the name that Sendmail greets others with"})
	}
	m.daemon.Need(sidecar.Key{Table: "delivery", Name: "local_domains", Value: local, Also: true, Why: "tagged mail to a domain of your own that is missing here bounces"})
	m.daemon.Need(sidecar.Key{Table: "delivery", Name: "local_relay", Value: "tcp:127.0.0.1:" + localPort, Why: "where recipients of your own domains come back to Sendmail"})
	if m.Exists(path.Join(m.dir, "virtusertable")) {
		m.Warn("domains that stand in virtusertable alone must be added to delivery.local_domains by hand: tagged mail to one that is missing bounces")
	}
	if !m.options.TLSRPT {
		return nil
	}
	log := sidecar.FindLog(m.System, "/var/log/mail.log", "/var/log/maillog")
	if log == "" {
		return setup.Refuse("name the log in [[reporting.log]] of postseal.toml", "no log of Sendmail was found")
	}
	m.daemon.CountFrom(m.Plan, config.MailLog{Path: log, Format: "sendmail"})
	return nil
}

var (
	mailerLine   = regexp.MustCompile(`^MAILER\(`)
	mailerHead   = regexp.MustCompile(`^MAILER(\(|_DEFINITIONS)`)
	stsFeature   = regexp.MustCompile("^\\s*FEATURE\\(`?sts'?[,)]")
	tableFeature = regexp.MustCompile("^\\s*FEATURE\\(`?mailertable'?[,)]")
	filterLine   = regexp.MustCompile(`^\s*(INPUT_MAIL_FILTER|MAIL_FILTER)\(`)
	daemonLine   = regexp.MustCompile(`^\s*DAEMON_OPTIONS\(`)
)

// place puts the two includes into sendmail.mc.
func (m *planner) place(dane bool) error {
	c, err := edit.Of(m.System, path.Join(m.dir, "sendmail.mc"))
	if err != nil {
		return err
	}
	if c.New {
		return setup.Refuse("name its folder with --config-dir", "there is no %s; a sendmail.cf that was written by hand is not changed", c.Path)
	}
	lines := edit.Lines(c.Before)
	above, below := m.files+"/postseal.m4", m.files+"/postseal_rules.m4"
	head := edit.LineOf(lines, mailerHead)
	for i, line := range lines {
		if filterLine.MatchString(line) && head >= 0 && i > head {
			m.Warn("%s:%d: a milter that is named below the MAILER lines comes behind postseal's, which must be the last", c.Path, i+1)
		}
	}
	switch {
	case belowMailers(lines) < 0:
		return setup.Refuse("", "%s has no MAILER lines", c.Path)
	case edit.LineOf(lines, stsFeature) >= 0:
		return setup.Refuse("take that line out; the rules of postseal stand in its place", "%s:%d has FEATURE(sts) already", c.Path, edit.LineOf(lines, stsFeature)+1)
	}
	c.Insert([]edit.Block{
		{Text: m.above(lines, dane) + "include(`" + above + "')dnl\n", Mark: above, At: func(l []string) int { return edit.LineOf(l, mailerHead) },
			Why: "policies, the milter, and the way back for local recipients; above the MAILER lines"},
		{Text: "include(`" + below + "')dnl\n", Mark: below, At: belowMailers,
			Why: "the ways into postseal, and the rules for MTA-STS; below the MAILER lines"},
	})
	m.Change(c)
	if m.Exists(path.Join(m.dir, "Makefile")) {
		m.Plan.Reload = [][]string{{"make", "-C", m.dir, "sendmail.cf"}}
	} else {
		m.Plan.Reload = [][]string{{"sh", "-c", "cd " + m.dir + " && m4 sendmail.mc >sendmail.cf.new && mv sendmail.cf.new sendmail.cf"}}
	}
	m.Plan.Reload = append(m.Plan.Reload, []string{"systemctl", "restart", "sendmail"})
	return nil
}

// belowMailers is the place behind the last MAILER line; -1 without one.
func belowMailers(lines []string) int {
	for i, line := range slices.Backward(lines) {
		if mailerLine.MatchString(line) {
			return i + 1
		}
	}
	return -1
}

// above are the definitions before the first include.
func (m *planner) above(lines []string, dane bool) string {
	var b strings.Builder
	define := func(name, value string) {
		b.WriteString("define(`" + name + "', `" + value + "')dnl\n")
	}
	if dane {
		define("confDANE", "true")
	}
	for _, d := range []struct {
		sidecar.Door
		name string
	}{{sidecar.Map, "POSTSEAL_MAP_PORT"}, {sidecar.Milter, "POSTSEAL_MILTER_PORT"}, {sidecar.Delivery, "POSTSEAL_LMTP_PORT"},
		{sidecar.RequireTLS, "POSTSEAL_REQUIRETLS_PORT"}, {sidecar.Relaxed, "POSTSEAL_RELAXED_PORT"}} {
		if port, moved := m.daemon.MovedPort(d.Door); moved {
			define(d.name, port)
		}
	}
	if edit.LineOf(lines, tableFeature) >= 0 {
		m.Saw("a mailertable of your own, which stays: rules ask postseal before it")
		b.WriteString("define(`POSTSEAL_RULE_0')dnl\n")
	}
	if edit.LineOf(lines, daemonLine) < 0 {
		// With ours for local recipients as the only one, port 25 would be closed.
		b.WriteString("DAEMON_OPTIONS(`Name=MTA')dnl\n")
	}
	define("POSTSEAL_LOCAL_PORT", localPort)
	return b.String()
}
