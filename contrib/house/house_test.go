package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "postseal"

// arrows says what each package may import of the house. A package that is
// not named here has no place; a folder's own sub-folders need a line each,
// but for those of anywhere.
var arrows = map[string][]string{
	// boltdb for the type of the database alone, which it passes on to cache.
	"policy":            {"policy/dnssec", "policy/mtasts", "policy/dane", "cache", "cache/boltdb"},
	"policy/dnssec":     {},
	"policy/mtasts":     {"policy/dnssec"},
	"policy/dane":       {"policy/dnssec"},
	"policy/requiretls": {},
	// dnssec for the type of a lookup's error alone.
	"policy/smtpclient": {"policy", "policy/dane", "policy/dnssec", "policy/mtasts", "policy/requiretls"},
	"policy/probe":      {"policy", "policy/smtpclient", "policy/dane", "policy/mtasts"},
	// The types of the plan and of the policy, as in policy/smtpclient.
	"policy/delivery":        {"policy", "policy/dane", "policy/mtasts", "policy/smtpclient", "policy/requiretls", "policy/delivery/ledger"},
	"policy/delivery/ledger": {"cache/boltdb"},
	// The doors read the DANE class and the STS policy of a decision, so they
	// know these types; they ask nothing of these packages.
	"socketmap":                 {"policy", "policy/dane", "policy/mtasts", "policy/requiretls"},
	"socketmap/exim":            {"policy", "policy/dane", "policy/mtasts", "policy/requiretls"},
	"milter":                    {"policy/requiretls"},
	"reporting":                 {"reporting/tlsrpt"},
	"reporting/ingest":          {"reporting", "reporting/tlsrpt", "reporting/ingest/follow", "reporting/ingest/maillog", "reporting/ingest/postfix", "reporting/ingest/exim", "reporting/ingest/sendmail"},
	"reporting/ingest/maillog":  {"reporting", "reporting/ingest/foreign"},
	"reporting/ingest/foreign":  {"reporting/tlsrpt"},
	"reporting/ingest/postfix":  {"reporting", "reporting/tlsrpt", "reporting/ingest/foreign", "reporting/ingest/maillog"},
	"reporting/ingest/exim":     {"reporting", "reporting/tlsrpt", "reporting/ingest/foreign", "reporting/ingest/maillog"},
	"reporting/ingest/sendmail": {"reporting", "reporting/tlsrpt", "reporting/ingest/foreign", "reporting/ingest/maillog"},
	"reporting/ingest/datagram": {"reporting", "reporting/tlsrpt", "reporting/ingest/foreign"},
	"reporting/ingest/follow":   {},
	"reporting/store":           {"reporting", "reporting/tlsrpt", "cache/boltdb"},
	"reporting/tlsrpt":          {},
	"reporting/send":            {"reporting/tlsrpt"},
	"reporting/daily":           {"reporting", "reporting/store", "reporting/tlsrpt", "reporting/send"},
	"cache":                     {"cache/boltdb"},
	"cache/boltdb":              {},
	"contrib/bench":             {},
	"contrib/house":             {},
	"contrib/conformance":       {},
	"contrib/exim":              {},
	"contrib/postfix":           {},
	"contrib/sendmail":          {},
	// Counts what a killed daemon has left in its ledger, reads which policies sessions
	// were counted under, and knows the route suffixes.
	"contrib/interop/lab":       {"cache/boltdb", "policy/delivery/ledger", "policy/requiretls", "reporting", "reporting/store"},
	"policy/dnssec/dnstest":     {"policy/dnssec"},
	"policy/mtasts/ststest":     {"policy/dnssec", "policy/mtasts"},
	"policy/smtpclient/mxtest":  {"policy/dane", "policy/dnssec", "policy/smtpclient"},
	"socketmap/pipetest":        {},
	"reporting/store/storetest": {"reporting/store", "cache/boltdb"},

	"reporting/ingest/maillog/maillogtest": {"reporting", "reporting/ingest/maillog", "reporting/tlsrpt"},
}

// anywhere lists the folders that may import everything: what main and its
// own parts are made of.
var anywhere = []string{"cmd/postseal"}

