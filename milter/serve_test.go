package milter_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postseal/milter"
	"postseal/socketmap/pipetest"
)

// waits returns how long a message with so many recipients makes the mail server
// wait: in here time stands still unless somebody waits for it.
func waits(t *testing.T, recipients int) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s := &milter.Server{Route: milter.RouteRecipient, Rules: []milter.Rule{{Recipient: ".far.example", Tag: "requiretls"}}}
		m := connect(t, s)
		began := time.Now()
		m.connect("client.example.com", far)
		x := mail{}
		for i := range recipients {
			x.to = append(x.to, fmt.Sprintf("<rcpt@%d.far.example>", i))
		}
		if changes, _ := m.transact(x); len(changes) != 2*recipients+1 {
			t.Errorf("%d changes", len(changes))
		}
		took = time.Since(began)
	})
	return took
}

func TestWithoutWaiting(t *testing.T) {
	t.Run("MIL-014 nothing takes so long that progress must be told", func(t *testing.T) {
		if took := waits(t, 1000); took != 0 {
			t.Errorf("waited %s", took)
		}
	})
	t.Run("MIL-015 nothing is asked of the network", func(t *testing.T) {
		if took := waits(t, 1); took != 0 {
			t.Errorf("waited %s", took)
		}
	})
}

func TestServe(t *testing.T) {
	t.Run("the context ends connections between messages", func(t *testing.T) {
		p := pipetest.Listen()
		stop := start(t, &milter.Server{}, p)
		fresh, idle := newMTA(t, p.Dial()), newMTA(t, p.Dial())
		idle.negotiate(6, allActions, allSteps)
		idle.transact(mail{})
		stop()
		fresh.wantClosed()
		idle.wantClosed()
	})
	t.Run("a message under way is judged before the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pipetest.Listen()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- (&milter.Server{}).Serve(ctx, p) }()
			m := newMTA(t, p.Dial())
			m.negotiate(6, allActions, allSteps)
			m.command('M', "<sender@example.org>", "REQUIRETLS")
			cancel()
			synctest.Wait()
			m.command('R', "<rcpt@example.net>")
			if got, verdict := m.end(); verdict != "c" || len(got) != 2 {
				t.Errorf("%q %s", got, verdict)
			}
			began := time.Now()
			m.wantClosed()
			if err := <-done; err != nil || time.Since(began) != 0 {
				t.Errorf("%v after %s", err, time.Since(began))
			}
		})
	})
	t.Run("the grace time ends what does not end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pipetest.Listen()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- (&milter.Server{Grace: time.Minute}).Serve(ctx, p) }()
			within, mute := newMTA(t, p.Dial()), newMTA(t, p.Dial())
			for _, m := range []*mta{within, mute} {
				m.negotiate(6, allActions, allSteps)
				m.command('M', "<sender@example.org>", "REQUIRETLS")
			}
			mute.send('E') // and takes no answer
			cancel()
			began := time.Now()
			if err := <-done; err != nil || time.Since(began) != time.Minute {
				t.Errorf("%v after %s", err, time.Since(began))
			}
			within.wantClosed()
		})
	})
	t.Run("an idle connection ends in time, and none before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := connect(t, &milter.Server{})
			time.Sleep(time.Hour) // the patience of Sendmail
			want(t, m, mail{})
			began := time.Now()
			m.wantClosed()
			if d := time.Since(began); d != 65*time.Minute {
				t.Errorf("after %s", d)
			}
			m = connect(t, &milter.Server{IdleTimeout: time.Minute})
			m.write([]byte{0, 0}) // half a length
			began = time.Now()
			m.wantClosed()
			if d := time.Since(began); d != time.Minute {
				t.Errorf("after %s", d)
			}
			m = connect(t, &milter.Server{})
			m.write([]byte{0, 0, 0, 9, 'M', '<'}) // half a frame
			began = time.Now()
			m.wantClosed()
			if d := time.Since(began); d != 30*time.Second {
				t.Errorf("after %s", d)
			}
		})
	})
	t.Run("a mail server that takes no answers is left alone in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := connect(t, &milter.Server{})
			m.command('M', "<sender@example.org>", "REQUIRETLS")
			m.send('E')
			began := time.Now()
			if _, err := m.Write(make([]byte, 5)); err == nil {
				t.Error("the next frame is read")
			}
			if d := time.Since(began); d != time.Minute {
				t.Errorf("after %s", d)
			}
		})
	})
	t.Run("a connection too many is closed, and makes room for the next", func(t *testing.T) {
		p := pipetest.Listen()
		lines := &logger{}
		start(t, &milter.Server{MaxConns: 1, Log: lines.slog()}, p)
		m := newMTA(t, p.Dial())
		m.negotiate(6, allActions, allSteps)
		newMTA(t, p.Dial()).wantClosed()
		newMTA(t, p.Dial()).wantClosed()
		if got := strings.Count(lines.String(), "more connections"); got != 1 {
			t.Errorf("logged: %s", lines)
		}
		m.send('Q')
		m.wantClosed()
		for { // the place is free a moment after the close
			m := newMTA(t, p.Dial())
			if _, err := m.Write(offer(6, allActions, allSteps)); err != nil {
				continue
			}
			break
		}
	})
	t.Run("a listener that somebody else closes is an error", func(t *testing.T) {
		p := pipetest.Listen()
		p.Close()
		if err := (&milter.Server{}).Serve(t.Context(), p); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("accepting goes on when descriptors lack", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pipetest.Listen()
			p.Exhausted = 20
			start(t, &milter.Server{}, p)
			m := newMTA(t, p.Dial())
			m.negotiate(6, allActions, allSteps)
		})
	})
}

