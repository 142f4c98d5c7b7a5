package smtpclient_test

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// TestHostile is for hosts that mean harm, or do not know what they do: a temporary
// failure with a clear reason, at once and in bounded memory.
func TestHostile(t *testing.T) {
	garbage := "220-\xff\xfe\x00\x1b]0;x\x07\r\n220 \x80\x81\r\n"
	for _, tt := range []struct {
		name    string
		config  mxtest.Config
		command string
		reply   string
		demand  string
		want    string
		words   string
	}{
		{"SMTP-026 endless greeting", mxtest.Config{}, "GREETING", mxtest.Endless, "encrypt", "451 4.5.0 greeting", "protocol error while waiting for the greeting: reply of more than 100 lines"},
		{"SMTP-026 endless line", mxtest.Config{}, "GREETING", mxtest.Long, "encrypt", "451 4.5.0 greeting", "reply line longer than 4096 octets"},
		{"SMTP-026 endless EHLO", mxtest.Config{}, "EHLO", mxtest.Endless, "encrypt", "451 4.5.0 hello", "of more than 100 lines"},
		{"SMTP-026 endless reply to STARTTLS", mxtest.Config{}, "STARTTLS", "220 " + strings.Repeat("x", 5000), "encrypt", "451 4.5.0 starttls starttls-not-supported", "longer than 4096"},
		{"SMTP-026 endless reply to MAIL", mxtest.Config{}, "MAIL", mxtest.Endless, "encrypt", "451 4.5.0 mail", "of more than 100 lines"},
		{"SMTP-026 endless reply to the message", mxtest.Config{}, ".", mxtest.Endless, "encrypt", "451 4.5.0 end", "of more than 100 lines"},
		{"SMTP-025 another protocol", mxtest.Config{Banner: "SSH-2.0-x\r\n"}, "", "", "encrypt", "451 4.5.0 greeting", `not an SMTP reply: "SSH-2.0-x"`},
		{"SMTP-025 garbage", mxtest.Config{Banner: "\xff\x00\x1b[31m\r\n"}, "", "", "encrypt", "451 4.5.0 greeting", `not an SMTP reply: "???[31m"`},
		{"SMTP-025 8-bit garbage in the greeting's text", mxtest.Config{Banner: garbage}, "", "", "pkix", "pkix", ""},
		{"SMTP-025 8-bit garbage in EHLO", mxtest.Config{}, "EHLO", "250 \xff\xfe\x00\n250 \x80STARTTLS\n250 STARTTLS\n250 \xff", "pkix", "pkix", ""},
		{"SMTP-025 wrong code to RCPT", mxtest.Config{}, "RCPT", "777 x", "pkix", "451 4.5.0 rcpt", `not an SMTP reply: "777 x"`},
		{"a certificate chain of 1 MiB", mxtest.Config{Certificate: "huge"}, "", "", "pkix", "451 4.7.5 handshake validation-failure", "TLS handshake failed"},
		{"a certificate chain of 1 MiB, opportunistic", mxtest.Config{Certificate: "huge"}, "", "", "opportunistic", "opportunistic", ""},
		{"TLS that is none", mxtest.Config{Handshake: strings.Repeat("x", 100)}, "", "", "dane", "451 4.7.5 handshake validation-failure", "TLS handshake failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Set(tt.config)
			if tt.command != "" {
				b.Reply(tt.command, tt.reply)
			}
			s, err := b.client.Connect(t.Context(), b.target(tt.demand))
			if err == nil {
				r := b.send(s, text, "b@x")
				s.Close()
				if r.Failure != nil {
					err = r.Failure
				}
			}
			if got := b.outcome(s, err); got != tt.want {
				t.Errorf("outcome %q, want %q", got, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("%q does not say %q", err, tt.words)
			}
			if s != nil {
				checkReply(t, smtpclient.Reply{Code: 250, Enhanced: "2.0.0", Text: s.Info().Name})
			}
		})
	}
}

func TestHostileInsideTLS(t *testing.T) {
	b := newBed(t)
	b.Reply("EHLO", "250 mx\n250 STARTTLS", "999 x")
	if outcome, said := b.connect(b.target("opportunistic")); outcome != "451 4.5.0 hello" || said != "EHLO STARTTLS EHLO" {
		t.Errorf("%s, said %s", outcome, said)
	}
}

// FuzzSession lets a host send anything, at once and in pieces as they fall.
func FuzzSession(f *testing.F) {
	f.Add([]byte("220 x\r\n250-x\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n221 bye\r\n"))
	f.Add([]byte("220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n\x16\x03\x03\x00\x02\x02\x28"))
	f.Add([]byte("220 x\r\n250-x\r\n250-SIZE 9999999999999999999\r\n250 8BITMIME\r\n550 5.1.1 no\r\n"))
	f.Add([]byte("220 x\r\n500 x\r\n250 x\r\n421 x\r\n"))
	f.Add([]byte("521 x\r\n"))
	limits := smtpclient.Limits{
		Greeting: wait, Hello: wait, Handshake: wait, Mail: wait, Rcpt: wait, Data: wait, Block: wait, End: wait, Quit: time.Second,
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		ended := make(chan struct{})
		heard := make(chan struct{})
		go func() { // whatever is said
			defer close(heard)
			buf := make([]byte, 4096)
			for {
				if _, err := far.Read(buf); err != nil {
					return
				}
			}
		}()
		go func() {
			defer close(ended)
			far.Write(in)
			far.Close()
		}()
		client := &smtpclient.Client{Limits: limits, Dial: dialer(near)}
		s, err := client.Connect(t.Context(), smtpclient.Target{Name: mx})
		if err == nil {
			to := []smtpclient.Recipient{{Addr: "b@x"}, {Addr: "c@x"}}
			r := s.Send(t.Context(), &smtpclient.Envelope{To: to}, strings.NewReader(text), int64(len(text)))
			for _, reply := range r.Replies {
				checkReply(t, reply)
				if reply.Code == 0 && r.Failure == nil {
					t.Error("neither reply nor failure")
				}
			}
			if r.Failure != nil {
				err = r.Failure
			}
			s.Close()
		}
		if f, ok := err.(*smtpclient.Failure); ok {
			checkReply(t, f.Reply)
			if f.Reply.Code < 400 {
				t.Errorf("failure with %d", f.Reply.Code)
			}
		}
		near.Close()
		<-ended
		<-heard
	})
}

// TestMemory holds many sessions with hosts that never stop talking.
func TestMemory(t *testing.T) {
	b := newBed(t)
	b.Reply("EHLO", mxtest.Endless)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		b.connect(b.target("encrypt"))
	}
	runtime.ReadMemStats(&after)
	// Both sides together; the host alone wrote much more than that.
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 16<<20 {
		t.Errorf("20 endless replies took %d octets", grown)
	}
}
