package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postseal/reporting/daily"
)

const (
	// maxTarget is that of a URI in a TLSRPT record; paths of folders are held to it too.
	maxTarget = 1024
	// maxTargetReason bounds the operator's words, which end up in progress of reports.
	maxTargetReason = 500
)

// Suppression has nothing sent to a target.
type Suppression struct {
	URI    string    `json:"uri"`
	Until  time.Time `json:"until,omitzero"` // absent: until it is removed
	Reason string    `json:"reason,omitempty"`
}

// forever is the last year that a time of RFC 3339 can have (§1).
func forever() time.Time { return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }

// Forever reports whether a target is suppressed until somebody removes it.
func Forever(s daily.Standing) bool { return !s.Until.Before(forever()) }

// ReadTarget is [daily.ParseTarget], and takes a bare mail address too.
func ReadTarget(s string) (daily.Target, error) {
	uri := s
	if strings.Contains(s, "@") && !strings.Contains(s, ":") {
		uri = "mailto:" + s
	}
	t, err := daily.ParseTarget(uri)
	switch {
	case len(uri) > maxTarget:
		return t, fmt.Errorf("target %s is longer than %d bytes", quoted(s), maxTarget)
	case err != nil:
		return t, fmt.Errorf("target %s %w", quoted(s), err)
	}
	return t, nil
}

// Check is an error for a suppression that is none.
func (s *Suppression) Check() error {
	if _, err := ReadTarget(s.URI); err != nil {
		return err
	}
	if len(s.Reason) > maxTargetReason || !utf8.ValidString(s.Reason) || strings.ContainsFunc(s.Reason, unicode.IsControl) {
		return fmt.Errorf("reason: must be one printable line of at most %d bytes", maxTargetReason)
	}
	if !s.Until.IsZero() && (s.Until.Before(time.Now()) || s.Until.Year() > 9999) {
		return errors.New("until: lies in the past, or beyond the year 9999")
	}
	return nil
}

// targets streams what is remembered of targets that failed, and those that are
// suppressed.
func (s *Server) targets(w http.ResponseWriter, _ *http.Request) {
	reporter := s.reporter(w)
	if reporter == nil {
		return
	}
	standings, err := reporter.Standings()
	list := newLines(w)
	for _, standing := range standings {
		if !list.add(standing) {
			break
		}
	}
	list.end(err, struct{}{})
}

func (s *Server) suppress(w http.ResponseWriter, r *http.Request) {
	reporter := s.reporter(w)
	if reporter == nil {
		return
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	var wanted Suppression
	if err := dec.Decode(&wanted); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		refuse(w, http.StatusBadRequest, errors.New("more than one target"))
		return
	}
	if err := wanted.Check(); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if wanted.Until.IsZero() {
		wanted.Until = forever()
	}
	t, err := ReadTarget(wanted.URI)
	if err == nil {
		err = reporter.Suppress(t, wanted.Until.UTC(), wanted.Reason)
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	s.Log.Info("target suppressed", "target", t.URI, "until", wanted.Until.UTC(), "reason", wanted.Reason)
	s.standing(w, reporter, t)
}

// standing answers what is remembered of a target.
func (s *Server) standing(w http.ResponseWriter, reporter *daily.Reporter, t daily.Target) {
	found, _, err := find(reporter, t)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, found)
}

func find(reporter *daily.Reporter, t daily.Target) (found daily.Standing, ok bool, err error) {
	list, err := reporter.Standings()
	for _, s := range list {
		if s.URI == t.URI {
			return s, true, err
		}
	}
	return daily.Standing{URI: t.URI}, false, err
}

func (s *Server) restore(w http.ResponseWriter, r *http.Request) {
	t, err := ReadTarget(r.URL.Query().Get("target"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	reporter := s.reporter(w)
	if reporter == nil {
		return
	}
	before, _, err := find(reporter, t)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	was, err := reporter.Restore(t)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	case !was:
		refuse(w, http.StatusNotFound, errors.New("nothing speaks against "+t.URI))
	default:
		s.Log.Info("target restored", "target", t.URI)
		answer(w, before)
	}
}

// Targets hands what is remembered of targets that failed or are suppressed to f.
func (c *Client) Targets(ctx context.Context, f func(daily.Standing) error) error {
	return c.do(ctx, http.MethodGet, "/v1/targets", nil, nil, readLines("targets", new(struct{}), f))
}

// Suppress has nothing sent to a target, and returns what is remembered of it then.
func (c *Client) Suppress(ctx context.Context, s Suppression) (daily.Standing, error) {
	var stored daily.Standing
	err := c.do(ctx, http.MethodPut, "/v1/targets", nil, s, into(&stored))
	return stored, err
}

// Restore forgets what speaks against a target, and returns what that was.
func (c *Client) Restore(ctx context.Context, target string) (daily.Standing, error) {
	var was daily.Standing
	err := c.do(ctx, http.MethodDelete, "/v1/targets", url.Values{"target": {target}}, nil, into(&was))
	return was, err
}
