package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// daemonDown: without the daemon mail waits, and never goes out with less than
// the policy; when the daemon is back it goes.
func (l *lab) daemonDown(ctx context.Context) error {
	s := byName("sts")
	l.daemon.process.stop()
	sent, err := l.deliver(ctx, "daemon-down", s, held(`dsn=4\.7\.5.*client TLS configuration problem`))
	if err != nil {
		return err
	}
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	l.redeliver(ctx, "daemon-down", "daemon back", sent, sentOver("Verified"))
	return nil
}

// durable is how long a policy must have been answered to survive kill -9.
const durable = time.Second

// outage: the daemon is killed and comes back while neither DNS nor any policy
// host can be reached. What it knew is still enforced.
func (l *lab) outage(ctx context.Context) error {
	s, d := byName("sts"), byName("dane")
	if err := l.daemon.awaitAnswer(ctx, "postfix", d.domain(), "OK dane-only"); err != nil {
		return err
	}
	answered := time.Now()
	err := until(ctx, func() error {
		if err := l.daemon.awaitAnswer(ctx, "postfix", s.domain(), "OK secure"); err != nil {
			return err
		}
		if time.Since(answered) <= durable {
			return fmt.Errorf("answered for less than %s", durable)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.daemon.process.kill()
	l.names.stop()
	l.web.stop()
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	for _, p := range l.postfixes {
		l.report.add(p, "outage", "killed, no DNS, no HTTPS: "+s.fill(s.answer), "", l.checkAnswer(s, p))
	}
	reply, err := l.daemon.ask("postfix", d.domain())
	if err != nil {
		return err
	}
	l.expect("outage", "DANE domain meanwhile: TEMP, or dane-only", reply, strings.HasPrefix(reply, "TEMP ") || strings.HasPrefix(reply, "OK dane-only"))

	if err := l.web.start(); err != nil {
		return err
	}
	if err := l.names.start(ctx); err != nil {
		return err
	}
	if _, err := l.deliver(ctx, "outage", s, sentOver("Verified")); err != nil {
		return err
	}
	err = l.daemon.awaitAnswer(ctx, "postfix", d.domain(), "OK dane-only")
	l.expect("outage", "DANE domain when DNS is back: dane-only", fmt.Sprint(err), err == nil)
	return nil
}

// noValidation: a resolver that does not validate is found out by the
// self-test; DANE is switched off and the operator can see it. MTA-STS goes on.
func (l *lab) noValidation(ctx context.Context) error {
	blind, err := newDaemon(l.folder, l.postseal, "daemon-no-validation", notValidating, "127.0.0.2", nil)
	if err != nil {
		return err
	}
	if err := blind.start(ctx); err != nil {
		return err
	}
	defer blind.process.stop()
	off := regexp.MustCompile(`(?im)^.*(DANE|DNSSEC|validation).* off\b.*$`)
	for _, command := range [][]string{{"status"}, {"explain", byName("dane").domain()}} {
		var text string
		err := until(ctx, func() (err error) {
			if text, err = blind.command(ctx, command...); err == nil && !off.MatchString(text) {
				err = fmt.Errorf("DANE is not said to be off in:\n%s", text)
			}
			return err
		})
		seen := strings.TrimSpace(off.FindString(text))
		if err != nil {
			seen = err.Error()
		}
		l.expect("no-validation", command[0]+" says that DANE is off", seen, err == nil)
	}
	for name, want := range map[string]string{"dane": "NOTFOUND", "sts": "OK secure"} {
		err := blind.awaitAnswer(ctx, "postfix", byName(name).domain(), want)
		l.expect("no-validation", byName(name).domain()+": "+want, fmt.Sprint(err), err == nil)
	}
	return nil
}

// explain: one screen for a person, and JSON for programs.
func (l *lab) explain(ctx context.Context) error {
	s := byName("both-partial")
	text, err := l.daemon.command(ctx, "explain", s.domain())
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "\n$ postseal explain %s\n%s\n", s.domain(), text)
	lines := strings.Count(text, "\n")
	l.expect("explain", "one screen", fmt.Sprintf("%d lines", lines), lines > 5 && lines <= 60)
	for _, part := range []string{"mx1." + s.domain(), "mx2." + s.domain(), "_mta-sts." + s.domain(), "_25._tcp", "id=1", "enforce", "postseal lab CA", "secure match="} {
		l.expect("explain", "shows "+part, "it", strings.Contains(text, part))
	}
	text, err = l.daemon.command(ctx, "explain", "--json", s.domain())
	if err != nil {
		return err
	}
	l.expect("explain", "--json is JSON", text[:min(len(text), 40)], json.Valid([]byte(text)))
	text, err = l.daemon.command(ctx, "query", "--map", "postfix", s.domain())
	l.expect("explain", "query --map postfix", text, err == nil && strings.Contains(text, s.fill("secure match=mx1.{D}:mx2.{D} servername=hostname")))
	return nil
}

// cache: the operator looks at what is remembered, and has it fetched again.
func (l *lab) cache(ctx context.Context) error {
	domain := byName("sts").domain()
	if err := l.daemon.awaitAnswer(ctx, "postfix", domain, "OK secure"); err != nil {
		return err
	}
	text, err := l.daemon.command(ctx, "cache", "list")
	l.expect("cache", "list shows "+domain, filepath.Base(domain), err == nil && strings.Contains(text, domain))
	for _, verb := range []string{"refresh", "purge"} {
		before := l.web.fetches(domain)
		if _, err := l.daemon.command(ctx, "cache", verb, domain); err != nil {
			return err
		}
		err := until(ctx, func() error {
			if err := l.daemon.awaitAnswer(ctx, "postfix", domain, "OK secure"); err != nil {
				return err
			}
			if l.web.fetches(domain) == before {
				return fmt.Errorf("%s is not fetched after cache %s", domain, verb)
			}
			return nil
		})
		l.expect("cache", verb+" fetches the policy anew", fmt.Sprint(err), err == nil)
	}
	return nil
}
