package tlsrpt

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is read of a report of somebody else.
const (
	maxJSON         = 20 << 20 // bytes: twice what receivers take compressed by mail
	maxDepth        = 20       // of brackets; a report has 6
	readPolicies    = 10_000
	readDetails     = 100_000 // of all policies
	readStrings     = 5_000   // of a policy
	maxText         = 4096    // bytes of a string; a TLSA record with a whole certificate is the longest
	maxPeculiar     = 30
	maxPeculiarText = 160
)

// Decode reads the JSON of a report of anybody. What is not as RFC 8460 has it is told
// in words and read as it is meant, as far as that can be seen; the error is for what
// is no report at all. Text has no control characters; names are as they were written.
func Decode(r io.Reader) (Report, []string, error) {
	limited := &io.LimitedReader{R: &filler{r}, N: maxJSON + 1}
	d := &decoder{json: json.NewDecoder(limited)}
	d.json.UseNumber()
	err := d.report()
	if limited.N <= 0 {
		return Report{}, nil, fmt.Errorf("a report of more than %d MiB", maxJSON>>20)
	}
	if err != nil {
		return Report{}, nil, fmt.Errorf("no report: %w", err)
	}
	return d.Report, d.told(), nil
}

// filler fills what it is given to read into. The decoder of the standard library looks
// at blanks again from the first one with every read: in small pieces, 20 MiB of them
// take it ten seconds.
type filler struct{ r io.Reader }

func (f *filler) Read(p []byte) (n int, err error) {
	for idle := 0; n < len(p) && err == nil; {
		var m int
		m, err = f.r.Read(p[n:])
		n += m
		if idle++; m > 0 {
			idle = 0
		}
		if idle == 100 { // as bufio.Reader has it
			return n, io.ErrNoProgress
		}
	}
	return n, err
}

// decoder reads token by token: what a stranger wrote is never there as a tree.
type decoder struct {
	Report
	notes
	json    *json.Decoder
	details int
}

// notes are the peculiarities of a report, each once.
type notes struct {
	list   []string
	untold int
}

func (n *notes) note(format string, args ...any) {
	s := shown(fmt.Sprintf(format, args...), maxPeculiarText)
	switch {
	case slices.Contains(n.list, s):
	case len(n.list) == maxPeculiar:
		n.untold++
	default:
		n.list = append(n.list, s)
	}
}

func (n *notes) told() []string {
	if n.untold > 0 {
		return append(n.list, fmt.Sprintf("and %d more", n.untold))
	}
	return n.list
}

func (d *decoder) report() error {
	t, err := d.json.Token()
	if err != nil {
		return unexpected(err)
	}
	if t != json.Delim('{') {
		return errors.New("the JSON is no object")
	}
	known := 0
	err = d.members("", func(key string, value json.Token) error {
		known++
		switch key {
		case "organization-name":
			return d.string(key, value, &d.Organization)
		case "date-range":
			return d.dates(value)
		case "contact-info":
			return d.string(key, value, &d.Contact)
		case "report-id":
			return d.string(key, value, &d.ID)
		case "policies":
			return d.policies(value)
		}
		known--
		return d.unknown(key, value)
	})
	if err != nil {
		return err
	}
	if known == 0 {
		return errors.New("nothing of RFC 8460 is in the JSON")
	}
	switch _, err := d.json.Token(); {
	case errors.Is(err, io.EOF):
	case errors.Is(err, gzip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF):
		d.note("the compressed data is damaged at its end")
	default:
		d.note("something follows the JSON")
	}
	d.judge()
	return nil
}

