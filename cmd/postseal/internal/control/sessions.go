package control

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"postseal/policy"
	"postseal/reporting"
	"postseal/reporting/store"
)

const (
	// syncLimit is how long sessions that have just been recorded are waited for
	// before a day is read: the disk may have stalled.
	syncLimit = 2 * time.Second
	// readerLimit is how long a client may leave its lines untaken, as a pager does
	// while somebody reads.
	readerLimit = 10 * time.Minute
)

// Outcome is what can be said of one session.
type Outcome struct {
	Domain     string `json:"domain"`
	MXHost     string `json:"mx_host"`
	IP         string `json:"ip"`
	Outcome    string `json:"outcome"`     // "success" or "failure"
	ResultType string `json:"result_type"` // RFC 8460 §4.3; "" for a success
	Reason     string `json:"reason"`
	PolicyType string `json:"policy_type"` // "" where it is not known
}

// NewOutcome is that of a session.
func NewOutcome(s *reporting.Session) Outcome {
	return newOutcome(reporting.Key{Domain: s.Domain, MXHost: s.MXHost, MXIP: s.MXIP, Result: s.Result, Reason: s.Reason}, s.Policy)
}

func newOutcome(k reporting.Key, p reporting.Policy) Outcome {
	o := Outcome{Domain: k.Domain, MXHost: k.MXHost, Outcome: "success", ResultType: string(k.Result), Reason: k.Reason, PolicyType: string(p.Type)}
	if k.Result != "" {
		o.Outcome = "failure"
	}
	if k.MXIP.IsValid() {
		o.IP = k.MXIP.String()
	}
	return o
}

// Sessions are those of one day that are alike.
type Sessions struct {
	Day string `json:"day"`
	Outcome
	Count    uint64 `json:"count"`
	Source   string `json:"source"`
	Standing string `json:"standing"`         // "reported", "late" or "unverified"
	Policy   string `json:"policy,omitempty"` // tells policies of one type apart
}

// Day is the end of a list of [Sessions].
type Day struct {
	Day     string `json:"day"`
	Closed  bool   `json:"closed"` // what comes now is late
	Domains uint64 `json:"domains"`
	Merged  uint64 `json:"merged"`  // sessions counted without their details
	Dropped uint64 `json:"dropped"` // sessions not counted
	Lost    uint64 `json:"lost"`    // sessions of any day that did not reach the disk since the daemon started
}

// Recorded is what the daemon knows of sessions. All fields must be set.
type Recorded struct {
	Store    *store.Store
	Recorder *reporting.Recorder
	Closed   func(reporting.Day) bool
}

// sessions streams the sessions of a day, those of one domain after another, and
// then the day. Without that line the list is not whole.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request) {
	day, err := reporting.ParseDay(r.URL.Query().Get("day"))
	if err != nil {
		refuse(w, http.StatusBadRequest, NotDay(r.URL.Query().Get("day")))
		return
	}
	domain := r.URL.Query().Get("domain")
	if domain != "" {
		name, ok := policy.AppendName(nil, []byte(domain))
		if !ok {
			refuse(w, http.StatusBadRequest, NotDestination(domain))
			return
		}
		domain = string(name)
	}
	if s.Recorded == nil {
		refuse(w, http.StatusNotFound, errNotRecorded)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), syncLimit)
	defer cancel()
	s.Recorded.Recorder.Sync(ctx) // what is not written by then is not shown
	w.Header().Set("Content-Type", "application/x-ndjson")
	list := &listing{enc: json.NewEncoder(w), extend: http.NewResponseController(w), day: day.String()}
	end, err := s.Recorded.list(day, domain, list)
	if err != nil {
		list.enc.Encode(failure{err.Error()})
		return
	}
	list.enc.Encode(struct {
		End Day `json:"end"`
	}{end})
}

var errNotRecorded = errors.New("nothing is recorded: the configuration names no source of sessions, such as [[reporting.log]]")

// NotDay is the error for what is no day.
func NotDay(s string) error { return errors.New(quoted(s) + " is no day such as 2026-11-28") }

func (d *Recorded) list(day reporting.Day, domain string, list *listing) (Day, error) {
	var broken error
	err := d.Store.Each(day, domain, func(k reporting.Key, p reporting.Policy, n uint64) bool {
		broken = list.add(k, p, n)
		return broken == nil
	})
	if err = errors.Join(err, broken, list.flush()); err != nil {
		return Day{}, err
	}
	t, err := d.Store.Totals(day)
	return Day{Day: day.String(), Closed: d.Closed(day), Domains: t.Domains, Merged: t.Merged, Dropped: t.Dropped, Lost: d.Recorder.Dropped()}, err
}

// listing joins what is told apart only by what is not shown: our own address and
// the host's name in its greeting. It holds the sessions of one domain and policy,
// which package store bounds.
type listing struct {
	enc    *json.Encoder
	extend *http.ResponseController
	day    string

	at    reporting.Key // domain and policy alone
	lines []Sessions
	index map[Sessions]int // without Count
}

func (l *listing) add(k reporting.Key, p reporting.Policy, n uint64) error {
	if at := (reporting.Key{Domain: k.Domain, Policy: k.Policy}); at != l.at || l.index == nil {
		if err := l.flush(); err != nil {
			return err
		}
		l.at, l.index = at, map[Sessions]int{}
	}
	line := Sessions{Day: l.day, Outcome: newOutcome(k, p), Source: string(k.Source), Standing: k.Standing.String()}
	if k.Policy != (reporting.PolicyID{}) {
		line.Policy = hex.EncodeToString(k.Policy[:])
	}
	i, known := l.index[line]
	if !known {
		i = len(l.lines)
		l.index[line] = i
		l.lines = append(l.lines, line)
	}
	l.lines[i].Count += n
	return nil
}

func (l *listing) flush() error {
	if len(l.lines) == 0 {
		return nil
	}
	l.extend.SetWriteDeadline(time.Now().Add(readerLimit)) // without it the one for small answers holds
	for _, line := range l.lines {
		if err := l.enc.Encode(line); err != nil {
			return err
		}
	}
	l.lines = l.lines[:0]
	return nil
}

// Sessions hands the sessions of a day to f, or those of one domain, and returns what
// is to be said of the day.
func (c *Client) Sessions(ctx context.Context, day, domain string, f func(Sessions) error) (Day, error) {
	q := url.Values{"day": {day}}
	if domain != "" {
		q.Set("domain", domain)
	}
	var end *Day
	err := c.do(ctx, http.MethodGet, "/v1/sessions", q, nil, func(r io.Reader) error {
		for dec := json.NewDecoder(r); ; {
			var line struct {
				Sessions
				failure
				End *Day `json:"end"`
			}
			switch err := dec.Decode(&line); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			case line.Error != "":
				return errors.New(line.Error)
			case line.End != nil:
				end = line.End
				continue
			}
			if err := f(line.Sessions); err != nil {
				return err
			}
		}
	})
	if err == nil && end == nil {
		err = errors.New("the list of sessions is not whole: the daemon broke off")
	}
	if err != nil {
		return Day{}, err
	}
	return *end, nil
}
