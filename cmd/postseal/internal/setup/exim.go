package setup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"postseal/cmd/postseal/internal/config"
	eximfiles "postseal/contrib/exim"
)

// exim is what is known of the Exim at hand while a plan is made.
type exim struct {
	*System
	*Plan
	options Options
	daemon  *daemonFile

	dir    string // of Debian's configuration
	config string // the file that Exim reads
	files  string // folder of what is included
	gnutls bool
	events bool
	split  bool
}

// Exim makes the plan for Exim. Debian's split and single-file configurations are
// changed; for any other the plan says what goes where.
func (s *System) Exim(ctx context.Context, o Options) (*Plan, error) {
	e := &exim{System: s, Plan: &Plan{MTA: "exim"}, options: o}
	var err error
	if e.daemon, err = s.daemonFile(o.Config); err != nil {
		return nil, err
	}
	dane, err := e.look(ctx)
	if err != nil {
		return nil, err
	}
	if e.files, err = s.included(e.Plan, "exim", "main", eximfiles.Files); err != nil {
		return nil, err
	}
	e.doors(dane)
	if err := e.sessions(); err != nil {
		return nil, err
	}
	daemon, err := e.daemon.edit()
	if err != nil {
		return nil, err
	}
	e.change(daemon)
	return e.Plan, e.place()
}

var (
	eximVersion  = regexp.MustCompile(`(?m)^Exim version (\d+)\.(\d+)\S*`)
	eximSupport  = regexp.MustCompile(`(?m)^Support for: (.*)$`)
	eximConfig   = regexp.MustCompile(`(?m)^Configuration file is (\S+)`)
	eximHostname = regexp.MustCompile(`(?m)^primary_hostname = (\S+\.\S+)$`)
)

// look asks Exim what it can do, and whether it can do DANE.
func (e *exim) look(ctx context.Context) (dane bool, err error) {
	out, err := e.ask(ctx, "-bV")
	version := eximVersion.FindStringSubmatch(out)
	if version == nil {
		if err == nil {
			err = errors.New("it does not say its version")
		}
		return false, refuse("name its root with --root if it is elsewhere", "there is no Exim: %v", err)
	}
	var number [2]int
	if _, err := fmt.Sscan(version[1]+" "+version[2], &number[0], &number[1]); err != nil {
		return false, err
	}
	support := ""
	if m := eximSupport.FindStringSubmatch(out); m != nil {
		support = " " + m[1] + " "
	}
	if m := eximConfig.FindStringSubmatch(out); m != nil {
		e.config = m[1]
	}
	e.gnutls, e.events = strings.Contains(support, " GnuTLS "), strings.Contains(support, " Event ")
	openssl := strings.Contains(support, " OpenSSL ")
	if number[0] < 4 || number[0] == 4 && number[1] < 96 { // the oldest that the lab runs
		return false, refuse("", "Exim %s.%s is too old: 4.96 is the oldest that contrib/exim was tried with", version[1], version[2])
	}
	if !e.gnutls && !openssl {
		return false, refuse("", "this Exim was built without TLS")
	}
	e.found("%s", version[0])
	if e.gnutls {
		e.found("TLS by GnuTLS: TLS 1.0 and 1.1 are switched off by POSTSEAL_CIPHERS; without events the log does not tell why a certificate failed")
	} else {
		e.found("TLS by OpenSSL: mail to domains whose TLSA records are all unusable goes out through postseal, since this Exim may crash on them")
	}
	if out, err := e.ask(ctx, "-bP", "primary_hostname"); err == nil {
		if m := eximHostname.FindStringSubmatch(out); m != nil {
			e.daemon.need(key{table: "delivery", name: "hostname", value: m[1], must: true, why: "the name that Exim greets others with"})
		}
	}
	if !strings.Contains(support, " DANE ") {
		e.found("built without DANE: postseal does it (host.dane = false)")
		return false, nil
	}
	return e.dane(ctx, e.Plan, e.options.DANE, true)
}

// ask runs Exim, which Debian calls exim4.
func (e *exim) ask(ctx context.Context, args ...string) (string, error) {
	out, err := e.run(ctx, append([]string{"exim4"}, args...)...)
	if errors.Is(err, errNoProgram) {
		out, err = e.run(ctx, append([]string{"exim"}, args...)...)
	}
	return out, err
}