// outside says which packages alone may import a foreign module, tests and
// test-support packages aside.
var outside = map[string][]string{
	"github.com/miekg/dns":            {"policy/dnssec"},
	"github.com/emersion/go-milter":   {"milter"},
	"github.com/emersion/go-smtp":     {"policy/delivery"},
	"github.com/emersion/go-msgauth":  {"reporting/send"},
	"github.com/urfave/cli/v2":        {"cmd/postseal"},
	"github.com/coreos/go-systemd":    {"cmd/postseal"},
	"github.com/hashicorp/golang-lru": {"cache", "policy"},
	// The others work inside a transaction that boltdb opened for them; who
	// opens a file is checked by TestBoltOpens.
	"go.etcd.io/bbolt": {"cache/boltdb", "cache", "reporting/store", "policy/delivery/ledger", "contrib/interop/lab"},
}

// strangers never meet, not even through a third package: what a domain's
// policy is does not depend on what is reported, and the other way round.
// cmd joins them.
var strangers = [][2]string{{"policy", "reporting"}}

type pkg struct {
	Dir, ImportPath, Name string
	Imports, Deps         []string
	TestImports           []string
	XTestImports          []string
	GoFiles               []string
	Export                string
	Standard              bool
	Error                 *struct{ Err string }
}

// path is the import path below the module, "" for foreign packages.
func (p pkg) path() string { return below(p.ImportPath) }

func below(importPath string) string {
	rest, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return rest
}

// owner gives the package that an internal part belongs to: for the arrows it
// counts as that. Others may not import it, which the compiler sees to.
func owner(path string) string {
	path, _, _ = strings.Cut(path, "/internal/")
	return path
}

func internal(path string) bool { return strings.Contains(path, "/internal/") }

// within reports whether the package at path is root or stands below it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

func withinAny(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return within(path, root) })
}

// support reports whether a package exists for the tests of others.
func support(path string) bool { return strings.HasSuffix(path, "test") }

func root(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// list runs go list in the root of the module. Broken packages are reported
// by the compiler, not here.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e"}, args...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

func own(t *testing.T) []pkg {
	t.Helper()
	all := list(t, "-json=Dir,ImportPath,Name,Imports,Deps,TestImports,XTestImports,GoFiles", "./...")
	if len(all) == 0 {
		t.Fatal("go list names no package")
	}
	return all
}

// TestArrows holds the import arrows of every package to the table.
func TestArrows(t *testing.T) {
	for _, p := range own(t) {
		path := owner(p.path())
		if withinAny(path, anywhere) {
			continue
		}
		may, known := arrows[path]
		if !known {
			t.Errorf("package %s has no line in the table of arrows", path)
			continue
		}
		for _, imported := range p.Imports {
			to := below(imported)
			if to != "" && !internal(to) && !slices.Contains(may, to) {
				t.Errorf("%s must not import %s", path, to)
			}
		}
	}
}

// TestArrowsOfTests gives tests more room: everything that their package can
// reach, and the test-support packages. Those of contrib look at the whole.
func TestArrowsOfTests(t *testing.T) {
	for _, p := range own(t) {
		path := owner(p.path())
		if withinAny(path, anywhere) || within(path, "contrib") {
			continue
		}
		reach := reachable(path)
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			to := below(imported)
			if to != "" && to != path && !internal(to) && !reach[to] && !support(to) {
				t.Errorf("tests of %s must not import %s", path, to)
			}
		}
	}
}

// reachable follows the arrows of the table from path.
func reachable(path string) map[string]bool {
	seen := map[string]bool{}
	var walk func(string)
	walk = func(from string) {
		for _, to := range arrows[from] {
			if !seen[to] {
				seen[to] = true
				walk(to)
			}
		}
	}
	walk(path)
	return seen
}

// TestTable checks the table itself: the compiler refuses circles among the
// packages that exist, this refuses them among those still to be written.
func TestTable(t *testing.T) {
	for from, tos := range arrows {
		if reachable(from)[from] {
			t.Errorf("the table leads from %s back to it", from)
		}
		for _, to := range tos {
			if _, known := arrows[to]; !known {
				t.Errorf("the table lets %s import %s, which has no line", from, to)
			}
		}
	}
	for _, pair := range strangers {
		for from := range maps.Keys(arrows) {
			for to := range reachable(from) {
				if apart(from, to, pair) {
					t.Errorf("the table leads from %s to %s", from, to)
				}
			}
		}
	}
}

