package control

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"postseal/reporting/daily"
	"postseal/reporting/store"
)

const (
	// recordLimit is for the lookup of who wants a report, while somebody waits.
	recordLimit = 20 * time.Second
	// maxMails bounds the mails of one preview together: two of the largest that
	// receivers take (RFC 8460 §5.2), in base64 within what a client reads.
	maxMails = 28 << 20
)

// Preview is a report as it was, or would be, sent, and where to.
type Preview struct {
	Report
	Closed bool   `json:"closed"`           // the day; else more may be counted
	ID     string `json:"id,omitempty"`     // absent: no session can be reported
	File   string `json:"file,omitempty"`   // name, compressed
	JSON   string `json:"json,omitempty"`   // the report, the very bytes
	Packed []byte `json:"packed,omitempty"` // and compressed; with mails alone
	Size   int    `json:"size,omitempty"`   // of it, in bytes

	// Sessions that are not in the report.
	NoPolicy   uint64 `json:"no_policy,omitempty"`
	Unverified uint64 `json:"unverified,omitempty"`
	Late       uint64 `json:"late,omitempty"`
	Cut        uint64 `json:"cut,omitempty"` // beyond the policies that a report may have

	MergedDetails int  `json:"merged_details,omitempty"` // kinds of failure that are not told apart
	CutPolicies   int  `json:"cut_policies,omitempty"`
	Own           bool `json:"own,omitempty"` // all sessions may be those of our own report mails: not sent

	Rule     string        `json:"rule"`                // of the configuration: "accept", "drop" or "replace"
	NoRecord string        `json:"no_record,omitempty"` // why there is no record, where one is asked for
	Notes    []string      `json:"notes,omitempty"`     // on the record: what is passed over, and why
	To       []Destination `json:"to"`
}

// Destination is a target that a report goes to.
type Destination struct {
	URI      string          `json:"uri"`
	Address  string          `json:"address,omitempty"` // of a mail
	Folder   string          `json:"folder,omitempty"`
	Standing *daily.Standing `json:"standing,omitempty"` // what speaks against it
	Withheld bool            `json:"withheld,omitempty"` // and so nothing is sent there now
	Mail     []byte          `json:"mail,omitempty"`     // the very bytes, but for the time at which it is signed
	Trouble  string          `json:"trouble,omitempty"`  // why the mail is not there
}

// previewReport answers what would be sent, the mails with mails=1.
func (s *Server) previewReport(w http.ResponseWriter, r *http.Request) {
	day, of, ok := subject(w, r)
	if !ok {
		return
	}
	reporter := s.reporter(w)
	if reporter == nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordLimit)
	defer cancel()
	v, err := reporter.Preview(ctx, day, of)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	p := newPreview(&v)
	p.Report = newReport(day, of, v.Progress, v.Due)
	mails := r.URL.Query().Get("mails") != ""
	if v.Composed.Report != nil {
		if err := p.write(&v, of, mails); err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
	}
	for _, t := range v.Targets {
		p.To = append(p.To, newDestination(&v, t, reporter.Now()))
	}
	if mails && v.Composed.Report != nil {
		p.mails(reporter, &v, of)
	}
	answer(w, p)
}

func newPreview(v *daily.Preview) Preview {
	return Preview{
		Closed: v.Closed, NoPolicy: v.NoPolicy, Unverified: v.Unverified, Late: v.Late, Cut: v.Loss.Sessions,
		MergedDetails: v.Loss.Details, CutPolicies: v.Loss.Policies, Own: v.Own,
		Rule: string(v.Rule), NoRecord: text(v.NoRecord), Notes: v.Record.Notes, To: []Destination{},
	}
}

// write puts the report itself into p.
func (p *Preview) write(v *daily.Preview, of store.Subject, packed bool) error {
	report := v.Composed.Report
	var plain strings.Builder
	var compressed bytes.Buffer
	if err := report.Encode(&plain); err != nil {
		return err
	}
	if err := report.EncodeGzip(&compressed); err != nil {
		return err
	}
	p.ID, p.File, p.JSON, p.Size = report.ID, report.FileName(of.Name), plain.String(), compressed.Len()
	if packed {
		p.Packed = compressed.Bytes()
	}
	return nil
}

func newDestination(v *daily.Preview, t daily.Target, now time.Time) Destination {
	d := Destination{URI: t.URI, Address: t.Address, Folder: t.Folder}
	if s, ok := v.Standing[t.URI]; ok {
		d.Standing, d.Withheld = &s, s.Suppressed(now)
	}
	return d
}

// mails makes the mail to each address, as far as they have room.
func (p *Preview) mails(reporter *daily.Reporter, v *daily.Preview, of store.Subject) {
	room := maxMails
	for i, t := range v.Targets {
		if !t.Mail() {
			continue
		}
		d := &p.To[i]
		mail, err := reporter.Message(v, of, t)
		switch {
		case err != nil:
			d.Trouble = err.Error()
		case len(mail) > room:
			d.Trouble = "it is left out here, for the mails together are too large to show"
		default:
			d.Mail = mail
			room -= len(mail)
		}
	}
}

// Preview asks for a report as it was, or would be, sent; with mails for these too.
func (c *Client) Preview(ctx context.Context, a About, mails bool) (*Preview, error) {
	q := a.query()
	if mails {
		q.Set("mails", "1")
	}
	p := new(Preview)
	return p, c.do(ctx, http.MethodGet, "/v1/report", q, nil, into(p))
}
