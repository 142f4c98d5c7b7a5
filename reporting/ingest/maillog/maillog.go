// Package maillog is what the logs of all mail servers have in common; a package of its
// own makes a [Reader] of it for each mail server.
//
// A log was written for people. Every line has a head, in one of the forms of syslog
// (RFC 3164 §4.1, RFC 5424 §6) or of systemd's journal: [Head] takes it apart. Its stamp may
// lack year and zone, which [Clock] finds. TLS lines name a host but no recipient, and the
// lines of many deliveries are mixed, so what is known of each waits, in a [Table] for
// instance, by process or queue id, until a line names the recipient. All of that goes into every checkpoint by
// [StateWriter]: a restart neither loses a session nor counts it twice.
//
// Half of a line was written by strangers: replies of remote hosts, and addresses. So lines
// are taken apart by their structure and never searched, everything kept of them is bounded,
// and what is not understood is counted and skipped.
//
// Our own reports are not reported on (RFC 8460 §3). They are known by their Message-ID, and
// [OwnMails] follows them through the queue; what became of each is a [Delivery].
package maillog

import (
	"time"

	"postseal/reporting"
)

// OutsidePolicy is the reason of a session whose MX host an MTA-STS policy does not list;
// RFC 8460 has no result type for that.
const OutsidePolicy = "mx-not-in-policy"

// MaxLine is the length of the longest line that is read, in bytes. Syslog daemons cut
// long before it (rsyslog at 8 KiB, journald at 48 KiB, postlogd at 2 KiB).
const MaxLine = 64 << 10

// Reader turns the lines of one MTA's log into sessions. It is for one goroutine.
type Reader interface {
	// Line takes one line without its line end, in any of the forms that syslog
	// daemons write (see [Head]), and emits the sessions that it completes. It does
	// not keep line; what it emits does not point into it. A line longer than MaxLine
	// is counted and skipped.
	Line(line []byte, emit func(reporting.Session))

	// Flush emits what the end of the input completes. What lacks its domain then
	// is dropped and counted.
	Flush(emit func(reporting.Session))

	// Stats counts what came by since the Reader was made.
	Stats() Stats

	// AppendState appends the open correlations, so that another Reader of the same
	// format goes on where this one stands. It is bounded; the counts of Stats are
	// not part of it.
	AppendState(dst []byte) []byte

	// RestoreState takes what AppendState gave. State of an unknown version or with
	// damage is refused, and the Reader is then as it was.
	RestoreState(state []byte) error
}

// Stats counts lines and what became of them.
type Stats struct {
	Lines    uint64 // all
	Sessions uint64 // that were emitted
	Unparsed uint64 // lines that looked like something to count, but could not be understood
	Oversize uint64 // lines longer than MaxLine
	Own      uint64 // sessions of our own messages, which are not emitted
	Dropped  uint64 // sessions that never got their domain: too many open, too old, or another delivery began
	Open     int    // correlations that wait for more lines now
}

// Options are the same for all formats; the zero value is useful.
type Options struct {
	// Location is where stamps without a zone were written; nil is time.Local.
	Location *time.Location

	// Now tells the time against which a stamp without a year is placed: the latest
	// year that does not put it more than a day after Now. For a finished file that
	// is the time of its last change. nil is time.Now.
	Now func() time.Time

	// Own reports whether a Message-ID is that of a report of ours, by which its
	// deliveries are known: their sessions are not counted (RFC 8460 §3). It has its angle
	// brackets, but for Exim's log; it must not be kept. nil: none is.
	Own func(messageID []byte) bool

	// Delivered hears what became of such messages, one recipient after the other, from
	// within Line. The reader's state is saved after that, so that what is safe when
	// Delivered returns is never lost; after a crash it is told again. nil: nobody asks.
	Delivered func(Delivery)
}

// Filled is o with what its zero values mean.
func (o Options) Filled() Options {
	if o.Location == nil {
		o.Location = time.Local
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}
