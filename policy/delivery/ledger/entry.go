package ledger

import (
	"encoding/binary"
	"time"
)

// maxText is the length of a reply line of SMTP (RFC 5321 §4.5.3.1.5).
const maxText = 512

// maxEnhanced is the length of "2.999.999" (RFC 3463 §2).
const maxEnhanced = 9

// format is the first byte of a value: the time in nanoseconds (8 bytes), the code
// (2), the length of the enhanced code (1), that code, the text.
const format = 1

const header = 1 + 8 + 2 + 1

// clean makes an entry one that [decode] accepts.
func (e Entry) clean() Entry {
	if e.Code < 200 || e.Code > 299 {
		e.Code = 250
	}
	if len(e.Enhanced) > maxEnhanced || !printable(e.Enhanced) {
		e.Enhanced = ""
	}
	text := []byte(e.Text[:min(len(e.Text), maxText)])
	for i, c := range text {
		if c < ' ' || c > '~' {
			text[i] = '?'
		}
	}
	e.Text = string(text)
	return e
}

// encode appends the value of an entry.
func (e Entry) encode(b []byte) []byte {
	b = append(b, format)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At.UnixNano()))
	b = binary.BigEndian.AppendUint16(b, uint16(e.Code))
	b = append(b, byte(len(e.Enhanced)))
	b = append(b, e.Enhanced...)
	return append(b, e.Text...)
}

// decode reads a value; ok is false for one that encode has not written.
func decode(b []byte) (e Entry, ok bool) {
	if len(b) < header || b[0] != format {
		return Entry{}, false
	}
	e.At = time.Unix(0, int64(binary.BigEndian.Uint64(b[1:])))
	e.Code = int(binary.BigEndian.Uint16(b[9:]))
	n := int(b[11])
	rest := b[header:]
	if n > maxEnhanced || n > len(rest) || len(rest)-n > maxText || e.Code < 200 || e.Code > 299 || !printable(string(rest)) {
		return Entry{}, false
	}
	e.Enhanced, e.Text = string(rest[:n]), string(rest[n:])
	return e, true
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
