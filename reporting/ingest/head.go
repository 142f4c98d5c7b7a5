package ingest

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// entry is a log line in its parts. They point into the line.
type entry struct {
	stamp []byte // as it was written: see clock
	host  []byte // that wrote it; "" if it is not named
	tag   []byte // the program: "postfix/smtp", "sendmail", "exim"
	pid   []byte // digits; "" if there are none
	text  []byte
	key   []byte // the same for all lines of one process, and for no other
	cut   bool   // the tag may have lost what stood behind a slash
}

// head takes the head off a line. The forms are
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
func head(line []byte) (e entry, ok bool) {
	if len(line) > 0 && line[0] == '{' {
		return journal(line)
	}
	line, version := priority(line)
	n := stampLen(line)
	if n == 0 || n >= len(line) || line[n] != ' ' {
		return e, false
	}
	e.stamp, line = line[:n], line[n+1:]
	switch {
	case version:
		ok = e.structured(line)
	case e.classic(line):
		ok = true
	default: // some templates of RFC 5424 leave priority and version out
		e = entry{stamp: e.stamp}
		ok = e.structured(line) && len(e.pid) > 0
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
	if end < 2 || !digits(line[1:end]) {
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
func (e *entry) classic(line []byte) bool {
	if len(line) > 0 && line[0] == '<' {
		_, line, _ = bytes.Cut(line, []byte("> "))
	}
	start := line
	var ok bool
	if e.host, line, ok = word(line); !ok {
		return false
	}
	tag, rest, ok := word(line)
	if ok && tag[len(tag)-1] != ':' && bytes.IndexByte(tag, '.') > 0 {
		tag, rest, ok = word(rest)
	}
	if !ok || len(tag) < 2 || tag[len(tag)-1] != ':' {
		return false
	}
	tag = tag[:len(tag)-1]
	e.key = start[:len(start)-len(rest)-len(": ")]
	if n := len(tag) - 1; tag[n] == ']' {
		open := bytes.LastIndexByte(tag, '[')
		if open < 1 || !digits(tag[open+1:n]) {
			return false
		}
		tag, e.pid = tag[:open], tag[open+1:n]
	}
	e.tag, e.text = tag, bytes.TrimLeft(rest, " ")
	if bytes.HasPrefix(rest, []byte("[ID ")) {
		if _, after, found := bytes.Cut(rest, []byte("] ")); found {
			e.text = after
		}
	}
	return true
}

// structured reads "host app-name procid msgid structured-data text". rsyslog's
// template for it cuts "postfix/smtp" at the slash, where only "postfix" is left.
func (e *entry) structured(line []byte) bool {
	start := line
	var ok bool
	if e.host, line, ok = word(line); !ok {
		return false
	}
	if e.tag, line, ok = word(line); !ok {
		return false
	}
	if e.pid, line, ok = word(line); !ok {
		return false
	}
	e.key = start[:len(start)-len(line)-1]
	if !digits(e.pid) {
		e.pid = nil
	}
	if _, line, ok = word(line); !ok { // msgid
		return false
	}
	if e.text, ok = elements(line); !ok {
		return false
	}
	e.text = bytes.TrimPrefix(e.text, []byte("\xef\xbb\xbf")) // RFC 5424 §6.4: text in UTF-8 may start so
	e.text = bytes.TrimLeft(e.text, " ")                      // rsyslog leaves the blank behind the tag to the text
	e.cut = bytes.IndexByte(e.tag, '/') < 0
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
func journal(line []byte) (e entry, ok bool) {
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
	e = entry{host: object.Host, tag: object.Identifier, pid: object.PID, text: object.Message}
	// What the program says of itself first: a forwarder writes for others.
	if len(e.pid) == 0 {
		e.pid = object.TrustedPID
	}
	if len(e.tag) == 0 || len(e.text) == 0 || !digits(object.Realtime) || len(e.pid) > 0 && !digits(e.pid) {
		return e, false
	}
	e.stamp = append([]byte{'@'}, object.Realtime...)
	e.key = bytes.Join([][]byte{e.host, e.tag, e.pid}, []byte{' '})
	return e, true
}

// word cuts at the first blank.
func word(line []byte) (first, rest []byte, ok bool) {
	i := bytes.IndexByte(line, ' ')
	if i <= 0 {
		return line, nil, false
	}
	return line[:i], line[i+1:], true
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// base62 reports whether b has letters and digits only, as most queue ids.
func base62(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// atoi reads digits of at most nine places.
func atoi(b []byte) (int, bool) {
	if len(b) > 9 || !digits(b) {
		return 0, false
	}
	n, err := strconv.Atoi(string(b))
	return n, err == nil
}
