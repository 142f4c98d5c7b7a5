package main

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// maillog reads the log that Postfix's postlogd writes.
type maillog struct{ path string }

// delivery is one attempt to deliver to one recipient, as the log tells it.
type delivery struct {
	recipient string
	agent     string // the program: smtp, lmtp, error
	queueID   string
	dsn       string
	status    string // "sent", "deferred", "bounced"
	text      string // in parentheses behind the status
	lines     []string
}

var (
	logLine    = regexp.MustCompile(`postfix/(?:[\w-]+/)?(smtp|lmtp|error)\[(\d+)\]: (.*)`)
	statusLine = regexp.MustCompile(`^([0-9A-Za-z]+): to=<([^>]*)>, .*dsn=([0-9.]+), status=(\w+) \((.*)\)$`)
	tlsLine    = regexp.MustCompile(`(\w+) TLS connection established to`)
)

// attempts returns the attempts to deliver to a recipient, oldest first.
//
// What smtp(8) logs of a TLS session carries no queue id; but one process
// handles one delivery at a time, so the lines of a process up to its line with
// the status belong together.
func (m *maillog) attempts(recipient string) ([]delivery, error) {
	text, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return attempts(string(text), recipient), nil
}

func attempts(log, recipient string) []delivery {
	var found []delivery
	open := map[string][]string{} // lines so far, by process id
	for line := range strings.Lines(log) {
		l := logLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if l == nil {
			continue
		}
		agent, pid, text := l[1], l[2], l[3]
		open[pid] = append(open[pid], text)
		s := statusLine.FindStringSubmatch(text)
		if s == nil {
			continue
		}
		if s[2] == recipient {
			found = append(found, delivery{agent: agent, queueID: s[1], recipient: s[2], dsn: s[3], status: s[4], text: s[5], lines: open[pid]})
		}
		delete(open, pid)
	}
	return found
}

// tls is the log's word for the last TLS session of the attempt: Verified,
// Trusted, Untrusted or Anonymous; "plaintext" if there was none, and
// "fallback" if the daemon delivered, of whose sessions the log knows nothing.
func (d delivery) tls() string {
	if d.agent == "lmtp" {
		return "fallback"
	}
	word := "plaintext"
	for _, line := range d.lines {
		if t := tlsLine.FindStringSubmatch(line); t != nil {
			word = t[1]
		}
	}
	return word
}

// says returns the part of the attempt's lines that the pattern matches.
func (d delivery) says(pattern *regexp.Regexp) (string, bool) {
	for _, line := range d.lines {
		if at := pattern.FindString(line); at != "" {
			return at, true
		}
	}
	return "", false
}