func apart(from, to string, pair [2]string) bool {
	return within(from, pair[0]) && within(to, pair[1]) || within(from, pair[1]) && within(to, pair[0])
}

// TestStrangers follows the real imports, tests included, to the end.
func TestStrangers(t *testing.T) {
	for _, p := range own(t) {
		for _, dep := range slices.Concat(p.Deps, p.TestImports, p.XTestImports) {
			for _, pair := range strangers {
				if apart(p.path(), below(dep), pair) {
					t.Errorf("%s depends on %s", p.path(), below(dep))
				}
			}
		}
	}
}

// TestOutside keeps each foreign module with the one package that is there to
// hide it, and the testing package out of what is shipped.
func TestOutside(t *testing.T) {
	for _, p := range own(t) {
		path := p.path()
		if support(path) {
			continue
		}
		for _, imported := range p.Imports {
			if imported == "testing" || strings.HasPrefix(imported, "testing/") || support(below(imported)) {
				t.Errorf("%s imports %s outside its tests", path, imported)
			}
			for foreign, owners := range outside {
				if within(imported, foreign) && !withinAny(path, owners) && !within(path, "contrib/interop") {
					t.Errorf("%s must not import %s", path, foreign)
				}
			}
		}
	}
}

// TestTop names everything that may stand at the top of the repository.
func TestTop(t *testing.T) {
	fixed := []string{
		"cmd", "policy", "socketmap", "milter", "reporting", "cache", "contrib",
		"go.mod", "go.sum", "README.md", "LICENSE", "CHANGELOG.md",
	}
	for _, file := range files(t) {
		top, _, _ := strings.Cut(file, "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(fixed, top) {
			t.Errorf("%s stands at the top: only %s may", top, strings.Join(fixed, ", "))
		}
	}
}

// TestNames refuses names that say nothing, and file names that the go tool
// or a reader would stumble over.
func TestNames(t *testing.T) {
	empty := []string{"util", "utils", "helper", "helpers", "common", "misc", "shared", "base", "models", "types"}
	for _, p := range own(t) {
		if slices.Contains(empty, p.Name) {
			t.Errorf("package %s is named %s, which says nothing", p.path(), p.Name)
		}
	}
	for _, file := range files(t) {
		if strings.HasSuffix(file, ".go") && strings.ContainsAny(filepath.Base(file), "- ") {
			t.Errorf("%s: no hyphen in the name of a Go file", file)
		}
	}
}

// TestPlaces refuses paths of the machine that somebody happened to work on.
func TestPlaces(t *testing.T) {
	top := root(t)
	// Put together here, so that this file does not contain them.
	places := []string{"/" + "work/", "/" + "root/", "/" + "tmp/", "/" + "home/"}
	for _, file := range files(t) {
		text, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(file)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // listed by git, removed in the working tree
		}
		if err != nil {
			t.Fatal(err)
		}
		for number, line := range strings.Split(string(text), "\n") {
			for _, place := range places {
				if at := strings.Index(line, place); at >= 0 && starts(line, at) {
					t.Errorf("%s:%d names a path of one machine: %s", file, number+1, place)
				}
			}
		}
	}
}

// starts reports whether a path begins at line[at:], rather than going on
// there from something before, as in ${dir}/tmp or a/tmp.
func starts(line string, at int) bool {
	return at == 0 || !strings.ContainsRune("}).*_-/", rune(line[at-1])) && !alphanumeric(line[at-1])
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// files lists what belongs to the repository, with slashes: by git, which
// knows what is ignored, or by a walk where there is no git or no clone.
func files(t *testing.T) []string {
	t.Helper()
	top := root(t)
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = top
	if out, err := cmd.Output(); err == nil && len(out) > 0 {
		return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	}
	var all []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == ".git" {
			return fs.SkipDir
		}
		if entry.Type().IsRegular() {
			name, err := filepath.Rel(top, path)
			if err != nil {
				return err
			}
			all = append(all, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
