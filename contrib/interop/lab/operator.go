package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// explain: one screen for a person, and JSON for programs.
func (l *lab) explain(ctx context.Context) error {
	s := byName("both-partial")
	if _, err := l.daemon.ask("postfix", s.domain()); err != nil {
		return err
	}
	text, err := l.daemon.command(ctx, "explain", s.domain())
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "\n$ postseal explain %s\n%s\n", s.domain(), text)
	lines := strings.Count(text, "\n")
	l.expect("explain", "one screen", fmt.Sprintf("%d lines", lines), lines > 10 && lines <= 60)
	unfolded := strings.Join(strings.Fields(text), " ")
	for _, part := range []string{
		`MX {D}: [^()]*mx1\.{D}\.[^()]* \(secure, ttl \w+\)`, `A mx1\.{D}: [0-9.]+ \(secure`, `TLSA _25\._tcp\.mx1\.{D}: 3 1 1 [0-9a-f]{64} \(secure`,
		`TXT _mta-sts\.{D}: "v=STSv1; id=1;"`, `policy mode enforce`, `postseal lab CA`, `by the rule: DANE partial, STS enforce`,
		`postfix OK secure match=`,
	} {
		pattern := regexp.MustCompile(strings.ReplaceAll(part, "{D}", regexp.QuoteMeta(s.domain())))
		l.expect("explain", "shows "+part, pattern.FindString(unfolded), pattern.MatchString(unfolded))
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
		l.expectNo(err, "cache", verb+" fetches the policy anew")
	}
	return nil
}

// exempted: the operator lets mail to a domain with a broken certificate go.
func (l *lab) exempted(ctx context.Context) error {
	s := byName("exempted")
	sent, err := l.deliver(ctx, "exempted", s, s.want)
	if err != nil {
		return err
	}
	if _, err := l.daemon.command(ctx, "override", "set", s.domain(), "exempt", "--reason", "lab"); err != nil {
		return err
	}
	l.redeliver(ctx, "exempted", "override exempt", sent, sentOver("Untrusted"))
	return nil
}

// required: the operator requires TLS for a domain that publishes nothing, and
// later no more.
func (l *lab) required(ctx context.Context) error {
	s := byName("required")
	if _, err := l.daemon.command(ctx, "override", "set", s.domain(), "require", "--level", "encrypt"); err != nil {
		return err
	}
	sent, err := l.deliver(ctx, "required", s, refused("TLS is required, but was not offered"))
	if err != nil {
		return err
	}
	if _, err := l.daemon.command(ctx, "override", "remove", s.domain()); err != nil {
		return err
	}
	l.redeliver(ctx, "required", "override removed", sent, sentOver("plaintext"))
	return nil
}

// doors: the same decision in the words of every mail server.
func (l *lab) doors(ctx context.Context) error {
	sts, dane, none := byName("sts"), byName("dane"), byName("none")
	secure := sts.fill("OK secure match=mx1.{D} servername=hostname")
	for _, c := range []struct {
		mapName string
		of      scenario
		want    string // regular expression
	}{
		{"sts", sts, "^" + secure + "$"},
		{"sts", dane, "^NOTFOUND $"},
		{"QUERY", sts, "^" + secure},
		{"QUERYwithTLSRPT", sts, "^" + secure + " policy_type=sts"},
		{"QUERY", dane, "^OK dane-only"},
		{"transport", sts, "^NOTFOUND $"},
		{"mailertable", sts, "^NOTFOUND $"},
		{"nonsense", sts, "^TEMP "},
	} {
		reply, err := l.daemon.ask(c.mapName, c.of.domain())
		if err != nil {
			return err
		}
		l.expect("doors", c.mapName+" "+c.of.domain()+": "+c.want, reply, regexp.MustCompile(c.want).MatchString(reply))
	}
	for s, want := range map[*scenario]string{&sts: "^v=1 mode=enforce ignore=", &dane: "^v=1 mode=none", &none: "^v=1 mode=none"} {
		reply, err := l.daemon.askExim("policy  " + s.domain())
		if err != nil {
			return err
		}
		l.expect("doors", "Exim "+s.domain()+": "+want, reply, regexp.MustCompile(want).MatchString(reply))
	}
	return nil
}
