package postfix_test

import (
	"fmt"
	"runtime"
	"testing"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/postfix"
)

func BenchmarkLine(b *testing.B) {
	noise := []byte("Nov 22 03:23:49 mta37 postfix/qmgr[23052]: 1FA629C04DA: from=<sender@client.test>, size=332, nrcpt=1 (queue active)")
	session := []byte("Nov 22 03:24:00 mta37 postfix/smtp[23424]: Verified TLS connection established to mx.sts-verify.example.test[127.0.60.101]:25: TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)")
	sent := []byte("Nov 22 03:24:00 mta37 postfix/smtp[23424]: 904BE9C04CD: to=<u1@sts-verify.example.test>, relay=mx.sts-verify.example.test[127.0.60.101]:25, delay=0.06, delays=0.01/0/0.05/0, dsn=2.0.0, status=sent (250 2.0.0 queued as 74)")
	emit := func(reporting.Session) {}
	b.Run("noise", func(b *testing.B) {
		r := postfix.New(maillogtest.Options())
		b.ReportAllocs()
		for b.Loop() {
			r.Line(noise, emit)
		}
	})
	b.Run("session", func(b *testing.B) {
		r := postfix.New(maillogtest.Options())
		b.ReportAllocs()
		for b.Loop() {
			r.Line(session, emit)
			r.Line(sent, emit)
		}
	})
}

// BenchmarkOpen measures what a session holds that waits for its recipient.
func BenchmarkOpen(b *testing.B) {
	const open = 10_000
	line := func(n int) []byte {
		return fmt.Appendf(nil, "Nov 22 03:24:00 mta37 postfix/smtp[%d]: Verified TLS connection established to mx.dom%d.example.test[127.0.60.101]:25: TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)", 10000+n, n)
	}
	for b.Loop() {
		before := heap()
		r := postfix.New(maillogtest.Options())
		for n := range open {
			r.Line(line(n), func(reporting.Session) {})
		}
		b.ReportMetric(float64(heap()-before)/open, "B/open")
		b.ReportMetric(float64(len(r.AppendState(nil)))/open, "state-B/open")
		runtime.KeepAlive(r)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
