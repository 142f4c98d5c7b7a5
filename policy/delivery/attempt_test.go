package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/smtpclient/mxtest"
)

// TestTransmission: a message is sent whole or not at all, and is let go only when
// it cannot be stopped any more.
func TestTransmission(t *testing.T) {
	const message = "0123456789"
	begin := func() *transmission {
		return newTransmission(plainText(message))
	}
	read := func(t *testing.T, tr *transmission, n int) {
		t.Helper()
		p := make([]byte, n)
		if got, err := io.ReadFull(tr, p); err != nil || string(p) != message[:n] {
			t.Fatalf("read %q, %v", p[:got], err)
		}
	}
	stopped := func(t *testing.T, tr *transmission) {
		t.Helper()
		if n, err := tr.Read(make([]byte, 5)); n != 0 || !errors.Is(err, errHalted) {
			t.Errorf("read %d octets, %v", n, err)
		}
	}
	t.Run("halted before and in the midst", func(t *testing.T) {
		for n := range len(message) {
			tr := begin()
			read(t, tr, n)
			if !tr.halt() {
				t.Errorf("not halted after %d octets", n)
			}
			stopped(t, tr)
		}
	})
	t.Run("not once it has been read", func(t *testing.T) {
		tr := begin()
		read(t, tr, len(message))
		if tr.halt() {
			t.Error("halted")
		}
		if n, err := tr.Read(make([]byte, 5)); n != 0 || err != io.EOF {
			t.Errorf("read %d octets, %v", n, err)
		}
	})
	t.Run("but never sent after it was let go", func(t *testing.T) {
		tr := begin()
		read(t, tr, len(message)) // only to look at it
		if tr.halt() {
			t.Error("halted")
		}
		if _, err := tr.Seek(0, io.SeekStart); !errors.Is(err, errHalted) {
			t.Errorf("sought: %v", err)
		}
		stopped(t, tr)
	})
	t.Run("read twice", func(t *testing.T) {
		tr := begin()
		read(t, tr, len(message))
		if n, err := tr.Seek(0, io.SeekStart); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		read(t, tr, 3)
		if !tr.halt() {
			t.Error("not halted, though it was being sent")
		}
		stopped(t, tr)
	})
}

// TestEightBit: a message is looked at before it is refused to a host without 8BITMIME.
func TestEightBit(t *testing.T) {
	b := newBed(t)
	h := b.host("d.test", 11, mxtest.Config{TLSKeywords: []string{"PIPELINING"}})
	c := b.connect(t)
	message := func(text, reply string) {
		t.Helper()
		c.say("MAIL FROM:<s@sender.test> BODY=8BITMIME", "250")
		c.say("RCPT TO:<u@d.test>", "250")
		c.say("DATA", "354")
		c.say("Received: 1\r\n\r\n"+text+"\r\n.", reply)
	}
	message("seven", "250 2.0.0")
	message("achtu\xfc", "554 5.6.3")
	took(t, h, 1)
	if data := string(h.Mails()[0].Data); !strings.HasPrefix(data, "Received: ") || !strings.HasSuffix(data, "\r\nseven\r\n") {
		t.Errorf("got %q", data)
	}
}

// TestPanic: an error of ours is no end of the daemon, nor of the next hops beside.
func TestPanic(t *testing.T) {
	frozen(t, func(t *testing.T, b *still) {
		h := b.host("d.test", mxtest.Config{})
		b.Resolver = fragile{b}
		for range 2 { // also when it comes again
			r := b.deliver(context.Background(), b.message("u@fragile.test", "u@d.test"))
			want(t, r[0], "451 4.3.0", "internal error")
			want(t, r[1], "250 2.0.0")
		}
		took(t, h, 1)
	})
}

type fragile struct{ *still }

func (f fragile) Resolve(ctx context.Context, dest policy.Destination) (*policy.Decision, *dane.Plan) {
	if dest.Domain == "fragile.test" {
		panic("broken")
	}
	return f.still.Resolve(ctx, dest)
}

// TestManyHosts: a delivery has an end, and what was not tried is not held against it.
func TestManyHosts(t *testing.T) {
	b := newBed(t)
	var hosts []*mxtest.Host
	for n := range maxTries + 3 {
		h := b.host(fmt.Sprintf("mx-with-a-rather-long-name-%d.test", n), 20+n, deaf)
		b.mx("d.signed.test", n, h.Name)
		hosts = append(hosts, h)
	}
	r := b.send(required, "u@d.signed.test")[0]
	want(t, r, "451 4.7.10", "name-0.test", "name-1.test", "name-14.test")
	if len(r.Text) > maxText {
		t.Errorf("%d octets", len(r.Text))
	}
	for n, h := range hosts {
		if tried := len(h.Conns()) > 0; tried != (n < maxTries) {
			t.Errorf("%s was tried: %v", h.Name, tried)
		}
	}
}

// TestUnixRelay: the local relay may be a socket in the file system.
func TestUnixRelay(t *testing.T) {
	b := newBed(t)
	h := b.net.Host("store.test", "")
	path := filepath.Join(t.TempDir(), "smtp")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return pass(ctx, ln, h) })
	h.Set(mxtest.Config{NoTickets: true})
	b.LocalDomains, b.LocalRelay = []string{"here.test"}, "unix:"+path
	want(t, b.send(normal, "u@here.test")[0], "250 2.0.0", "local-relay")
	took(t, h, 1)
}

// pass joins connections to a host in memory.
func pass(ctx context.Context, ln net.Listener, h *mxtest.Host) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		in, err := ln.Accept()
		if err != nil {
			return nil
		}
		out, err := h.Dial(ctx, "", "")
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.Copy(out, in)
			out.Close()
		}()
		io.Copy(in, out)
		in.Close()
		<-done
		stop()
	}
}

func TestRelayAddress(t *testing.T) {
	for s, want := range map[string]string{
		"tcp:127.0.0.1:10025": "tcp 127.0.0.1:10025", "inet:localhost:25": "tcp localhost:25", "tcp:[::1]:25": "tcp [::1]:25",
		"unix:/run/smtp": "unix /run/smtp", "": "", "unix:": "", "tcp:": "", "tcp:host": "", "/run/smtp": "", "lmtp:x:1": "",
	} {
		network, address, err := parseRelay(s)
		if (err == nil) != (want != "") || err == nil && network+" "+address != want {
			t.Errorf("%q: %s %s, %v", s, network, address, err)
		}
	}
}
