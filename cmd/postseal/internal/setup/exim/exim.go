// Package exim plans what Exim 4.96 and later needs so that it asks postseal.
//
// Exim has its configuration in one file of sections, and what is needed stands in files
// of contrib/exim, one for each section: setup adds lines that include them, with a few
// macros above. Debian makes that file from conf.d, or from a template; there the places
// are known by Debian's own file names and markers, before the router for remote domains
// and behind "begin acl". In a configuration that a site wrote itself nothing is changed:
// the plan says what goes where, with the line numbers.
//
// Sources: the Exim specification, on .include, macros and events; update-exim4.conf(8)
// and README.Debian of exim4-config; the heads of the files in contrib/exim.
package exim

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/sidecar"
	eximfiles "postseal/contrib/exim"
)

// planner is what is known of the Exim at hand while a plan is made.
type planner struct {
	*host.System
	*setup.Plan
	options setup.Options
	daemon  *sidecar.File

	dir    string // of Debian's configuration
	config string // the file that Exim reads
	files  string // folder of what is included
	gnutls bool
	events bool
	split  bool
}

// Plan makes the plan for Exim. Debian's split and single-file configurations are
// changed; for any other the plan says what goes where.
func Plan(ctx context.Context, s *host.System, o setup.Options) (*setup.Plan, error) {
	e := &planner{System: s, Plan: &setup.Plan{MTA: "exim"}, options: o}
	var err error
	if e.daemon, err = sidecar.Open(s, o.Config); err != nil {
		return nil, err
	}
	dane, err := e.look(ctx)
	if err != nil {
		return nil, err
	}
	if e.files, err = e.Include(s, "main", eximfiles.Files); err != nil {
		return nil, err
	}
	e.doors(dane)
	if err := e.sessions(); err != nil {
		return nil, err
	}
	daemon, err := e.daemon.Change()
	if err != nil {
		return nil, err
	}
	e.Change(daemon)
	return e.Plan, e.place()
}

var (
	eximVersion  = regexp.MustCompile(`(?m)^Exim version (\d+)\.(\d+)\S*`)
	eximSupport  = regexp.MustCompile(`(?m)^Support for: (.*)$`)
	eximConfig   = regexp.MustCompile(`(?m)^Configuration file is (\S+)`)
	eximHostname = regexp.MustCompile(`(?m)^primary_hostname = (\S+\.\S+)$`)
)

// look asks Exim what it can do, and whether it can do DANE.
func (e *planner) look(ctx context.Context) (dane bool, err error) {
	out, err := e.ask(ctx, "-bV")
	version := eximVersion.FindStringSubmatch(out)
	if version == nil {
		if err == nil {
			err = errors.New("it does not say its version")
		}
		return false, setup.Refuse("name its root with --root if it is elsewhere", "there is no Exim: %v", err)
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
		return false, setup.Refuse("", "Exim %s.%s is too old: 4.96 is the oldest that contrib/exim was tried with", version[1], version[2])
	}
	if !e.gnutls && !openssl {
		return false, setup.Refuse("", "this Exim was built without TLS")
	}
	e.Saw("%s", version[0])
	if e.gnutls {
		e.Saw("TLS by GnuTLS: TLS 1.0 and 1.1 are switched off by POSTSEAL_CIPHERS; without events the log does not tell why a certificate failed")
	} else {
		e.Saw("TLS by OpenSSL: mail to domains whose TLSA records are all unusable goes out through postseal, since this Exim may crash on them")
	}
	if out, err := e.ask(ctx, "-bP", "primary_hostname"); err == nil {
		if m := eximHostname.FindStringSubmatch(out); m != nil {
			e.daemon.Need(sidecar.Key{Table: "delivery", Name: "hostname", Value: m[1], Must: true, Why: "the name that Exim greets others with"})
		}
	}
	if !strings.Contains(support, " DANE ") {
		e.Saw("built without DANE: postseal does it (host.dane = false)")
		return false, nil
	}
	return e.DANE(ctx, e.System, e.daemon.Config, e.options, true)
}

