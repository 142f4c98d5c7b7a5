package socketmap_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/policy"
	"postseal/socketmap"
	"postseal/socketmap/pipetest"
)

func TestConnection(t *testing.T) {
	s := &socketmap.Server{Decider: newOracle(t), HostDANE: true}
	addr := startTCP(t, s)

	t.Run("SM-001 request and reply are netstrings", func(t *testing.T) {
		c := dial(t, addr)
		c.send("19:postfix example.com,")
		got := make([]byte, len(frame(stsReply)))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != frame(stsReply) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("SM-002 golden bytes", func(t *testing.T) {
		c := dial(t, addr)
		c.send("20:postfix none.example,")
		got := make([]byte, len("9:NOTFOUND ,"))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != "9:NOTFOUND ," {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("SM-005 largest request", func(t *testing.T) {
		c := dial(t, addr)
		c.ask("postfix "+strings.Repeat("x", 10_000-len("postfix ")), "NOTFOUND ")
		c.ask("postfix dane.example", daneReply)
	})
	t.Run("SM-008 many on one connection", func(t *testing.T) {
		c := dial(t, addr)
		for range 500 {
			c.ask("postfix example.com", stsReply)
			c.ask("postfix dane.example", daneReply)
		}
	})
	t.Run("SM-008 several in one segment", func(t *testing.T) {
		c := dial(t, addr)
		c.send(strings.Repeat(frame("postfix example.com")+frame("postfix none.example")+frame("postfix new.example"), 100))
		for range 100 {
			c.want(stsReply)
			c.want("NOTFOUND ")
			c.want("NOTFOUND ")
		}
	})
	t.Run("SM-008 byte by byte", func(t *testing.T) {
		c := dial(t, addr)
		for _, b := range []byte(frame("postfix example.com") + frame("postfix dane.example")) {
			c.send(string(b))
		}
		c.want(stsReply)
		c.want(daneReply)
	})
	t.Run("SM-009 names alternate", func(t *testing.T) {
		c := dial(t, addr)
		for range 3 {
			c.ask("postfix example.com", stsReply)
			c.ask("requiretls example.com", "OK enforce")
			c.ask("transport example.com", "NOTFOUND ")
			c.ask("sts dane.example", "NOTFOUND ")
		}
	})
	for _, garbage := range []string{"99999999999:", "10001:", "+5:", " 5:", "5;", "5:abcdex", "-1:,", "GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\x02\x00\x01"} {
		t.Run("SM-006 closed after "+garbage, func(t *testing.T) {
			c := dial(t, addr)
			c.send(garbage)
			c.wantClosed()
		})
	}
	t.Run("SM-006 what came before is answered", func(t *testing.T) {
		c := dial(t, addr)
		c.send(frame("postfix example.com") + frame("postfix new.example") + "x")
		c.want(stsReply)
		c.want("NOTFOUND ")
		c.wantClosed()
	})
	t.Run("SM-017 half-close", func(t *testing.T) {
		c := dial(t, addr)
		c.send(frame("postfix example.com") + frame("postfix new.example") + "5:abc")
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.want(stsReply)
		c.want("NOTFOUND ")
		c.wantClosed()
	})
}

func TestUnixSocket(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	start(t, &socketmap.Server{Decider: newOracle(t)}, ln)
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, conn)
	c.ask("postfix example.com", stsReply)
}

func TestPipelining(t *testing.T) {
	t.Run("SM-008 side by side, in order", func(t *testing.T) {
		o := newOracle(t)
		first, second := make(chan struct{}), make(chan struct{})
		o.slow["first.example"] = func(context.Context) *policy.Decision {
			<-second // ends only if the second is worked on meanwhile
			<-first
			return decision("first.example", policy.LevelEncrypt)
		}
		o.slow["second.example"] = func(context.Context) *policy.Decision {
			close(second)
			return decision("second.example", policy.LevelMay)
		}
		c := dial(t, startTCP(t, &socketmap.Server{Decider: o, HostDANE: true}))
		c.send(frame("postfix dane.example") + frame("postfix first.example") + frame("postfix second.example") + frame("postfix example.com"))
		c.want(daneReply) // does not wait for the next
		<-second
		close(first)
		c.want("OK encrypt")
		c.want("OK may")
		c.want(stsReply)
		c.ask("postfix example.com", stsReply)
	})
	t.Run("SM-016 in flight is bounded", func(t *testing.T) {
		o := newOracle(t)
		release := make(chan struct{})
		var running, most atomic.Int32
		full := make(chan struct{}, 1000)
		o.slow["slow.example"] = func(context.Context) *policy.Decision {
			most.Store(max(most.Load(), running.Add(1)))
			full <- struct{}{}
			<-release
			running.Add(-1)
			return decision("slow.example", policy.LevelMay)
		}
		c := dial(t, startTCP(t, &socketmap.Server{Decider: o}))
		const n = 200
		c.send(strings.Repeat(frame("postfix slow.example"), n))
		for range 64 {
			<-full
		}
		close(release)
		for range n {
			c.want("OK may")
		}
		if most.Load() > 64 {
			t.Errorf("%d at a time", most.Load())
		}
	})
	t.Run("SM-011 client gone while its answer is looked up", func(t *testing.T) {
		o := newOracle(t)
		started, release := make(chan struct{}), make(chan struct{})
		o.slow["slow.example"] = func(context.Context) *policy.Decision {
			close(started)
			<-release
			return decision("slow.example", policy.LevelMay)
		}
		c := dial(t, startTCP(t, &socketmap.Server{Decider: o}))
		c.send(frame("postfix slow.example"))
		<-started
		c.Close()
		close(release)
	})
}

func TestTimeouts(t *testing.T) {
	bed := func(t *testing.T, o *oracle) (*socketmap.Server, *pipetest.Listener) {
		s, ln := &socketmap.Server{Decider: o}, pipetest.Listen()
		start(t, s, ln)
		return s, ln
	}
	timeout := func(ctx context.Context) *policy.Decision {
		begin := time.Now()
		<-ctx.Done()
		d := decision("slow.example", policy.LevelTemp)
		d.Reason = time.Since(begin).String()
		return d
	}
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	run("SM-012 idle for two minutes, then a request", func(t *testing.T) {
		_, ln := bed(t, newOracle(t))
		c := newClient(t, ln.Dial())
		for range 5 {
			time.Sleep(2 * time.Minute)
			c.ask("postfix example.com", stsReply)
		}
	})
	run("SM-012 idle for long", func(t *testing.T) {
		s, ln := bed(t, newOracle(t))
		c := newClient(t, ln.Dial())
		c.ask("postfix example.com", stsReply)
		c.wantClosed()
		synctest.Wait()
		if st := s.Stats(); st.ProtocolErrors != 0 || st.Open != 0 {
			t.Errorf("%+v", st)
		}
	})
	run("SM-016 a request byte by byte", func(t *testing.T) {
		s, ln := bed(t, newOracle(t))
		c := newClient(t, ln.Dial())
		begin := time.Now()
		for range 20 {
			if _, err := io.WriteString(c, "0"); err != nil {
				break
			}
			time.Sleep(29 * time.Second)
		}
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("held for %v", took)
		}
		c.wantClosed()
		synctest.Wait()
		if st := s.Stats(); st.ProtocolErrors != 1 {
			t.Errorf("%+v", st)
		}
	})
	run("SM-016 a client that takes no answers", func(t *testing.T) {
		s, ln := bed(t, newOracle(t))
		c := newClient(t, ln.Dial())
		c.send(frame("postfix example.com"))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if st := s.Stats(); st.Open != 0 {
			t.Errorf("%+v", st)
		}
	})
	for _, c := range []struct{ name, mapName, wait string }{
		{"SM-013 Postfix", "postfix", "5s"},
		{"SM-013 Postfix, TLSRPT", "postfix-tlsrpt", "5s"},
		{"SM-013 QUERY", "query", "5s"},
		{"SM-013 Sendmail", "sts", "4s"},
	} {
		run(c.name, func(t *testing.T) {
			o := newOracle(t)
			o.slow["slow.example"] = timeout
			_, ln := bed(t, o)
			newClient(t, ln.Dial()).ask(c.mapName+" slow.example", "TEMP "+c.wait)
		})
	}
}

func TestShutdown(t *testing.T) {
	t.Run("SM-016 in flight is answered", func(t *testing.T) {
		o := newOracle(t)
		started, release := make(chan struct{}), make(chan struct{})
		o.slow["slow.example"] = func(ctx context.Context) *policy.Decision {
			close(started)
			select {
			case <-release:
				return decision("slow.example", policy.LevelEncrypt)
			case <-ctx.Done():
				return decision("slow.example", policy.LevelTemp)
			}
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- (&socketmap.Server{Decider: o}).Serve(ctx, ln) }()
		idle, c := dial(t, ln.Addr().String()), dial(t, ln.Addr().String())
		idle.ask("postfix example.com", stsReply)
		c.send(frame("postfix slow.example"))
		<-started
		cancel()
		idle.wantClosed()
		close(release)
		c.want("OK encrypt")
		c.wantClosed()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("SM-016 after the grace time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := newOracle(t)
			o.slow["slow.example"] = func(ctx context.Context) *policy.Decision {
				<-ctx.Done()
				d := decision("slow.example", policy.LevelTemp)
				d.Reason = context.Cause(ctx).Error()
				return d
			}
			ln := pipetest.Listen()
			stop := start(t, &socketmap.Server{Decider: o, Wait: time.Hour}, ln)
			c := newClient(t, ln.Dial())
			c.send(frame("postfix slow.example"))
			synctest.Wait()
			go stop()
			c.want("TEMP context canceled")
			c.wantClosed()
			synctest.Wait()
		})
	})
	t.Run("a listener closed by others", func(t *testing.T) {
		ln := pipetest.Listen()
		ln.Close()
		if err := (&socketmap.Server{Decider: newOracle(t)}).Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	s := &socketmap.Server{Decider: newOracle(t), MaxConns: 1}
	addr := startTCP(t, s)
	first := dial(t, addr)
	first.ask("postfix example.com", stsReply)
	t.Run("SM-011 closed at once, not silent", func(t *testing.T) {
		dial(t, addr).wantClosed()
		first.ask("postfix example.com", stsReply)
	})
	if st := s.Stats(); st.Accepted != 1 || st.Refused != 1 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := pipetest.Listen()
		ln.Exhausted = 20
		start(t, &socketmap.Server{Decider: newOracle(t)}, ln)
		newClient(t, ln.Dial()).ask("postfix example.com", stsReply)
	})
}

func TestStats(t *testing.T) {
	s := &socketmap.Server{Decider: newOracle(t)}
	addr := startTCP(t, s)
	c := dial(t, addr)
	c.ask("Postfix example.com", stsReply)
	c.ask("POSTFIX none.example", "NOTFOUND ")
	c.ask("postfix .example", "NOTFOUND ")
	c.ask("nonsense x", "TEMP unknown map nonsense")
	c.send("x")
	c.wantClosed()
	got := s.Stats()
	want := socketmap.Stats{
		Open: got.Open, Accepted: 1, ProtocolErrors: 1,
		Requests: map[string]map[string]uint64{"postfix": {"ok": 1, "notfound": 2}, "unknown": {"temp": 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
