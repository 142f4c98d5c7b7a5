package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange puts the arguments into the order that the library needs: --config, the
// command with its subcommand, its flags, then the arguments. So flags may stand
// anywhere, as people type them: "explain example.org --json". What the library
// would take for an argument in silence, or answer with pages of help, gets a
// clear error: unknown commands and flags.
func arrange(app *cli.App, argv []string) ([]string, error) {
	a := arrangement{flags: app.Flags, commands: app.Commands}
	rest := argv[1:]
	for len(rest) > 0 {
		word := rest[0]
		rest = rest[1:]
		var err error
		switch {
		case word == "--":
			a.args = append(a.args, rest...)
			rest = nil
		case len(word) > 1 && word[0] == '-':
			rest, err = a.flag(app, word, rest)
		case len(a.commands) > 0:
			err = a.command(word)
		default:
			a.args = append(a.args, word)
		}
		if err != nil {
			return nil, err
		}
	}
	out := append([]string{argv[0]}, a.global...)
	out = append(append(out, a.path...), a.local...)
	if len(a.args) > 0 && !a.help {
		out = append(append(out, "--"), a.args...)
	}
	return out, nil
}

// arrangement is what has been read so far.
type arrangement struct {
	flags    []cli.Flag     // of the command so far
	commands []*cli.Command // that may come next

	global, path, local, args []string
	help, configured          bool
}

// command takes the name of a command or subcommand.
func (a *arrangement) command(word string) error {
	for _, c := range a.commands {
		if !c.HasName(word) {
			continue
		}
		a.path = append(a.path, c.Name)
		a.flags, a.commands = c.Flags, c.Subcommands
		return nil
	}
	if word == "help" || word == "h" { // the library's own
		if len(a.path) == 0 || !a.help {
			a.help = true
			a.local = append(a.local, "--help")
		}
		return nil
	}
	what := strings.Join(append([]string{"postseal"}, a.path...), " ")
	var names []string
	for _, c := range a.commands {
		names = append(names, c.Name)
	}
	hint := what + " has: " + strings.Join(names, ", ")
	if near := nearest(word, names); near != "" {
		hint = `did you mean "` + what + " " + near + `"?`
	}
	return usage(hint, "unknown command %q", word)
}

// flag takes a flag and its value.
func (a *arrangement) flag(app *cli.App, word string, rest []string) ([]string, error) {
	name, value, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
	if name == "help" || name == "h" {
		a.help = true
		a.local = append(a.local, "--help")
		return rest, nil
	}
	if name == "version" && len(a.path) == 0 { // what people try first
		return rest, a.command(name)
	}
	to := &a.local
	f := find(a.flags, name)
	if global := find(app.Flags, name); global != nil {
		f, to = global, &a.global
	}
	what := strings.Join(append([]string{"postseal"}, a.path...), " ")
	if f == nil {
		if len(a.commands) > 0 {
			return nil, usage("options of a command stand behind it", "unknown option %s of %s", word, what)
		}
		return nil, a.unknown(app, word, name, what)
	}
	if name == "config" {
		if err := a.once(value, joined, rest); err != nil {
			return nil, err
		}
	}
	*to = append(*to, word)
	if _, isBool := f.(*cli.BoolFlag); isBool || joined {
		return rest, nil
	}
	if len(rest) == 0 {
		return nil, usage("see "+what+" --help", "option %s needs a value", word)
	}
	*to = append(*to, rest[0])
	return rest[1:], nil
}

// once refuses a second --config, of which the library would take the last, and
// one without a name, as of an unset variable, for which it would take the default.
func (a *arrangement) once(value string, joined bool, rest []string) error {
	if !joined && len(rest) > 0 {
		value = rest[0]
	}
	switch {
	case a.configured:
		return usage("", "option --config may be given once only")
	case value == "" && (joined || len(rest) > 0):
		return usage("", "option --config needs the name of a file, but got an empty one")
	}
	a.configured = true
	return nil
}

func (a *arrangement) unknown(app *cli.App, word, name, what string) error {
	names := []string{"help"}
	for _, f := range append(app.Flags[:len(app.Flags):len(app.Flags)], a.flags...) {
		names = append(names, f.Names()...)
	}
	hint := "see " + what + " --help"
	if near := nearest(name, names); near != "" {
		hint = "did you mean --" + near + "?"
	}
	return usage(hint, "unknown option %s of %s", word, what)
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

// nearest is the name that word is most probably a misspelling of: at most one
// edit in three letters away; "" if there is none.
func nearest(word string, names []string) string {
	best, distance := "", len(word)/3+1
	for _, name := range names {
		if d := edits(word, name); d < distance || d == distance && best == "" && strings.HasPrefix(name, word) {
			best, distance = name, d
		}
	}
	return best
}

// edits is the number of letters to add, drop, change or swap with a neighbour
// (optimal string alignment).
func edits(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
