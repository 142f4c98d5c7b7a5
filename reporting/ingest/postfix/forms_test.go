package postfix_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/postfix"
)

// TestForms writes each recorded log in each form.
func TestForms(t *testing.T) {
	files, err := filepath.Glob("testdata/3.7/*.log")
	if err != nil || len(files) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for form, write := range maillogtest.Forms {
		t.Run(form, func(t *testing.T) {
			for _, name := range files {
				if strings.HasSuffix(name, ".iso.log") {
					continue
				}
				log, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				for line := range strings.Lines(string(log)) {
					b.WriteString(write(maillogtest.Cut(t, strings.TrimSuffix(line, "\n"))) + "\n")
				}
				want, _ := replayed(t, log)
				got, _ := replayed(t, b.Bytes())
				if diff := cmp.Diff(want, got, maillogtest.CompareAddr); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
			}
		})
	}
}

// TestState goes on from the saved state at each line of each log.
func TestState(t *testing.T) {
	first, second := postfix.New(maillogtest.Options()), postfix.New(maillogtest.Options())
	nothing := first.AppendState(nil)
	postfixLogs(t, func(t *testing.T, log []byte, _ []expected) {
		want, _ := replayed(t, log)
		lines := bytes.SplitAfter(log, []byte{'\n'})
		for split := 0; split < len(lines); split += 1 + len(lines)/50 { // each line of most
			var got []reporting.Session
			emit := func(s reporting.Session) { got = append(got, s) }
			if err := first.RestoreState(nothing); err != nil {
				t.Fatal(err)
			}
			for _, line := range lines[:split] {
				first.Line(bytes.TrimSuffix(line, []byte{'\n'}), emit)
			}
			state := first.AppendState([]byte("before"))
			if err := second.RestoreState(state[len("before"):]); err != nil {
				t.Fatal(err)
			}
			if again := second.AppendState(nil); !bytes.Equal(again, state[len("before"):]) {
				t.Fatalf("line %d: the state changed", split)
			}
			for _, line := range lines[split:] {
				second.Line(bytes.TrimSuffix(line, []byte{'\n'}), emit)
			}
			second.Flush(emit)
			if diff := cmp.Diff(want, got, maillogtest.CompareAddr); diff != "" {
				t.Fatalf("line %d: %s", split, diff)
			}
		}
	})
}

// TestStateRefused damages a state in each place.
func TestStateRefused(t *testing.T) {
	r := postfix.New(maillogtest.Options())
	r.Line([]byte("Nov 22 03:24:00 mta37 postfix/smtp[23424]: Verified TLS connection established to mx.a.example[127.0.60.101]:25: TLSv1.3"), nil)
	state := r.AppendState(nil)
	refused := func(what string, bad []byte) {
		t.Helper()
		if err := r.RestoreState(bad); err == nil {
			t.Errorf("%s was taken", what)
		}
		if !bytes.Equal(r.AppendState(nil), state) {
			t.Fatalf("%s changed the reader", what)
		}
	}
	refused("nothing", nil)
	for i := range state {
		refused("a shorter state", state[:i])
		bad := bytes.Clone(state)
		bad[i] ^= 0x10
		refused(fmt.Sprintf("a state with byte %d changed", i), bad)
	}
	if err := r.RestoreState(state); err != nil {
		t.Error(err)
	}
}

