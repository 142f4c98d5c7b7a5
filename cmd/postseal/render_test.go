package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/overrides"
)

// The longest explanation still fits on a screen that a person can read.
func TestExplanationFitsOnAScreen(t *testing.T) {
	long := strings.Repeat("a long reason in many words ", 20)
	x := &control.Explanation{Destination: strings.Repeat("x", 253), Level: "sts", Rule: "DANE partial, STS enforce", Reason: long,
		Made: time.Unix(0, 0), Expires: time.Unix(1e6, 0), Override: &overrides.Rule{Domain: "example.org", Action: "exempt", Reason: long},
		STS: &control.STS{Mode: "enforce", MaxAge: 86400, MX: strings.Fields(strings.Repeat("mx.example.org ", 1000))}}
	x.Validation.Reason = long
	for i := range 100 {
		x.DANE.Hosts = append(x.DANE.Hosts, control.Host{Name: fmt.Sprintf("mx%d.%s.example.org", i, strings.Repeat("y", 60)), State: "usable", TLSA: []string{"3 1 1 " + strings.Repeat("ab", 32), "x"}})
	}
	for i := range 200 {
		topic := "dns"
		if i%40 == 0 {
			topic = "sts"
		}
		x.Steps = append(x.Steps, control.Step{At: float64(i), Topic: topic, Text: long + "\x1b[2J"})
	}
	x.Probed = &control.Probed{}
	for range 20 {
		x.Probed.Answers = append(x.Probed.Answers, control.Probe{Host: "mx.example.org", Address: "192.0.2.1:25", Failure: long})
	}
	for range 3 {
		x.Answers = append(x.Answers, control.Answer{Map: "postfix-tlsrpt", Text: strings.Repeat("z", 100_000)})
	}
	text := string(render(x))
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) > 60 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if len(line) > columns && !strings.HasPrefix(line, "xxx") {
			t.Errorf("%d columns: %s", len(line), line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("blanks at the end of %q", line)
		}
	}
	for _, want := range []string{"... and 97 hosts more, see --json", "... and 13 addresses more, see --json", "lookups more, see --json"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("an escape sequence came through")
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		most  int
		want  string
	}{
		{"", 10, 2, ""},
		{"one two three", 13, 2, "one two three"},
		{"one two three", 10, 2, "one two|three"},
		{"onetwothreefour", 10, 2, "onetwothre|efour"},
		{"one two three four five six", 10, 2, "one two|three f..."},
		{"éééééééééé éé", 10, 9, "éééééééééé|éé"},
	} {
		if got := strings.Join(wrap(tt.text, tt.width, tt.most), "|"); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"36h": "2026-11-26T00:00:00Z", "14d": "2026-12-08T12:00:00Z", "2027-01-31T12:00:00+01:00": "2027-01-31T11:00:00Z", "": "0001-01-01T00:00:00Z",
	} {
		if got, err := expiry(s, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"d", "0d", "-1h", "2020-01-01", "tomorrow", "99999999d"} {
		if got, err := expiry(s, now); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestReport(t *testing.T) {
	var b bytes.Buffer
	if code := report(&b, nil); code != 0 || b.Len() > 0 {
		t.Errorf("%d, %q", code, &b)
	}
	if code := report(&b, &exitError{code: 75}); code != 75 || b.Len() > 0 {
		t.Errorf("%d, %q", code, &b)
	}
	if code := report(&b, fmt.Errorf("one\ntwo: %w", io.EOF)); code != 1 || b.String() != "postseal: one\npostseal: two: EOF\n" {
		t.Errorf("%d, %q", code, &b)
	}
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		probe control.Probe
		sts   bool
		want  string
	}{
		{control.Probe{TLS: "TLS 1.3", Proven: "dane"}, false, "TLS 1.3; DANE holds; certificate holds"},
		{control.Probe{TLS: "TLS 1.2", Proven: "pkix"}, true, "TLS 1.2; no DANE; certificate holds; MTA-STS holds"},
		{control.Probe{TLS: "TLS 1.2", Proven: "pkix", STS: "not in the policy"}, true, "TLS 1.2; no DANE; certificate holds; MTA-STS FAILS: not in the policy"},
		{control.Probe{TLS: "TLS 1.3", Proven: "encrypt", DANE: "no record matches", PKIX: "expired", STS: "expired"}, true,
			"TLS 1.3; DANE FAILS: no record matches; certificate FAILS: expired; MTA-STS FAILS by that"},
		{control.Probe{Failure: "STARTTLS is not offered"}, true, "no TLS: STARTTLS is not offered"},
	} {
		if got := verdicts(tt.probe, tt.sts); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
