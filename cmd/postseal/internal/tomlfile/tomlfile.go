// Package tomlfile reads TOML the way an operator's file must be read: a key that
// nobody knows is an error, since a misspelt one would silently leave something
// unprotected, and every error names the file, the line and the key.
//
// The library tells lines for wrong syntax and wrong types only; for unknown
// keys, and for values that the caller finds wrong, [File.Error] looks the line up
// in the text.
package tomlfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// Read reads a file of at most most bytes; a device has no size to look at first.
func Read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, most)
	}
	return text, nil
}

// File is a decoded file.
type File struct {
	Name  string
	lines map[string]int // by path
	meta  toml.MetaData
}

// Error is wrong content. Its text is "name:line: key: message".
type Error struct {
	Name    string
	Line    int    // from 1; 0 if there is no such place
	Key     string // dotted; "" for syntax errors outside any key
	Message string
}

func (e *Error) Error() string {
	s := e.Name
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d", s, e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return s + ": " + e.Message
}

// Decode decodes text into v, a pointer to a struct, and leaves what the text does
// not mention as it is. name is for errors. Errors are of type [*Error].
func Decode(name, text string, v any) (*File, error) {
	f := &File{Name: name}
	meta, err := toml.Decode(text, v)
	if err != nil {
		return nil, positioned(name, err)
	}
	f.meta, f.lines = meta, scan(text)
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		key := topmost(unknown).String()
		return nil, &Error{Name: name, Line: f.line(key), Key: key, Message: "unknown key"}
	}
	return f, nil
}

// topmost is the first key, shortened to the table that is unknown as a whole.
func topmost(unknown []toml.Key) toml.Key {
	first := unknown[0]
	for _, k := range unknown[1:] {
		if len(k) < len(first) && strings.HasPrefix(first.String(), k.String()+".") {
			first = k
		}
	}
	return first
}

// Defined reports whether the text mentions the key.
func (f *File) Defined(key string) bool { return f.meta.IsDefined(strings.Split(key, ".")...) }

// Error is an error about the value of key, a dotted path. In an array of tables
// an element is named by its number: "override.2.expires".
func (f *File) Error(key, format string, args ...any) error {
	return &Error{Name: f.Name, Line: f.line(key), Key: key, Message: fmt.Sprintf(format, args...)}
}

// line is that of key or, if it is nowhere as such, of the nearest table around it.
func (f *File) line(key string) int {
	if n := f.anywhere(key); n > 0 {
		return n
	}
	for {
		if n := f.lines[key]; n > 0 {
			return n
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// anywhere finds a key as the library gives it, without the numbers of elements.
func (f *File) anywhere(key string) int {
	if n := f.lines[key]; n > 0 {
		return n
	}
	best := 0
	for path, n := range f.lines {
		if number.ReplaceAllString(path, ".") == key && (best == 0 || n < best) {
			best = n
		}
	}
	return best
}

var (
	number = regexp.MustCompile(`\.\d+\.`)
	// The texts of the library's errors about types have the place only in words.
	typeError = regexp.MustCompile(`^toml: (?:line (\d+) )?\(last key "(.*?)"\): (.*)$`)
	tomlWords = strings.NewReplacer("type slice", "type list", "int64", "integer", "float64", "float", "[]interface {}", "list", "map[string]interface {}", "table")
	typeWords = regexp.MustCompile(`^incompatible types: TOML value has type (.*); destination has type (.*)$`)
)

func positioned(name string, err error) error {
	if p, ok := errors.AsType[toml.ParseError](err); ok {
		return &Error{Name: name, Line: p.Position.Line, Key: p.LastKey, Message: p.Message}
	}
	m := typeError.FindStringSubmatch(err.Error())
	if m == nil {
		return &Error{Name: name, Message: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	e := &Error{Name: name, Key: m[2], Message: typeWords.ReplaceAllString(m[3], "must be of type $2, not $1")}
	e.Message = tomlWords.Replace(e.Message)
	fmt.Sscan(m[1], &e.Line) // stays 0 where the library knows none
	return e
}