// ask runs Exim, which Debian calls exim4.
func (e *planner) ask(ctx context.Context, args ...string) (string, error) {
	out, err := e.Output(ctx, append([]string{"exim4"}, args...)...)
	if errors.Is(err, host.ErrNoProgram) {
		out, err = e.Output(ctx, append([]string{"exim"}, args...)...)
	}
	return out, err
}

// doors has the daemon listen where contrib/exim connects to.
func (e *planner) doors(dane bool) {
	e.daemon.Need(sidecar.Key{Table: "host", Name: "dane", Value: dane, Must: true, Why: "whether Exim can do DANE itself"})
	for _, d := range []struct {
		sidecar.Door
		why string
	}{
		{sidecar.Exim, "where Exim asks"},
		{sidecar.Delivery, "where Exim hands over what it cannot do itself"},
		{sidecar.RequireTLS, "where messages go that require TLS"},
		{sidecar.Relaxed, "where messages go that say TLS-Required: No"},
	} {
		e.daemon.UseTCP(d.Door, d.why)
	}
}

// sessions chooses where it becomes known how sessions went.
func (e *planner) sessions() error {
	if !e.options.TLSRPT {
		return nil
	}
	name := sidecar.FindLog(e.System, "/var/log/exim4/mainlog", "/var/log/exim/mainlog", "/var/log/exim/main.log", "/var/spool/exim/log/mainlog")
	switch {
	case name == config.Journal:
		name = "" // Exim writes its own log
	case name != "" && !e.options.Direct:
		e.daemon.CountFrom(e.Plan, config.MailLog{Path: name, Format: "exim"})
		return nil
	}
	if !e.events {
		return setup.Refuse("name the log in [[reporting.log]] of postseal.toml", "this Exim was built without events, and no log was found")
	}
	e.options.Direct = true
	e.daemon.Need(sidecar.Key{Table: "reporting", Name: "exim_events", Value: true, Why: "Exim's events are the sessions that are counted"})
	if name != "" {
		e.daemon.CountFrom(e.Plan, config.MailLog{Path: name, Format: "exim", Sessions: "missing"})
	}
	return nil
}

// macros are what stands above the file main.
func (e *planner) macros() string {
	var b strings.Builder
	b.WriteString("# By postseal setup exim; what these do is explained in " + e.files + "/main.\n")
	if e.files != path.Join(setup.Packaged, "exim") {
		b.WriteString("POSTSEAL_FILES = " + e.files + "\n")
	}
	for _, m := range []struct {
		sidecar.Door
		macro, prefix string
	}{{sidecar.Exim, "POSTSEAL_LINE", "inet:127.0.0.1:"}, {sidecar.Delivery, "POSTSEAL_PORT_NORMAL", ""},
		{sidecar.RequireTLS, "POSTSEAL_PORT_REQUIRETLS", ""}, {sidecar.Relaxed, "POSTSEAL_PORT_RELAXED", ""}} {
		if port, moved := e.daemon.MovedPort(m.Door); moved {
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
func (e *planner) include(name string) string { return ".include " + e.files + "/" + name + "\n" }

// place puts the includes into Exim's configuration.
func (e *planner) place() error {
	e.dir = e.options.Dir
	if e.dir == "" {
		e.dir = "/etc/exim4"
	}
	debian, exists, err := e.Lookup(path.Join(e.dir, "update-exim4.conf.conf"))
	if err != nil {
		return err
	}
	if !exists || e.Exists(path.Join(e.dir, "exim4.conf")) { // which Debian reads in place of its own
		return e.monolith()
	}
	e.Plan.Reload = [][]string{{"update-exim4.conf"}, {"systemctl", "reload", "exim4"}}
	e.After = append(e.After, "exim4 -bt postmaster@DOMAIN   # names the router that mail to DOMAIN takes")
	answers := debianAnswers(string(debian))
	if kind := answers["dc_eximconfig_configtype"]; kind != "internet" {
		return setup.Refuse("dpkg-reconfigure exim4-config, to change that",
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
