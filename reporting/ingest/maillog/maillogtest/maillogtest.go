// Package maillogtest holds the readers of logs to what all of them owe: another reader goes
// on from the state at any line, what is kept of a line is clean, and the sessions are
// those that the other side has seen.
package maillogtest

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
)

// CompareAddr lets cmp compare addresses.
var CompareAddr = cmpopts.EquateComparable(netip.Addr{})

// Options are those of a reader that lives in UTC, at the end of 2026, and knows OwnID.
func Options() maillog.Options {
	return maillog.Options{
		Location: time.UTC,
		Own:      IsOwn,
		Now:      func() time.Time { return time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC) },
	}
}

// Read gives a log to a reader line by line, and then to another one that gets its
// state at each line: both must tell the same.
func Read[R maillog.Reader](t testing.TB, newReader func(maillog.Options) R, log []byte) ([]reporting.Session, maillog.Stats) {
	t.Helper()
	var got []reporting.Session
	r := newReader(Options())
	for line := range bytes.SplitSeq(log, []byte("\n")) {
		r.Line(line, func(s reporting.Session) { got = append(got, s) })
	}
	r.Flush(func(s reporting.Session) { got = append(got, s) })

	var restarted []reporting.Session
	next := newReader(Options())
	for line := range bytes.SplitSeq(log, []byte("\n")) {
		state := next.AppendState([]byte("before"))[len("before"):]
		next = newReader(Options())
		if err := next.RestoreState(state); err != nil {
			t.Fatal(err)
		}
		if again := next.AppendState(nil); !bytes.Equal(state, again) {
			t.Fatalf("state does not survive: %q, then %q", state, again)
		}
		next.Line(line, func(s reporting.Session) { restarted = append(restarted, s) })
	}
	next.Flush(func(s reporting.Session) { restarted = append(restarted, s) })
	if diff := cmp.Diff(got, restarted, CompareAddr); diff != "" {
		t.Errorf("restarted at each line: %s", diff)
	}
	return got, r.Stats()
}

// InShort is a session in one line.
func InShort(s reporting.Session) string {
	what := s.Domain + " " + s.MXHost
	if s.MXIP.IsValid() {
		what += " " + s.MXIP.String()
	}
	if s.Policy.Type != "" {
		what += " " + string(s.Policy.Type) + ":" + s.Policy.Domain
	}
	if s.Failed() {
		what += " " + string(s.Result)
	}
	if s.Reason != "" {
		what += " (" + s.Reason + ")"
	}
	return what
}

// Told reads a log and returns its sessions in short.
func Told[R maillog.Reader](t *testing.T, newReader func(maillog.Options) R, lines ...string) []string {
	t.Helper()
	sessions, st := Read(t, newReader, []byte(strings.Join(lines, "\n")))
	if st.Sessions != uint64(len(sessions)) || st.Open != 0 {
		t.Errorf("%d sessions, counted %+v", len(sessions), st)
	}
	var got []string
	for _, s := range sessions {
		CheckSession(t, s)
		got = append(got, InShort(s))
	}
	return got
}

// Case is a log, and its sessions in short. It is an alias, so that a literal needs no keys.
type Case = struct {
	Name  string
	Lines []string
	Want  []string
}

// Run holds a reader to cases.
func Run[R maillog.Reader](t *testing.T, newReader func(maillog.Options) R, cases []Case) {
	for _, tt := range cases {
		t.Run(tt.Name, func(t *testing.T) {
			if diff := cmp.Diff(tt.Want, Told(t, newReader, tt.Lines...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// CheckSession holds what is kept of foreign bytes to its bounds.
func CheckSession(t testing.TB, s reporting.Session) {
	t.Helper()
	if s.Domain == "" {
		t.Errorf("session without a domain: %+v", s)
	}
	texts := append([]string{s.Domain, s.MXHost, s.MXHelo, s.Reason, string(s.Result), s.Policy.Domain}, s.Policy.Strings...)
	for _, text := range append(texts, s.Policy.MX...) {
		if len(text) > 1<<10 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("kept %q of %+v", text, s)
		}
	}
	if len(s.Policy.Strings) > 256 || len(s.Policy.MX) > 256 || len(s.Reason) > 120 {
		t.Errorf("kept too much: %+v", s)
	}
}

// Occurs reports whether a domain stands in the input, in whatever form.
func Occurs(domain, input string) bool {
	return strings.Contains(strings.ToLower(input), domain) || strings.Contains(domain, "xn--")
}

// Fuzz holds a reader to what bad input gets: no session for a domain that does not
// stand in the input, and state that survives.
func Fuzz[R maillog.Reader](t *testing.T, newReader func(maillog.Options) R, log []byte) {
	sessions, _ := Read(t, newReader, log)
	for _, s := range sessions {
		CheckSession(t, s)
		if !Occurs(s.Domain, string(log)) {
			t.Errorf("domain %q is not in the input", s.Domain)
		}
	}
}

// Bench reads a file of a log again and again.
func Bench[R maillog.Reader](b *testing.B, newReader func(maillog.Options) R, file string) {
	log, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	lines := bytes.Split(log, []byte("\n"))
	r := newReader(Options())
	b.SetBytes(int64(len(log)))
	discard := func(reporting.Session) {} // one: in a generic function each is allocated
	for b.Loop() {
		for _, line := range lines {
			r.Line(line, discard)
		}
	}
}