// doors has the daemon listen where contrib/exim connects to.
func (e *exim) doors(dane bool) {
	e.daemon.need(key{table: "host", name: "dane", value: dane, must: true, why: "whether Exim can do DANE itself"})
	for _, d := range []struct {
		door
		why string
	}{
		{eximDoor, "where Exim asks"},
		{deliveryDoor, "where Exim hands over what it cannot do itself"},
		{requireTLSDoor, "where messages go that require TLS"},
		{relaxedDoor, "where messages go that say TLS-Required: No"},
	} {
		e.daemon.use(d.door, "tcp:"+d.tcp(e.daemon.config), d.why)
	}
}

// sessions chooses where it becomes known how sessions went.
func (e *exim) sessions() error {
	if !e.options.TLSRPT {
		return nil
	}
	name := e.log("/var/log/exim4/mainlog", "/var/log/exim/mainlog", "/var/log/exim/main.log", "/var/spool/exim/log/mainlog")
	switch {
	case name == config.Journal:
		name = "" // Exim writes its own log
	case name != "" && !e.options.Direct:
		e.countFrom(e.Plan, e.daemon, config.MailLog{Path: name, Format: "exim"})
		return nil
	}
	if !e.events {
		return refuse("name the log in [[reporting.log]] of postseal.toml", "this Exim was built without events, and no log was found")
	}
	e.options.Direct = true
	e.daemon.need(key{table: "reporting", name: "exim_events", value: true, why: "Exim's events are the sessions that are counted"})
	if name != "" {
		e.countFrom(e.Plan, e.daemon, config.MailLog{Path: name, Format: "exim", Sessions: "missing"})
	}
	return nil
}

// macros are what stands above the file main.
func (e *exim) macros() string {
	var b strings.Builder
	b.WriteString("# By postseal setup exim; what these do is explained in " + e.files + "/main.\n")
	if e.files != path.Join(packaged, "exim") {
		b.WriteString("POSTSEAL_FILES = " + e.files + "\n")
	}
	c := e.daemon.config
	for _, m := range []struct {
		door
		macro, prefix string
	}{{eximDoor, "POSTSEAL_LINE", "inet:127.0.0.1:"}, {deliveryDoor, "POSTSEAL_PORT_NORMAL", ""},
		{requireTLSDoor, "POSTSEAL_PORT_REQUIRETLS", ""}, {relaxedDoor, "POSTSEAL_PORT_RELAXED", ""}} {
		if _, port, ok := strings.Cut(m.tcp(c), "127.0.0.1:"); ok && port != m.port {
			b.WriteString(m.macro + " = " + m.prefix + port + "\n")
		}
	}
	if e.gnutls {
		b.WriteString("POSTSEAL_CIPHERS = NORMAL:-VERS-TLS1.0:-VERS-TLS1.1\n")
	}
	if e.options.TLSRPT && e.options.Direct {
		b.WriteString("POSTSEAL_EVENTS = yes\n")
	}
	return b.String() + ".include " + e.files + "/main\nCHECK_DATA_LOCAL_ACL_FILE = " + e.files + "/acl_data\n"
}

// include is the line for one file.
func (e *exim) include(name string) string { return ".include " + e.files + "/" + name + "\n" }

// place puts the includes into Exim's configuration.
func (e *exim) place() error {
	e.dir = e.options.Dir
	if e.dir == "" {
		e.dir = "/etc/exim4"
	}
	debian, exists, err := e.read(path.Join(e.dir, "update-exim4.conf.conf"))
	if err != nil {
		return err
	}
	if !exists || e.exists(path.Join(e.dir, "exim4.conf")) { // which Debian reads in place of its own
		return e.monolith()
	}
	e.Plan.Reload = [][]string{{"update-exim4.conf"}, {"systemctl", "reload", "exim4"}}
	e.After = append(e.After, "exim4 -bt postmaster@DOMAIN   # names the router that mail to DOMAIN takes")
	answers := debianAnswers(string(debian))
	if kind := answers["dc_eximconfig_configtype"]; kind != "internet" {
		return refuse("dpkg-reconfigure exim4-config, to change that",
			"Exim is set up as %q (dc_eximconfig_configtype), not to deliver to other hosts itself (internet)", kind)
	}
	e.split = answers["dc_use_split_config"] == "true"
	if e.split {
		return e.debianSplit()
	}
	return e.debianSingle()
}

var debianAnswer = regexp.MustCompile(`(?m)^(dc_\w+)='?([^'\n]*)'?$`)

func debianAnswers(text string) map[string]string {
	all := map[string]string{}
	for _, m := range debianAnswer.FindAllStringSubmatch(text, -1) {
		all[m[1]] = m[2]
	}
	return all
}
