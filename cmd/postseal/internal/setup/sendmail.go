package setup

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/config"
	sendmailfiles "postseal/contrib/sendmail"
)

// localPort is where Sendmail takes local recipients of tagged messages back.
const localPort = "8467"

// sendmail is what is known of the Sendmail at hand while a plan is made.
type sendmail struct {
	*System
	*Plan
	options Options
	daemon  *daemonFile
	dir     string
	files   string
	name    string // its own, $j
}

// Sendmail makes the plan for Sendmail that is configured by a sendmail.mc.
func (s *System) Sendmail(ctx context.Context, o Options) (*Plan, error) {
	m := &sendmail{System: s, Plan: &Plan{MTA: "sendmail"}, options: o, dir: o.Dir}
	if m.dir == "" {
		m.dir = "/etc/mail"
	}
	var err error
	if m.daemon, err = s.daemonFile(o.Config); err != nil {
		return nil, err
	}
	dane, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	if m.files, err = s.included(m.Plan, "sendmail", "postseal.m4", sendmailfiles.Files); err != nil {
		return nil, err
	}
	if err := m.needs(dane); err != nil {
		return nil, err
	}
	daemon, err := m.daemon.edit()
	if err != nil {
		return nil, err
	}
	m.change(daemon)
	return m.Plan, m.place(dane)
}

var (
	sendmailVersion = regexp.MustCompile(`(?m)^Version (8\.(\d+)\S*)`)
	comment         = regexp.MustCompile(`#.*`) // of a file of names (cf/README: FEATURE(use_cw_file))
	sendmailName    = regexp.MustCompile(`(?m)\$j = (\S+\.\S+)$`)
)

// look asks Sendmail what it was built with, and whether it can do DANE.
func (m *sendmail) look(ctx context.Context) (dane bool, err error) {
	out, err := m.run(ctx, "sendmail", "-d0.13", "-bt")
	version := sendmailVersion.FindStringSubmatch(out)
	if version == nil {
		if err == nil {
			err = fmt.Errorf("the command sendmail is of another mail server")
		}
		return false, refuse("name its root with --root if it is elsewhere", "there is no Sendmail: %v", err)
	}
	words := strings.Fields(out)
	var missing []string
	for _, word := range []string{"SOCKETMAP", "MILTER", "STARTTLS", "_FFR_MTA_STS", "_FFR_TLS_ALTNAMES"} {
		if !slices.Contains(words, word) {
			missing = append(missing, word)
		}
	}
	if len(missing) > 0 {
		return false, refuse("Debian's is built with all of them", "this Sendmail %s was built without %s", version[1], strings.Join(missing, ", "))
	}
	if j := sendmailName.FindStringSubmatch(out); j != nil {
		m.name = j[1]
	}
	m.found("Sendmail %s with all that is needed", version[1])
	if !slices.Contains(words, "DANE") {
		m.found("built without DANE, which came with 8.18: postseal does it (host.dane = false)")
		return false, nil
	}
	// Sendmail asks the resolver itself and reads AD, with trust-ad or without.
	return m.dane(ctx, m.Plan, m.options.DANE, false)
}

