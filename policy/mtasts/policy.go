package mtasts

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Mode of a policy (RFC 8461 §5).
type Mode uint8

const (
	None    Mode = iota // as if there were no policy
	Testing             // failures are reported, mail flows
	Enforce             // no mail to a host that does not satisfy the policy
)

func (m Mode) String() string {
	switch m {
	case None:
		return "none"
	case Testing:
		return "testing"
	case Enforce:
		return "enforce"
	}
	return "mode " + strconv.Itoa(int(m))
}

const (
	// MaxMaxAge is the longest life of a policy, about a year (RFC 8461 §3.2).
	MaxMaxAge = 31557600 * time.Second

	// MaxBody is the largest policy text in octets; RFC 8461 §3.3 suggests it.
	MaxBody = 64 << 10

	// maxFields and maxPatterns keep matching and memory cheap whatever a stranger
	// publishes. The longest policies of large providers have some dozen lines, and
	// who has hundreds of MX hosts has wildcards.
	maxFields   = 2000
	maxPatterns = 1000

	maxWarnings = 16 // more tell nothing new

	byteOrderMark = "\ufeff"
)

// Policy is a parsed policy. It is never changed after ParsePolicy.
type Policy struct {
	Mode   Mode
	MX     []string      // patterns, lower case, in order, each a host name or "*." and a host name
	MaxAge time.Duration // at most MaxMaxAge; 0: for use at once only
	Text   string        // the body as fetched, for policy-string (RFC 8460 §4.4)
}

// Lines yields the lines of the policy's text for the policy-string of RFC 8460
// §4.4: as its owner wrote them, but without line ends, blank lines and byte
// order mark, and with spaces for tabs, so that there is no control character.
func (p *Policy) Lines() iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(strings.TrimPrefix(p.Text, byteOrderMark)) {
			line = trimLineEnd(line)
			if isBlank(line) {
				continue
			}
			if !yield(strings.ReplaceAll(line, "\t", " ")) {
				return
			}
		}
	}
}

