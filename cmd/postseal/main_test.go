package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"postseal/policy/dnssec/dnstest"
	"postseal/policy/smtpclient/mxtest"
)

func TestMain(m *testing.M) {
	// The scripts run this very program as "postseal".
	testscript.Main(leakless{m}, map[string]func(){"postseal": main})
}

// leakless looks for goroutines left behind by the tests, which goleak's own
// VerifyTestMain cannot do inside testscript's.
type leakless struct{ *testing.M }

func (m leakless) Run() int {
	code := m.M.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// patience is how long a script waits for what must happen.
const patience = 30 * time.Second

// TestScripts runs the program as people and the service manager do. In the
// scripts $S is a folder with a short name, since the path of a unix socket has
// but 108 bytes, $DNS the resolver that the command dns started, and $CORPUS the
// folder below which the logs of real mail servers lie.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "ps")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("HOME", filepath.Join(dir, "home"))
			env.Setenv("S", dir)
			today := time.Now().UTC().Truncate(24 * time.Hour)
			env.Setenv("TODAY", today.Format(time.DateOnly))
			env.Setenv("TODAY_MICROS", strconv.FormatInt(today.UnixMicro(), 10))
			env.Setenv("DOLLAR", "$")
			corpus, err := filepath.Abs("../../reporting/ingest")
			if err != nil {
				return err
			}
			env.Setenv("CORPUS", corpus)
			// Under the race detector every process would sleep a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"dns": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv("DNS", dnstest.New(t, ts.ReadFile(args[0]), args[1:]...).Addr)
			},
			// mx starts an MX host: mx NAME IP. $PORT is its port, $TLSA its record.
			"mx": func(ts *testscript.TestScript, _ bool, args []string) {
				net := mxtest.New(t)
				host := net.Host(args[0], args[1])
				ts.Setenv("PORT", strconv.Itoa(int(net.Port)))
				ts.Setenv("TLSA", host.TLSA(3, 1, 1))
			},
			"expand": expand,
			"await":  await,
			"tell":   tell,
			"code":   code,
		},
	})
}

// expand writes a file with its variables expanded to a place: expand FILE PLACE.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// await repeats a command until its output has a text: await TEXT COMMAND...
func await(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // the output tells
		if strings.Contains(ts.ReadFile("stdout"), args[0]) != neg {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q does not come in the output of %q, but:\n%s%s", args[0], args[1:], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

// tell sends a signal to the command started last in the background.
func tell(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	background := ts.BackgroundCmds()
	ts.Check(background[len(background)-1].Process.Signal(signals[args[0]]))
}

// code runs a command that must end with an exit code: code NUMBER COMMAND...
func code(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%q ended with %s, not %s:\n%s%s", args[1:], got, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}