// needs is what the daemon must do.
func (m *sendmail) needs(dane bool) error {
	m.daemon.need(key{table: "host", name: "dane", value: dane, must: true, why: "whether Sendmail can do DANE itself"})
	m.daemon.need(key{table: "milter", name: "route", value: "recipient", must: true, why: "Sendmail routes by suffixes of recipients"})
	for _, d := range []struct {
		door
		why string
	}{
		{mapDoor, "where Sendmail asks"},
		{milterDoor, "where Sendmail has messages tagged"},
		{deliveryDoor, "where Sendmail hands over what it cannot do itself"},
		{requireTLSDoor, "where messages go that require TLS"},
		{relaxedDoor, "where messages go that say TLS-Required: No"},
	} {
		m.daemon.use(d.door, "tcp:"+d.tcp(m.daemon.config), d.why)
	}
	text, _, err := m.read(path.Join(m.dir, "local-host-names"))
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
		m.daemon.need(key{table: "delivery", name: "hostname", value: m.name, must: true, why: "the name that Sendmail greets others with"})
	}
	m.daemon.need(key{table: "delivery", name: "local_domains", value: local, also: true, why: "tagged mail to a domain of your own that is missing here bounces"})
	m.daemon.need(key{table: "delivery", name: "local_relay", value: "tcp:127.0.0.1:" + localPort, why: "where recipients of your own domains come back to Sendmail"})
	if m.exists(path.Join(m.dir, "virtusertable")) {
		m.warn("domains that stand in virtusertable alone must be added to delivery.local_domains by hand: tagged mail to one that is missing bounces")
	}
	if !m.options.TLSRPT {
		return nil
	}
	log := m.log("/var/log/mail.log", "/var/log/maillog")
	if log == "" {
		return refuse("name the log in [[reporting.log]] of postseal.toml", "no log of Sendmail was found")
	}
	m.countFrom(m.Plan, m.daemon, config.MailLog{Path: log, Format: "sendmail"})
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
func (m *sendmail) place(dane bool) error {
	c := Change{Path: path.Join(m.dir, "sendmail.mc")}
	var exists bool
	var err error
	if c.Before, exists, err = m.read(c.Path); err != nil {
		return err
	}
	if !exists {
		return refuse("name its folder with --config-dir", "there is no %s; a sendmail.cf that was written by hand is not changed", c.Path)
	}
	lines := splitLines(c.Before)
	above, below := m.files+"/postseal.m4", m.files+"/postseal_rules.m4"
	head, last := lineOf(lines, mailerHead), -1
	for i, line := range lines {
		if mailerLine.MatchString(line) {
			last = i
		}
		if filterLine.MatchString(line) && head >= 0 && i > head {
			m.warn("%s:%d: a milter that is named below the MAILER lines comes behind postseal's, which must be the last", c.Path, i+1)
		}
	}
	switch {
	case last < 0:
		return refuse("", "%s has no MAILER lines", c.Path)
	case lineOf(lines, stsFeature) >= 0:
		return refuse("take that line out; the rules of postseal stand in its place", "%s:%d has FEATURE(sts) already", c.Path, lineOf(lines, stsFeature)+1)
	}
	insert(&c, []insertion{
		{m.above(lines, dane) + "include(`" + above + "')dnl\n", "policies, the milter, and the way back for local recipients; above the MAILER lines",
			func(l []string) int { return lineOf(l, mailerHead) }, above},
		{"include(`" + below + "')dnl\n", "the ways into postseal, and the rules for MTA-STS; below the MAILER lines", func(l []string) int {
			at := -1
			for i, line := range l {
				if mailerLine.MatchString(line) {
					at = i + 1
				}
			}
			return at
		}, below},
	})
	m.change(c)
	if m.exists(path.Join(m.dir, "Makefile")) {
		m.Plan.Reload = [][]string{{"make", "-C", m.dir, "sendmail.cf"}}
	} else {
		m.Plan.Reload = [][]string{{"sh", "-c", "cd " + m.dir + " && m4 sendmail.mc >sendmail.cf.new && mv sendmail.cf.new sendmail.cf"}}
	}
	m.Plan.Reload = append(m.Plan.Reload, []string{"systemctl", "restart", "sendmail"})
	return nil
}

// above are the definitions before the first include.
func (m *sendmail) above(lines []string, dane bool) string {
	var b strings.Builder
	define := func(name, value string) {
		b.WriteString("define(`" + name + "', `" + value + "')dnl\n")
	}
	if dane {
		define("confDANE", "true")
	}
	c := m.daemon.config
	for _, d := range []struct {
		door
		name string
	}{{mapDoor, "POSTSEAL_MAP_PORT"}, {milterDoor, "POSTSEAL_MILTER_PORT"}, {deliveryDoor, "POSTSEAL_LMTP_PORT"},
		{requireTLSDoor, "POSTSEAL_REQUIRETLS_PORT"}, {relaxedDoor, "POSTSEAL_RELAXED_PORT"}} {
		if _, port, ok := strings.Cut(d.tcp(c), "127.0.0.1:"); ok && port != d.port {
			define(d.name, port)
		}
	}
	if lineOf(lines, tableFeature) >= 0 {
		m.found("a mailertable of your own, which stays: rules ask postseal before it")
		b.WriteString("define(`POSTSEAL_RULE_0')dnl\n")
	}
	if lineOf(lines, daemonLine) < 0 {
		// With ours for local recipients as the only one, port 25 would be closed.
		b.WriteString("DAEMON_OPTIONS(`Name=MTA')dnl\n")
	}
	define("POSTSEAL_LOCAL_PORT", localPort)
	return b.String()
}
