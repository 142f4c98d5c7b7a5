package setup

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"postseal/cmd/postseal/internal/config"
)

// key is a setting of postseal.toml that the mail server's side needs.
type key struct {
	table, name string
	value       any // bool, string or []string
	why         string
	must        bool // replaces what the administrator has; otherwise that is refused
	also        bool // a list that only has to contain the value
}

func (k key) path() string { return k.table + "." + k.name }

// daemonFile is postseal.toml while a plan is made.
type daemonFile struct {
	path   string
	before []byte
	exists bool
	config *config.Config
	keys   []key
	logs   []config.MailLog
}

// daemonFile reads postseal.toml, which need not exist.
func (s *System) daemonFile(name string) (*daemonFile, error) {
	if name == "" {
		name = config.DefaultFile
	}
	text, exists, err := s.read(name)
	if err != nil {
		return nil, err
	}
	c, err := config.Decode(name, string(text))
	if err != nil {
		return nil, &Refusal{Why: err.Error(), Hints: []string{"postseal's own configuration must be valid before it can be completed"}}
	}
	return &daemonFile{path: name, before: text, exists: exists, config: c}, nil
}

// need adds a key, once.
func (f *daemonFile) need(k key) {
	if !slices.ContainsFunc(f.keys, func(has key) bool { return reflect.DeepEqual(has, k) }) {
		f.keys = append(f.keys, k)
	}
}

// edit writes the keys into the file. What is as wanted, by the file or by default, is
// left alone.
func (f *daemonFile) edit() (Change, error) {
	c := Change{Path: f.path, Before: f.before, New: !f.exists, Mode: 0o644}
	text := string(f.before)
	for _, k := range f.keys {
		var line *Line
		var err error
		if text, line, err = f.setKey(text, k); err != nil {
			return c, err
		}
		if line != nil {
			c.Lines = append(c.Lines, *line)
		}
	}
	for _, l := range f.logs {
		if slices.ContainsFunc(f.config.Reporting.Logs, func(has config.MailLog) bool { return has.Path == l.Path }) {
			continue
		}
		block := "[[reporting.log]]\npath = " + strconv.Quote(l.Path) + "\nformat = " + strconv.Quote(l.Format) + "\n"
		if l.Sessions != "" {
			block += "sessions = " + strconv.Quote(l.Sessions) + "\n"
		}
		if at, ok := findKey(splitLines([]byte(text)), "reporting", "log"); ok {
			text = strings.Join(slices.Delete(splitLines([]byte(text)), at, at+1), "")
		}
		text = gap(text) + block
		c.Lines = append(c.Lines, Line{Text: strings.TrimSuffix(block, "\n"), Why: "TLS sessions are counted from this log, for reports"})
	}
	c.After = []byte(text)
	if len(c.Lines) == 0 {
		c.New = false
		return c, nil
	}
	if _, err := config.Decode(f.path, text); err != nil {
		return c, f.invalid(err)
	}
	return c, nil
}

// invalid is about a file in which our lines have no place, as beside a table that is
// written on one line.
func (f *daemonFile) invalid(err error) error {
	var all []string
	for _, k := range f.keys {
		all = append(all, k.path()+" = "+literal(k.value))
	}
	return refuse("add these settings by hand, then run setup again: "+strings.Join(all, "; "),
		"what setup would write into %s is not valid: %v", f.path, err)
}

