package doctor_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"postseal/cmd/postseal/internal/doctor"
)

// book holds the lines of the package whose findings a row has asked for.
type book struct {
	sync.Mutex
	seen map[string]bool
}

var asked = &book{seen: map[string]bool{}}

func (b *book) note(f doctor.Finding) {
	b.Lock()
	defer b.Unlock()
	b.seen[doctor.Line(f)] = true
}

// judgeRows ends the tests: a finding that no row asks for fails them, unless some
// tests were left out.
func judgeRows(code int) {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz", "test.bench"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			os.Exit(code)
		}
	}
	made, err := findingLines(".")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, line := range slices.Sorted(maps.Keys(made)) {
		if !asked.seen[line] {
			fmt.Printf("FAIL: no row of the tests provokes the finding of %s: %s\n", line, made[line])
			code = 1
		}
	}
	os.Exit(code)
}

// findingLines are the calls that make a finding, by FILE:LINE. It fails where two are on
// one line, or a finding is made in another way: neither could be told apart.
func findingLines(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no source in %s: %w", dir, fs.ErrNotExist)
	}
	made := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		if err := linesOf(file, made); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func linesOf(file string, made map[string]string) error {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	line := func(n ast.Node) string {
		return fmt.Sprintf("%s:%d", filepath.Base(file), set.Position(n.Pos()).Line)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			return !maker(n.Name.Name) && n.Name.Name != "finding"
		case *ast.CompositeLit:
			if name, is := n.Type.(*ast.Ident); is && name.Name == "Finding" && len(n.Elts) > 0 {
				err = fmt.Errorf("%s: a Finding is made without ok, hint, warning or failure", line(n))
			}
		case *ast.CallExpr:
			name, is := n.Fun.(*ast.Ident)
			if !is || name.Name != "finding" && !maker(name.Name) {
				return true
			}
			if made[line(n)] != "" || name.Name == "finding" {
				err = fmt.Errorf("%s: two findings on one line, or one by finding: no test could tell", line(n))
			}
			made[line(n)] = name.Name
		}
		return true
	})
	return err
}

func maker(name string) bool {
	return slices.Contains([]string{"ok", "hint", "warning", "failure"}, name)
}

// TestFindingLines: what judgeRows compares with is complete and can be told apart.
func TestFindingLines(t *testing.T) {
	made, err := findingLines(".")
	if err != nil || len(made) < 100 {
		t.Errorf("%d findings: %v", len(made), err)
	}
	for name, body := range map[string]string{
		"two on a line":   `var a, b = ok("a"), ok("b")`,
		"by hand":         `var a = Finding{Level: OK}`,
		"without a level": `var a = finding(OK, "a", "")`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.go"), []byte("package x\n"+body+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if made, err := findingLines(dir); err == nil {
			t.Errorf("%s: %v", name, made)
		}
	}
}