// TestInterleaved mixes the lines of two logs as two processes would write them.
func TestInterleaved(t *testing.T) {
	files, err := filepath.Glob("testdata/3.*/*.log")
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	read := func(name string, pid int) (lines []string) {
		log, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(log)) {
			// Each log has its own processes.
			lines = append(lines, strings.Replace(line, "]: ", fmt.Sprintf("%d]: ", pid), 1))
		}
		return lines
	}
	for range 150 {
		a, b := files[rnd.IntN(len(files))], files[rnd.IntN(len(files))]
		one, two := read(a, 1), read(b, 2)
		want, _ := replayed(t, []byte(strings.Join(one, "")))
		more, _ := replayed(t, []byte(strings.Join(two, "")))
		var mixed strings.Builder
		for len(one)+len(two) > 0 {
			from := &one
			if len(one) == 0 || len(two) > 0 && rnd.IntN(2) == 0 {
				from = &two
			}
			mixed.WriteString((*from)[0])
			*from = (*from)[1:]
		}
		got, _ := replayed(t, []byte(mixed.String()))
		want = append(want, more...)
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Fatalf("%s and %s: %s", a, b, diff)
		}
		if strings.Contains(a+b, ".iso.") || strings.Contains(mixed.String(), "tlsproxy") {
			continue
		}
		// All programs have the same name in this form.
		var same strings.Builder
		for line := range strings.Lines(mixed.String()) {
			same.WriteString(maillogtest.Forms["rfc5424 of rsyslog"](maillogtest.Cut(t, strings.TrimSuffix(line, "\n"))) + "\n")
		}
		got, _ = replayed(t, []byte(same.String()))
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Fatalf("%s and %s as RFC 5424: %s", a, b, diff)
		}
	}
}

// Where tags are cut at the slash, tlsproxy has the name of smtp: what it says of a
// handshake still goes to the delivery that failed by it, once.
func TestCutProxy(t *testing.T) {
	broken := "SSL_connect error to " + mxA + ":25: lost connection"
	failed := to("u@a.example", mxA+":25", "Cannot start TLS: handshake failure")
	for what, log := range map[string][]byte{
		"tlsproxy": smtpLog("@postfix/tlsproxy[50] "+broken, failed),
		"smtp":     smtpLog(broken, failed),
	} {
		var cut strings.Builder
		for line := range strings.Lines(string(log)) {
			cut.WriteString(maillogtest.Forms["rfc5424 of rsyslog"](maillogtest.Cut(t, strings.TrimSuffix(line, "\n"))) + "\n")
		}
		for form, text := range map[string]string{"classic": string(log), "cut": cut.String()} {
			t.Run(what+", "+form, func(t *testing.T) {
				reads(t, []byte(text), "a.example mx.a.example[192.0.2.1] validation-failure tls-handshake-failure: lost connection")
			})
		}
	}
}

func sorted(sessions []reporting.Session) (all []string) {
	for _, s := range sessions {
		all = append(all, s.Time.Format(time.RFC3339Nano)+" "+short(s)+" "+string(s.Policy.Type)+" "+s.Policy.Domain)
	}
	slices.Sort(all)
	return all
}

// TestJournal reads fields that journald writes in more than one way.
func TestJournal(t *testing.T) {
	const object = `{"_HOSTNAME":"h","SYSLOG_IDENTIFIER":"postfix/smtp","__REALTIME_TIMESTAMP":"1795317829000000",`
	sent := object + `"_PID":"7","MESSAGE":"` + to("u@a.example", mxA+":25", "250 ok") + `"}`
	for _, fields := range []string{
		`"_PID":"7","MESSAGE":"` + upA + `"}`,
		`"SYSLOG_PID":["7","8"],"_PID":"1","MESSAGE":"` + upA + `"}`,
		`"_PID":"7","MESSAGE":["` + upA + `","second"]}`,
	} {
		want := []string{"a.example mx.a.example[192.0.2.1]"}
		reads(t, []byte(object+fields+"\n"+sent+"\n"), want...)
	}
	for _, fields := range []string{
		`"MESSAGE":"` + upA + `"}`,
		`"_PID":"x","MESSAGE":"` + upA + `"}`,
		`"_PID":"7","MESSAGE":null}`,
		`"_PID":"7","MESSAGE":[300]}`,
		`"_PID":"7","MESSAGE":[]}`,
		`"_PID":"7","MESSAGE":{}}`,
		`"_PID":"7"`,
	} {
		reads(t, []byte(object+fields+"\n"+sent+"\n"))
	}
}
