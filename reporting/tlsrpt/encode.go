package tlsrpt

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// The objects of RFC 8460 §4.4. What is unknown is left out: null and "" are what
// strict receivers refuse a whole report for. The arrays of failures and of policies
// are always there, the others have something in them.
type (
	wireRange struct {
		Start string `json:"start-datetime,omitempty"`
		End   string `json:"end-datetime,omitempty"`
	}
	wirePolicy struct {
		Type    PolicyType `json:"policy-type"`
		Strings []string   `json:"policy-string,omitempty"`
		Domain  string     `json:"policy-domain"`
		MX      []string   `json:"mx-host,omitempty"` // an array: erratum 6241
	}
	wireSummary struct {
		Successful uint64 `json:"total-successful-session-count"`
		Failed     uint64 `json:"total-failure-session-count"`
	}
	wireDetail struct {
		Result      ResultType `json:"result-type"`
		SendingIP   string     `json:"sending-mta-ip,omitempty"`
		MXHost      string     `json:"receiving-mx-hostname,omitempty"`
		MXHelo      string     `json:"receiving-mx-helo,omitempty"`
		ReceivingIP string     `json:"receiving-ip,omitempty"`
		Sessions    uint64     `json:"failed-session-count"`
		Info        string     `json:"additional-information,omitempty"`
		Reason      string     `json:"failure-reason-code,omitempty"`
	}
)

// Encode writes a report as the JSON of RFC 8460 §4.4, the same bytes for the same
// report. Nothing is written of one that [Report.Validate] refuses.
func (r *Report) Encode(w io.Writer) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return r.encode(w)
}

// EncodeRead writes a report that was read in the form of Encode, whatever
// [Report.Validate] says of it: for programs here, never to be sent.
func (r *Report) EncodeRead(w io.Writer) error { return r.encode(w) }

// EncodeGzip is Encode compressed (RFC 8460 §5.2), what application/tlsrpt+gzip is.
func (r *Report) EncodeGzip(w io.Writer) error {
	if err := r.Validate(); err != nil {
		return err
	}
	z := gzip.NewWriter(w) // its header has no time and no name, so that bytes repeat
	if err := r.encode(z); err != nil {
		return err
	}
	return z.Close()
}

// encode has one line for each policy and each failure, to be looked at and compared.
func (r *Report) encode(w io.Writer) error {
	e := &encoder{w: bufio.NewWriter(w)}
	e.put("{\n \"organization-name\": ", r.Organization)
	e.put(",\n \"date-range\": ", wireRange{Start: moment(r.Start), End: moment(r.End)})
	e.put(",\n \"contact-info\": ", r.Contact)
	e.put(",\n \"report-id\": ", r.ID)
	e.text(",\n \"policies\": [")
	for i := range r.Policies {
		p := &r.Policies[i]
		e.separate(i)
		e.put("\n  {\"policy\": ", p.Policy.wire())
		e.put(",\n   \"summary\": ", wireSummary(p.Summary))
		e.text(",\n   \"failure-details\": [")
		for j := range p.Failures {
			e.separate(j)
			e.put("\n    ", p.Failures[j].wire())
		}
		e.text("]}")
	}
	e.text("\n ]\n}\n")
	if e.err != nil {
		return e.err
	}
	return e.w.Flush()
}

// moment is "" where it is unknown.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func (p *Policy) wire() wirePolicy {
	return wirePolicy{Type: p.Type, Strings: p.Strings, Domain: p.Domain, MX: p.MX}
}

func (d *FailureDetail) wire() wireDetail {
	return wireDetail{
		Result: d.Result, SendingIP: text(d.SendingIP), MXHost: d.MXHost, MXHelo: d.MXHelo,
		ReceivingIP: text(d.ReceivingIP), Sessions: d.Sessions, Info: d.Info, Reason: d.Reason,
	}
}

// encoder writes piece by piece, so that a large report is not there twice.
type encoder struct {
	w   *bufio.Writer
	buf bytes.Buffer
	err error
}

func (e *encoder) text(s string) {
	if e.err == nil {
		_, e.err = e.w.WriteString(s)
	}
}

func (e *encoder) separate(i int) {
	if i > 0 {
		e.text(",")
	}
}

// put writes value behind prefix.
func (e *encoder) put(prefix string, value any) {
	e.text(prefix)
	if e.err != nil {
		return
	}
	e.buf.Reset()
	enc := json.NewEncoder(&e.buf)
	enc.SetEscapeHTML(false) // it is for machines and postmasters
	if err := enc.Encode(value); err != nil {
		e.err = fmt.Errorf("encode: %w", err)
		return
	}
	_, e.err = e.w.Write(bytes.TrimSuffix(e.buf.Bytes(), []byte("\n")))
}
