package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"postseal/policy"
	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/store"
)

// SendLimit is for a report that is sent while somebody waits: its targets are tried side
// by side, and mail is what takes longest, 5 minutes.
const SendLimit = 6 * time.Minute

const (
	// turnLimit is how long a report's turn is waited for; there may be hours before it.
	turnLimit = time.Minute
	turnPause = 200 * time.Millisecond
)

// States of a report beside those of [daily.State], while nothing was tried yet.
const (
	Planned = "planned" // will be sent when it is due
	Missed  = "missed"  // its day is too long ago; also of one that waits
)

// Report is what became of one report.
type Report struct {
	Day     string                 `json:"day"`
	Domain  string                 `json:"domain"`
	MX      bool                   `json:"mx,omitempty"` // domain is an MX host
	State   string                 `json:"state"`
	Due     time.Time              `json:"due,omitzero"` // the next try; absent: there is none
	Tries   int                    `json:"tries"`
	Reason  string                 `json:"reason,omitempty"` // of the state, or why the last try was in vain
	Targets []daily.TargetProgress `json:"targets,omitempty"`
}

func newReport(day reporting.Day, of store.Subject, p daily.Progress, due time.Time) Report {
	r := Report{Day: day.String(), Domain: of.Name, MX: of.Host, State: string(p.State), Due: due, Tries: p.Tries, Reason: p.Reason, Targets: p.Targets}
	switch {
	case p.Done():
	case due.IsZero():
		r.State = Missed
	case p.State == "":
		r.State = Planned
	}
	return r
}

// Delivered reports whether a target took the report.
func (r *Report) Delivered() bool {
	p := daily.Progress{Targets: r.Targets}
	return p.Delivered()
}

// ReportDay is the end of a list of [Report].
type ReportDay struct {
	Day    string            `json:"day"`
	Closed bool              `json:"closed"` // before, none is sent
	States map[string]uint64 `json:"states"` // how many reports are in each, those left out included
}

// Sent is what came of sending a report.
type Sent struct {
	Report
	// Done: it was done with before, and was not sent once more.
	Done bool `json:"done,omitempty"`
}

var errNotReporting = errors.New("no reports are sent: the configuration has no reporting.contact, or no source of sessions")

// reporter is nil where the request was refused.
func (s *Server) reporter(w http.ResponseWriter) *daily.Reporter {
	if s.Reports == nil {
		refuse(w, http.StatusNotFound, errNotReporting)
	}
	return s.Reports
}

// dayAndName reads the parameters day and domain; ok is false if one was refused. The
// domain may be missing, which is "".
func dayAndName(w http.ResponseWriter, r *http.Request) (day reporting.Day, name string, ok bool) {
	q := r.URL.Query()
	day, err := reporting.ParseDay(q.Get("day"))
	if err != nil {
		refuse(w, http.StatusBadRequest, NotDay(q.Get("day")))
		return 0, "", false
	}
	if domain := q.Get("domain"); domain != "" {
		ascii, ok := policy.AppendName(nil, []byte(domain))
		if !ok {
			refuse(w, http.StatusBadRequest, NotDestination(domain))
			return 0, "", false
		}
		name = string(ascii)
	}
	return day, name, true
}

// subject reads the parameters day, domain and mx; ok is false if one was refused.
func subject(w http.ResponseWriter, r *http.Request) (day reporting.Day, of store.Subject, ok bool) {
	day, name, ok := dayAndName(w, r)
	if ok && name == "" {
		refuse(w, http.StatusBadRequest, NotDestination(""))
		ok = false
	}
	return day, store.Subject{Name: name, Host: r.URL.Query().Get("mx") != ""}, ok
}

// reports streams the reports of a day and then the day. Without that line the list is
// not whole.
func (s *Server) reports(w http.ResponseWriter, r *http.Request) {
	day, domain, ok := dayAndName(w, r)
	if !ok {
		return
	}
	reporter := s.reporter(w)
	if reporter == nil {
		return
	}
	all := r.URL.Query().Get("all") != "" || domain != ""
	end := ReportDay{Day: day.String(), Closed: reporter.Closed(day), States: map[string]uint64{}}
	list := newLines(w)
	err := reporter.Each(day, func(of store.Subject, p daily.Progress, due time.Time) bool {
		if domain != "" && of.Name != domain {
			return r.Context().Err() == nil
		}
		line := newReport(day, of, p, due)
		end.States[line.State]++
		if !all && p.State == daily.NoRecord {
			return r.Context().Err() == nil
		}
		return list.add(line)
	})
	list.end(err, end)
}

