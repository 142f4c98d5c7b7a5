// Package control is how the subcommands talk to the daemon: HTTP with JSON over
// a unix socket that only the daemon's user may open. The database has one owner,
// the daemon, which holds its lock, so even looking into it goes this way.
//
//	GET    /v1/explain?domain=D&fresh=1   how the decision for D comes about: [Explanation]
//	GET    /v1/probe?domain=D             connect to the hosts of D: [Probed]
//	GET    /v1/sessions?day=2026-11-28    what happened, a line each: [Sessions], then {"end": [Day]};
//	                                      with domain=D of D alone
//	GET    /v1/reports?day=2026-11-28     what became of each report, a line each: [Report], then
//	                                      {"end": [ReportDay]}; with domain=D of D alone, with all=1
//	                                      those too that nobody asks for
//	GET    /v1/report?day=…&domain=D      what was or would be sent, and where to: [Preview]; with mx=1
//	                                      about D as an MX host, with mails=1 the mails too
//	POST   /v1/report/send?day=…&domain=D send it now, with again=1 once more: [Sent]
//	GET    /v1/targets                    where reports do not get through, a line each: [daily.Standing],
//	                                      then {"end": {}}
//	PUT    /v1/targets                    send nothing to one, the body: [Suppression]
//	DELETE /v1/targets?target=URI         send there again: what was remembered of it
//	GET    /v1/cache?domain=D             what is remembered, a line each: [Entry]
//	DELETE /v1/cache?domain=D             forget D; with all=1 everything: [Purged]
//	GET    /v1/answers?map=M              what M answers by what was proven last, a line each: [Known]
//	POST   /v1/cache/refresh?domain=D     look D up again: [Explanation]
//	GET    /v1/overrides                  the operator's rules: [Overrides]
//	PUT    /v1/overrides                  add or replace one, the body: [Stored]
//	DELETE /v1/overrides?domain=D         remove one: the rule that it was
//	GET    /v1/status                     [Status]
//	POST   /v1/reload                     what SIGHUP does: [Reloaded]
//
// An error is a JSON object with the text in "error". Within /v1 fields may be
// added; a change of meaning is a /v2.
package control

import (
	"time"

	"postseal/cmd/postseal/internal/overrides"
	"postseal/cmd/postseal/internal/status"
	"postseal/policy"
)

const (
	// maxBody bounds what the client sends: one rule, whose longest part is a
	// policy text (mtasts.MaxBody, 64 KiB).
	maxBody = 256 << 10
	// patience is for lookups that explain and refresh wait for; the engine
	// gives up after a minute.
	patience = 65 * time.Second
)

// Entry is what is remembered of one destination.
type Entry struct {
	Destination string    `json:"destination"`
	Level       string    `json:"level,omitempty"` // absent after a restart, until somebody asks
	Rule        string    `json:"rule,omitempty"`
	DANE        string    `json:"dane,omitempty"`
	DANEUntil   time.Time `json:"dane_until,omitzero"`
	STSMode     string    `json:"sts_mode,omitempty"`
	STSID       string    `json:"sts_id,omitempty"`
	STSFetched  time.Time `json:"sts_fetched,omitzero"`
	STSExpires  time.Time `json:"sts_expires,omitzero"`
	STSRefresh  time.Time `json:"sts_refresh,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	Failures    int       `json:"failures,omitempty"`
	LastUsed    time.Time `json:"last_used,omitzero"`
}

func newEntry(s policy.Summary) Entry {
	e := Entry{Destination: s.Key, Rule: s.Decision, DANE: s.DANE, DANEUntil: s.DANEUntil, STSMode: s.STSMode, STSID: s.STSID,
		STSFetched: s.STSFetched, STSExpires: s.STSExpires, STSRefresh: s.STSRefresh, LastError: s.LastError, Failures: s.Failures, LastUsed: s.LastUsed}
	if s.Decision != "" {
		e.Level = s.Level.String()
	}
	if s.LastUsed.Unix() == 0 { // as stored: never
		e.LastUsed = time.Time{}
	}
	return e
}

// Known is the answer of a map for a destination, by what was proven last.
type Known struct {
	Destination string `json:"destination"`
	Unicode     string `json:"unicode,omitempty"` // the same in U-labels, where it has any
	Answer      string `json:"answer"`            // "OK dane-only", "NOTFOUND", "TEMP reason"
}

// Purged tells how many destinations were forgotten.
type Purged struct {
	Removed int `json:"removed"`
}

// Overrides are the operator's rules, expired ones included.
type Overrides struct {
	File      string           `json:"file"`
	Overrides []overrides.Rule `json:"overrides"`
}

// Stored is a rule as it was stored, and the one that it replaced, if any.
type Stored struct {
	overrides.Rule
	Replaced *overrides.Rule `json:"replaced,omitempty"`
}

// Status is the state of the daemon, with the domains that the status page leaves out.
type Status struct {
	status.Report
	FailingDomains []string `json:"failing_domains"` // at most 20
}

// Reloaded tells what a reload did with the keys of the configuration that changed.
type Reloaded struct {
	Changed     []string `json:"changed"`
	NeedRestart []string `json:"need_restart"`
}

// failure is the body of every error.
type failure struct {
	Error string `json:"error"`
}
