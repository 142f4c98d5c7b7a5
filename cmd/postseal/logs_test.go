package main

import (
	"bytes"
	"testing"

	"postseal/reporting/ingest/maillog"
)

func TestProgress(t *testing.T) {
	stats := func() maillog.Stats { return maillog.Stats{Sessions: 7} }
	var b bytes.Buffer
	p := &progress{w: &b, total: 4e6}
	p.add(1e6, stats)
	p.add(1e6, stats) // too soon to be shown
	p.clear()
	text := "1 MB of 4 MB, 25 %, 7 sessions"
	if want := "\r" + text + "\r" + string(bytes.Repeat([]byte(" "), len(text))) + "\r"; b.String() != want {
		t.Errorf("got %q, want %q", &b, want)
	}

	p = newProgress(&b, nil) // no terminal
	b.Reset()
	p.add(1, stats)
	p.clear()
	if b.Len() > 0 {
		t.Errorf("a file gets %q", &b)
	}
}