// setKey sets one key in the text.
func (f *daemonFile) setKey(text string, k key) (string, *Line, error) {
	is, defined, err := lookUp(text, k)
	if err != nil {
		return text, nil, f.invalid(err)
	}
	want := k.value
	if one, ok := is.(string); ok && k.also { // a list may be written as its only element
		is = []string{one}
	}
	if list, ok := is.([]string); ok && k.also {
		wanted := want.([]string)
		if missing := without(wanted, list); len(missing) == 0 {
			return text, nil, nil
		} else {
			want = slices.Concat(list, missing)
		}
	}
	if reflect.DeepEqual(is, want) {
		return text, nil, nil
	}
	line := &Line{Text: k.path() + " = " + literal(want), Why: k.why}
	lines := splitLines([]byte(text))
	entry := k.name + " = " + literal(want) + "\n"
	if !defined {
		if at, ok := findTable(lines, k.table); ok {
			return strings.Join(slices.Insert(lines, endOfTable(lines, at), entry), ""), line, nil
		}
		return gap(text) + "[" + k.table + "]\n" + entry, line, nil
	}
	if byDefault := defaultOf(k); !k.must && !k.also && !reflect.DeepEqual(is, byDefault) {
		return text, nil, refuse("change it there, or leave out the option that needs it",
			"%s has %s = %s, but %s is needed: %s", f.path, k.path(), literal(is), literal(want), k.why)
	}
	at, ok := findKey(lines, k.table, k.name)
	if !ok {
		return text, nil, refuse("", "%s has %s in a form that setup cannot change: set it to %s by hand", f.path, k.path(), literal(want))
	}
	line.Was = strings.TrimSpace(lines[at])
	lines[at] = entry
	return strings.Join(lines, ""), line, nil
}

// gap ends a text with an empty line, so that a table may follow.
func gap(text string) string {
	if text == "" {
		return ""
	}
	return strings.TrimRight(text, "\n") + "\n\n"
}

// without are the elements of list that are not in other.
func without(list, other []string) []string {
	var all []string
	for _, s := range list {
		if !slices.Contains(other, s) {
			all = append(all, s)
		}
	}
	return all
}

func literal(v any) string {
	list, ok := v.([]string)
	if !ok {
		return fmt.Sprintf("%#v", v)
	}
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// lookUp is the value of a key in force, and whether the text has it.
func lookUp(text string, k key) (value any, defined bool, err error) {
	var tables map[string]any
	if _, err := toml.Decode(text, &tables); err != nil {
		return nil, false, err
	}
	if table, ok := tables[k.table].(map[string]any); ok {
		if v, ok := table[k.name]; ok {
			return plain(v), true, nil
		}
	}
	return defaultOf(k), false, nil
}

// defaultOf is what a key is in no file.
func defaultOf(k key) any {
	text, err := config.Default().TOML()
	if err != nil {
		return nil
	}
	var tables map[string]any
	if _, err := toml.Decode(text, &tables); err != nil {
		return nil
	}
	table, _ := tables[k.table].(map[string]any)
	return plain(table[k.name])
}

// plain makes a list of words of what TOML takes for a list of anything.
func plain(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	words := []string{}
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return v
		}
		words = append(words, s)
	}
	return words
}

var tomlHeader = regexp.MustCompile(`^\s*\[\[?\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(#.*)?$`)

// findTable is the line of a table's header.
func findTable(lines []string, table string) (int, bool) {
	for i, line := range lines {
		if h := tomlHeader.FindStringSubmatch(strings.TrimRight(line, "\r\n")); h != nil && h[1] == table && !strings.Contains(line, "[[") {
			return i, true
		}
	}
	return 0, false
}

// endOfTable is the place behind the last key of the table whose header is at start.
func endOfTable(lines []string, start int) int {
	end := start + 1
	for i := start + 1; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "[") && tomlHeader.MatchString(line) {
			break
		}
		if line != "" && !strings.HasPrefix(line, "#") {
			end = i + 1
		}
	}
	if last := &lines[end-1]; !strings.HasSuffix(*last, "\n") {
		*last += "\n"
	}
	return end
}

// findKey is the line of a key with its whole value.
func findKey(lines []string, table, name string) (int, bool) {
	start, ok := findTable(lines, table)
	if !ok {
		return 0, false
	}
	for i := start + 1; i < len(lines); i++ {
		line := lines[i]
		if tomlHeader.MatchString(strings.TrimRight(line, "\r\n")) {
			return 0, false
		}
		is, _, found := strings.Cut(line, "=")
		if !found || strings.TrimSpace(is) != name {
			continue
		}
		var whole map[string]any
		_, err := toml.Decode(line, &whole)
		return i, err == nil
	}
	return 0, false
}
