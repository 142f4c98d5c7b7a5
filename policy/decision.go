package policy

import (
	"time"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// Level is what a destination requires of a connection.
type Level uint8

const (
	// LevelNone requires nothing: the mail server does as it would without us.
	LevelNone Level = iota
	// LevelMay overrules a stricter default of the mail server (override "exempt").
	LevelMay
	// LevelEncrypt requires TLS without authentication (override "require").
	LevelEncrypt
	// LevelSTS requires an MX host that the policy lists, with a certificate for
	// its name from a known authority (RFC 8461 §4).
	LevelSTS
	// LevelDANE is opportunistic DANE: host by host, where TLSA records exist (RFC 7672 §2.2).
	LevelDANE
	// LevelDANEOnly is mandatory DANE: no host without usable TLSA records.
	LevelDANEOnly
	// LevelTemp: the requirement cannot be told now. Mail waits.
	LevelTemp
)

func (l Level) String() string {
	return [...]string{"none", "may", "encrypt", "sts", "dane", "dane-only", "temporary failure"}[l]
}

// Decision is the answer for one destination. It is never changed once
// published, so that any number of callers may read it.
type Decision struct {
	Destination Destination
	Level       Level
	Rule        string // the row of the table that decided, e.g. "DANE full"
	Reason      string // why, for logs and TEMP replies: printable ASCII, at most 200 bytes

	DANE     dane.Class
	MXSecure bool

	// Unvalidated: DNSSEC validation is off for now, though not by the operator's
	// wish, so that what is not known to be secure may be all the same.
	Unvalidated bool

	// STS is the policy in force, of whatever mode; nil if none. At LevelSTS
	// it is never nil and has at least one MX pattern: the published policy,
	// or what an override pinned or required in its place.
	STS *mtasts.Policy

	// Plan has the hosts. It is nil when the decision was restored from disk
	// or did not need them.
	Plan *dane.Plan

	Override *Override // that decided; nil if none

	Made    time.Time
	Expires time.Time // when something that it rests on must be looked up again

	generation uint64 // of the overrides and the resolver's state that it was made under
}

// Fresh reports whether the decision may be used at now.
func (d *Decision) Fresh(now time.Time) bool { return now.Before(d.Expires) }
