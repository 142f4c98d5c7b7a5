package maillog_test

import (
	"bytes"
	"testing"
	"time"

	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/maillog/maillogtest"
)

// TestHead reads one line in each form. Where a daemon cuts the tag at its slash, Cut says so.
func TestHead(t *testing.T) {
	p := maillogtest.Cut(t, "Nov 22 03:24:00 mta37 postfix/smtp[23424]: 904BE9C04CD: to=<u@a.example>, x: [y]")
	for form, write := range maillogtest.Forms {
		t.Run(form, func(t *testing.T) {
			e, ok := maillog.Head(bytes.TrimRight([]byte(write(p)), "\r"))
			if !ok {
				t.Fatal("not read")
			}
			tag := p.Tag
			if e.Cut {
				tag = "postfix"
			}
			if string(e.Host) != p.Host || string(e.Tag) != tag || string(e.PID) != p.PID || string(e.Text) != p.Text {
				t.Errorf("host %q, tag %q, pid %q, text %q", e.Host, e.Tag, e.PID, e.Text)
			}
			c := maillog.Clock{Location: time.UTC, Now: func() time.Time { return p.At }}
			if at, ok := c.At(e.Stamp); !ok || !at.Equal(p.At) {
				t.Errorf("at %s, %v", at, ok)
			}
			if next, ok := maillog.Head([]byte(write(maillogtest.Parts{At: p.At.Add(time.Second), Host: p.Host, Tag: p.Tag, PID: p.PID, Text: "more"}))); !ok || !bytes.Equal(next.Key, e.Key) {
				t.Errorf("key %q, then %q", e.Key, next.Key)
			}
			if other, ok := maillog.Head([]byte(write(maillogtest.Parts{At: p.At, Host: p.Host, Tag: p.Tag, PID: "7", Text: p.Text}))); !ok || bytes.Equal(other.Key, e.Key) {
				t.Errorf("another process has the key %q", other.Key)
			}
		})
	}
	for _, line := range []string{"", "x", "Nov 22 03:24:00 mta37 last message repeated 2 times", "<22>", "{", "{}", `<22>1 2026-11-22T03:24:00Z mta37 postfix/smtp 7 - [x y="] text`} {
		if e, ok := maillog.Head([]byte(line)); ok {
			t.Errorf("%q was read: %+v", line, e)
		}
	}
}
