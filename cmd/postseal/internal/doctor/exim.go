package doctor

import (
	"context"
	"errors"
	"strings"
)

// exim is its configuration, as exim -bP prints it.
type exim struct {
	program string
	version string // the first lines of exim -bV
	config  string // as it is in force, with its macros still to be put in
	user    string
}

func readExim(ctx context.Context, m *Machine) (*exim, error) {
	x := &exim{program: "exim"}
	if m.Program("exim4") != "" {
		x.program = "exim4"
	}
	var err error
	if x.version, err = m.Output(ctx, x.program, "-bV"); err != nil {
		return nil, err
	}
	if x.config, err = m.Output(ctx, x.program, "-bP", "config"); err != nil {
		return nil, err
	}
	if !strings.Contains(x.config, "\n") {
		return nil, errors.New("exim prints its configuration to an administrator only")
	}
	text, err := m.Output(ctx, x.program, "-bP", "exim_user")
	if err != nil {
		return nil, err
	}
	_, x.user, _ = strings.Cut(strings.TrimSpace(text), " = ")
	return x, nil
}

// set is the value of an option, anywhere in the configuration, without comments; "" if
// it is not there.
func (x *exim) set(option string) string {
	for line := range strings.Lines(x.config) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && strings.TrimSpace(name) == option {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// asks reports whether the configuration connects to one of our listeners: as
// ${readsocket has it, "inet:host:port" or a path.
func (x *exim) asks(listener string) bool {
	where := strings.Replace(listener, "tcp:", "inet:", 1)
	where = strings.TrimPrefix(where, "unix:")
	return strings.Contains(x.config, where)
}

const includeExim = "include the files of contrib/exim (its file main says where); systemctl restart exim4"

// checkExim looks at whether Exim asks us, at DANE, and at its events.
func checkExim(_ context.Context, e *env) []Finding {
	x := e.exim
	if x == nil {
		return nil
	}
	first, _, _ := strings.Cut(x.version, "\n")
	found := []Finding{ok(strings.TrimSpace(first))}
	listen := e.Config.Exim.Listen
	asked := false
	for _, l := range listen {
		asked = asked || x.asks(l)
	}
	mentioned := strings.Contains(x.config, "${readsocket") && strings.Contains(x.config, "POSTSEAL_LINE")
	switch {
	case len(listen) == 0 && mentioned:
		found = append(found, failure("Exim asks postseal, but exim.listen is not set: all mail waits", `exim.listen = ["tcp:127.0.0.1:8464"]; systemctl restart postseal`))
	case len(listen) == 0:
		found = append(found, failure("Exim does not ask postseal: exim.listen is not set", `exim.listen = ["tcp:127.0.0.1:8464"], and `+includeExim))
	case !asked:
		found = append(found, failure("exim.listen is "+strings.Join(listen, ", ")+", but Exim's configuration does not name it", includeExim))
	}
	found = append(found, e.eximDANE()...)
	found = append(found, e.eximEvents()...)
	if strings.Contains(x.version, "GnuTLS") && x.set("tls_require_ciphers") == "" {
		found = append(found, hint("this Exim was built with GnuTLS, which still takes TLS 1.0 and 1.1 (RFC 9325 §3.1.1 forbids both)", "POSTSEAL_CIPHERS = NORMAL:-VERS-TLS1.0:-VERS-TLS1.1   (above the include of main)"))
	}
	if strings.Contains(x.version, "OpenSSL") && e.Config.Host.DANE && !e.Config.Delivers() {
		found = append(found, hint("this Exim was built with OpenSSL: version 4.96 crashes where no TLSA record is usable, and freezes the message", `delivery.listen = ["tcp:127.0.0.1:8463"]: the fallback takes such mail`))
	}
	return found
}

func (e *env) eximDANE() []Finding {
	x := e.exim
	if !e.Config.Host.DANE {
		return nil
	}
	var found []Finding
	if x.set("hosts_try_dane") == "" && !strings.Contains(x.config, "hosts_require_dane") {
		found = append(found, failure("no transport of Exim has hosts_try_dane: mail to domains with DANE goes unprotected", includeExim+"; or host.dane = false with a delivery.listen"))
	}
	if v := x.set("dns_dnssec_ok"); v == "" || v == "0" || v == "-1" {
		found = append(found, warning("dns_dnssec_ok is not 1: Exim asks for no signatures, and finds no DANE where resolv.conf does not ask for it", "dns_dnssec_ok = 1   (in the main section)"))
	}
	return found
}

func (e *env) eximEvents() []Finding {
	x := e.exim
	acts := strings.Contains(x.config, "event_action") && strings.Contains(x.config, "event n=")
	switch {
	case e.Config.Reporting.EximEvents && !acts:
		return []Finding{failure("reporting.exim_events is true, but no transport of Exim has the event_action: no session is counted", "POSTSEAL_EVENTS = yes   (above the include of main); systemctl restart exim4")}
	case !e.Config.Reporting.EximEvents && acts:
		return []Finding{hint("Exim sends events, but reporting.exim_events is false: they are not counted", "reporting.exim_events = true; or, with the log as source: no POSTSEAL_EVENTS")}
	}
	return nil
}
