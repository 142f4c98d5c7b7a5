// Package sidecar completes postseal's own configuration, postseal.toml, with what a mail
// server's side of it needs: where the daemon listens ([Door]), single settings ([Key]),
// and the log that sessions are counted from.
//
// The administrator's file stays his: comments, order and all other keys are kept, and a
// key is added to its table, or a table at the end. A value that he has set otherwise is
// replaced only where any other would lose mail, such as host.dane; else that is refused
// with what to do. A form that a line cannot be changed in, such as an inline table or a
// list over several lines, is refused, too. What comes out is decoded before it is shown,
// so nothing is planned that the daemon would not start with.
//
// Source: the TOML specification 1.0, https://toml.io/en/v1.0.0, and package config.
package sidecar

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/edit"
)

// Key is a setting of postseal.toml that the mail server's side needs.
type Key struct {
	Table, Name string
	Value       any // bool, string or []string
	Why         string
	Must        bool // replaces what the administrator has; otherwise that is refused
	Also        bool // a list that only has to contain the value
}

func (k Key) path() string { return k.Table + "." + k.Name }

// File is postseal.toml while a plan is made.
type File struct {
	Config *config.Config // as it is

	system *host.System
	change edit.Change
	keys   []Key
	logs   []config.MailLog
}

// Open reads postseal.toml, which need not exist; "" is its default place.
func Open(s *host.System, name string) (*File, error) {
	if name == "" {
		name = config.DefaultFile
	}
	change, err := edit.Of(s, name)
	if err != nil {
		return nil, err
	}
	c, err := config.Decode(name, string(change.Before))
	if err != nil {
		return nil, setup.Refuse("postseal's own configuration must be valid before it can be completed", "%v", err)
	}
	return &File{Config: c, system: s, change: change}, nil
}

// Need adds a key, once.
func (f *File) Need(k Key) {
	if !slices.ContainsFunc(f.keys, func(has Key) bool { return reflect.DeepEqual(has, k) }) {
		f.keys = append(f.keys, k)
	}
}

// Change writes the keys into the file. What is as wanted, by the file or by default, is
// left alone.
func (f *File) Change() (edit.Change, error) {
	c := f.change
	text := string(c.Before)
	for _, k := range f.keys {
		var line *edit.Line
		var err error
		if text, line, err = f.setKey(text, k); err != nil {
			return c, err
		}
		if line != nil {
			c.Lines = append(c.Lines, *line)
		}
	}
	for _, l := range f.logs {
		if slices.ContainsFunc(f.Config.Reporting.Logs, func(has config.MailLog) bool { return has.Path == l.Path }) {
			continue
		}
		block := "[[reporting.log]]\npath = " + strconv.Quote(l.Path) + "\nformat = " + strconv.Quote(l.Format) + "\n"
		if l.Sessions != "" {
			block += "sessions = " + strconv.Quote(l.Sessions) + "\n"
		}
		if at, ok := findKey(edit.Lines([]byte(text)), "reporting", "log"); ok {
			text = strings.Join(slices.Delete(edit.Lines([]byte(text)), at, at+1), "")
		}
		text = gap(text) + block
		c.Lines = append(c.Lines, edit.Line{Text: strings.TrimSuffix(block, "\n"), Why: "TLS sessions are counted from this log, for reports"})
	}
	c.After = []byte(text)
	if len(c.Lines) == 0 {
		c.New = false
		return c, nil
	}
	if _, err := config.Decode(f.change.Path, text); err != nil {
		return c, f.invalid(err)
	}
	return c, nil
}

// invalid is about a file in which our lines have no place, as beside a table that is
// written on one line.
func (f *File) invalid(err error) error {
	var all []string
	for _, k := range f.keys {
		all = append(all, k.path()+" = "+literal(k.Value))
	}
	return setup.Refuse("add these settings by hand, then run setup again: "+strings.Join(all, "; "),
		"what setup would write into %s is not valid: %v", f.change.Path, err)
}

// setKey sets one key in the text.
func (f *File) setKey(text string, k Key) (string, *edit.Line, error) {
	is, defined, err := lookUp(text, k)
	if err != nil {
		return text, nil, f.invalid(err)
	}
	want := k.Value
	if one, ok := is.(string); ok && k.Also { // a list may be written as its only element
		is = []string{one}
	}
	if list, ok := is.([]string); ok && k.Also {
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
	line := &edit.Line{Text: k.path() + " = " + literal(want), Why: k.Why}
	lines := edit.Lines([]byte(text))
	entry := k.Name + " = " + literal(want) + "\n"
	if !defined {
		if at, ok := findTable(lines, k.Table); ok {
			return strings.Join(slices.Insert(lines, endOfTable(lines, at), entry), ""), line, nil
		}
		return gap(text) + "[" + k.Table + "]\n" + entry, line, nil
	}
	if byDefault := defaultOf(k); !k.Must && !k.Also && !reflect.DeepEqual(is, byDefault) {
		return text, nil, setup.Refuse("change it there, or leave out the option that needs it",
			"%s has %s = %s, but %s is needed: %s", f.change.Path, k.path(), literal(is), literal(want), k.Why)
	}
	at, ok := findKey(lines, k.Table, k.Name)
	if !ok {
		return text, nil, setup.Refuse("", "%s has %s in a form that setup cannot change: set it to %s by hand", f.change.Path, k.path(), literal(want))
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
func lookUp(text string, k Key) (value any, defined bool, err error) {
	var tables map[string]any
	if _, err := toml.Decode(text, &tables); err != nil {
		return nil, false, err
	}
	if table, ok := tables[k.Table].(map[string]any); ok {
		if v, ok := table[k.Name]; ok {
			return plain(v), true, nil
		}
	}
	return defaultOf(k), false, nil
}

// defaultOf is what a key is in no file.
func defaultOf(k Key) any {
	text, err := config.Default().TOML()
	if err != nil {
		return nil
	}
	var tables map[string]any
	if _, err := toml.Decode(text, &tables); err != nil {
		return nil
	}
	table, _ := tables[k.Table].(map[string]any)
	return plain(table[k.Name])
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
