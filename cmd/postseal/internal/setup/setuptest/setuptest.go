// Package setuptest is a machine for the tests of package setup and its parts: a folder
// with the configuration of a mail server, and what its programs say.
package setuptest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/edit"
)

// TOML is where postseal.toml is on a Machine.
const TOML = "/etc/postseal/postseal.toml"

// Auto are the least options, with a resolver that validates.
func Auto() setup.Options {
	return setup.Options{DANE: setup.DANEAuto, Validates: func(context.Context, []string) (bool, string) { return true, "" }}
}

// Machine is a folder and what stands in for its programs.
type Machine struct {
	*edit.History
	Commands map[string]string // what programs say, by their first word
	Ran      []string          // command lines

	t testing.TB
}

// New makes a machine of the files below testdata/tree; "" for an empty one. Its
// resolver is on the machine, and the C library passes on what that has validated.
func New(t testing.TB, tree string) *Machine {
	t.Helper()
	root := t.TempDir()
	m := &Machine{t: t, Commands: map[string]string{}}
	m.History = &edit.History{
		System: &host.System{Root: root, Run: m.Say},
		Now:    func() time.Time { return time.Date(2026, 11, 28, 7, 30, 0, 0, time.UTC) },
	}
	if tree != "" {
		if err := os.CopyFS(root, os.DirFS("testdata/"+tree)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(m.Path("tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions edns0 trust-ad\n")
	m.Write("/etc/ssl/certs/ca-certificates.crt", "")
	return m
}

// Say is what a program prints.
func (m *Machine) Say(_ context.Context, argv ...string) (string, error) {
	m.Ran = append(m.Ran, strings.Join(argv, " "))
	out, ok := m.Commands[argv[0]]
	if !ok {
		return "", errors.New(argv[0] + " is not installed")
	}
	return out, nil
}

// Apply makes the changes of a plan.
func (m *Machine) Apply(p *setup.Plan) (folder string, err error) {
	return m.History.Apply(p.MTA, p.Changes)
}

// Write writes a file, and the folders above it.
func (m *Machine) Write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.Path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.Path(name), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// Text is a file that must be there.
func (m *Machine) Text(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(m.Path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// Tree is every file but copies, with its text.
func (m *Machine) Tree() map[string]string {
	m.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(m.Root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, m.Root)
		if !strings.HasPrefix(name, edit.DefaultFolder) {
			all[name] = m.Text(name)
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// Lines are what a plan changes in a file, "name = value" each.
func Lines(p *setup.Plan, file string) []string {
	var all []string
	for _, c := range p.Changes {
		if c.Path == file {
			for _, l := range c.Lines {
				all = append(all, l.Text)
			}
		}
	}
	return all
}

// Refused asserts that an error is a refusal that says want, in its reason or its hints.
func Refused(t testing.TB, err error, want string) {
	t.Helper()
	if r, ok := errors.AsType[*setup.Refusal](err); !ok || !strings.Contains(r.Why+" "+strings.Join(r.Hints, " "), want) {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}
