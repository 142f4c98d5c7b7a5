package maillog

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Entry is a log line in its parts. They point into the line.
type Entry struct {
	Stamp []byte // as it was written: see [Clock]
	Host  []byte // that wrote it; "" if it is not named
	Tag   []byte // the program: "postfix/smtp", "sendmail", "exim"
	PID   []byte // digits; "" if there are none
	Text  []byte // what the program says
	Key   []byte // the same for all lines of one process, and for no other
	Cut   bool   // the tag may have lost what stood behind a slash
}

// Head takes the head off a line. The forms are
//
//	Nov  3 04:05:06 host prog[pid]: text                        syslogd, rsyslog, postlogd
//	2026-11-03T04:05:06.123456+01:00 host prog[pid]: text       rsyslog, journalctl -o short-iso
//	<22>1 2026-11-03T04:05:06.123456+01:00 host prog pid - - text     RFC 5424 §6
//	{"MESSAGE":"text","SYSLOG_IDENTIFIER":"prog","_PID":"1",…}  journalctl -o json
//
// with or without fractions of a second. It allocates only for the last form, and
// fails for "last message repeated 2 times", which names no program. That line is
// never a session: the TLS lines of a session are followed by a line of the same
// process with the recipient, so no MTA writes one of them twice in a row.
func Head(line []byte) (e Entry, ok bool) {
	if len(line) > 0 && line[0] == '{' {
		return journal(line)
	}
	line, version := priority(line)
	n := StampLen(line)
	if n == 0 || n >= len(line) || line[n] != ' ' {
		return e, false
	}
	e.Stamp, line = line[:n], line[n+1:]
	switch {
	case version:
		ok = e.structured(line)
	case e.classic(line):
		ok = true
	default: // some templates of RFC 5424 leave priority and version out
		e = Entry{Stamp: e.Stamp}
		ok = e.structured(line) && len(e.PID) > 0
	}
	return e, ok
}

// priority takes "<22>" off, and says whether a version follows, which makes the rest
// RFC 5424 (§6.2.2).
func priority(line []byte) (rest []byte, version bool) {
	if len(line) == 0 || line[0] != '<' {
		return line, false
	}
	end := bytes.IndexByte(line[:min(len(line), 5)], '>')
	if end < 2 || !Digits(line[1:end]) {
		return line, false
	}
	rest = line[end+1:]
	if len(rest) > 2 && rest[0] == '1' && rest[1] == ' ' {
		return rest[2:], true
	}
	return rest, false
}

// classic reads "host prog[pid]: text". Between host and program some daemons say
// facility and level: "<mail.info> host prog:" (FreeBSD), "host mail.info prog:"
// (BusyBox), "prog[pid]: [ID 1 mail.info] text" (Solaris).
func (e *Entry) classic(line []byte) bool {
	if len(line) > 0 && line[0] == '<' {
		_, line, _ = bytes.Cut(line, []byte("> "))
	}
	start := line
	var ok bool
	if e.Host, line, ok = Word(line); !ok {
		return false
	}
	tag, rest, ok := Word(line)
	if ok && tag[len(tag)-1] != ':' && bytes.IndexByte(tag, '.') > 0 {
		tag, rest, ok = Word(rest)
	}
	if !ok || len(tag) < 2 || tag[len(tag)-1] != ':' {
		return false
	}
	tag = tag[:len(tag)-1]
	e.Key = start[:len(start)-len(rest)-len(": ")]
	if n := len(tag) - 1; tag[n] == ']' {
		open := bytes.LastIndexByte(tag, '[')
		if open < 1 || !Digits(tag[open+1:n]) {
			return false
		}
		tag, e.PID = tag[:open], tag[open+1:n]
	}
	e.Tag, e.Text = tag, bytes.TrimLeft(rest, " ")
	if bytes.HasPrefix(rest, []byte("[ID ")) {
		if _, after, found := bytes.Cut(rest, []byte("] ")); found {
			e.Text = after
		}
	}
	return true
}

