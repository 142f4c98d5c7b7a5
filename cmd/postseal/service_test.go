package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	if err := os.WriteFile(config, fmt.Appendf(nil,
		"dns.self_test = false\nhttp.listen = []\nsocketmap.listen = 'tcp:%s'\n", ln.Addr()), 0o600); err != nil {
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
	await := func(want string) string {
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
				return string(buf[:n])
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
	// systemd takes READY=1 for the end of this reload only if the time is its own clock's.
	before := monotonic(t)
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	stamp, err := strconv.ParseInt(strings.TrimPrefix(await("RELOADING=1\nMONOTONIC_USEC="), "RELOADING=1\nMONOTONIC_USEC="), 10, 64)
	if after := monotonic(t); err != nil || stamp < before || stamp > after {
		t.Errorf("reload at %d, %v; want between %d and %d", stamp, err, before, after)
	}
	await("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &log)
	}
}

// monotonic is the clock of systemd, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / int64(time.Microsecond)
}
