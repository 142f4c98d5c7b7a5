package socketmap_test

import (
	"errors"
	"fmt"
	"strings"
)

// postfixPolicy is a TLS policy as Postfix understands it.
type postfixPolicy struct {
	level                     string
	match                     []string
	servername                string
	policyType, policyDomain  string
	policyStrings, mxPatterns []string
}

// parsePostfix reads the value of smtp_tls_policy_maps as Postfix does. With
// attributes it is Postfix 3.10 and later, else 3.4 to 3.9. Any error there means
// that all mail to the domain waits.
func parsePostfix(value string, attributes bool) (*postfixPolicy, error) {
	tokens := splitPostfix(value, attributes)
	if len(tokens) == 0 {
		return nil, errors.New("empty value")
	}
	p := &postfixPolicy{level: strings.ToLower(tokens[0])}
	switch p.level {
	case "none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure":
	default:
		return nil, fmt.Errorf("invalid security level %q", tokens[0])
	}
	for _, token := range tokens[1:] {
		if err := p.attribute(token, attributes); err != nil {
			return nil, fmt.Errorf("attribute %q: %w", token, err)
		}
	}
	if p.policyType == "" && (p.policyDomain != "" || len(p.policyStrings) > 0 || len(p.mxPatterns) > 0) {
		return nil, errors.New("TLSRPT attributes without policy_type")
	}
	return p, nil
}

// splitPostfix splits at commas and blanks; from 3.10 on, not within braces.
func splitPostfix(value string, braces bool) []string {
	var tokens []string
	start, level := -1, 0
	for i := 0; i <= len(value); i++ {
		if i == len(value) || level == 0 && strings.IndexByte(", \t\r\n", value[i]) >= 0 {
			if start >= 0 {
				tokens = append(tokens, value[start:i])
			}
			start = -1
			continue
		}
		if start < 0 {
			start = i
		}
		switch {
		case braces && value[i] == '{':
			level++
		case braces && value[i] == '}' && level > 0:
			level--
		}
	}
	return tokens
}

func (p *postfixPolicy) attribute(token string, attributes bool) error {
	for i := range len(token) {
		if token[i] < ' ' || token[i] == 0x7f {
			return errors.New("control character")
		}
	}
	if attributes && token[0] == '{' {
		inner, ok := stripBraces(token)
		if !ok {
			return errors.New("missing '}' or text behind it")
		}
		token = inner
	}
	name, text, ok := strings.Cut(token, "=")
	if !ok {
		return errors.New("missing '=' after attribute name")
	}
	name, text = strings.ToLower(strings.Trim(name, " \t")), strings.Trim(text, " \t")
	if name == "" || strings.ContainsAny(name, " \t") {
		return errors.New("malformed name")
	}
	switch name {
	case "match":
		if p.level != "secure" && p.level != "verify" && p.level != "fingerprint" {
			return errors.New("invalid at this level")
		}
		if text == "" {
			return errors.New("empty value")
		}
		p.match = append(p.match, strings.Split(text, ":")...)
		return nil
	case "servername":
		if p.servername != "" || !validHostname(text) {
			return errors.New("repeated, or an invalid hostname")
		}
		p.servername = text
		return nil
	}
	if !attributes {
		return errors.New("invalid attribute name")
	}
	return p.report(name, text)
}

func (p *postfixPolicy) report(name, text string) error {
	switch name {
	case "policy_type":
		if p.policyType != "" || text != "sts" && text != "no-policy-found" {
			return errors.New("repeated, or an unexpected value")
		}
		p.policyType = text
	case "policy_domain":
		if p.policyDomain != "" || !validHostname(text) {
			return errors.New("repeated, or a malformed value")
		}
		p.policyDomain = text
	case "policy_string":
		p.policyStrings = append(p.policyStrings, text)
	case "mx_host_pattern":
		p.mxPatterns = append(p.mxPatterns, text)
	default:
		return errors.New("invalid attribute name")
	}
	return nil
}

// stripBraces wants the brace that closes the first to be the end (extpar()).
func stripBraces(s string) (string, bool) {
	level := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			level++
		case '}':
			level--
		}
		if level == 0 {
			return strings.Trim(s[1:i], " \t"), i == len(s)-1
		}
	}
	return "", false
}

// validHostname is valid_hostname(3).
func validHostname(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	letters := false
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', c == '-':
				letters = true
			case '0' <= c && c <= '9':
			default:
				return false
			}
		}
	}
	return letters
}
