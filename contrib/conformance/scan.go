package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// written is what the test files of one package say.
type written struct {
	tests map[string]bool // test and fuzz functions
	items map[string]bool // items that a string begins with, so names of subtests
}

// scan reads all test files below root, by package path.
func scan(root string) (map[string]written, error) {
	all := map[string]written{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name := e.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "conformance") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(dir)
		if _, known := all[pkg]; !known {
			all[pkg] = written{tests: map[string]bool{}, items: map[string]bool{}}
		}
		return all[pkg].read(path)
	})
	return all, err
}

func (w written) read(path string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
			w.tests[f.Name.Name] = true
		}
	}
	ast.Inspect(file, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok && complains(call) {
			return false // what a test says when it fails is no name
		}
		literal, ok := node.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		if text, err := strconv.Unquote(literal.Value); err == nil {
			for _, id := range namedIn(text) {
				w.items[id] = true
			}
		}
		return true
	})
	return nil
}

// laboratory is the folder of the lab, whose table and stories CI runs as a whole.
const laboratory = "contrib/interop/lab"

// scanLab reads the names in the lab's sources, those of its scenarios and stories
// among them.
func scanLab(root string) (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(laboratory), "*.go"))
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if text, err := strconv.Unquote(literal.Value); err == nil {
					names[text] = true
				}
			}
			return true
		})
	}
	return names, nil
}

// complains reports whether the call is one of those by which a test fails.
func complains(call *ast.CallExpr) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	return ok && slices.Contains([]string{"Error", "Errorf", "Fatal", "Fatalf", "Log", "Logf"}, selector.Sel.Name)
}

// compare says where the list, the test files and the lab differ.
func compare(l list, files map[string]written, lab map[string]bool) []string {
	var complaints []string
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	listed := map[string]*item{}
	for _, i := range l.items() {
		if listed[i.id] != nil {
			complain("%s stands twice in the list", i.id)
		}
		listed[i.id] = i
		if step := i.later(); step != "" && step <= "step"+strconv.Itoa(done) {
			complain("%s waits for %s, which is done", i.id, step)
		}
		for _, name := range i.stories() {
			if !lab[name] {
				complain("%s: the lab has no %s", i.id, name)
			}
		}
		for _, r := range i.tests {
			pkg, known := files[r.pkg]
			switch {
			case !known:
				complain("%s: package %s has no tests", i.id, r.pkg)
			case !pkg.tests[r.test]:
				complain("%s: package %s has no %s", i.id, r.pkg, r.test)
			case r.subtest != "" && !pkg.items[i.id]:
				complain("%s: no test of package %s is named by it", i.id, r.pkg)
			}
		}
	}
	for pkg, w := range files {
		for id := range w.items {
			i := listed[id]
			switch {
			case i == nil:
				complain("%s, named by a test of package %s, is not in the list", id, pkg)
			case !i.tested():
				complain("%s is %s in the list, but named by a test of package %s", id, i.state, pkg)
			}
		}
	}
	if len(l.items()) != total {
		complain("the list has %d items, not %d", len(l.items()), total)
	}
	slices.Sort(complaints)
	return complaints
}
