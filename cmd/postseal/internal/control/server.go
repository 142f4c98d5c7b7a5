package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/overrides"
	"postseal/policy"
	"postseal/policy/probe"
	"postseal/reporting/daily"
	"postseal/socketmap"
)

// Server answers for the daemon. All fields must be set but Recorded and Reports.
type Server struct {
	Engine   *policy.Engine
	Answers  *socketmap.Server // tells what the mail server is answered
	Rules    *overrides.Store
	Recorded *Recorded       // nil: nothing is recorded
	Reports  *daily.Reporter // nil: no reports are sent
	Probe    func(context.Context, policy.Destination) ([]probe.Answer, error)
	Status   func() Status
	Reload   func(context.Context) (Reloaded, error)
	Log      *slog.Logger
}

// Handler is what the control socket serves.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/explain", s.explain)
	mux.HandleFunc("GET /v1/probe", s.probe)
	mux.HandleFunc("GET /v1/sessions", s.sessions)
	mux.HandleFunc("GET /v1/reports", s.reports)
	mux.HandleFunc("GET /v1/report", s.previewReport)
	mux.HandleFunc("POST /v1/report/send", s.sendReport)
	mux.HandleFunc("GET /v1/targets", s.targets)
	mux.HandleFunc("PUT /v1/targets", s.suppress)
	mux.HandleFunc("DELETE /v1/targets", s.restore)
	mux.HandleFunc("GET /v1/cache", s.list)
	mux.HandleFunc("DELETE /v1/cache", s.purge)
	mux.HandleFunc("GET /v1/answers", s.answers)
	mux.HandleFunc("POST /v1/cache/refresh", s.refresh)
	mux.HandleFunc("GET /v1/overrides", s.rules)
	mux.HandleFunc("PUT /v1/overrides", s.setRule)
	mux.HandleFunc("DELETE /v1/overrides", s.removeRule)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Status()) })
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, errors.New("this postseal does not know "+r.Method+" "+r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, v any) { write(w, http.StatusOK, v) }

func refuse(w http.ResponseWriter, code int, err error) { write(w, code, failure{err.Error()}) }

// write ignores errors: a client that went away is no news.
func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v)
}

// destination reads the parameter domain, which is a next hop in any form that
// Postfix has; ok is false if it was refused.
func destination(w http.ResponseWriter, r *http.Request) (policy.Destination, bool) {
	key := r.URL.Query().Get("domain")
	d, err := policy.ParseDestination(key)
	if err != nil {
		refuse(w, http.StatusBadRequest, NotDestination(key))
		return d, false
	}
	return d, true
}

// NotDestination is the error for a key that no policy can exist for.
func NotDestination(key string) error {
	return errors.New(quoted(key) + " is no mail domain: " + policy.ErrNoPolicy.Error())
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	s.lookUp(w, r, r.URL.Query().Get("fresh") != "")
}

func (s *Server) refresh(w http.ResponseWriter, r *http.Request) { s.lookUp(w, r, true) }

func (s *Server) lookUp(w http.ResponseWriter, r *http.Request, fresh bool) {
	dest, ok := destination(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	t := s.Engine.Explain(ctx, dest, fresh)
	x := NewExplanation(t, s.Engine.Status().Validation, s.Answers)
	x.Daemon = true
	answer(w, x)
}

// list streams, since there may be more than is good to hold in one piece.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	domain := ""
	if r.URL.Query().Has("domain") {
		d, ok := destination(w, r)
		if !ok {
			return
		}
		domain = d.Domain
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	var broken error
	err := s.Engine.List(func(e policy.Summary) bool {
		if domain != "" && !about(e.Key, domain) {
			return true
		}
		broken = enc.Encode(newEntry(e))
		return broken == nil
	})
	if err != nil && broken == nil {
		enc.Encode(failure{err.Error()})
	}
}

// answers streams, as list does.
func (s *Server) answers(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("map")
	is := func(a socketmap.Answer) bool { return a.Map == name }
	if !slices.ContainsFunc(s.Answers.Answers(nil), is) {
		refuse(w, http.StatusBadRequest, errors.New("no map "+quoted(name)+" answers by domain"))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	var broken error
	err := s.Engine.Known(func(d *policy.Decision) bool {
		list := s.Answers.Answers(d)
		k := Known{Destination: d.Destination.String(), Answer: strings.TrimSuffix(list[slices.IndexFunc(list, is)].Text, " ")}
		if u := d.Destination.Unicode(); u != k.Destination {
			k.Unicode = u
		}
		broken = enc.Encode(k)
		return broken == nil
	})
	if err != nil && broken == nil {
		enc.Encode(failure{err.Error()})
	}
}

// about reports whether a remembered destination is domain, at whatever port or host.
func about(key, domain string) bool {
	d, err := policy.ParseDestination(key)
	return err == nil && d.Domain == domain
}

func (s *Server) purge(w http.ResponseWriter, r *http.Request) {
	domain := ""
	if r.URL.Query().Get("all") == "" {
		d, ok := destination(w, r)
		if !ok {
			return
		}
		domain = d.Domain
	}
	n, err := s.Engine.Purge(domain)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, Purged{n})
}

func (s *Server) rules(w http.ResponseWriter, _ *http.Request) {
	list := s.Rules.List()
	if list == nil {
		list = []overrides.Rule{}
	}
	answer(w, Overrides{File: s.Rules.Path, Overrides: list})
}

func (s *Server) setRule(w http.ResponseWriter, r *http.Request) {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields() // a condition that this version does not know must not get lost
	var rule overrides.Rule
	if err := dec.Decode(&rule); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		refuse(w, http.StatusBadRequest, errors.New("more than one rule"))
		return
	}
	if err := rule.Normalize(); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if rule.Expired(time.Now()) {
		refuse(w, http.StatusBadRequest, errors.New("expires: lies in the past"))
		return
	}
	rule.Created = time.Now().UTC().Truncate(time.Second)
	stored, replaced, err := s.Rules.Set(rule)
	if _, wrong := errors.AsType[*overrides.FieldError](err); wrong {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	rule = stored
	s.Log.Info("override set", "domain", rule.Domain, "action", rule.Action, "author", rule.Author, "reason", rule.Reason)
	answer(w, Stored{rule, replaced})
}

func (s *Server) removeRule(w http.ResponseWriter, r *http.Request) {
	domain, err := overrides.Canonical(r.URL.Query().Get("domain"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	removed, err := s.Rules.Remove(domain)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	case removed == nil:
		refuse(w, http.StatusNotFound, errors.New("there is no override of "+domain))
	default:
		s.Log.Info("override removed", "domain", domain)
		answer(w, removed)
	}
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	done, err := s.Reload(r.Context())
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	answer(w, done)
}
