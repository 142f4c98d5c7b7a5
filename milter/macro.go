package milter

import (
	"slices"

	gomilter "github.com/emersion/go-milter"
)

// macros are what the mail server says about a command ahead of it. They belong
// to that command alone: those of the next one of its kind replace them, also when
// it has none, or the user of one message would be the user of the next.
// go-milter keeps only those of the latest command.
type macros struct {
	pending map[gomilter.Code]map[string]string // came, their command did not yet
	current map[gomilter.Code]map[string]string // of the latest command of each kind
}

// wanted are the macros that are kept.
var wanted = map[string]bool{macroQueueID: true, macroUser: true, macroMailer: true, macroTLSVersion: true}

// stages lists the commands that have macros we use, in their order.
var stages = []gomilter.Code{gomilter.CodeConn, gomilter.CodeHelo, gomilter.CodeMail, gomilter.CodeRcpt,
	gomilter.CodeData, gomilter.CodeHeader, gomilter.CodeEOH, gomilter.CodeBody, gomilter.CodeEOB}

// define takes the frame that comes ahead of a command.
func (m *macros) define(data []byte) error {
	if len(data) == 0 {
		return malformed(byte(gomilter.CodeMacro), "no command")
	}
	set := map[string]string{}
	if len(data) > 1 {
		words, ok := cstrings(data[1:])
		if !ok {
			return malformed(byte(gomilter.CodeMacro), "not names and values")
		}
		for i := 0; i+1 < len(words); i += 2 {
			if wanted[words[i]] {
				set[words[i]] = words[i+1]
			}
		}
	}
	if code := gomilter.Code(data[0]); slices.Contains(stages, code) {
		if m.pending == nil {
			m.pending = map[gomilter.Code]map[string]string{}
		}
		m.pending[code] = set
	}
	return nil
}

// arrive makes the macros of a command those that count.
func (m *macros) arrive(code gomilter.Code) {
	if m.current == nil {
		m.current = map[gomilter.Code]map[string]string{}
	}
	m.current[code] = m.pending[code]
	delete(m.pending, code)
}

// forget drops what was said about a message, from one of its stages on; what
// belongs to the connection stays.
func (m *macros) forget(from gomilter.Code) {
	for _, s := range stages[slices.Index(stages, from):] {
		delete(m.current, s)
		delete(m.pending, s)
	}
}

// of returns a macro of the latest command of a kind.
func (m *macros) of(code gomilter.Code, name string) string { return m.current[code][name] }

// latest returns a macro as it was last said.
func (m *macros) latest(name string) string {
	for i := len(stages) - 1; i >= 0; i-- {
		if v := m.of(stages[i], name); v != "" {
			return v
		}
	}
	return ""
}
