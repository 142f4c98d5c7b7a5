package tomlfile

import (
	"strconv"
	"strings"
)

// scan finds the line of every table and key of a text that has been parsed. It
// knows just enough of TOML to tell keys from values. Keys of inline tables are
// not found.
func scan(text string) map[string]int {
	s := scanner{text: text, lines: map[string]int{}, elements: map[string]int{}}
	for s.pos < len(s.text) {
		s.statement()
	}
	return s.lines
}

type scanner struct {
	text     string
	pos      int
	line     int // lines ended before counted
	counted  int
	table    string // path of the table that keys belong to
	lines    map[string]int
	elements map[string]int // of arrays of tables
}

// here is the line of pos.
func (s *scanner) here() int {
	s.line += strings.Count(s.text[s.counted:s.pos], "\n")
	s.counted = s.pos
	return s.line + 1
}

func (s *scanner) note(path string) {
	if _, ok := s.lines[path]; !ok {
		s.lines[path] = s.here()
	}
}

// statement reads one header, key with value, comment or blank line.
func (s *scanner) statement() {
	for s.pos < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.pos]) >= 0 {
		s.pos++
	}
	switch rest := s.text[s.pos:]; {
	case rest == "":
	case rest[0] == '#':
		s.restOfLine()
	case strings.HasPrefix(rest, "[["):
		s.pos += 2
		name := s.key()
		s.note(name)
		s.elements[name]++
		s.table = name + "." + strconv.Itoa(s.elements[name])
		s.note(s.table)
		s.restOfLine()
	case rest[0] == '[':
		s.pos++
		s.table = s.key()
		s.note(s.table)
		s.restOfLine()
	default:
		start := s.pos
		name := s.key()
		if s.table != "" {
			name = s.table + "." + name
		}
		s.note(name)
		if s.pos == start { // no key: not to stand still
			s.pos++
		}
		s.value()
	}
}

func (s *scanner) restOfLine() {
	if i := strings.IndexByte(s.text[s.pos:], '\n'); i >= 0 {
		s.pos += i + 1
		return
	}
	s.pos = len(s.text)
}

// key reads up to the "=" or "]" behind a dotted key, without blanks and quotes.
func (s *scanner) key() string {
	var b strings.Builder
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; c {
		case '=', ']', '\n', '#':
			return b.String()
		case ' ', '\t', '\r':
			s.pos++
		case '"', '\'':
			end := strings.IndexByte(s.text[s.pos+1:], c)
			if end < 0 {
				s.pos = len(s.text)
				return b.String()
			}
			b.WriteString(s.text[s.pos : s.pos+end+2]) // quoted, as toml.Key prints it
			s.pos += end + 2
		default:
			b.WriteByte(c)
			s.pos++
		}
	}
	return b.String()
}

// value skips to the end of the line that a value ends on.
func (s *scanner) value() {
	depth := 0
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case '\n':
			s.pos++
			if depth <= 0 {
				return
			}
		case '#':
			s.restOfLine()
			if depth <= 0 {
				return
			}
		case '[', '{':
			depth++
			s.pos++
		case ']', '}':
			depth--
			s.pos++
		case '"', '\'':
			s.quoted()
		default:
			s.pos++
		}
	}
}

// quoted skips a string of any of the four kinds.
func (s *scanner) quoted() {
	mark := s.text[s.pos : s.pos+1]
	escapes := mark == `"`
	if triple := strings.Repeat(mark, 3); strings.HasPrefix(s.text[s.pos:], triple) {
		mark = triple
	}
	s.pos += len(mark)
	for s.pos < len(s.text) {
		switch {
		case escapes && s.text[s.pos] == '\\':
			s.pos = min(s.pos+2, len(s.text))
		case strings.HasPrefix(s.text[s.pos:], mark):
			s.pos += len(mark)
			return
		default:
			s.pos++
		}
	}
}
