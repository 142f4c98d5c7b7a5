package edit_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup/edit"
	"postseal/cmd/postseal/internal/setup/setuptest"
)

const (
	mta                  = "postfix"
	mainCF, masterCF     = "/etc/postfix/main.cf", "/etc/postfix/master.cf"
	checks               = "/etc/postfix/checks"
	manifest             = "/manifest.json"
	mainBefore, mainLine = "biff = no\nmaps =\nmydestination = a\n", "maps = ours\n"
)

// newMachine has three files; a run makes a fourth.
func newMachine(t *testing.T) *setuptest.Machine {
	t.Helper()
	m := setuptest.New(t, "")
	m.Write(mainCF, mainBefore)
	m.Write(masterCF, "smtp unix - - y - - smtp\n")
	m.Write(setuptest.TOML, "# mine\n")
	return m
}

// changes are what is left to do: lines to three files, and a new one.
func changes(t *testing.T, m *setuptest.Machine) []edit.Change {
	t.Helper()
	var all []edit.Change
	for _, f := range []struct {
		path string
		want func(text string) string
	}{
		{setuptest.TOML, func(s string) string { return with(s, "[host]\ndane = false\n") }},
		{checks, func(string) string { return "/^X/ FILTER ours\n" }},
		{masterCF, func(s string) string { return with(s, "postseal unix - - n - - lmtp\n") }},
		{mainCF, func(s string) string { return strings.Replace(s, "maps =\n", mainLine, 1) }},
	} {
		c, err := edit.Of(m.System, f.path)
		if err != nil {
			t.Fatal(err)
		}
		c.After = []byte(f.want(string(c.Before)))
		c.Lines = []edit.Line{{Text: "something of " + f.path}}
		if c.Any() {
			all = append(all, c)
		}
	}
	return all
}

func with(text, line string) string {
	if strings.Contains(text, line) {
		return text
	}
	return text + line
}

