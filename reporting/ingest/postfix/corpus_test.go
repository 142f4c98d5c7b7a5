package postfix_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/postfix"
)

// expected is a line of an expected.jsonl: one session, or the word that there is none.
type expected struct {
	Domain        string   `json:"domain"`
	MXHost        string   `json:"mx_host"`
	IP            string   `json:"ip"`
	Outcome       string   `json:"outcome"`
	ResultType    string   `json:"result_type"`
	LogResultType string   `json:"log_result_type"`
	Also          []string `json:"also_acceptable"`
	Visible       *bool    `json:"log_visible"`
	Sessions      *int     `json:"sessions"`
}

func (e *expected) hidden() bool { return e.Visible != nil && !*e.Visible }

// fits reports whether the log may tell of the row by s. Where the truth is worse than
// the log can show, success does.
func (e *expected) fits(s *reporting.Session) bool {
	if s.Domain != strings.ToLower(e.Domain) || s.MXHost != strings.ToLower(e.MXHost) {
		return false
	}
	if s.MXIP.IsValid() && s.MXIP.String() != e.IP {
		return false // a host that was not contacted has none
	}
	if !s.Failed() {
		return e.Outcome == "success" || e.hidden()
	}
	types := append([]string{e.ResultType, e.LogResultType}, e.Also...)
	return e.Outcome == "failure" && slices.Contains(types, string(s.Result))
}

func expectedOf(t testing.TB, path string) (rows []expected) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var e expected
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if e.Sessions == nil {
			rows = append(rows, e)
		}
	}
	return rows
}

// compare holds sessions against what was expected: nothing missed, nothing invented.
// Rows that show the truth directly are taken before those that hide it.
func compare(t testing.TB, rows []expected, sessions []reporting.Session) {
	t.Helper()
	taken := make([]bool, len(rows))
	for _, s := range sessions {
		found := false
		for _, hidden := range []bool{false, true} {
			for i := range rows {
				if !found && !taken[i] && rows[i].hidden() == hidden && rows[i].fits(&s) {
					taken[i], found = true, true
				}
			}
		}
		if !found {
			t.Errorf("invented: %s", short(s))
		}
	}
	for i := range rows {
		if !taken[i] && !rows[i].hidden() {
			t.Errorf("missed: %s %s[%s] %s %s", rows[i].Domain, rows[i].MXHost, rows[i].IP, rows[i].Outcome, rows[i].ResultType)
		}
	}
}

func short(s reporting.Session) string {
	return fmt.Sprintf("%s %s[%s] %q %q", s.Domain, s.MXHost, s.MXIP, s.Result, s.Reason)
}

// recordedOn is when the logs were recorded.
var recordedOn = time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)

// replayed gives the sessions of a log of Postfix.
func replayed(t testing.TB, log []byte) (sessions []reporting.Session, stats maillog.Stats) {
	t.Helper()
	r := postfix.New(maillogtest.Options())
	emit := func(s reporting.Session) { sessions = append(sessions, s) }
	replayLines(log, r, emit)
	r.Flush(emit)
	return sessions, r.Stats()
}

// postfixLogs calls test with each log below testdata, and what is expected of it.
func postfixLogs(t *testing.T, test func(t *testing.T, log []byte, rows []expected)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.expected.jsonl")
	if err != nil || len(files) < 39 {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	for _, file := range files {
		rows := expectedOf(t, file)
		logs, err := filepath.Glob(strings.TrimSuffix(file, ".expected.jsonl") + ".*log")
		if err != nil || len(logs) == 0 {
			t.Fatalf("%s: no log: %v", file, err)
		}
		for _, name := range logs {
			log, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(strings.TrimPrefix(name, "testdata/"), func(t *testing.T) { test(t, log, rows) })
		}
	}
}

func TestCorpus(t *testing.T) {
	postfixLogs(t, func(t *testing.T, log []byte, rows []expected) {
		sessions, stats := replayed(t, log)
		compare(t, rows, sessions)
		if stats.Unparsed+stats.Oversize+stats.Dropped > 0 || stats.Open > 0 {
			t.Errorf("left over: %+v", stats)
		}
		for _, s := range sessions {
			if recordedOn.Sub(s.Time).Abs() > 24*time.Hour {
				t.Errorf("%s at %s", short(s), s.Time)
			}
		}
	})
}

// replayLines reads a part of a log.
func replayLines(log []byte, r maillog.Reader, emit func(reporting.Session)) {
	for line := range bytes.Lines(log) {
		r.Line(bytes.TrimSuffix(line, []byte{'\n'}), emit)
	}
}
