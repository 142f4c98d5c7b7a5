package control

import (
	"encoding/hex"
	"fmt"
	"time"

	"postseal/cmd/postseal/internal/overrides"
	"postseal/cmd/postseal/internal/status"
	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/socketmap"
)

// Explanation is a decision with all that led to it.
type Explanation struct {
	Destination string `json:"destination"`
	Level       string `json:"level"`
	Rule        string `json:"rule"` // the row of the table that decided
	Reason      string `json:"reason"`

	Daemon     bool              `json:"daemon"` // false: looked up by the subcommand alone, which knows nothing of before
	Cached     bool              `json:"cached"` // made for an earlier question
	Made       time.Time         `json:"made"`
	Expires    time.Time         `json:"expires"`
	Validation status.Validation `json:"dnssec_validation"`

	Override *overrides.Rule `json:"override,omitempty"`
	DANE     DANE            `json:"dane"`
	STS      *STS            `json:"sts,omitempty"` // the policy in force; absent: none
	Answers  []Answer        `json:"answers"`
	Steps    []Step          `json:"steps"`
	Probed   *Probed         `json:"probed,omitempty"` // absent unless it was asked for
}

// DANE is what DNS said about the hosts.
type DANE struct {
	Class    string `json:"class"`
	MXSecure bool   `json:"mx_secure"`
	Implicit bool   `json:"implicit_mx,omitempty"` // no MX records
	NullMX   bool   `json:"null_mx,omitempty"`
	Hosts    []Host `json:"hosts,omitempty"` // absent where DANE was not looked up now
	Skipped  int    `json:"skipped,omitempty"`
}

// Host is one candidate for delivery.
type Host struct {
	Name       string   `json:"name"`
	Preference uint16   `json:"preference"`
	State      string   `json:"state"`
	Reason     string   `json:"reason,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
	Secure     bool     `json:"secure"`
	Base       string   `json:"tlsa_base,omitempty"`
	TLSA       []string `json:"tlsa,omitempty"`
	STS        string   `json:"sts,omitempty"` // "match" or "no match", where a policy is in force
}

// STS is a policy in force.
type STS struct {
	Mode   string   `json:"mode"`
	MX     []string `json:"mx"`
	MaxAge int64    `json:"max_age"` // seconds
	Text   string   `json:"text"`

	// Of a published policy; absent where an override stands in for it.
	ID      string     `json:"id,omitempty"` // of the record that it was fetched under
	Source  string     `json:"source,omitempty"`
	Fetched *time.Time `json:"fetched,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
}

// Answer is the reply of one map.
type Answer struct {
	Map  string `json:"map"`
	Text string `json:"reply"`
}

// Step is one thing that was asked or concluded.
type Step struct {
	At    float64 `json:"at"`   // its end, in seconds from the start
	Took  float64 `json:"took"` // seconds
	Topic string  `json:"topic"`
	Text  string  `json:"text"`
}

// NewExplanation puts a trail into words. answers tells what is answered.
func NewExplanation(t *policy.Trail, v dnssec.Validation, answers *socketmap.Server) *Explanation {
	d := t.Decision
	x := &Explanation{
		Destination: d.Destination.String(), Level: d.Level.String(), Rule: d.Rule, Reason: d.Reason,
		Cached: t.Cached, Made: d.Made, Expires: d.Expires,
		Validation: status.Validation{On: v.On, Never: v.Never, Reason: v.Reason},
		DANE:       DANE{Class: d.DANE.String(), MXSecure: d.MXSecure},
		Answers:    []Answer{}, Steps: []Step{},
	}
	if o := d.Override; o != nil {
		x.Override = overrides.Describe(o)
	}
	if p := d.STS; p != nil {
		x.STS = &STS{Mode: p.Mode.String(), MX: p.MX, MaxAge: int64(p.MaxAge / time.Second), Text: p.Text}
		if m := &t.Summary; m.STSMode != "" && (d.Override == nil || d.Override.Action == policy.NoAction) {
			x.STS.ID, x.STS.Source, x.STS.Fetched, x.STS.Expires = m.STSID, m.STSSource, &m.STSFetched, &m.STSExpires
		}
	}
	if d.Plan != nil {
		x.DANE.Implicit, x.DANE.NullMX, x.DANE.Skipped = d.Plan.Implicit, d.Plan.NullMX, d.Plan.Skipped
		for i := range d.Plan.Hosts {
			x.DANE.Hosts = append(x.DANE.Hosts, newHost(&d.Plan.Hosts[i], d))
		}
	}
	for _, a := range answers.Answers(d) {
		x.Answers = append(x.Answers, Answer{a.Map, a.Text})
	}
	for _, s := range t.Steps {
		x.Steps = append(x.Steps, Step{s.At.Seconds(), s.Took.Seconds(), s.Topic, s.Text})
	}
	return x
}

func newHost(h *dane.Host, d *policy.Decision) Host {
	host := Host{Name: h.Name, Preference: h.Preference, State: h.State.String(), Reason: h.Reason, Secure: h.Secure, Base: h.Base}
	for _, a := range h.Addrs {
		host.Addresses = append(host.Addresses, a.String())
	}
	for _, r := range h.TLSA {
		host.TLSA = append(host.TLSA, fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.MatchingType, hex.EncodeToString(r.Data)))
	}
	if d.STS != nil && len(d.STS.MX) > 0 {
		host.STS = "no match"
		if d.STS.Match(h.Name) {
			host.STS = "match"
		}
	}
	return host
}
