package smtpclient_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// TestLimits lets the host fall silent at each step, in synthetic time.
func TestLimits(t *testing.T) {
	clear := mxtest.Config{NoSTARTTLS: true, Keywords: []string{}}
	for _, tt := range []struct {
		name    string
		config  mxtest.Config
		command string
		demand  string
		want    string
		after   time.Duration
	}{
		{"greeting", clear, "GREETING", "opportunistic", "451 4.4.1 greeting", 5 * time.Minute},
		{"EHLO", clear, "EHLO", "opportunistic", "451 4.4.2 hello", 5 * time.Minute},
		{"STARTTLS", mxtest.Config{}, "STARTTLS", "encrypt", "451 4.4.2 starttls starttls-not-supported", 5 * time.Minute},
		{"handshake", mxtest.Config{Handshake: mxtest.Stall}, "", "encrypt", "451 4.7.5 handshake validation-failure", time.Minute},
		{"handshake with REQUIRETLS, which is for now", mxtest.Config{Handshake: mxtest.Stall}, "", "pkix requiretls", "451 4.7.5 handshake validation-failure", time.Minute},
		{"handshake, then clear text", mxtest.Config{Handshake: mxtest.Stall}, "", "opportunistic", "250 2.0.0", time.Minute},
		{"MAIL", clear, "MAIL", "opportunistic", "451 4.4.2 mail", 5 * time.Minute},
		{"RCPT", clear, "RCPT", "opportunistic", "451 4.4.2 rcpt", 5 * time.Minute},
		{"DATA", clear, "DATA", "opportunistic", "451 4.4.2 data", 2 * time.Minute},
		{"a piece of the message", clear, "CONTENT", "opportunistic", "451 4.4.2 data", 3*time.Minute + 5*time.Second}, // for last words
		{"the reply to the message", clear, ".", "opportunistic", "451 4.4.2 end", 10 * time.Minute},
		{"QUIT", clear, "QUIT", "opportunistic", "250 2.0.0", 5 * time.Second},
	} {
		t.Run("SMTP-070 "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newPipe(t)
				tt.config.NoTickets = true
				b.Set(tt.config)
				if tt.command != "" {
					b.Reply(tt.command, mxtest.Stall)
				}
				start := time.Now()
				s, err := b.client.Connect(t.Context(), b.target(tt.demand))
				got := ""
				if err != nil {
					got = b.outcome(nil, err)
				} else {
					r := b.send(s, strings.Repeat("x\r\n", 20000), "b@x")
					if s.Close(); r.Failure != nil {
						got = b.outcome(nil, r.Failure)
					} else {
						got = codes(r)
					}
				}
				if got != tt.want {
					t.Errorf("%q, want %q", got, tt.want)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %v, want %v", took, tt.after)
				}
			})
		})
	}
	t.Run("SMTP-070 SMTP-028 no reply to QUIT changes nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			b.Reply("QUIT", mxtest.Stall)
			s := b.open("pkix")
			r := b.send(s, text, "b@x")
			start := time.Now()
			s.Close()
			if took := time.Since(start); codes(r) != "250 2.0.0" || took > 5*time.Second {
				t.Errorf("%s, QUIT took %v", codes(r), took)
			}
		})
	})
	t.Run("SMTP-028 QUIT without a long wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			b.Reply("QUIT", mxtest.Stall)
			b.Set(mxtest.Config{NoTickets: true, Certificate: "expired"})
			start := time.Now()
			outcome, _ := b.connect(b.target("pkix"))
			if took := time.Since(start); outcome != "451 4.7.5 verify certificate-expired" || took > 5*time.Second {
				t.Errorf("%s after %v", outcome, took)
			}
		})
	})
	t.Run("SMTP-070 EHLO inside TLS, which is no failure of TLS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			b.Reply("EHLO", "250 mx\n250 STARTTLS", mxtest.Stall)
			if outcome, said := b.connect(b.target("opportunistic")); outcome != "451 4.4.2 hello" || said != "EHLO STARTTLS EHLO" {
				t.Errorf("%s, said %s", outcome, said)
			}
		})
	})
	for _, minutes := range []int{9, 11} {
		t.Run(fmt.Sprintf("SMTP-070 a reply %d minutes after the dot", minutes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newPipe(t)
				b.Reply(".", mxtest.Stall)
				s := b.open("pkix")
				go func() {
					time.Sleep(time.Duration(minutes) * time.Minute)
					b.Release()
				}()
				r := b.send(s, text, "b@x")
				want := map[int]string{9: "250 2.0.0", 11: "-; 451 4.4.2 end"}[minutes]
				if codes(r) != want || r.Uncertain != (minutes > 10) {
					t.Errorf("%q, want %q; uncertain %v", codes(r), want, r.Uncertain)
				}
				s.Close()
				time.Sleep(time.Hour)
			})
		})
	}
	t.Run("SMTP-070 no answer to the connection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			b.client.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			start := time.Now()
			_, err := b.client.Connect(t.Context(), b.target("encrypt"))
			if got := b.outcome(nil, err); got != "451 4.4.1 connect" || time.Since(start) != 30*time.Second {
				t.Errorf("%s after %v: %v", got, time.Since(start), err)
			}
		})
	})
	t.Run("SMTP-070 the limits can be set", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			b.client.Limits = smtpclient.Limits{Greeting: 7 * time.Second}
			b.Reply("GREETING", mxtest.Stall)
			start := time.Now()
			b.connect(b.target("encrypt"))
			if took := time.Since(start); took != 7*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("SMTP-071 timers are not per session", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			b.Set(mxtest.Config{NoTickets: true, TLSKeywords: []string{}})
			b.Reply("RCPT", mxtest.Stall)
			s := b.open("pkix")
			defer s.Close()
			go func() {
				for range 50 {
					time.Sleep(4 * time.Minute)
					b.Release()
				}
			}()
			r := b.send(s, text, slices.Repeat([]string{"b@x"}, 50)...)
			if r.Failure != nil || r.Replies[49].Code != 250 {
				t.Errorf("%s", codes(r))
			}
		})
	})
	t.Run("SMTP-071 nor for a reply that drips", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newPipe(t)
			near, far := net.Pipe()
			b.client.Dial = dialer(near)
			go func() {
				defer far.Close()
				for {
					if _, err := far.Write([]byte("220-x\r\n")); err != nil {
						return
					}
					time.Sleep(time.Minute)
				}
			}()
			start := time.Now()
			_, err := b.client.Connect(t.Context(), b.target("encrypt"))
			if got := b.outcome(nil, err); got != "451 4.4.1 greeting" || time.Since(start) != 5*time.Minute {
				t.Errorf("%s after %v", got, time.Since(start))
			}
			time.Sleep(time.Minute)
		})
	})
}

