package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServiceManager runs the program as systemd does: with a socket of its own
// making, and listening for what the daemon tells of itself (sd_listen_fds(3),
// sd_notify(3)).
func TestServiceManager(t *testing.T) {
	dir, err := os.MkdirTemp("", "ps")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	config := filepath.Join(dir, "postseal.toml")
	if err := os.WriteFile(config, []byte("dns.self_test = false\nhttp.listen = []\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// The shell knows the process id before the program starts.
	cmd := exec.CommandContext(ctx, "sh", "-c", `LISTEN_PID=$$ exec postseal serve --config "$0"`, config)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=socketmap", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"),
		"STATE_DIRECTORY="+filepath.Join(dir, "state"), "RUNTIME_DIRECTORY="+dir, "WATCHDOG_USEC=100000")
	cmd.ExtraFiles = []*os.File{socket}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		notified.SetReadDeadline(time.Now().Add(patience))
		for {
			n, err := notified.Read(buf)
			if err != nil {
				cmd.Process.Kill()
				cmd.Wait()
				t.Fatalf("no %s: %v\n%s", want, err, &log)
			}
			if strings.HasPrefix(string(buf[:n]), want) {
				return
			}
		}
	}
	await("READY=1")
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "13:postfix .test,")
	reply := make([]byte, len("9:NOTFOUND ,"))
	if _, err := io.ReadFull(conn, reply); err != nil || string(reply) != "9:NOTFOUND ," {
		t.Errorf("got %q, %v", reply, err)
	}
	await("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await("RELOADING=1\nMONOTONIC_USEC=")
	await("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &log)
	}
}
