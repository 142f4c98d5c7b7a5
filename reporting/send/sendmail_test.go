package send_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postseal/reporting/send"
)

// program writes a sendmail that runs a script of sh in its own folder.
func program(t *testing.T, script string) (path, folder string) {
	t.Helper()
	folder = t.TempDir()
	path = filepath.Join(folder, "sendmail")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncd "+folder+"\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, folder
}

func TestSendmail(t *testing.T) {
	path, folder := program(t, `printf '%s\n' "$@" >args; cat >mail; echo queued`)
	m := &send.Mail{Submit: "sendmail:" + path, From: from, Envelope: "bounces@mta.example.org"}
	text := message(t)
	reply, err := m.Send(t.Context(), text, to)
	if err != nil || reply != "taken by "+path+" queued" {
		t.Fatalf("%q, %v", reply, err)
	}
	args, err := os.ReadFile(filepath.Join(folder, "args"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "-i\n-f\nbounces@mta.example.org\n--\n" + to + "\n"; string(args) != want {
		t.Errorf("%q", args)
	}
	mail, err := os.ReadFile(filepath.Join(folder, "mail"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("RPT-075 the bytes are those of Message, with LF", func(t *testing.T) {
		if string(mail) != strings.ReplaceAll(string(text), "\r\n", "\n") {
			t.Errorf("%q", mail)
		}
	})
	t.Run("RPT-076 the mail says that TLS is not required", func(t *testing.T) {
		if !strings.Contains(string(mail), "\nTLS-Required: No\n") {
			t.Errorf("%s", mail)
		}
	})
}

func TestSendmailExits(t *testing.T) {
	for code, name := range map[int]string{
		1: "", 64: "EX_USAGE", 65: "EX_DATAERR", 66: "EX_NOINPUT", 67: "EX_NOUSER", 68: "EX_NOHOST", 69: "EX_UNAVAILABLE",
		70: "EX_SOFTWARE", 71: "EX_OSERR", 72: "EX_OSFILE", 73: "EX_CANTCREAT", 74: "EX_IOERR", 75: "EX_TEMPFAIL",
		76: "EX_PROTOCOL", 77: "EX_NOPERM", 78: "EX_CONFIG", 127: "",
	} {
		t.Run(fmt.Sprint(code, name), func(t *testing.T) {
			path, _ := program(t, fmt.Sprintf(`cat >mail; printf 'fatal: \033[31mno\nmore' >&2; exit %d`, code))
			_, err := (&send.Mail{Submit: "sendmail:" + path, From: from}).Send(t.Context(), message(t), to)
			gone := code == 67 || code == 68
			f := failure(t, err, gone, gone)
			for _, want := range []string{fmt.Sprintf("exit status %d", code), name, `fatal: \x1b[31mno more`} {
				if !strings.Contains(f.Error(), want) {
					t.Errorf("no %q in: %v", want, f)
				}
			}
		})
	}
}

func TestSendmailHostile(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"output without end":   {`cat >mail; yes | head -c 10000000; exit 75`, "y y y"},
		"does not read":        {`exit 75`, "EX_TEMPFAIL"},
		"ends by a signal":     {`kill -9 $$`, "killed"},
		"output, and in words": {`cat >mail; head -c 3000 /dev/zero; exit 71`, `\x00`},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := program(t, c.script)
			_, err := (&send.Mail{Submit: "sendmail:" + path, From: from}).Send(t.Context(), message(t), to)
			if f := failure(t, err, false, false); !strings.Contains(f.Error(), c.want) {
				t.Errorf("%v", f)
			}
		})
	}
	t.Run("no more is kept than is shown", func(t *testing.T) {
		if n := send.Kept("yes", 10_000); n != 1024 {
			t.Errorf("%d bytes", n)
		}
	})
	t.Run("there is none", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "sendmail")
		_, err := (&send.Mail{Submit: "sendmail:" + path, From: from}).Send(t.Context(), message(t), to)
		if f := failure(t, err, false, false); !strings.Contains(f.Error(), "no such file") {
			t.Errorf("%v", f)
		}
	})
	t.Run("a runner of the queue has its output", func(t *testing.T) {
		path, folder := program(t, `cat >mail; sleep 600 & echo $! >runner; exit 0`)
		_, err := (&send.Mail{Submit: "sendmail:" + path, From: from}).Send(t.Context(), message(t), to)
		if err != nil {
			t.Error(err)
		}
		if runner := pid(t, filepath.Join(folder, "runner")); syscall.Kill(runner, syscall.SIGKILL) != nil {
			t.Error("the runner of the queue was ended too")
		}
	})
}

// TestSendmailEnds: with the context ends what the program has started, too. Its child
// has an end of a pipe whose other end tells when it is gone.
func TestSendmailEnds(t *testing.T) {
	path, folder := program(t, `mkfifo alive; sleep 600 >alive & : >started; wait`)
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	gone := make(chan error, 1)
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(folder, "started")); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		alive, err := os.Open(filepath.Join(folder, "alive"))
		cancel(over)
		if err == nil {
			_, err = alive.Read(make([]byte, 1)) // the end of file comes with the end of the child
			alive.Close()
		}
		gone <- err
	}()
	_, err := (&send.Mail{Submit: "sendmail:" + path, From: from}).Send(ctx, message(t), to)
	if failure(t, err, false, false); !errors.Is(err, over) {
		t.Errorf("%v", err)
	}
	if err := <-gone; !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func pid(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(string(text), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
