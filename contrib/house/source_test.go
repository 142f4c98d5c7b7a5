package house_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	maxFileLines     = 600 // a file is one idea; 500 is the aim
	maxFunctionLines = 80  // a function fits on a screen; 60 is the aim
)

// source is one package as it is shipped, without its tests.
type source struct {
	path  string
	fset  *token.FileSet
	files []*ast.File
	info  *types.Info
	vars  map[types.Object]bool // package-level variables
}

// at gives the place of a node as FILE:LINE below the module.
func (s source) at(node ast.Node) string {
	place := s.fset.Position(node.Pos())
	return s.path + "/" + filepath.Base(place.Filename) + ":" + strconv.Itoa(place.Line)
}

// sources parses and type-checks every package, with the export data that the
// go tool keeps for what they import. Type errors are left to the compiler.
func sources(t *testing.T) []source {
	t.Helper()
	export := map[string]string{}
	var own []pkg
	for _, p := range list(t, "-deps", "-export", "-json=Dir,ImportPath,Name,GoFiles,Export", "./...") {
		export[p.ImportPath] = p.Export
		if p.path() != "" {
			own = append(own, p)
		}
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(export[path])
	})
	var all []source
	for _, p := range own {
		s := source{path: p.path(), fset: fset, vars: map[types.Object]bool{}}
		s.info = &types.Info{
			Uses:       map[*ast.Ident]types.Object{},
			Defs:       map[*ast.Ident]types.Object{},
			Selections: map[*ast.SelectorExpr]*types.Selection{},
		}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Errorf("%s: %v", p.path(), err)
				continue
			}
			s.files = append(s.files, file)
		}
		config := types.Config{Importer: imports, Error: func(error) {}}
		checked, _ := config.Check(p.ImportPath, fset, s.files, s.info)
		for _, name := range checked.Scope().Names() {
			if v, ok := checked.Scope().Lookup(name).(*types.Var); ok {
				s.vars[v] = true
			}
		}
		all = append(all, s)
	}
	return all
}

// TestSource walks the shipped code once for all rules about it.
func TestSource(t *testing.T) {
	all := sources(t)
	t.Run("no init and no variable that changes", func(t *testing.T) {
		for _, s := range all {
			s.constancy(t)
		}
	})
	t.Run("lengths", func(t *testing.T) {
		for _, s := range all {
			s.lengths(t)
		}
	})
	t.Run("words", func(t *testing.T) {
		for _, s := range all {
			s.words(t)
		}
	})
	t.Run("who opens database files", func(t *testing.T) {
		for _, s := range all {
			if s.path != "cache/boltdb" {
				s.refuse(t, "go.etcd.io/bbolt", regexp.MustCompile(`^Open$`), "only cache/boltdb opens database files")
			}
		}
	})
	// The system's resolver hides whether an answer was authentic, and may be
	// another than the one that policies are asked of.
	t.Run("DANE-013 nobody asks the system resolver", func(t *testing.T) {
		for _, s := range all {
			if within(s.path, "policy") {
				s.refuse(t, "net", regexp.MustCompile(`^(Lookup.*|Resolver|DefaultResolver|Resolve(IP|TCP|UDP)Addr)$`),
					"it hides whether the answer was authentic; ask policy/dnssec")
			}
		}
	})
}

// constancy refuses init functions, and package-level variables that code
// assigns to, takes the address of, or calls a pointer method on.
func (s source) constancy(t *testing.T) {
	for _, file := range s.files {
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: no init functions", s.at(n))
				}
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, left := range n.Lhs {
						s.unchanged(t, left, "assigned to")
					}
				}
			case *ast.IncDecStmt:
				s.unchanged(t, n.X, "changed")
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					s.unchanged(t, n.Key, "assigned to")
					s.unchanged(t, n.Value, "assigned to")
				}
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					s.unchanged(t, n.X, "pointed to")
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") && len(n.Args) > 0 {
					s.unchanged(t, n.Args[0], "emptied")
				}
			case *ast.SelectorExpr:
				if s.pointerMethod(n) {
					s.unchanged(t, n.X, "changed by its method "+n.Sel.Name)
				}
			}
			return true
		})
	}
}

