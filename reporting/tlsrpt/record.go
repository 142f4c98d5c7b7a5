package tlsrpt

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

var (
	// ErrNoRecord is returned when a domain has no TLSRPT record: it wants no reports.
	ErrNoRecord = errors.New("no TLSRPT record")

	// ErrSeveralRecords is returned when a domain has more than one TLSRPT record.
	// RFC 8460 §3 has senders treat it as having none.
	ErrSeveralRecords = errors.New("more than one TLSRPT record")
)

// RecordError is returned for a record that announces TLSRPT but is malformed, or that
// names nothing that a report can be sent to.
type RecordError struct {
	Record string // printable and bounded
	Reason string
}

func (e *RecordError) Error() string {
	return "unusable TLSRPT record " + quoted(e.Record) + ": " + e.Reason
}

const (
	recordPrefix  = "_smtp._tls."
	recordVersion = "v=TLSRPTv1"

	// MaxTargets is how many URIs of a record are used. RFC 7489 §6.2 has two as the
	// least for DMARC; nobody was seen to publish more than three here.
	MaxTargets = 10

	maxURI   = 1024 // far above what was seen; bounds the request line and the state
	maxNotes = 8    // on one record
	maxField = 32   // RFC 8460 §3: tlsrpt-ext-name
)

// RecordName is the name of a domain's TXT record (RFC 8460 §3), in A-labels. A name
// that is no domain, or too long for the prefix, cannot have one.
func RecordName(domain string) (string, error) {
	ascii, ok := asciiName(domain)
	if !ok || len(recordPrefix)+len(ascii) > maxName255 {
		return "", fmt.Errorf("%s has no name for a TLSRPT record: not a domain, or too long", quoted(domain))
	}
	return recordPrefix + ascii, nil
}

// Record is a TLSRPT record that can be followed.
type Record struct {
	Targets []Target // one at least, MaxTargets at most, none twice
	Notes   []string // what was passed over and why, for its owner; printable
}

// Target is where reports are wanted.
type Target struct {
	// URI names the target: for https as published, which is what to POST to; for
	// mail "mailto:" and Address.
	URI     string
	Address string // addr-spec, domain in A-labels; "" for https
}

// Mail reports whether reports go there by mail, and else by https.
func (t Target) Mail() bool { return t.Address != "" }

// ParseRecord finds the one TLSRPT record among the TXT records of a name (RFC 8460
// §3), each already joined from its character-strings. The error is [ErrNoRecord],
// [ErrSeveralRecords] or a [*RecordError].
//
// URIs that cannot be used do not make the others so: postmasters forget the scheme of
// one, or follow the manual of DMARC.
func ParseRecord(txts []string) (Record, error) {
	var record string
	found := 0
	for _, txt := range txts {
		if isRecord(txt) {
			record = txt
			found++
		}
	}
	switch found {
	case 0:
		return Record{}, ErrNoRecord
	case 1:
		return parseRecord(record)
	}
	return Record{}, ErrSeveralRecords
}

// isRecord reports whether txt is not to be dropped. RFC 8460 §3 drops what does not
// begin with "v=TLSRPTv1;" although its grammar has blanks before the semicolon. The
// grammar wins: its records are meant.
func isRecord(txt string) bool {
	rest, ok := strings.CutPrefix(txt, recordVersion)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";")
}

// parseRecord parses by the grammar of RFC 8460 §3:
//
//	tlsrpt-record = tlsrpt-version 1*(field-delim tlsrpt-field) [field-delim]
//	field-delim   = *WSP ";" *WSP
//	tlsrpt-field  = tlsrpt-rua / tlsrpt-extension
func parseRecord(txt string) (Record, error) {
	bad := func(reason string) (Record, error) {
		return Record{}, &RecordError{Record: shown(txt, 128), Reason: reason}
	}
	var p targets
	present := false
	_, rest, _ := strings.Cut(txt, ";")
	for more := true; more; {
		var field string
		field, rest, more = strings.Cut(rest, ";")
		field = strings.Trim(field, " \t")
		if field == "" && !more {
			break // after the final ";"
		}
		name, value, ok := strings.Cut(field, "=")
		switch {
		case field == "":
			return bad(`nothing between two ";"`)
		case !ok:
			return bad("field " + quoted(field) + ` has no "="`)
		case !isFieldName(name):
			return bad("invalid field name " + quoted(name))
		case name == "rua": // may be there again: the grammar has it so
			present = true
			p.list(value)
		case !isExtensionValue(value):
			return bad("invalid value of field " + quoted(name))
		}
	}
	if !present {
		return bad("the rua is missing")
	}
	record := p.record()
	if len(record.Targets) == 0 {
		return bad("nothing in rua can be used: " + strings.Join(record.Notes, "; "))
	}
	return record, nil
}

// targets collects those of a record.
type targets struct {
	Record
	unused, untold int
}

