package exim

import (
	"postseal/policy"
	"postseal/policy/dane"
	"postseal/socketmap/internal/door"
)

const (
	modeNone     = "v=1 mode=none"
	modeEnforce  = "v=1 mode=enforce"
	modeFallback = "v=1 mode=fallback"
	modeDefer    = "v=1 mode=defer"
)

var modes = [...]string{modeNone, modeEnforce, modeFallback, modeDefer}

// maxAnswer is far above what a policy of 64 KiB can give; only an operator's
// own rule could be longer. It is what Postfix reads, for no better number.
const maxAnswer = 100_000

// Host is what the mail server can do.
type Host struct {
	DANE     bool // host.dane: Exim does DANE itself
	Fallback bool // there is a delivery fallback to route to

	// Takes are destinations that the fallback takes though Exim could do them; nil: none.
	Takes *policy.Fallback
}

// Answer returns the line for d, without its line end.
//
// Exim cannot be told to encrypt without verifying, nor to do mandatory DANE:
// its hosts_try_dane is enough where every host has TLSA records (RFC 7672
// §2.2). What it cannot do goes to the fallback, and where there is none, waits:
// neither a local rule nor DANE is dropped in silence.
func Answer(d *policy.Decision, host Host) string {
	if d == nil {
		return deferring("no decision")
	}
	domain := d.Destination.Domain
	if host.Fallback && host.Takes.Takes(d) {
		return modeFallback
	}
	switch d.Level {
	case policy.LevelNone, policy.LevelMay:
		return modeNone
	case policy.LevelEncrypt:
		return host.fallback("Exim cannot require encryption alone, as a rule does for " + domain)
	case policy.LevelSTS:
		if host.DANE && host.Fallback && d.DANE == dane.ClassUnusable {
			return modeFallback // it tries DANE here, too, and would crash; see below
		}
		return enforce(d)
	case policy.LevelDANE, policy.LevelDANEOnly:
		switch {
		case !host.DANE:
			return host.fallback("this mail server cannot do DANE (RFC 7672; host.dane = false), which is required for " + domain)
		case d.DANE == dane.ClassUnusable: // Exim 4.96 with OpenSSL crashes and freezes the message
			return host.fallback("Exim cannot do DANE where all TLSA records are unusable, as those of " + domain)
		case d.Level == policy.LevelDANEOnly && d.DANE != dane.ClassFull:
			return host.fallback("Exim cannot do mandatory DANE where not every MX host has it, as is required for " + domain)
		}
		return modeNone
	}
	return deferring(d.Reason)
}

func (h Host) fallback(why string) string {
	if h.Fallback {
		return modeFallback
	}
	return deferring(why)
}

// deferring quotes the reason as ${extract reads it.
func deferring(why string) string {
	text := []byte(modeDefer + ` why="`)
	for _, c := range door.AppendReason(nil, why) {
		if c == '\\' || c == '"' {
			text = append(text, '\\')
		}
		text = append(text, c)
	}
	return string(append(text, '"'))
}

// enforce names the hosts that must not be ignored, each as a regular expression
// that needs no backslash, and ignores all others.
func enforce(d *policy.Decision) string {
	domain := d.Destination.Domain
	if d.STS == nil {
		return deferring("no MX host is known of the MTA-STS policy for " + domain)
	}
	text, hosts := []byte(modeEnforce+` ignore="`), 0
	for _, p := range d.STS.MX {
		name, wildcard, ok := door.Host(p)
		if !ok { // then fewer hosts match
			continue
		}
		hosts++
		text = append(text, "!^"...)
		if wildcard { // exactly one label, RFC 8461 §4.1
			text = append(text, "[^.]+[.]"...)
		}
		for i := range len(name) {
			if name[i] == '.' {
				text = append(text, "[.]"...)
			} else {
				text = append(text, name[i])
			}
		}
		text = append(text, "$ , "...)
	}
	switch {
	case hosts == 0:
		return deferring("no MX host can be used of the MTA-STS policy for " + domain)
	case len(text) > maxAnswer:
		return deferring("too many MX hosts for one answer in the MTA-STS policy for " + domain)
	}
	return string(append(text, `*"`...))
}