func apply(t *testing.T, m *setuptest.Machine) (folder string) {
	t.Helper()
	folder, err := m.History.Apply(mta, changes(t, m))
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func revert(t *testing.T, m *setuptest.Machine) *edit.Reverted {
	t.Helper()
	r, err := m.Revert(mta)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func conflict(t *testing.T, m *setuptest.Machine, want string) {
	t.Helper()
	_, err := m.Revert(mta)
	if c, ok := errors.AsType[*edit.Conflict](err); !ok || !strings.Contains(err.Error(), want) || len(c.Runs) == 0 {
		t.Errorf("got %v, want a conflict with %q", err, want)
	}
}

func TestApply(t *testing.T) {
	m := newMachine(t)
	before := m.Tree()
	if err := os.Chmod(m.Path(mainCF), 0o640); err != nil {
		t.Fatal(err)
	}
	folder := apply(t, m)
	if got, want := m.Text(mainCF), strings.Replace(mainBefore, "maps =\n", mainLine, 1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, mode := range map[string]os.FileMode{mainCF: 0o640, checks: 0o644, folder: 0o700} {
		if info, err := os.Stat(m.Path(name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s is %v, %v; want %v", name, info, err, mode)
		}
	}
	var kept struct {
		MTA, State string
		Files      []struct{ Path, Before, After string }
	}
	if err := json.Unmarshal([]byte(m.Text(folder+manifest)), &kept); err != nil {
		t.Fatal(err)
	}
	if kept.MTA != mta || kept.State != "done" || len(kept.Files) != 4 {
		t.Fatalf("manifest: %+v", kept)
	}
	for _, f := range kept.Files {
		if old, had := before[f.Path]; had != (f.Before != "") || had && m.Text(folder+"/"+f.Before) != old {
			t.Errorf("the copy of %s differs", f.Path)
		}
		if m.Text(folder+"/"+f.After) != m.Text(f.Path) {
			t.Errorf("%s is not what the manifest says", f.Path)
		}
	}
}

func TestRevert(t *testing.T) {
	m := newMachine(t)
	before := m.Tree()
	apply(t, m)
	between := m.Tree()
	c, err := edit.Of(m.System, mainCF)
	if err != nil {
		t.Fatal(err)
	}
	c.After = append(slices.Clone(c.Before), "more = yes\n"...)
	folder, err := m.History.Apply(mta, []edit.Change{c})
	if err != nil {
		t.Fatal(err)
	}
	if r := revert(t, m); !slices.Equal(r.Runs, []string{folder}) || r.Older != 1 || !slices.Equal(r.Files, []string{mainCF}) {
		t.Errorf("got %+v", r)
	}
	if !maps.Equal(between, m.Tree()) {
		t.Error("the second run is not undone")
	}
	// What refers to others goes first.
	if r := revert(t, m); r.Older != 0 || !slices.Equal(r.Files, []string{mainCF, masterCF, checks, setuptest.TOML}) {
		t.Errorf("got %+v", r)
	}
	if !maps.Equal(before, m.Tree()) {
		t.Error("the first run is not undone")
	}
	if r := revert(t, m); len(r.Runs) != 0 {
		t.Errorf("got %+v", r)
	}
	apply(t, m)
	if r, err := m.Revert("exim"); err != nil || len(r.Runs) != 0 {
		t.Errorf("the run of another mail server is undone: %+v, %v", r, err)
	}
}

// TestRevertEdited undoes what is ours beside what an administrator has changed since,
// and refuses where that is the same line.
func TestRevertEdited(t *testing.T) {
	m := newMachine(t)
	apply(t, m)
	mine := strings.NewReplacer("biff = no", "biff = yes", "mydestination = a\n", "mydestination = a\nmine = new\n")
	m.Write(mainCF, mine.Replace(m.Text(mainCF)))
	revert(t, m)
	if got, want := m.Text(mainCF), mine.Replace(mainBefore); got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	apply(t, m)
	m.Write(mainCF, strings.Replace(m.Text(mainCF), mainLine, "maps = other\n", 1))
	left := m.Tree()
	conflict(t, m, mainCF+": "+strings.TrimSpace(mainLine))
	m.Write(checks, "/^X-Mine/ DUNNO\n")
	conflict(t, m, checks+": all of it was new")
	delete(left, checks)
	if err := os.Remove(m.Path(masterCF)); err != nil {
		t.Fatal(err)
	}
	conflict(t, m, masterCF+": the file is gone")
	delete(left, masterCF)
	for name, text := range left {
		if m.Text(name) != text {
			t.Errorf("a refused revert has changed %s", name)
		}
	}
}

// killed leaves a run as kill -9 would after count of its four files. Before the last
// Apply is stopped by a file that somebody else has just changed, which is then put
// back; behind the last, its manifest is made that of before.
func killed(t *testing.T, m *setuptest.Machine, count int) {
	t.Helper()
	todo := changes(t, m)
	if count == len(todo) {
		folder := apply(t, m)
		m.Write(folder+manifest, strings.Replace(m.Text(folder+manifest), `"done"`, `"begun"`, 1))
		return
	}
	c := todo[count]
	m.Write(c.Path, "somebody else\n")
	folder, err := m.History.Apply(mta, todo)
	if err == nil || folder == "" || !strings.Contains(err.Error(), c.Path+" was changed by somebody else") {
		t.Fatalf("got %q, %v", folder, err)
	}
	if got := m.Text(c.Path); got != "somebody else\n" {
		t.Errorf("%s was overwritten: %s", c.Path, got)
	}
	if c.New {
		err = os.Remove(m.Path(c.Path))
	} else {
		err = os.WriteFile(m.Path(c.Path), c.Before, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestKilled ends a run after each of its files. Undoing it, or doing it again and
// undoing both, leads back to the start.
func TestKilled(t *testing.T) {
	for count := range 5 {
		for _, finish := range []bool{false, true} {
			m := newMachine(t)
			before := m.Tree()
			killed(t, m, count)
			if left := changes(t, m); len(left) != 4-count {
				t.Fatalf("after %d files %d are left", count, len(left))
			}
			if finish {
				apply(t, m)
			}
			revert(t, m)
			if !maps.Equal(before, m.Tree()) {
				t.Errorf("after %d files, finished %v: not as before", count, finish)
			}
			if r := revert(t, m); len(r.Runs) != 0 {
				t.Errorf("after %d files, finished %v: still in force: %+v", count, finish, r)
			}
		}
	}
}

// TestRevertKilled dies between two files of an undo: the next one does the rest.
func TestRevertKilled(t *testing.T) {
	m := newMachine(t)
	before := m.Tree()
	folder := apply(t, m)
	m.Write(mainCF, m.Text(mainCF)+"mine = new\n")
	revert(t, m)
	// All files are written, but the manifest is that of the moment before.
	m.Write(folder+manifest, strings.Replace(m.Text(folder+manifest), `"reverted"`, `"done"`, 1))
	revert(t, m)
	before[mainCF] += "mine = new\n"
	if !maps.Equal(before, m.Tree()) {
		t.Error("not as before")
	}
	if !strings.Contains(m.Text(folder+manifest), `"reverted"`) {
		t.Error("the manifest does not say that the run was undone")
	}
}

// TestRevertUnknown does not touch what a later version has written.
func TestRevertUnknown(t *testing.T) {
	m := newMachine(t)
	folder := apply(t, m)
	m.Write(folder+manifest, strings.Replace(m.Text(folder+manifest), `"format": 1`, `"format": 2`, 1))
	after := m.Tree()
	if _, err := m.Revert(mta); err == nil || !strings.Contains(err.Error(), "of format 2") || !maps.Equal(after, m.Tree()) {
		t.Errorf("got %v", err)
	}
}

func TestInsert(t *testing.T) {
	mailer := regexp.MustCompile(`^MAILER`)
	blocks := []edit.Block{
		{Text: "one\ntwo\n", At: func(l []string) int { return edit.LineOf(l, mailer) }, Mark: "two"},
		{Text: "last\n", At: func(l []string) int { return len(l) }, Mark: "last"},
	}
	for _, c := range []struct{ name, before, after, missing string }{
		{"both", "head\r\nMAILER\r\n", "head\r\none\ntwo\nMAILER\r\nlast\n", ""},
		{"one is there", "MAILER\nlast\n", "one\ntwo\nMAILER\nlast\n", ""},
		{"only in comments", "# two\ndnl last\nMAILER\n", "# two\ndnl last\none\ntwo\nMAILER\nlast\n", ""},
		{"no place", "head\n", "", "one\ntwo\n"},
	} {
		change := edit.Change{Before: []byte(c.before)}
		if missing := change.Insert(blocks); missing != c.missing || string(change.After) != c.after {
			t.Errorf("%s: got %q, missing %q; want %q, %q", c.name, change.After, missing, c.after, c.missing)
		}
	}
}