// list adds a comma-separated list of URIs.
func (p *targets) list(value string) {
	for element := range strings.SplitSeq(value, ",") {
		element = strings.Trim(element, " \t")
		if len(p.Targets) == MaxTargets {
			p.unused++
			continue
		}
		t, note, err := parseTarget(element)
		switch {
		case err != nil:
			p.note(quoted(element) + " " + err.Error())
			continue
		case note != "":
			p.note(quoted(element) + ": " + note)
		}
		if p.has(t) {
			p.note(quoted(element) + " is there twice")
			continue
		}
		p.Targets = append(p.Targets, t)
	}
}

func (p *targets) has(t Target) bool {
	for _, other := range p.Targets {
		if other == t {
			return true
		}
	}
	return false
}

func (p *targets) note(s string) {
	if len(p.Notes) == maxNotes {
		p.untold++
		return
	}
	p.Notes = append(p.Notes, s)
}

func (p *targets) record() Record {
	if p.untold > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("and %d more like these", p.untold))
	}
	if p.unused > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d more are not used: %d are the most", p.unused, MaxTargets))
	}
	return p.Record
}

// ParseTarget reads one URI, as an operator names it.
func ParseTarget(uri string) (Target, error) {
	t, note, err := parseTarget(uri)
	if err == nil && note != "" {
		err = errors.New(note)
	}
	return t, err
}

// parseTarget reads one URI. The note says what of it is not followed.
func parseTarget(uri string) (t Target, note string, err error) {
	if uri == "" {
		return t, "", errors.New("is empty")
	}
	if len(uri) > maxURI {
		return t, "", fmt.Errorf("is longer than %d bytes", maxURI)
	}
	if err := checkURI(uri); err != nil {
		return t, "", err
	}
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return t, "", errors.New("has no scheme")
	}
	switch strings.ToLower(scheme) {
	case "mailto":
		return parseMailto(rest)
	case "https":
		return Target{URI: uri}, "", checkHTTPS(uri)
	}
	return t, "", errors.New("is neither mailto nor https") // RFC 8460 §3
}

// checkURI checks the characters of RFC 3986 §2.
func checkURI(uri string) error {
	for i := 0; i < len(uri); i++ {
		switch c := uri[i]; {
		case c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}", c) >= 0:
			return errors.New("has a character that is none of a URI")
		case c == '%' && (i+2 >= len(uri) || !isHex(uri[i+1]) || !isHex(uri[i+2])):
			return errors.New("has a % that does not begin an escape")
		}
	}
	return nil
}

// parseMailto reads what stands behind "mailto:" (RFC 6068): one address. The header
// fields that may follow are not for a stranger to choose.
func parseMailto(rest string) (t Target, note string, err error) {
	rest, _, more := strings.Cut(rest, "?")
	if more {
		note = "the header fields are ignored"
	}
	if address, ok := strings.CutPrefix(rest, "//"); ok { // as in a web address: nobody's name begins so
		rest, note = address, "a mailto has no //"
	}
	if address, ok := cutSize(rest); ok {
		rest, note = address, "the size limit, which is of DMARC, is ignored"
	}
	address, err := url.PathUnescape(rest)
	if err != nil {
		return t, "", errors.New("has a % that does not begin an escape")
	}
	address, err = ParseAddress(address)
	if err != nil {
		return t, "", fmt.Errorf("is no mail address: %w", err)
	}
	return Target{URI: "mailto:" + address, Address: address}, note, nil
}

// cutSize cuts the limit that DMARC has behind its addresses (RFC 7489 §6.4):
// "!" 1*DIGIT ["k" / "m" / "g" / "t"]. A "!" of the address would be escaped here.
func cutSize(s string) (string, bool) {
	at := strings.LastIndexByte(s, '!')
	if at < 0 || at < strings.LastIndexByte(s, '@') {
		return s, false
	}
	size := strings.ToLower(s[at+1:])
	if n := len(size); n > 0 && strings.IndexByte("kmgt", size[n-1]) >= 0 {
		size = size[:n-1]
	}
	if size == "" || strings.Trim(size, "0123456789") != "" {
		return s, false
	}
	return s[:at], true
}

func checkHTTPS(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return errors.New("is no https URL")
	}
	if u.User != nil {
		return errors.New("has a user name: a record is public")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("has no valid port")
		}
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return nil // whether to go there is for the sender to say
	}
	if _, ok := asciiName(host); !ok {
		return errors.New("has no valid host name")
	}
	return nil
}

// isFieldName reports whether s is a tlsrpt-ext-name (RFC 8460 §3).
func isFieldName(s string) bool {
	if s == "" || len(s) > maxField || !isAlphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// isExtensionValue reports whether s is a tlsrpt-ext-value (RFC 8460 §3).
func isExtensionValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '=' || c == ';' {
			return false
		}
	}
	return s != ""
}
