package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/doctor"
)

// The exit code is for monitors.
func TestDoctorVerdict(t *testing.T) {
	for level, want := range map[doctor.Level]int{doctor.OK: 0, doctor.Hint: 0, doctor.Warning: 1, doctor.Error: 2} {
		got := 0
		var e *exitError
		if err := verdict(level); errors.As(err, &e) {
			got = e.code
		}
		if got != want {
			t.Errorf("%s: exit code %d, want %d", level, got, want)
		}
	}
}

// What is to be typed stands on one line, however long, so that it can be copied.
func TestDoctorRendered(t *testing.T) {
	do := "postconf -e '" + strings.Repeat("x", 200) + "'"
	text := string(renderDoctor(&doctor.Report{Level: doctor.Error, Findings: []doctor.Finding{
		{Level: doctor.OK, Check: "clock", Text: "right"},
		{Level: doctor.Error, Check: "postfix", Text: strings.Repeat("word ", 40), Do: do},
	}}))
	for _, want := range []string{"ok          clock: right\n", "error       postfix: word word", "\n            -> " + do + "\n", "\nin all      error: 1\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := string(renderDoctor(&doctor.Report{})); !strings.Contains(text, "nothing is wrong") {
		t.Errorf("got %q", text)
	}
}

// Root looks at the service's state where the configuration names none.
func TestPreferService(t *testing.T) {
	state := t.TempDir()
	file := filepath.Join(state, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		byDefault bool
		uid       int
		state     string
		want      string
	}{
		{"root", true, 0, state, state},
		{"a user", true, 1000, state, "/own"},
		{"as configured", false, 0, state, "/own"},
		{"no service", true, 0, filepath.Join(state, "none"), "/own"},
		{"a file", true, 0, file, "/own"},
	} {
		c := &config.Config{StateDir: "/own", StateByDefault: tt.byDefault}
		if preferService(c, tt.uid, tt.state); c.StateDir != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, c.StateDir, tt.want)
		}
	}
}
