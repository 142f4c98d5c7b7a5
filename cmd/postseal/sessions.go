package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy"
	"postseal/reporting"
)

func sessionsCommand() *cli.Command {
	return &cli.Command{
		Name:  "sessions",
		Usage: "show the TLS sessions of a day, by domain and policy, and why some failed",
		Description: `Days are those of UTC, as reports have them. What is marked late became known after
the day was closed; what is marked unverified went to a domain with a policy in mode
testing, through a host that nobody has verified. Neither is in a report.

With --json one object a line; "count" sessions are alike.

  postseal sessions
  postseal sessions --day 2026-11-28 --domain example.org
  postseal sessions --json | jq -r 'select(.outcome == "failure").domain' | sort -u`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "day", Usage: "`DAY`, as 2026-11-28 (default: today, in UTC)"},
			&cli.StringFlag{Name: "domain", Usage: "`DOMAIN` of the recipients, or next hop (default: all)"},
			jsonFlag(),
		},
		HideHelpCommand: true,
		Action:          sessions,
	}
}

func sessions(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	now := time.Now()
	day, err := dayOr(c, now, reporting.DayOf(now))
	if err != nil {
		return err
	}
	domain := c.String("domain")
	if c.IsSet("domain") {
		if _, ok := policy.AppendName(nil, []byte(domain)); !ok {
			return usage("", "option --domain: %w", control.NotDestination(domain))
		}
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return sessionLines(c, client, day, domain)
	}
	t := &sessionTable{w: c.App.Writer}
	end, err := client.Sessions(c.Context, day, domain, t.add)
	if err != nil {
		return noDaemon(err)
	}
	return t.end(end)
}

// sessionLines prints JSON; what is to be said of the whole day goes to standard error.
func sessionLines(c *cli.Context, client *control.Client, day, domain string) error {
	enc := json.NewEncoder(c.App.Writer)
	enc.SetEscapeHTML(false)
	end, err := client.Sessions(c.Context, day, domain, func(s control.Sessions) error {
		s.Policy = ""
		return enc.Encode(s)
	})
	if err != nil {
		return noDaemon(err)
	}
	for _, text := range bounds(end) {
		fmt.Fprintf(c.App.ErrWriter, "postseal: %s\n", text)
	}
	return nil
}

// dayOr is the day that was asked for, else def, as "2026-11-28".
func dayOr(c *cli.Context, now time.Time, def reporting.Day) (string, error) {
	today := reporting.DayOf(now)
	if !c.IsSet("day") {
		return def.String(), nil
	}
	day, err := reporting.ParseDay(c.String("day"))
	switch {
	case err != nil:
		return "", usage("a day is written as "+today.String(), "option --day: %w", control.NotDay(c.String("day")))
	case day > today:
		return "", usage("in UTC today is "+today.String(), "option --day: %s lies in the future", day)
	}
	return day.String(), nil
}

// bounds says what a day's counts lack.
func bounds(d control.Day) (texts []string) {
	for _, t := range []struct {
		n    uint64
		text string
	}{
		{d.Merged, "%d sessions are counted without their details, being of too many kinds"},
		{d.Dropped, "%d sessions are not counted, there being too many domains"},
		{d.Lost, "%d sessions of any day are lost since the daemon started: the disk did not take them in time"},
	} {
		if t.n > 0 {
			texts = append(texts, fmt.Sprintf(t.text, t.n))
		}
	}
	return texts
}

const (
	sessionRow    = "%-44s %-16s %12s %12s\n"
	sessionDetail = "  %10d  %s\n"
	// maxDetailLines of a domain and policy are shown; --json has all.
	maxDetailLines = 50
)

// sessionTable prints sessions as they come, those of one domain and policy together.
type sessionTable struct {
	w      io.Writer
	at     control.Sessions // Domain, PolicyType and Policy alone
	titled bool

	succeeded, failed uint64 // in the report
	details           []detail
	index             map[string]int

	domains                 uint64
	last                    string
	allSucceeded, allFailed uint64
	late, unverified        uint64
}

