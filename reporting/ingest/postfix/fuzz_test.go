package postfix_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/postfix"
)

// addLogs takes every log of one folder as a seed, and its first lines in all forms.
func addLogs(f *testing.F) {
	files, err := filepath.Glob("testdata/3.*/*.log")
	if err != nil || len(files) == 0 {
		f.Fatalf("no logs: %v", err)
	}
	for i, name := range files {
		log, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(log) < 4<<10 {
			f.Add(log, uint16(len(log)/2))
		}
		if i > 0 || strings.HasSuffix(name, ".iso.log") {
			continue
		}
		for _, write := range maillogtest.Forms {
			var b strings.Builder
			for line := range strings.Lines(string(log)) {
				b.WriteString(write(maillogtest.Cut(f, strings.TrimSuffix(line, "\n"))) + "\n")
			}
			f.Add([]byte(b.String()), uint16(b.Len()/3))
		}
	}
}

// FuzzLog reads anything, and goes on from a saved state in its middle.
func FuzzLog(f *testing.F) {
	addLogs(f)
	f.Add([]byte(strings.Join(mta37(pfReceived, pfUp, pfDeferred, pfUp, pfSent, pfRemoved), "\n")), uint16(500))
	f.Fuzz(func(t *testing.T, log []byte, middle uint16) {
		sessions, stats := replayed(t, log)
		if stats.Sessions != uint64(len(sessions)) || stats.Open != 0 {
			t.Fatalf("%d sessions, %+v", len(sessions), stats)
		}
		for _, s := range sessions {
			maillogtest.CheckSession(t, s)
			if s.Domain == "" || s.Time.Year() < 1970 || s.Time.Year() > 9999 {
				t.Fatalf("%+v", s)
			}
			// A name with A-labels may have been written otherwise, and JSON has escapes.
			if !strings.Contains(s.Domain, "xn--") && !bytes.ContainsAny(log, "{") && !bytes.Contains(bytes.ToLower(log), []byte(s.Domain)) {
				t.Fatalf("domain %q comes from nowhere", s.Domain)
			}
		}
		split := int(middle) % (len(log) + 1)
		split += bytes.IndexByte(log[split:], '\n') + 1 // a state is that of whole lines
		if log := log[:split]; len(log) > 0 && log[len(log)-1] != '\n' {
			return
		}
		var again []reporting.Session
		emit := func(s reporting.Session) { again = append(again, s) }
		first, second := postfix.New(maillogtest.Options()), postfix.New(maillogtest.Options())
		replayLines(log[:split], first, emit)
		if err := second.RestoreState(first.AppendState(nil)); err != nil {
			t.Fatal(err)
		}
		replayLines(log[split:], second, emit)
		second.Flush(emit)
		if diff := cmp.Diff(sessions, again, maillogtest.CompareAddr); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzState restores anything that has the right checksum.
func FuzzState(f *testing.F) {
	r := postfix.New(maillogtest.Options())
	for line := range bytes.Lines(smtpLog(upA, id+": host x said: 450", upA2, "TLSRPT: status=success, domain=a.example, receiving_mx="+mxA,
		"@postfix/smtp[8] certificate verification failed for "+mxA+":25: self-signed certificate",
		"@postfix/cleanup[8] "+id+": message-id="+maillogtest.OwnID,
		"@postfix/tlsproxy[9] SSL_connect error to "+mxA+":25: -1")) {
		r.Line(bytes.TrimSpace(line), nil)
		state := r.AppendState(nil)
		f.Add(state[:len(state)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := postfix.New(maillogtest.Options())
		if r.RestoreState(binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.ChecksumIEEE(body))) != nil {
			return
		}
		state := r.AppendState(nil)
		if err := r.RestoreState(state); err != nil {
			t.Fatalf("the state of %d bytes that came out is refused", len(state))
		}
		emit := func(reporting.Session) {}
		for line := range bytes.Lines(smtpLog(upA, to("u@a.example", mxA+":25", "Server certificate not verified"))) {
			r.Line(bytes.TrimSpace(line), emit)
		}
		r.Flush(emit)
	})
}