// pointerMethod reports whether the selector calls, on an addressable value,
// a method that is declared for its pointer.
func (s source) pointerMethod(n *ast.SelectorExpr) bool {
	selection := s.info.Selections[n]
	if selection == nil || selection.Kind() != types.MethodVal {
		return false
	}
	signature := selection.Obj().Type().(*types.Signature)
	_, wants := signature.Recv().Type().(*types.Pointer)
	_, has := selection.Recv().(*types.Pointer)
	return wants && !has && !selection.Indirect()
}

func (s source) unchanged(t *testing.T, expr ast.Expr, what string) {
	name := base(expr)
	if name != nil && s.vars[s.info.Uses[name]] {
		t.Errorf("%s: package variable %s is %s", s.at(expr), name.Name, what)
	}
}

// base finds the variable of x, x.f, x[i], *x and their likes.
func base(expr ast.Expr) *ast.Ident {
	switch e := expr.(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return base(e.X)
	case *ast.IndexExpr:
		return base(e.X)
	case *ast.StarExpr:
		return base(e.X)
	case *ast.ParenExpr:
		return base(e.X)
	}
	return nil
}

func (s source) lengths(t *testing.T) {
	for _, file := range s.files {
		if lines := s.fset.File(file.Pos()).LineCount(); lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.at(file), lines, maxFileLines)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if lines > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d", s.at(f), f.Name.Name, lines, maxFunctionLines)
			}
		}
	}
}

// words holds log messages and errors to one form: constant where logged,
// lower-case unless a name or an abbreviation begins them, without a full
// stop, and without saying that something failed to.
func (s source) words(t *testing.T) {
	capital := regexp.MustCompile(`^[A-Z][a-z]+( |$)`)
	for _, file := range s.files {
		ast.Inspect(file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			text, ok := s.message(call)
			if !ok {
				return true
			}
			if first, _, _ := strings.Cut(text, " "); capital.MatchString(text) && !proper(first) {
				t.Errorf("%s: %q begins with a capital", s.at(call), text)
			}
			if strings.HasSuffix(text, ".") {
				t.Errorf("%s: %q ends in a full stop", s.at(call), text)
			}
			if strings.Contains(text, "failed to ") {
				t.Errorf("%s: %q: say what failed, not that it failed to", s.at(call), text)
			}
			return true
		})
	}
}

// proper names may begin a message.
func proper(word string) bool {
	return slices.Contains([]string{"Postfix", "Sendmail", "Exim"}, word)
}

// message gives the text of a call that makes an error or a log line.
func (s source) message(call *ast.CallExpr) (string, bool) {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return "", false
	}
	made := s.info.Uses[selector.Sel]
	if made == nil || made.Pkg() == nil {
		return "", false
	}
	arg := 0
	switch made.Pkg().Path() + "." + made.Name() {
	case "errors.New", "fmt.Errorf",
		"log/slog.Debug", "log/slog.Info", "log/slog.Warn", "log/slog.Error":
	case "log/slog.DebugContext", "log/slog.InfoContext", "log/slog.WarnContext", "log/slog.ErrorContext":
		arg = 1
	default:
		return "", false
	}
	if arg >= len(call.Args) {
		return "", false
	}
	literal, ok := call.Args[arg].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}

// refuse reports each use of a name of the package at path.
func (s source) refuse(t *testing.T, path string, names *regexp.Regexp, why string) {
	for ident, object := range s.info.Uses {
		if object.Pkg() == nil || object.Pkg().Path() != path || object.Parent() != object.Pkg().Scope() {
			continue
		}
		if names.MatchString(object.Name()) {
			t.Errorf("%s: %s.%s: %s", s.at(ident), path, object.Name(), why)
		}
	}
}

// TestComments wants exactly one package comment in each folder, in the form
// that go doc shows well.
func TestComments(t *testing.T) {
	for _, p := range own(t) {
		var found []string
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Errorf("%s: %v", p.path(), err)
				continue
			}
			if text := file.Doc.Text(); text != "" {
				found = append(found, name)
				if p.Name != "main" && !strings.HasPrefix(text, "Package "+p.Name+" ") {
					t.Errorf("%s/%s: the package comment begins otherwise than with %q", p.path(), name, "Package "+p.Name)
				}
			}
		}
		if len(found) != 1 {
			t.Errorf("%s has %d package comments, not one: %s", p.path(), len(found), strings.Join(found, ", "))
		}
	}
}