type detail struct {
	text string
	n    uint64
}

func (t *sessionTable) add(s control.Sessions) error {
	at := control.Sessions{Outcome: control.Outcome{Domain: s.Domain, PolicyType: s.PolicyType}, Policy: s.Policy}
	if at != t.at {
		if err := t.flush(); err != nil {
			return err
		}
		t.at, t.index = at, map[string]int{}
	}
	switch {
	case s.Standing == reporting.Late.String():
		t.late += s.Count
	case s.Standing == reporting.Unverified.String():
		t.unverified += s.Count
	case s.Outcome.Outcome == "failure":
		t.failed += s.Count
	default:
		t.succeeded += s.Count
		return nil
	}
	text := describeSessions(s)
	i, known := t.index[text]
	if !known {
		i = len(t.details)
		t.index[text] = i
		t.details = append(t.details, detail{text: text})
	}
	t.details[i].n += s.Count
	return nil
}

// describeSessions says in a line why sessions are no successes in the report.
func describeSessions(s control.Sessions) string {
	var words []string
	switch {
	case s.ResultType != "":
		words = append(words, s.ResultType)
	case s.Standing == reporting.Late.String():
		words = append(words, "success")
	}
	if s.Standing != reporting.Reported.String() {
		words = append([]string{strings.ToUpper(s.Standing)}, words...)
	}
	if s.Reason != "" {
		words = append(words, "("+s.Reason+")")
	}
	switch {
	case s.IP != "":
		words = append(words, strings.TrimSpace(s.MXHost+"["+s.IP+"]"))
	case s.MXHost != "":
		words = append(words, s.MXHost)
	}
	return strings.Join(append(words, "by "+s.Source), " ")
}

// flush prints what is known of one domain and policy.
func (t *sessionTable) flush() error {
	if t.at.Domain == "" {
		return nil
	}
	var b bytes.Buffer
	if !t.titled {
		t.titled = true
		fmt.Fprintf(&b, sessionRow, "DOMAIN", "POLICY", "SUCCEEDED", "FAILED")
	}
	kind := t.at.PolicyType
	if kind == "" {
		kind = "unknown"
	}
	if t.last != t.at.Domain {
		t.last = t.at.Domain
		t.domains++
	}
	fmt.Fprintf(&b, sessionRow, printable(t.at.Domain), printable(kind), fmt.Sprint(t.succeeded), fmt.Sprint(t.failed))
	for i, d := range t.details {
		if i == maxDetailLines-1 && len(t.details) > maxDetailLines {
			fmt.Fprintf(&b, "  ... and %d lines more, see --json\n", len(t.details)-i)
			break
		}
		fmt.Fprintf(&b, sessionDetail, d.n, printable(d.text))
	}
	t.allSucceeded += t.succeeded
	t.allFailed += t.failed
	t.succeeded, t.failed, t.details = 0, 0, t.details[:0]
	_, err := t.w.Write(b.Bytes())
	return err
}

// end prints the last domain, and what is to be said of the day.
func (t *sessionTable) end(d control.Day) error {
	if err := t.flush(); err != nil {
		return err
	}
	if t.titled {
		fmt.Fprintln(t.w)
	}
	state := "not closed yet"
	if d.Closed {
		state = "closed"
	}
	b := &sheet{}
	b.line(d.Day, fmt.Sprintf("(UTC, %s) domains: %d, sessions succeeded: %d, failed: %d", state, t.domains, t.allSucceeded, t.allFailed), 1)
	if t.late > 0 {
		b.line("late", fmt.Sprintf("%d sessions became known after the day was closed, and are in no report", t.late), 2)
	}
	if t.unverified > 0 {
		b.line("unverified", fmt.Sprintf("%d sessions under a policy in mode testing, with hosts that nobody has verified; they are in no report", t.unverified), 2)
	}
	for _, text := range bounds(d) {
		b.line("bounds", text, 2)
	}
	_, err := t.w.Write(b.Bytes())
	return err
}