func TestDefects(t *testing.T) {
	t.Run("MIL-050 a thousand messages on one connection leave nothing behind", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		m.connect("client.example.com", far)
		run := func(n int) uint64 {
			for i := range n {
				x := mail{from: requiresTLS.from}
				for f := range 20 { // go-milter keeps these
					x.header = append(x.header, fmt.Sprintf("X-%d-%d-%d: %s", n, i, f, strings.Repeat("x", 500)))
				}
				m.transact(x)
			}
			runtime.GC()
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return stats.HeapAlloc
		}
		before := run(50)
		after := run(1000)
		if after > before+2<<20 { // they hold 10 MiB
			t.Errorf("from %d to %d octets", before, after)
		}
	})
	t.Run("MIL-050 the session outlives its messages", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		m.connect("localhost", "127.0.0.1")
		for range 3 { // go-milter begins anew after every reply but continue
			want(t, m, mail{header: ask()}, tagRequired, headersOnly)
			m.send('A')
		}
	})
	t.Run("MIL-050 broken connections cost nothing, and no line in the standard log", func(t *testing.T) {
		standard := &logger{}
		defer log.SetOutput(log.Writer())
		log.SetOutput(standard)
		p := pipetest.Listen()
		stop := start(t, &milter.Server{}, p)
		for _, last := range [][]byte{frame('E'), {0, 0}, {0, 0, 0, 9, 'M'}, {0, 0, 0, 0}, frame('x'), frame('C', "x"), nil} {
			m := newMTA(t, p.Dial())
			m.negotiate(6, allActions, allSteps)
			m.command('M', "<sender@example.org>", "REQUIRETLS")
			m.write(last)
			m.Close()
		}
		stop()
		if standard.String() != "" {
			t.Errorf("logged: %s", standard)
		}
	})
}

// TestClient lets go-milter's own client speak, over TCP and a unix socket.
func TestClient(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "milter.sock")
		}
		for _, masks := range []struct {
			actions gomilter.OptAction
			steps   gomilter.OptProtocol
		}{{0x3f, 0x3f}, {0x7f, 0x7f}, {allActions, allSteps}} {
			ln, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			stop := start(t, &milter.Server{}, ln)
			client := gomilter.NewClientWithOptions(network, ln.Addr().String(), gomilter.ClientOptions{ActionMask: masks.actions, ProtocolMask: masks.steps})
			s, err := client.Session()
			if err != nil {
				t.Fatalf("%s %#x: %v", network, masks, err)
			}
			converse(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			stop()
		}
	}
}

func converse(t *testing.T, s *gomilter.ClientSession) {
	t.Helper()
	must := func(a *gomilter.Action, err error) {
		t.Helper()
		if err != nil || a.Code != gomilter.ActContinue {
			t.Fatalf("%v %v", a, err)
		}
	}
	must(s.Conn("client.example.com", gomilter.FamilyInet, 4242, far))
	must(s.Helo("client.example.com"))
	for range 2 {
		must(s.Mail("sender@example.org", []string{"SIZE=100", "REQUIRETLS", "RET=HDRS"}))
		must(s.Rcpt("rcpt@example.net", nil))
		must(s.HeaderField("X-Postseal-Route", "relaxed"))
		must(s.HeaderField("Subject", "hello"))
		must(s.HeaderEnd())
		must(s.BodyChunk([]byte("body")))
		changes, verdict, err := s.End()
		must(verdict, err)
		want := []gomilter.ModifyAction{
			{Code: gomilter.ActChangeHeader, HeaderIndex: 1, HeaderName: "X-Postseal-Route"},
			{Code: gomilter.ActAddHeader, HeaderName: "X-Postseal-Route", HeaderValue: "requiretls"},
		}
		if diff := cmp.Diff(want, changes, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
}

// TestRecorded plays what mail servers send, and compares what they get.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 4 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("MIL-052 "+filepath.Base(name), func(t *testing.T) {
			s := &milter.Server{Rules: []milter.Rule{{Recipient: "@bank.example", Tag: "requiretls"}}}
			if strings.Contains(name, "sendmail") {
				s.Route = milter.RouteRecipient
			}
			m := dial(t, s)
			for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
				if line == "" || line[0] == '#' {
					continue
				}
				b := parseLine(t, line)
				if line[0] == '>' {
					m.write(b)
					continue
				}
				code, data := m.read()
				if diff := cmp.Diff(string(b), string(rawFrame(code, data))); diff != "" {
					t.Fatalf("%s: %s", line, diff)
				}
			}
			m.wantClosed()
		})
	}
}
