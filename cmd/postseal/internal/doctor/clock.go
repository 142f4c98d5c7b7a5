package doctor

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// WebClient asks a web server for a page: the https half of an STS fetch.
type WebClient interface {
	Do(*http.Request) (*http.Response, error)
}

const (
	// A report's day and a policy's end are minutes; a DNSSEC signature is refused
	// from the first second outside of its time (RFC 4035 §5.3.1).
	slightSkew = 30 * time.Second
	badSkew    = 5 * time.Minute
)

// checkClock: with a wrong clock DNSSEC signatures and certificates fail that are good,
// or pass that have ended, and reports tell of the wrong day.
func checkClock(ctx context.Context, e *env) []Finding {
	found := []Finding{}
	switch synced, err := e.Machine.Synced(); {
	case err != nil:
		found = append(found, hint("whether the clock is kept right cannot be told: "+err.Error(), "timedatectl status"))
	case !synced:
		found = append(found, warning("nobody keeps the clock right, says the kernel", "apt-get install systemd-timesyncd; timedatectl set-ntp true   (or chrony)"))
	default:
		found = append(found, ok("the clock is kept right"))
	}
	skew, host, err := e.skew(ctx)
	if err != nil {
		return found // the check of the network says so
	}
	text := fmt.Sprintf("the clock differs by %s from that of %s", skew.Abs().Round(time.Second), host)
	switch do := "timedatectl set-ntp true   (or: chronyc makestep)"; {
	case skew.Abs() > badSkew:
		found = append(found, failure(text+": signatures and certificates fail", do))
	case skew.Abs() > slightSkew:
		found = append(found, warning(text, do))
	}
	return found
}

// skew compares with the Date of a policy host.
func (e *env) skew(ctx context.Context) (time.Duration, string, error) {
	var last error
	for _, domain := range e.STSDomains {
		date, err := e.date(ctx, domain)
		if err != nil {
			last = err
			continue
		}
		return e.Machine.Now().Sub(date), "mta-sts." + domain, nil
	}
	return 0, "", last
}

func (e *env) date(ctx context.Context, domain string) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://mta-sts."+strings.TrimSuffix(domain, ".")+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := e.web().Do(req)
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}