// sendReport sends a report while the client waits. If it goes away, what is under way
// may arrive twice, as when the daemon is killed: by one report id, receivers can tell.
func (s *Server) sendReport(w http.ResponseWriter, r *http.Request) {
	day, of, ok := subject(w, r)
	if !ok {
		return
	}
	reporter := s.reporter(w)
	if reporter == nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), SendLimit)
	defer cancel()
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(SendLimit + time.Minute)) // the one of small answers is over by then
	p, err := sendInTurn(ctx, reporter, day, of, r.URL.Query().Get("again") != "")
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		if p.Done() {
			p.Next = time.Time{}
		}
		answer(w, Sent{Report: newReport(day, of, p, p.Next)})
		return
	}
	if done, ok := errors.AsType[*daily.DoneError](err); ok {
		answer(w, Sent{Report: newReport(day, of, done.Progress, time.Time{}), Done: true})
		return
	}
	refuse(w, http.StatusConflict, err)
}

// sendInTurn waits for the turn of a report that comes right behind another to the same
// place, if that is soon. Who is first then may be the daemon, whose turn it is as well.
func sendInTurn(ctx context.Context, reporter *daily.Reporter, day reporting.Day, of store.Subject, again bool) (daily.Progress, error) {
	p, err := reporter.Send(ctx, day, of, again)
	for err == nil && p.State == daily.Waiting && p.Booked {
		wait := max(p.Next.Sub(reporter.Now()), turnPause)
		if wait > turnLimit {
			break
		}
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-time.After(wait):
		}
		next, trouble := reporter.Send(ctx, day, of, false)
		if done, ok := errors.AsType[*daily.DoneError](trouble); ok {
			return done.Progress, nil
		}
		if !errors.Is(trouble, daily.ErrBeingSent) {
			p, err = next, trouble
		}
	}
	return p, err
}

// lines streams a list, an object a line.
type lines struct {
	enc    *json.Encoder
	extend *http.ResponseController
	n      int
	broken error
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lines{enc: json.NewEncoder(w), extend: http.NewResponseController(w)}
}

// add reports whether the client still takes lines.
func (l *lines) add(v any) bool {
	if l.n%1000 == 0 { // without it the deadline for small answers holds
		l.extend.SetWriteDeadline(time.Now().Add(readerLimit))
	}
	l.n++
	l.broken = l.enc.Encode(v)
	return l.broken == nil
}

// end adds the last line, or the error that kept it from coming.
func (l *lines) end(err error, v any) {
	if err = errors.Join(err, l.broken); err != nil {
		l.enc.Encode(failure{err.Error()})
		return
	}
	l.enc.Encode(struct {
		End any `json:"end"`
	}{v})
}

// readLines hands the lines of a list to f, and reads the last one into end.
func readLines[T any](what string, end any, f func(T) error) func(io.Reader) error {
	return func(r io.Reader) error {
		for dec := json.NewDecoder(r); ; {
			var raw json.RawMessage
			switch err := dec.Decode(&raw); {
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				return errors.New("the list of " + what + " is not whole: the daemon broke off")
			case err != nil:
				return err
			}
			var last struct {
				failure
				End json.RawMessage `json:"end"`
			}
			switch err := json.Unmarshal(raw, &last); {
			case err != nil:
				return err
			case last.Error != "":
				return errors.New(last.Error)
			case last.End != nil:
				return json.Unmarshal(last.End, end)
			}
			var line T
			if err := json.Unmarshal(raw, &line); err != nil {
				return err
			}
			if err := f(line); err != nil {
				return err
			}
		}
	}
}

// Reports hands the reports of a day to f, or those about one name, and returns what is
// to be said of the day. Without all and without a domain, those that nobody asks for are
// left out.
func (c *Client) Reports(ctx context.Context, day, domain string, all bool, f func(Report) error) (ReportDay, error) {
	q := url.Values{"day": {day}}
	if domain != "" {
		q.Set("domain", domain)
	}
	if all {
		q.Set("all", "1")
	}
	var end ReportDay
	err := c.do(ctx, http.MethodGet, "/v1/reports", q, nil, readLines("reports", &end, f))
	return end, err
}

// About names a report: by its day, and by the domain or, with MX, the MX host.
type About struct {
	Day, Domain string
	MX          bool
}

func (a About) query() url.Values {
	q := url.Values{"day": {a.Day}, "domain": {a.Domain}}
	if a.MX {
		q.Set("mx", "1")
	}
	return q
}

// SendReport has a report sent now, and waits for what comes of it. One that is done with
// is sent once more only if again.
func (c *Client) SendReport(ctx context.Context, a About, again bool) (Sent, error) {
	q := a.query()
	if again {
		q.Set("again", "1")
	}
	var s Sent
	err := c.do(ctx, http.MethodPost, "/v1/report/send", q, nil, into(&s))
	return s, err
}
