package delivery_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postseal/policy/delivery"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
	"postseal/socketmap/pipetest"
)

// through dials ln and says LHLO.
func through(t testing.TB, ln *pipetest.Listener) *client {
	conn := ln.Dial()
	t.Cleanup(func() { conn.Close() })
	c := &client{t, conn, bufio.NewReader(conn)}
	c.want("220 relay.example.com LMTP Service Ready")
	c.lhlo()
	return c
}

func TestTime(t *testing.T) {
	t.Run("SMTP-072 the listener's patience", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pipetest.Listen()
			d := open(t, &delivery.Server{}, p, requiretls.Normal)
			c := through(t, p)
			time.Sleep(5*time.Minute - time.Second)
			c.begin("a@example.net")
			c.ask("DATA", goAhead)
			for range 10 { // each block has its own time
				time.Sleep(5*time.Minute - time.Second)
				c.send("X: y\r\n")
			}
			c.send(".\r\n")
			c.want(delivered)
			time.Sleep(5*time.Minute + time.Second)
			c.want("421 4.4.2 relay.example.com waited too long for a command")
			c.wantClosed()
			d.stop()
		})
	})
	t.Run("a client that hangs in the text", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pipetest.Listen()
			d := open(t, &delivery.Server{}, p, requiretls.Normal)
			c := through(t, p)
			c.begin("a@example.net")
			c.ask("DATA", goAhead)
			c.send("A: b\r\n")
			time.Sleep(5*time.Minute + time.Second)
			c.code("451 4.4.2 ")
			c.code("421 4.4.2 ")
			c.wantClosed()
			d.stop()
			d.none()
		})
	})
	t.Run("a client that takes no replies", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pipetest.Listen()
			d := open(t, &delivery.Server{}, p, requiretls.Normal)
			c := through(t, p)
			c.send("NOOP\r\n")
			time.Sleep(3 * time.Minute)
			c.wantClosed()
			d.stop()
		})
	})
}

func TestStop(t *testing.T) {
	t.Run("between messages", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{}, requiretls.Normal)
		idle, begun, tls := d.greeted(), d.greeted(), d.secured()
		begun.begin("a@example.net")
		d.stop()
		for _, c := range []*client{idle, begun, tls} {
			c.want("421 4.3.2 relay.example.com is shutting down")
			c.wantClosed()
		}
		if _, err := net.Dial("tcp", d.addr.String()); err == nil {
			t.Error("it still listens")
		}
	})
	// serve runs a server whose deliveries wait for end, or for their context.
	serve := func(t *testing.T, p *pipetest.Listener, end <-chan struct{}) (stop func(), done <-chan error) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		s := &delivery.Server{Hostname: "relay.example.com"}
		go func() {
			ended <- s.ServeWith(ctx, p, requiretls.Normal, func(ctx context.Context, _ *delivery.Message) []smtpclient.Reply {
				select {
				case <-end:
					return []smtpclient.Reply{ok}
				case <-ctx.Done():
					return []smtpclient.Reply{{Code: 451, Enhanced: "4.3.2", Text: "cut short"}}
				}
			})
		}()
		return cancel, ended
	}
	t.Run("messages in flight end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, end := pipetest.Listen(), make(chan struct{})
			stop, done := serve(t, p, end)
			working, sending := through(t, p), through(t, p)
			working.begin("a@example.net")
			working.data("\r\n")
			sending.begin("a@example.net")
			sending.ask("DATA", goAhead)
			synctest.Wait()
			stop()
			time.Sleep(9 * time.Second)
			sending.send("\r\n.\r\n")
			close(end)
			for _, c := range []*client{working, sending} {
				c.want(delivered, "421 4.3.2 relay.example.com is shutting down")
				c.wantClosed()
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("but not for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pipetest.Listen()
			stop, done := serve(t, p, nil)
			working, sending := through(t, p), through(t, p)
			working.begin("a@example.net")
			working.data("\r\n")
			sending.begin("a@example.net")
			sending.ask("DATA", goAhead)
			synctest.Wait()
			begun := time.Now()
			stop()
			working.want("451 4.3.2 cut short")
			working.code("421 ")
			sending.code("451 4.4.2 ")
			sending.code("421 ")
			if err := <-done; err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took != 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	})
	t.Run("a listener that has no file descriptors left, for a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			p := pipetest.Listen()
			p.Exhausted = 3
			d := open(t, &delivery.Server{Log: slog.New(slog.NewTextHandler(&log, nil))}, p, requiretls.Normal)
			c := through(t, p)
			c.begin("a@example.net")
			c.data("\r\n")
			c.want(delivered)
			d.stop()
			if n := strings.Count(log.String(), "level=ERROR"); n != 3 || !strings.Contains(log.String(), syscall.EMFILE.Error()) {
				t.Errorf("logged %q", log.String())
			}
		})
	})
	t.Run("a listener that breaks", func(t *testing.T) {
		p := pipetest.Listen()
		s := &delivery.Server{}
		p.Close()
		err := s.ServeWith(t.Context(), p, requiretls.Normal, nil)
		if err == nil || fmt.Sprint(err) == "" {
			t.Errorf("error %v", err)
		}
	})
}
