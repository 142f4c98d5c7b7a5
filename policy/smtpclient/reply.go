package smtpclient

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

const (
	// maxLine is the longest reply line. RFC 5321 §4.5.3.1.5 allows 512 octets,
	// servers that quote addresses and log lines write more.
	maxLine = 4096
	// maxLines and maxReply bound one reply. The longest EHLO replies seen have
	// 20 lines.
	maxLines = 100
	maxReply = 64 << 10

	maxText   = 512 // octets of a reply for the mail server (RFC 5321 §4.5.3.1.5)
	maxReason = 200
	maxName   = 255 // RFC 5321 §4.5.3.1.2
)

// Reply is an SMTP reply: the remote's own, or ours to the mail server.
type Reply struct {
	Code     int    // 0: none yet
	Enhanced string // "2.0.0", of the class of Code (RFC 3463 §2); "" only if Code is 0
	Text     string // one line, printable ASCII, at most 512 bytes
}

// answer is a reply as it came, within bounds but of unchecked content.
type answer struct {
	code  int
	lines []string // without the code
}

// class is the first digit, by which an unknown code is to be understood (RFC 5321 §4.3.2).
func (a answer) class() int { return a.code / 100 }

// replyError is a reply that is none (RFC 5321 §4.2).
type replyError struct{ what string }

func (e *replyError) Error() string { return e.what }

// readReply reads one reply of any number of lines up to the bounds. Lines may end
// in LF alone. Each must bear the same code, of class 2 to 5.
func readReply(r *bufio.Reader) (answer, error) {
	var a answer
	size := 0
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return a, &replyError{fmt.Sprintf("reply line longer than %d octets", maxLine)}
		}
		if err != nil {
			return a, err
		}
		if size += len(line); size > maxReply || len(a.lines) == maxLines {
			return a, &replyError{fmt.Sprintf("reply of more than %d lines or %d octets", maxLines, maxReply)}
		}
		text := strings.TrimRight(string(line), "\r\n")
		code, rest, more, ok := parseLine(text)
		if !ok {
			return a, &replyError{fmt.Sprintf("not an SMTP reply: %q", clip(text, 80))}
		}
		if len(a.lines) > 0 && code != a.code {
			return a, &replyError{fmt.Sprintf("codes %d and %d in one reply", a.code, code)}
		}
		a.code = code
		a.lines = append(a.lines, rest)
		if !more {
			return a, nil
		}
	}
}

// parseLine takes a reply line apart: three digits, and "-" behind them if
// another line follows (RFC 5321 §4.2.1). A code alone is a line too (§4.2).
func parseLine(line string) (code int, text string, more, ok bool) {
	if len(line) < 3 {
		return 0, "", false, false
	}
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return 0, "", false, false
		}
		code = code*10 + int(c-'0')
	}
	if code < 200 || code > 599 {
		return 0, "", false, false
	}
	if len(line) == 3 {
		return code, "", false, true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, "", false, false
	}
	return code, line[4:], line[3] == '-', true
}

// Reply is the answer in one clean line. Its enhanced code is kept if its class is
// that of the reply code, else one that says nothing takes its place (RFC 3463 §2).
func (a answer) Reply() Reply {
	r := Reply{Code: a.code, Enhanced: fmt.Sprintf("%d.0.0", a.class())}
	var texts []string
	for i, line := range a.lines {
		enhanced, text := cutEnhanced(line)
		if i == 0 && enhanced != "" && int(enhanced[0]-'0') == a.class() {
			r.Enhanced = enhanced
		}
		if text != "" {
			texts = append(texts, text)
		}
	}
	r.Text = clip(strings.Join(texts, " "), maxText)
	return r
}

// cutEnhanced finds the enhanced code at the start of a reply text (RFC 2034 §4).
func cutEnhanced(line string) (enhanced, text string) {
	word, rest, _ := strings.Cut(line, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
		return "", line
	}
	for _, part := range parts[1:] {
		if len(part) < 1 || len(part) > 3 || strings.Trim(part, "0123456789") != "" {
			return "", line
		}
	}
	return word, strings.TrimLeft(rest, " ")
}

// clip makes a text from outside fit for a reply or a log line: printable ASCII,
// at most n bytes, tabs as blanks.
func clip(s string, n int) string {
	b := []byte(s[:min(len(s), n)])
	for i, c := range b {
		switch {
		case c == '\t':
			b[i] = ' '
		case c < ' ' || c > '~':
			b[i] = '?'
		}
	}
	return strings.TrimSpace(string(b))
}

// brief is the reply in few words, for a failure-reason-code.
func (a answer) brief() string {
	r := a.Reply()
	return fmt.Sprintf("%d %s", r.Code, clip(r.Text, 100))
}
