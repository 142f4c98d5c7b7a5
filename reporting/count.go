package reporting

import (
	"net/netip"

	"postseal/reporting/tlsrpt"
)

// Source is how sessions become known: "postfix", "exim", "sendmail" for the logs,
// "datagram", "event", "delivery", "probe", "policy".
type Source string

// Standing is what a count is good for.
type Standing uint8

const (
	Reported   Standing = iota // goes into the day's report
	Late                       // became known after the day was closed: is shown, and in no report
	Unverified                 // under a policy in mode testing that nobody has verified the MX host by: likewise
)

func (s Standing) String() string { return [...]string{"reported", "late", "unverified"}[s] }

// Key names the sessions of a day that are counted together (RFC 8460 §4.4).
type Key struct {
	Domain    string
	Policy    PolicyID
	Standing  Standing
	Source    Source
	Result    tlsrpt.ResultType // "": success
	Reason    string
	MXHost    string
	MXHelo    string
	SendingIP netip.Addr
	MXIP      netip.Addr
}

// Batch is what is written at once.
type Batch struct {
	Counts   map[Day]map[Key]uint64 // to add to what is there
	Policies map[PolicyID]Policy    // that the keys name
	Marks    map[string][]byte      // to put in place of what is there; empty: to remove
}

// Store keeps counts over restarts; reporting/store does.
type Store interface {
	// Write adds a batch. All of it is on disk when Write returns nil, else nothing.
	Write(Batch) error

	// Mark returns what a batch last put under a name, nil if nothing.
	Mark(name string) ([]byte, error)
}
