package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
)

// checkConfiguration repeats what "postseal config check" says.
func checkConfiguration(_ context.Context, e *env) []Finding {
	if e.ConfigErr != nil {
		return []Finding{failure("the configuration cannot be used, and the defaults are looked at: "+e.ConfigErr.Error(), "postseal config check")}
	}
	found := append([]Finding{}, e.notRead...)
	if len(e.MTAs) == 0 {
		found = append(found, hint("no mail server was found on this machine", "name it: postseal doctor --mta postfix"))
	}
	if _, err := e.hostname(); err != nil && (e.Config.Delivers() || e.Config.Records() && e.Config.Reporting.Probe) {
		found = append(found, warning("MX hosts cannot be greeted, neither for mail nor for probes: "+err.Error(), `delivery.hostname = "mail.YOUR.DOMAIN" in `+e.file()))
	}
	for _, listener := range e.Config.Exposed() {
		found = append(found, warning("other machines may reach "+listener+", and it asks nobody who they are", "a unix socket or a loopback address in "+e.file()+", or a firewall"))
	}
	for _, w := range e.Config.Warnings() {
		found = append(found, warning(w, "change "+e.file()+", then: systemctl restart postseal"))
	}
	if len(found) == 0 {
		found = append(found, ok(e.Config.Origin()+" is in order"))
	}
	return found
}

func (e *env) hostname() (string, error) {
	if e.Machine.Name != nil {
		return e.Machine.Name()
	}
	return e.Config.Hostname()
}

// checkDaemon asks the daemon how it is.
func checkDaemon(_ context.Context, e *env) []Finding {
	switch err := e.statusErr; {
	case errors.Is(err, fs.ErrPermission):
		return []Finding{hint("the daemon cannot be asked as this user: "+err.Error(), "sudo postseal doctor")}
	case errors.Is(err, control.ErrNoDaemon):
		return []Finding{failure("the daemon does not run, or has another configuration: "+err.Error(), "systemctl start postseal; journalctl -u postseal -n 20   (or: postseal serve; or name its configuration with --config FILE)")}
	case err != nil:
		return []Finding{failure("the daemon does not answer: "+err.Error(), "systemctl restart postseal; journalctl -u postseal -n 20")}
	}
	s := &e.status
	found := []Finding{ok(fmt.Sprintf("the daemon runs, version %s, process %d, since %s", s.Version, s.PID, s.Started.UTC().Format(time.RFC3339)))}
	if s.Config != e.Config.Origin() {
		found = append(found, warning("the daemon runs with "+s.Config+", but here "+e.Config.Origin()+" is looked at", "postseal doctor --config FILE, the daemon's"))
	}
	if v := s.Validation; !v.On && !v.Never {
		found = append(found, failure("the daemon has DANE switched off: "+v.Reason, "see the findings about the resolver"))
	}
	if s.FailingRefreshes > 0 {
		found = append(found, hint(fmt.Sprintf("%d policies cannot be refreshed: %s", s.FailingRefreshes, strings.Join(s.FailingDomains, " ")), "postseal explain DOMAIN"))
	}
	if s.ExpiredOverrides > 0 {
		found = append(found, hint(fmt.Sprintf("%d overrides have expired", s.ExpiredOverrides), "postseal override list; postseal override remove DOMAIN"))
	}
	if s.ProtocolErrors > 0 {
		found = append(found, hint(fmt.Sprintf("%d requests were not of the socketmap protocol: something else connects", s.ProtocolErrors), "journalctl -u postseal | grep protocol"))
	}
	return found
}

// checkListeners connects to what the daemon should listen at.
func checkListeners(ctx context.Context, e *env) []Finding {
	if e.statusErr != nil {
		return nil // checkDaemon tells
	}
	found := []Finding{}
	answered := 0
	for _, section := range e.Config.Sections() {
		if section.Name == "control" || section.Name == "http" {
			continue
		}
		endpoints, err := section.Listen.Endpoints()
		if err != nil {
			continue // as checked
		}
		for _, at := range endpoints {
			err := e.answers(ctx, section.Name, at)
			switch {
			case err == nil:
				answered++
			case errors.Is(err, fs.ErrPermission):
				found = append(found, hint(fmt.Sprintf("%s %s cannot be tried as this user", section.Key, at), "sudo postseal doctor"))
			default:
				found = append(found, failure(fmt.Sprintf("%s %s does not answer: %s", section.Key, at, reason(err)), "systemctl restart postseal   (the configuration has changed since it was started, or the socket was removed)"))
			}
		}
	}
	if answered > 0 {
		found = append(found, ok(fmt.Sprintf("%d listeners of the daemon answer", answered)))
	}
	return found
}

// answers speaks to a listener as its clients do; where they begin, it connects only.
func (e *env) answers(ctx context.Context, name string, at config.Endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	address := at.Address
	if at.Network == "unix" {
		address = e.Machine.Path(address)
	}
	conn, err := e.Machine.Dial(ctx, at.Network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(dialLimit))
	want := ""
	switch {
	case name == "socketmap":
		fmt.Fprint(conn, "9:postfix .,") // no domain: it costs no lookup
		want = "9:NOTFOUND "
	case strings.HasPrefix(name, "delivery"):
		want = "220 "
	}
	return expect(conn, want)
}

func expect(conn net.Conn, want string) error {
	if want == "" {
		return nil
	}
	got, err := bufio.NewReader(conn).Peek(len(want))
	if err != nil {
		return errors.New("it accepts the connection, but says nothing")
	}
	if string(got) != want {
		return fmt.Errorf("it says %q: another program listens there", got)
	}
	return nil
}
