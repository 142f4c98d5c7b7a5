package ingest_test

import (
	"bytes"
	"encoding/json"
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
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
)

// parts are those of a classic line.
type parts struct {
	at                   time.Time
	host, tag, pid, text string
}

func cut(t testing.TB, line string) (p parts) {
	t.Helper()
	at, err := time.Parse("2006 "+time.Stamp, "2026 "+line[:15])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	p.at = at
	p.host, p.tag, _ = strings.Cut(line[16:], " ")
	p.tag, p.text, _ = strings.Cut(p.tag, ": ")
	p.tag, p.pid, _ = strings.Cut(strings.TrimSuffix(p.tag, "]"), "[")
	return p
}

// forms writes a line as the syslog daemons do.
var forms = map[string]func(p parts) string{
	"classic": func(p parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.at.Format(time.Stamp), p.host, p.tag, p.pid, p.text)
	},
	"fractions": func(p parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.at.Format(time.StampMicro), p.host, p.tag, p.pid, p.text)
	},
	"crlf": func(p parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s\r", p.at.Format(time.Stamp), p.host, p.tag, p.pid, p.text)
	},
	"priority": func(p parts) string {
		return fmt.Sprintf("<22>%s %s %s[%s]: %s", p.at.Format(time.Stamp), p.host, p.tag, p.pid, p.text)
	},
	"freebsd": func(p parts) string {
		return fmt.Sprintf("%s <mail.info> %s %s[%s]: %s", p.at.Format(time.Stamp), p.host, p.tag, p.pid, p.text)
	},
	"busybox": func(p parts) string {
		return fmt.Sprintf("%s %s mail.info %s[%s]: %s", p.at.Format(time.Stamp), p.host, p.tag, p.pid, p.text)
	},
	"solaris": func(p parts) string {
		return fmt.Sprintf("%s %s %s[%s]: [ID 197553 mail.info] %s", p.at.Format(time.Stamp), p.host, p.tag, p.pid, p.text)
	},
	"rfc3339": func(p parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.at.In(time.FixedZone("", 3600)).Format("2006-01-02T15:04:05.000000-07:00"), p.host, p.tag, p.pid, p.text)
	},
	"short-iso": func(p parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.at.In(time.FixedZone("", -12600)).Format("2006-01-02T15:04:05-0700"), p.host, p.tag, p.pid, p.text)
	},
	"rfc5424": func(p parts) string {
		return fmt.Sprintf("<22>1 %s %s %s %s - - %s", p.at.Format(time.RFC3339), p.host, p.tag, p.pid, p.text)
	},
	"rfc5424 cut": func(p parts) string {
		tag, _, _ := strings.Cut(p.tag, "/")
		return fmt.Sprintf("<22>1 %s %s %s %s - - %s", p.at.Format(time.RFC3339Nano), p.host, tag, p.pid, p.text)
	},
	"rfc5424 of rsyslog": func(p parts) string {
		tag, _, _ := strings.Cut(p.tag, "/")
		return fmt.Sprintf("<22>1 %s %s %s %s - -  %s", p.at.Format("2006-01-02T15:04:05.000000-07:00"), p.host, tag, p.pid, p.text)
	},
	"rfc5424 cut without priority": func(p parts) string {
		tag, _, _ := strings.Cut(p.tag, "/")
		return fmt.Sprintf("%s %s %s %s - - %s", p.at.Format(time.RFC3339Nano), p.host, tag, p.pid, p.text)
	},
	"rfc5424 with data": func(p parts) string {
		return fmt.Sprintf(`<22>1 %s %s %s %s ID47 [origin ip="192.0.2.1" x="a\"]b"][x y="["] `+"\xef\xbb\xbf%s", p.at.Format(time.RFC3339), p.host, p.tag, p.pid, p.text)
	},
	"journal":       func(p parts) string { return journalLine(p, p.text) },
	"journal bytes": func(p parts) string { return journalLine(p, numbers(p.text)) },
}

// numbers are how journald writes a field that is no UTF-8.
func numbers(text string) (all []int) {
	for i := range len(text) {
		all = append(all, int(text[i]))
	}
	return all
}

func journalLine(p parts, message any) string {
	object, err := json.Marshal(map[string]any{
		"MESSAGE": message, "SYSLOG_IDENTIFIER": p.tag, "SYSLOG_PID": p.pid, "_PID": "1", "_HOSTNAME": p.host, "PRIORITY": "6",
		"__REALTIME_TIMESTAMP": fmt.Sprint(p.at.UnixMicro()), "__CURSOR": "s=1;i=2", "_SYSTEMD_INVOCATION_ID": []string{"a", "b"},
	})
	if err != nil {
		panic(err)
	}
	return string(object)
}

