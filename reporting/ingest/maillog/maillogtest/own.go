package maillogtest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

// OwnID is the Message-ID of a report of ours, BareID without its angle brackets.
const (
	BareID = "tlsrpt.0123456789abcdef0123456789abcdef@mta.example.org"
	OwnID  = "<" + BareID + ">"
)

// IsOwn knows the reports of these tests.
func IsOwn(messageID []byte) bool { return tlsrpt.IsMessageID(messageID, "mta.example.org") }

// Heard is what a log tells, in order: "DOMAIN MX IP …" of sessions, and "STATUS RECIPIENT
// TEXT" of deliveries of ours. It must be the same where another reader goes on at each line.
func Heard[R maillog.Reader](t *testing.T, newReader func(maillog.Options) R, lines []string) (all []string, stats maillog.Stats) {
	t.Helper()
	var again []string
	reader := func(told func(maillog.Delivery)) R {
		o := Options()
		o.Delivered = told
		return newReader(o)
	}
	into := func(list *[]string) (func(reporting.Session), func(maillog.Delivery)) {
		return func(s reporting.Session) { *list = append(*list, InShort(s)) }, func(d maillog.Delivery) {
			if d.MessageID != OwnID || d.Time.IsZero() {
				t.Errorf("%+v", d)
			}
			*list = append(*list, strings.TrimSpace(string(d.Status)+" "+d.Recipient+" "+d.Text))
		}
	}
	emit, told := into(&all)
	r := reader(told)
	emitAgain, toldAgain := into(&again)
	next := reader(toldAgain)
	for _, line := range lines {
		r.Line([]byte(line), emit)
		state := next.AppendState(nil)
		next = reader(toldAgain)
		if err := next.RestoreState(state); err != nil {
			t.Fatal(err)
		}
		if same := next.AppendState(nil); !bytes.Equal(same, state) {
			t.Fatalf("state does not survive: %q, then %q", state, same)
		}
		next.Line([]byte(line), emitAgain)
	}
	r.Flush(emit)
	next.Flush(emitAgain)
	if diff := cmp.Diff(all, again); diff != "" {
		t.Errorf("restarted at each line: %s", diff)
	}
	return all, r.Stats()
}

// OwnCase is a log with messages of ours, and what it tells.
type OwnCase = struct {
	Name  string
	Lines []string
	Own   uint64 // sessions of ours
	Want  []string
}

// RunOwn holds a reader to cases, which are named after an item of contrib/conformance.
func RunOwn[R maillog.Reader](t *testing.T, item string, newReader func(maillog.Options) R, cases []OwnCase) {
	for _, c := range cases {
		t.Run(item+" "+c.Name, func(t *testing.T) {
			got, stats := Heard(t, newReader, c.Lines)
			if diff := cmp.Diff(c.Want, got); diff != "" {
				t.Error(diff)
			}
			if stats.Own != c.Own || stats.Unparsed != 0 || stats.Dropped != 0 || stats.Open != 0 {
				t.Errorf("counted %+v", stats)
			}
		})
	}
}

// OtherState holds a reader that has read line to its states: damaged, cut short, or of
// another version they are refused, and change nothing.
func OtherState[R maillog.Reader](t *testing.T, newReader func(maillog.Options) R, line string) {
	t.Helper()
	r := newReader(Options())
	r.Line([]byte(line), nil)
	state := r.AppendState(nil)
	sealed := func(version byte, rest []byte) []byte {
		body := append([]byte{version}, rest...)
		return binary.LittleEndian.AppendUint32(body, crc32.ChecksumIEEE(body))
	}
	rest := state[1 : len(state)-4]
	damaged := bytes.Clone(state)
	damaged[len(damaged)-1] ^= 1
	for what, other := range map[string][]byte{
		"nothing": nil, "damaged": damaged, "version before": sealed(state[0]-1, rest), "version behind": sealed(state[0]+1, rest),
		"cut short": sealed(state[0], rest[:len(rest)-1]), "too long": sealed(state[0], append(bytes.Clone(rest), 0)),
	} {
		if r.RestoreState(other) == nil {
			t.Errorf("%s: %q was taken", what, other)
		}
	}
	if got := r.AppendState(nil); !bytes.Equal(got, state) {
		t.Errorf("%q, then %q", state, got)
	}
}
