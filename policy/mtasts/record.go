package mtasts

import (
	"context"
	"errors"
	"strings"
	"time"

	"postseal/policy/dnssec"
)

var (
	// ErrNoRecord is returned when a domain has no MTA-STS record.
	ErrNoRecord = errors.New("no MTA-STS record")

	// ErrSeveralRecords is returned when a domain has more than one MTA-STS
	// record. RFC 8461 §3.1 has senders treat it as having none.
	ErrSeveralRecords = errors.New("more than one MTA-STS record")
)

// RecordError is returned for a record that announces MTA-STS but is malformed.
// RFC 8461 §3.1 has senders treat the domain as having no record.
type RecordError struct {
	Record string // printable and bounded
	Reason string
}

func (e *RecordError) Error() string {
	return `malformed MTA-STS record "` + e.Record + `": ` + e.Reason
}

// Record is a valid _mta-sts TXT record.
type Record struct {
	ID       string   // 1 to 32 letters and digits; to be compared for equality only
	Warnings []string // what its owner should mend; printable
}

const (
	recordPrefix  = "_mta-sts."
	recordVersion = "v=STSv1"

	maxNameLen  = 253 // RFC 1035 §2.3.4: 255 octets on the wire
	maxLabelLen = 63  // RFC 1035 §2.3.4

	// neverTTL stands for "no such record, ever": the longest TTL of a dnssec answer.
	neverTTL = 24 * time.Hour
)

// LookupRecord asks for the record of a policy domain. Without a usable record
// the error is one of [ParseRecord]; if it cannot be told, the lookup failed,
// and the error is a [*dnssec.Error].
//
// The duration is the TTL of the answer, of a negative one too: how long there
// is no need to ask again. It is 0 if the lookup failed. A domain too long for
// the names that MTA-STS puts before it has no record, which takes no question
// to tell.
func LookupRecord(ctx context.Context, dns *dnssec.Client, domain string) (Record, time.Duration, error) {
	if !fits(recordPrefix, domain) {
		return Record{}, neverTTL, ErrNoRecord
	}
	a, err := dns.LookupTXT(ctx, recordPrefix+domain)
	if err != nil {
		return Record{}, 0, err
	}
	r, err := ParseRecord(a.Records)
	return r, a.TTL, err
}

// fits reports whether prefix and domain make a name within the limits of DNS.
func fits(prefix, domain string) bool {
	if len(prefix)+len(domain) > maxNameLen {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > maxLabelLen {
			return false
		}
	}
	return true
}

// ParseRecord finds the one MTA-STS record among the TXT records of a name
// (RFC 8461 §3.1), each already joined from its character-strings. The error is
// [ErrNoRecord], [ErrSeveralRecords] or a [*RecordError].
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

// isRecord reports whether txt is not to be discarded. RFC 8461 §3.1 discards what
// does not begin with "v=STSv1;" although its grammar has blanks before the
// semicolon; erratum 6285 notes it. The grammar wins: its records are meant.
func isRecord(txt string) bool {
	rest, ok := strings.CutPrefix(txt, recordVersion)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";")
}

// parseRecord parses by the grammar of RFC 8461 §3.1:
//
//	sts-text-record = sts-version 1*(sts-field-delim sts-field) [sts-field-delim]
//	sts-field-delim = *WSP ";" *WSP
func parseRecord(txt string) (Record, error) {
	bad := func(reason string) (Record, error) {
		return Record{}, &RecordError{Record: printable(txt, 128), Reason: reason}
	}
	var r Record
	rest := txt[len(recordVersion):]
	if rest[0] != ';' {
		r.Warnings = append(r.Warnings, `blank between "v=STSv1" and ";": other senders may ignore this record`)
	}
	_, rest, _ = strings.Cut(rest, ";")
	several := false // ids
	for more := true; more; {
		var field string
		field, rest, more = strings.Cut(rest, ";")
		field = strings.TrimLeft(field, " \t")
		if field == "" && !more {
			break // after the final ";"
		}
		if more {
			field = strings.TrimRight(field, " \t")
		}
		name, value, ok := strings.Cut(field, "=")
		switch {
		case field == "":
			return bad(`nothing between two ";"`)
		case !ok:
			return bad("field " + quoted(field) + ` has no "="`)
		case !isFieldName(name):
			return bad("invalid field name " + quoted(name))
		case name == "id" && r.ID == "":
			if !isID(value) {
				return bad("id " + quoted(value) + " is not 1 to 32 letters and digits")
			}
			r.ID = strings.Clone(value) // which is kept for long, the record is not
		case !isRecordValue(value):
			return bad("invalid value of field " + quoted(name))
		case name == "id":
			several = true
		}
		// RFC 8461 §3.2: unknown fields are ignored, and of duplicates the first wins.
	}
	if r.ID == "" {
		return bad("the id is missing")
	}
	if several {
		r.Warnings = append(r.Warnings, "more than one id: the first is used")
	}
	return r, nil
}

// isID reports whether s is the value of an id: 1*32(ALPHA / DIGIT).
func isID(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) {
			return false
		}
	}
	return true
}

// isFieldName reports whether s can be the name of a field of a record
// (sts-ext-name, RFC 8461 §3.1) or of a policy (sts-policy-ext-name, §3.2):
// (ALPHA / DIGIT) *31(ALPHA / DIGIT / "_" / "-" / ".").
func isFieldName(s string) bool {
	if s == "" || len(s) > 32 || !isAlphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// isRecordValue reports whether s is an sts-ext-value (RFC 8461 §3.1): printable
// US-ASCII other than space, "=" and ";".
func isRecordValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '=' || c == ';' {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