// members calls f for every member of an object whose bracket has been read.
func (d *decoder) members(path string, f func(key string, value json.Token) error) error {
	seen := map[string]bool{}
	for d.json.More() {
		t, err := d.json.Token()
		if err != nil {
			return unexpected(err)
		}
		key, ok := t.(string)
		if !ok {
			return errors.New("the JSON has a member without a name")
		}
		if seen[key] {
			d.note("%s%s is there twice: the last one counts", path, key) // RFC 7493 §2.3
		}
		if len(seen) < 64 { // an object has 8 members
			seen[key] = true
		}
		value, err := d.json.Token()
		if err != nil {
			return unexpected(err)
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	_, err := d.json.Token()
	return unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// skip reads on to the end of a value that began with a token.
func (d *decoder) skip(value json.Token) error {
	for depth := 0; ; {
		switch value {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		if depth > maxDepth {
			return fmt.Errorf("the JSON is nested more than %d deep", maxDepth)
		}
		var err error
		if value, err = d.json.Token(); err != nil {
			return unexpected(err)
		}
	}
}

func (d *decoder) unknown(name string, value json.Token) error {
	d.note("%s is unknown", name)
	return d.skip(value)
}

// array calls f for every element, up to most. One element that stands where an array
// should is taken for it, and null for an empty one.
func (d *decoder) array(name string, value json.Token, most int, f func(element json.Token) error) error {
	if value == nil {
		d.note("%s is null", name)
		return nil
	}
	if value != json.Delim('[') {
		d.note("%s is no array", name)
		return f(value)
	}
	for n := 0; d.json.More(); n++ {
		element, err := d.json.Token()
		if err != nil {
			return unexpected(err)
		}
		if n == most {
			d.note("%s has more than %d elements: the others are not read", name, most)
		}
		if n >= most {
			err = d.skip(element)
		} else {
			err = f(element)
		}
		if err != nil {
			return err
		}
	}
	_, err := d.json.Token()
	return unexpected(err)
}

// object calls f for the members of a value that should be an object.
func (d *decoder) object(name string, value json.Token, f func(key string, value json.Token) error) error {
	if value != json.Delim('{') {
		d.note("%s is no object", name)
		return d.skip(value)
	}
	return d.members(name+".", f)
}

// string reads one into to. "" and null are nothing, and told.
func (d *decoder) string(name string, value json.Token, to *string) error {
	switch v := value.(type) {
	case string:
		clean := tidyText(v[:min(len(v), maxText)])
		switch {
		case v == "":
			d.note(`%s is ""`, name)
		case len(v) > maxText:
			d.note("%s is longer than %d bytes: the rest is not read", name, maxText)
		case strings.TrimSpace(v) != clean:
			d.note("%s has characters that are no text", name)
		}
		*to = clean
		return nil
	case json.Number:
		d.note("%s is a number", name)
		*to = v.String()[:min(len(v), maxPeculiarText)]
		return nil
	case nil:
		d.note("%s is null", name)
		return nil
	}
	d.note("%s is no string", name)
	return d.skip(value)
}

func (d *decoder) dates(value json.Token) error {
	return d.object("date-range", value, func(key string, value json.Token) error {
		to := &d.Start
		switch key {
		case "start-datetime":
		case "end-datetime":
			to = &d.End
		default:
			return d.unknown("date-range."+key, value)
		}
		var s string
		if err := d.string("date-range."+key, value, &s); err != nil || s == "" {
			return err
		}
		return d.time("date-range."+key, s, to)
	})
}

// time reads RFC 3339, and what was seen in its place: without a zone (Microsoft until
// 2023) it is UTC.
func (d *decoder) time(name, s string, to *time.Time) error {
	t, err := time.Parse(time.RFC3339, s)
	if err == nil {
		if !strings.HasSuffix(s, "Z") {
			d.note("%s is not in UTC: %s", name, s)
		}
		*to = t.UTC()
		return nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			d.note("%s is not of RFC 3339: %s", name, s)
			*to = t.UTC()
			return nil
		}
	}
	d.note("%s is no time: %s", name, s)
	return nil
}

// strings reads an array of them. Microsoft has a TLSA policy's in one string that
// holds an array.
func (d *decoder) strings(name string, value json.Token) (list []string, err error) {
	err = d.array(name, value, readStrings, func(element json.Token) error {
		if s, ok := element.(string); ok && strings.HasPrefix(strings.TrimSpace(s), "[") {
			var inner []string
			if json.Unmarshal([]byte(s[:min(len(s), maxText)]), &inner) == nil {
				d.note("%s is a string that holds an array", name)
				for _, s := range inner[:min(len(inner), readStrings)] {
					if s = tidyText(s); s != "" {
						list = append(list, s)
					}
				}
				return nil
			}
		}
		var s string
		if err := d.string(name, element, &s); err != nil || s == "" {
			return err
		}
		list = append(list, s)
		return nil
	})
	return list, err
}

// count reads a number of sessions.
func (d *decoder) count(name string, value json.Token, to *uint64) error {
	digits := ""
	switch v := value.(type) {
	case json.Number:
		digits = v.String()
	case string:
		d.note("%s is a string", name)
		digits = strings.TrimSpace(v)
	default:
		d.note("%s is no number", name)
		return d.skip(value)
	}
	whole, fraction, fractional := strings.Cut(digits, ".")
	if fractional {
		d.note("%s is no integer", name)
		if strings.Trim(fraction, "0123456789") != "" {
			return nil
		}
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || n > maxCount {
		d.note("%s is no count: %s", name, shown(digits, 32))
		return nil
	}
	*to = n
	return nil
}