// TestContext ends the caller's context at each step.
func TestContext(t *testing.T) {
	for command, stage := range map[string]smtpclient.Stage{
		"GREETING": smtpclient.StageGreeting, "EHLO": smtpclient.StageHello, "STARTTLS": smtpclient.StageSTARTTLS,
		"HANDSHAKE": smtpclient.StageHandshake, "MAIL": smtpclient.StageMail, "RCPT": smtpclient.StageRcpt,
		"DATA": smtpclient.StageData, "CONTENT": smtpclient.StageData, ".": smtpclient.StageEnd,
	} {
		t.Run(command, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newPipe(t)
				b.Reply(command, mxtest.Stall)
				if command == "HANDSHAKE" {
					b.Set(mxtest.Config{Handshake: mxtest.Stall})
				}
				// Before the handshake gives up by itself, and there is none in clear text.
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
				defer cancel()
				start := time.Now()
				s, err := b.client.Connect(ctx, b.target("opportunistic"))
				var f *smtpclient.Failure
				uncertain := false
				if errors.As(err, &f) {
					b.failure(err)
				} else {
					big := strings.Repeat("x\r\n", 20000)
					r := s.Send(ctx, &smtpclient.Envelope{To: []smtpclient.Recipient{{Addr: "b@x"}}}, strings.NewReader(big), int64(len(big)))
					if f, uncertain = r.Failure, r.Uncertain; r.Usable {
						t.Error("the session is said to be usable")
					}
					s.Close()
				}
				if f == nil || f.Stage != stage || !f.Temporary() || !strings.Contains(f.Error(), "no more time while ") {
					t.Errorf("failure %v", f)
				}
				if took := time.Since(start); took != 50*time.Second {
					t.Errorf("took %v", took)
				}
				if uncertain != (command == ".") {
					t.Errorf("uncertain %v", uncertain)
				}
				b.Release()
				if b.Ended(); len(b.Conns()) != 1 {
					t.Errorf("%d connections", len(b.Conns()))
				}
			})
		})
	}
}
