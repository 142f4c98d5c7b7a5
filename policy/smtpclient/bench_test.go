package smtpclient_test

import (
	"bytes"
	"fmt"
	"testing"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// BenchmarkSend sends over one session, so that it is the transaction that counts.
func BenchmarkSend(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%d KiB", size>>10), func(b *testing.B) {
			bed := newBed(b)
			bed.Set(mxtest.Config{Discard: true})
			s := bed.open("pkix")
			defer s.Close()
			message := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"), size/64)
			e := &smtpclient.Envelope{From: "a@example.net", To: []smtpclient.Recipient{{Addr: "b@example.org"}}}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r := s.Send(b.Context(), e, bytes.NewReader(message), int64(size))
				if r.Failure != nil || r.Replies[0].Code != 250 {
					b.Fatalf("%+v, %v", r, r.Failure)
				}
			}
		})
	}
}

// BenchmarkConnect is a whole session: TCP, TLS, judgement, QUIT.
func BenchmarkConnect(b *testing.B) {
	bed := newBed(b)
	target := bed.target("dane")
	b.ReportAllocs()
	for b.Loop() {
		s, err := bed.client.Connect(b.Context(), target)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
