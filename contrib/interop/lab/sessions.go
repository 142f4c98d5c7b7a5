package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// counts are sessions by what is alike in them: domain, MX host, policy, outcome and
// who counted.
type counts map[string]int

// counted is one line of "postseal sessions --json".
type counted struct {
	Domain     string `json:"domain"`
	MXHost     string `json:"mx_host"`
	ResultType string `json:"result_type"`
	Reason     string `json:"reason"`
	PolicyType string `json:"policy_type"`
	Count      int    `json:"count"`
	Source     string `json:"source"`
	Standing   string `json:"standing"`
}

// String names the kind of a session. Reasons are worded by each mail server as it
// likes; only ours are compared.
func (c counted) String() string {
	result := c.ResultType
	if result == "" {
		result = "success"
	}
	switch {
	case c.Reason == "mx-not-in-policy":
		result += "/" + c.Reason
	case strings.HasPrefix(c.Reason, "probe:"):
		result += "/probe"
	}
	if c.Standing != "reported" {
		result = c.Standing
	}
	return fmt.Sprintf("%s %s %s %s by %s", c.Domain, c.MXHost, c.PolicyType, result, c.Source)
}

// sessions asks the daemon for all that it has counted, on whatever days.
func (d *daemon) sessions(ctx context.Context) (counts, error) {
	return sessionsBy(func(args ...string) (string, error) { return d.command(ctx, args...) })
}

// sessionsBy is sessions, by a function that runs the program.
func sessionsBy(postseal func(args ...string) (string, error)) (counts, error) {
	all := counts{}
	now := time.Now().UTC()
	days := map[string]bool{now.Format(time.DateOnly): true, now.Add(-time.Hour).Format(time.DateOnly): true}
	for day := range days {
		text, err := postseal("sessions", "--json", "--day", day)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			var c counted
			if err := json.Unmarshal([]byte(line), &c); err != nil {
				return nil, fmt.Errorf("sessions --json: %w: %s", err, line)
			}
			all[c.String()] += c.Count
		}
	}
	return all, nil
}

// total is how many sessions there are.
func (c counts) total() (n int) {
	for _, k := range c {
		n += k
	}
	return n
}

// differs says what is missing and what is too much, compared with what was wanted.
func (c counts) differs(want counts) (problems []string) {
	both := maps.Clone(want)
	maps.Copy(both, c)
	for _, kind := range slices.Sorted(maps.Keys(both)) {
		if c[kind] != want[kind] {
			problems = append(problems, fmt.Sprintf("%d instead of %d: %s", c[kind], want[kind], kind))
		}
	}
	return problems
}

// print writes the table of what was counted.
func (c counts) print(title string) {
	fmt.Printf("\n  %s\n", title)
	for _, kind := range slices.Sorted(maps.Keys(c)) {
		fmt.Printf("  %4d  %s\n", c[kind], kind)
	}
	fmt.Println()
}

// expected reads a table of kinds: scenario, number of the MX host, policy type and
// outcome, in words, one a line; a number in front of the line is the count if it is
// not 1. All are counted by one source.
func expected(source, table string) counts {
	all := counts{}
	for line := range strings.Lines(table) {
		n := 1
		word := strings.Fields(line)
		if len(word) == 0 {
			continue
		}
		if _, err := fmt.Sscanf(word[0], "%d", &n); err == nil {
			word = word[1:]
		}
		s := byName(word[0])
		host := ""
		if word[1] != "-" {
			host = s.host(int(word[1][len("mx")] - '1'))
		}
		all[fmt.Sprintf("%s %s %s %s by %s", s.domain(), host, word[2], word[3], source)] += n
	}
	return all
}

// plus puts several expectations together.
func plus(all ...counts) counts {
	sum := counts{}
	for _, c := range all {
		for kind, n := range c {
			sum[kind] += n
		}
	}
	return sum
}

// without leaves out what is expected of some scenarios.
func (c counts) without(names ...string) counts {
	rest := maps.Clone(c)
	maps.DeleteFunc(rest, func(kind string, _ int) bool {
		domain, _, _ := strings.Cut(kind, " ")
		name, _, _ := strings.Cut(domain, ".")
		return slices.Contains(names, name)
	})
	return rest
}

// withoutHosts is what is known where successes come without the MX host.
func (c counts) withoutHosts() counts {
	rest := counts{}
	for kind, n := range c {
		if word := strings.Split(kind, " "); word[3] == "success" {
			word[1] = ""
			kind = strings.Join(word, " ")
		}
		rest[kind] += n
	}
	return rest
}

// settled is how long counts must stay as they are: a log is looked at once a second,
// and a file that was renamed is kept for some seconds more.
const settled = 4 * time.Second

// await waits until the daemon has counted what was wanted, and then whether more
// comes. It returns what was counted in the end.
func (d *daemon) await(ctx context.Context, want counts) (counts, error) {
	bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	until(bounded, func() error { // what is still missing then is found below
		got, err := d.sessions(ctx)
		if err == nil && got.differs(want) != nil {
			err = errors.New("not yet")
		}
		return err
	})
	select {
	case <-ctx.Done():
	case <-time.After(settled):
	}
	return d.sessions(ctx)
}

// compareCounts is one check of all counts, and prints them.
func (l *lab) compareCounts(p *postfix, name, how string, got, want counts) {
	got.print(name + ", " + how)
	l.report.add(p, name, how+fmt.Sprintf(": %d sessions of %d kinds", want.total(), len(want)),
		fmt.Sprintf("%d sessions of %d kinds", got.total(), len(got)), got.differs(want))
}

// The part of the config that a story about reporting puts in, and replaces.
const (
	reportingBegins = "# The story's:\n[reporting]\n"
	reportingEnds   = "# So far.\n"
)

// anew starts the daemon with a config of its own for reporting, and without anything
// that it knew: no counts, no policies. It reads what comes to its logs from then on.
func (d *daemon) anew(ctx context.Context, reporting string) error {
	d.process.stop()
	known, err := filepath.Glob(filepath.Join(d.folder, "state/*.db"))
	if err != nil {
		return err
	}
	for _, path := range known {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(d.config)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), reportingBegins)
	if found {
		_, after, _ := strings.Cut(rest, reportingEnds)
		if err := os.WriteFile(d.config, []byte(before+after), 0o644); err != nil {
			return err
		}
	}
	if err := d.amend("[delivery]\n", reportingBegins+reporting+reportingEnds+"[delivery]\n"); err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	time.Sleep(time.Second) // what is in a log by now is not read
	return nil
}

// aside renames a log, so that its writer begins another one.
func aside(path string) error {
	err := os.Rename(path, filepath.Join(filepath.Dir(path), "earlier-"+filepath.Base(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// logSource is the part of the config that has a log followed.
func logSource(path, format, sessions string) string {
	return fmt.Sprintf("\n[[reporting.log]]\npath = %q\nformat = %q\nsessions = %q\n", path, format, sessions)
}