// structured reads "host app-name procid msgid structured-data text". rsyslog's
// template for it cuts "postfix/smtp" at the slash, where only "postfix" is left.
func (e *Entry) structured(line []byte) bool {
	start := line
	var ok bool
	if e.Host, line, ok = Word(line); !ok {
		return false
	}
	if e.Tag, line, ok = Word(line); !ok {
		return false
	}
	if e.PID, line, ok = Word(line); !ok {
		return false
	}
	e.Key = start[:len(start)-len(line)-1]
	if !Digits(e.PID) {
		e.PID = nil
	}
	if _, line, ok = Word(line); !ok { // msgid
		return false
	}
	if e.Text, ok = elements(line); !ok {
		return false
	}
	e.Text = bytes.TrimPrefix(e.Text, []byte("\xef\xbb\xbf")) // RFC 5424 §6.4: text in UTF-8 may start so
	e.Text = bytes.TrimLeft(e.Text, " ")                      // rsyslog leaves the blank behind the tag to the text
	e.Cut = bytes.IndexByte(e.Tag, '/') < 0
	return true
}

// elements skips the structured data of RFC 5424 §6.3: "-", or elements in brackets
// whose values are quoted, with a backslash before quote, backslash and bracket.
func elements(line []byte) (rest []byte, ok bool) {
	if len(line) > 0 && line[0] == '-' {
		line = line[1:]
	} else {
		quoted, depth, i := false, 0, 0
		for ; i < len(line) && (depth > 0 || line[i] == '['); i++ {
			switch c := line[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case !quoted && c == '[':
				depth++
			case !quoted && c == ']':
				depth--
			}
		}
		if i == 0 || depth > 0 || i > len(line) {
			return nil, false
		}
		line = line[i:]
	}
	if len(line) == 0 || line[0] != ' ' {
		return nil, len(line) == 0
	}
	return line[1:], true
}

// field is a value of journald's JSON: a string, or the bytes of one that is no
// UTF-8 as an array of numbers (systemd.io/JOURNAL_EXPORT_FORMATS). A field that
// occurs twice is an array of such values: the first counts.
type field []byte

func (f *field) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '[' {
		var s *string
		if err := json.Unmarshal(text, &s); err != nil || s == nil {
			return err
		}
		*f = []byte(*s)
		return nil
	}
	var numbers []uint16 // as []byte it would have to be base64
	if err := json.Unmarshal(text, &numbers); err != nil {
		var several []field
		if err := json.Unmarshal(text, &several); err != nil || len(several) == 0 {
			return err
		}
		*f = several[0]
		return nil
	}
	*f = make([]byte, len(numbers))
	for i, b := range numbers {
		(*f)[i] = byte(b)
	}
	return nil
}

// journal reads one object of journalctl -o json.
func journal(line []byte) (e Entry, ok bool) {
	var object struct {
		Message    field `json:"MESSAGE"`
		Identifier field `json:"SYSLOG_IDENTIFIER"`
		PID        field `json:"SYSLOG_PID"`
		TrustedPID field `json:"_PID"`
		Host       field `json:"_HOSTNAME"`
		Realtime   field `json:"__REALTIME_TIMESTAMP"`
	}
	if json.Unmarshal(line, &object) != nil {
		return e, false
	}
	e = Entry{Host: object.Host, Tag: object.Identifier, PID: object.PID, Text: object.Message}
	// What the program says of itself first: a forwarder writes for others.
	if len(e.PID) == 0 {
		e.PID = object.TrustedPID
	}
	if len(e.Tag) == 0 || len(e.Text) == 0 || !Digits(object.Realtime) || len(e.PID) > 0 && !Digits(e.PID) {
		return e, false
	}
	e.Stamp = append([]byte{'@'}, object.Realtime...)
	e.Key = bytes.Join([][]byte{e.Host, e.Tag, e.PID}, []byte{' '})
	return e, true
}

// Word cuts at the first blank.
func Word(line []byte) (first, rest []byte, ok bool) {
	i := bytes.IndexByte(line, ' ')
	if i <= 0 {
		return line, nil, false
	}
	return line[:i], line[i+1:], true
}

// Digits reports whether b has digits only, and some.
func Digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// Base62 reports whether b has letters and digits only, as most queue ids.
func Base62(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// atoi reads digits of at most nine places.
func atoi(b []byte) (int, bool) {
	if len(b) > 9 || !Digits(b) {
		return 0, false
	}
	n, err := strconv.Atoi(string(b))
	return n, err == nil
}