// TestPostfixForms writes each recorded log in each form.
func TestPostfixForms(t *testing.T) {
	files, err := filepath.Glob("testdata/postfix-3.7/*.log")
	if err != nil || len(files) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for form, write := range forms {
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
					b.WriteString(write(cut(t, strings.TrimSuffix(line, "\n"))) + "\n")
				}
				want, _ := replayed(t, log)
				got, _ := replayed(t, b.Bytes())
				if diff := cmp.Diff(want, got, compareAddr); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
			}
		})
	}
}

// TestPostfixStamps reads one session at every kind of time.
func TestPostfixStamps(t *testing.T) {
	const session = " mta postfix/smtp[7]: Verified TLS connection established to mx.a.example[192.0.2.1]:25: TLSv1.3\n"
	const sent = " mta postfix/smtp[7]: 1FA629C04DA: to=<u@a.example>, relay=mx.a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (ok)\n"
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, stamp string
		now         string
		want        string // "" for a line that is not read
	}{
		{"local time", "Jul  3 04:05:06", "2026-07-03T12:00:00Z", "2026-07-03T02:05:06Z"},
		{"one blank before the day", "Jul 3 04:05:06", "2026-07-03T12:00:00Z", "2026-07-03T02:05:06Z"},
		{"winter time", "Jan  3 04:05:06.25", "2026-01-03T12:00:00Z", "2026-01-03T03:05:06.25Z"},
		{"before midnight of another zone", "Jan  3 00:30:00", "2026-01-03T12:00:00Z", "2026-01-02T23:30:00Z"},
		{"the year before", "Dec 31 23:59:59", "2026-01-01T00:00:10Z", "2025-12-31T22:59:59Z"},
		{"a clock that is ahead", "Jan  1 00:10:00", "2025-12-31T22:00:00Z", "2025-12-31T23:10:00Z"},
		{"more than a day ahead is a year ago", "Jan  3 04:05:06", "2026-01-01T12:00:00Z", "2025-01-03T03:05:06Z"},
		{"a leap day long ago", "Feb 29 12:00:00", "2027-03-01T00:00:00Z", "2024-02-29T11:00:00Z"},
		{"a leap second", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00Z", "2017-01-01T00:00:00Z"},
		{"no zone", "2026-07-03T04:05:06", "2026-07-03T12:00:00Z", "2026-07-03T02:05:06Z"},
		{"a year of its own", "2019-07-03T04:05:06.5-02:30", "2026-07-03T12:00:00Z", "2019-07-03T06:35:06.5Z"},
		{"no such day", "Feb 30 04:05:06", "2026-07-03T12:00:00Z", ""},
		{"no such month", "Foo  3 04:05:06", "2026-07-03T12:00:00Z", ""},
		{"no such hour", "Jul  3 24:05:06", "2026-07-03T12:00:00Z", ""},
		{"no such zone", "2026-07-03T04:05:06+99:00", "2026-07-03T12:00:00Z", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, test.now)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ingest.New("postfix", maillog.Options{Location: berlin, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			emit := func(s reporting.Session) { got = append(got, s.Time.Format(time.RFC3339Nano)) }
			replayInto(t, strings.NewReader(test.stamp+session+test.stamp+sent), r, emit)
			var want []string
			if test.want != "" {
				want = []string{test.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	t.Run("the year rolls over inside a file", func(t *testing.T) {
		r, _ := ingest.New("postfix", maillog.Options{Location: time.UTC, Now: func() time.Time { return time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC) }})
		var years []int
		log := "Dec 31 23:59:59" + session + "Dec 31 23:59:59" + sent + "Jan  1 00:00:00" + session + "Jan  1 00:00:01" + sent
		replayInto(t, strings.NewReader(log), r, func(s reporting.Session) { years = append(years, s.Time.Year()) })
		if !slices.Equal(years, []int{2025, 2026}) {
			t.Errorf("years %d", years)
		}
	})
}

// TestPostfixState goes on from the saved state at each line of each log.
func TestPostfixState(t *testing.T) {
	first, second := postfixReader(t), postfixReader(t)
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
			if diff := cmp.Diff(want, got, compareAddr); diff != "" {
				t.Fatalf("line %d: %s", split, diff)
			}
		}
	})
}

// TestPostfixStateRefused damages a state in each place.
func TestPostfixStateRefused(t *testing.T) {
	r := postfixReader(t)
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

// TestPostfixInterleaved mixes the lines of two logs as two processes would write them.
func TestPostfixInterleaved(t *testing.T) {
	files, err := filepath.Glob("testdata/postfix-3.*/*.log")
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
			same.WriteString(forms["rfc5424 of rsyslog"](cut(t, strings.TrimSuffix(line, "\n"))) + "\n")
		}
		got, _ = replayed(t, []byte(same.String()))
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Fatalf("%s and %s as RFC 5424: %s", a, b, diff)
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