// ParsePolicy parses the text of a policy (RFC 8461 §3.2). It is as strict as the
// grammar, for a malformed line leaves unsaid what its owner meant, with three
// exceptions that come with a warning: blank lines, a byte order mark, and a
// max_age beyond [MaxMaxAge], which is capped. Warnings are for the policy's
// owner; they and the error, which names the line, are printable.
func ParsePolicy(body string) (p *Policy, warnings []string, err error) {
	if len(body) > MaxBody {
		return nil, nil, fmt.Errorf("policy larger than %d octets", MaxBody)
	}
	parser := policyParser{}
	rest, marked := strings.CutPrefix(body, byteOrderMark)
	if marked {
		parser.warn("the text begins with a byte order mark")
	}
	line := 0
	for text := range strings.Lines(rest) {
		line++
		text = trimLineEnd(text)
		if isBlank(text) {
			parser.blank(line)
			continue
		}
		if err := parser.field(text, line); err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
	p, err = parser.policy(body)
	if err != nil {
		return nil, nil, err
	}
	return p, parser.warnings, nil
}

// trimLineEnd cuts off LF or CRLF, the line ends of RFC 8461 §3.2 (and erratum
// 6253). A CR without LF is an ordinary, and forbidden, character.
func trimLineEnd(line string) string {
	line, ended := strings.CutSuffix(line, "\n")
	if !ended {
		return line
	}
	return strings.TrimSuffix(line, "\r")
}

func isBlank(line string) bool { return strings.Trim(line, " \t") == "" }

// policyParser holds what has been seen of a policy so far.
type policyParser struct {
	version, mode, maxAge bool // seen
	hasBlank              bool

	result   Policy
	fields   int
	warnings []string
}

func (pp *policyParser) warn(format string, args ...any) {
	if len(pp.warnings) < maxWarnings {
		pp.warnings = append(pp.warnings, fmt.Sprintf(format, args...))
	}
}

// blank notes an empty line. The grammar has none, but a final one is common, and
// to ignore a policy for it would leave its domain's mail unprotected.
func (pp *policyParser) blank(line int) {
	if !pp.hasBlank {
		pp.hasBlank = true
		pp.warn("line %d is blank: other senders may reject the policy", line)
	}
}

// field parses one line: sts-policy-field *WSP.
func (pp *policyParser) field(line string, number int) error {
	if pp.fields++; pp.fields > maxFields {
		return fmt.Errorf("more than %d fields", maxFields)
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return fmt.Errorf(`%s is not "name: value"`, quoted(line))
	}
	if !isFieldName(name) {
		return fmt.Errorf("invalid field name %s", quoted(name))
	}
	value = strings.Trim(value, " \t")
	if err := checkText(value); err != nil {
		return fmt.Errorf("value of %s: %w", name, err)
	}
	// RFC 8461 §3.2: names are case-sensitive, unknown ones are ignored, and of
	// duplicates the first wins.
	switch name {
	case "version":
		if pp.isFirst(&pp.version, name, number) && value != "STSv1" {
			return fmt.Errorf("version %s is not STSv1", quoted(value))
		}
	case "mode":
		if pp.isFirst(&pp.mode, name, number) {
			return pp.setMode(value)
		}
	case "max_age":
		if pp.isFirst(&pp.maxAge, name, number) {
			return pp.setMaxAge(value, number)
		}
	case "mx":
		return pp.addPattern(value)
	default:
		if value == "" {
			return fmt.Errorf("field %s has no value", name)
		}
	}
	return nil
}

func (pp *policyParser) isFirst(seen *bool, name string, line int) bool {
	if *seen {
		pp.warn("line %d: another %s is ignored, the first is used", line, name)
		return false
	}
	*seen = true
	return true
}

func (pp *policyParser) setMode(value string) error {
	switch value {
	case "none":
		pp.result.Mode = None
	case "testing":
		pp.result.Mode = Testing
	case "enforce":
		pp.result.Mode = Enforce
	default:
		return fmt.Errorf("mode %s is not enforce, testing or none", quoted(value))
	}
	return nil
}

// setMaxAge takes 1 to 10 digits. RFC 8461 §3.2 has a maximum, but not what to do
// with more. To cap keeps the protection that the owner asked for.
func (pp *policyParser) setMaxAge(value string, line int) error {
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err != nil || len(value) > 10 {
		return fmt.Errorf("max_age %s is not 1 to 10 digits", quoted(value))
	}
	if seconds > uint64(MaxMaxAge/time.Second) {
		pp.warn("line %d: max_age %d is capped to %d", line, seconds, MaxMaxAge/time.Second)
		seconds = uint64(MaxMaxAge / time.Second)
	}
	pp.result.MaxAge = time.Duration(seconds) * time.Second
	return nil
}

// addPattern takes one pattern of an mx line. A malformed one voids the policy:
// without it the list could be too short to deliver, and nothing unchecked may
// reach the mail server's configuration.
func (pp *policyParser) addPattern(value string) error {
	if !isHostName(strings.TrimPrefix(value, "*."), false) || len(value) > maxNameLen {
		return fmt.Errorf(`mx %s is neither a host name nor "*." and a host name`, quoted(value))
	}
	if len(pp.result.MX) == maxPatterns {
		return fmt.Errorf("more than %d mx fields", maxPatterns)
	}
	pp.result.MX = append(pp.result.MX, strings.ToLower(value)) // no copy if it is
	return nil
}

// policy checks that all is there (RFC 8461 §3.2).
func (pp *policyParser) policy(body string) (*Policy, error) {
	switch {
	case pp.fields == 0:
		return nil, errors.New("the policy is empty")
	case !pp.version:
		return nil, errors.New("version is missing")
	case !pp.mode:
		return nil, errors.New("mode is missing")
	case !pp.maxAge:
		return nil, errors.New("max_age is missing")
	case len(pp.result.MX) == 0 && pp.result.Mode != None:
		return nil, fmt.Errorf("mode is %s, but there is no mx", pp.result.Mode)
	}
	p := pp.result
	p.Text = body
	p.MX = append(make([]string, 0, len(p.MX)), p.MX...) // as many policies are kept: no spare room
	return &p, nil
}

// checkText refuses what sts-policy-ext-value of RFC 8461 §3.2 excludes: what is
// not UTF-8, and control characters.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		return fmt.Errorf("control character %U", r)
	}
	return nil
}
