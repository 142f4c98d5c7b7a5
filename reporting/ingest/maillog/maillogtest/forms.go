package maillogtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Parts are those of a classic line.
type Parts struct {
	At                   time.Time
	Host, Tag, PID, Text string
}

// Cut takes a classic line of 2026 apart.
func Cut(t testing.TB, line string) (p Parts) {
	t.Helper()
	at, err := time.Parse("2006 "+time.Stamp, "2026 "+line[:15])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	p.At = at
	p.Host, p.Tag, _ = strings.Cut(line[16:], " ")
	p.Tag, p.Text, _ = strings.Cut(p.Tag, ": ")
	p.Tag, p.PID, _ = strings.Cut(strings.TrimSuffix(p.Tag, "]"), "[")
	return p
}

// Forms write a line as the syslog daemons do.
var Forms = map[string]func(p Parts) string{
	"classic": func(p Parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.At.Format(time.Stamp), p.Host, p.Tag, p.PID, p.Text)
	},
	"fractions": func(p Parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.At.Format(time.StampMicro), p.Host, p.Tag, p.PID, p.Text)
	},
	"crlf": func(p Parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s\r", p.At.Format(time.Stamp), p.Host, p.Tag, p.PID, p.Text)
	},
	"priority": func(p Parts) string {
		return fmt.Sprintf("<22>%s %s %s[%s]: %s", p.At.Format(time.Stamp), p.Host, p.Tag, p.PID, p.Text)
	},
	"freebsd": func(p Parts) string {
		return fmt.Sprintf("%s <mail.info> %s %s[%s]: %s", p.At.Format(time.Stamp), p.Host, p.Tag, p.PID, p.Text)
	},
	"busybox": func(p Parts) string {
		return fmt.Sprintf("%s %s mail.info %s[%s]: %s", p.At.Format(time.Stamp), p.Host, p.Tag, p.PID, p.Text)
	},
	"solaris": func(p Parts) string {
		return fmt.Sprintf("%s %s %s[%s]: [ID 197553 mail.info] %s", p.At.Format(time.Stamp), p.Host, p.Tag, p.PID, p.Text)
	},
	"rfc3339": func(p Parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.At.In(time.FixedZone("", 3600)).Format("2006-01-02T15:04:05.000000-07:00"), p.Host, p.Tag, p.PID, p.Text)
	},
	"short-iso": func(p Parts) string {
		return fmt.Sprintf("%s %s %s[%s]: %s", p.At.In(time.FixedZone("", -12600)).Format("2006-01-02T15:04:05-0700"), p.Host, p.Tag, p.PID, p.Text)
	},
	"rfc5424": func(p Parts) string {
		return fmt.Sprintf("<22>1 %s %s %s %s - - %s", p.At.Format(time.RFC3339), p.Host, p.Tag, p.PID, p.Text)
	},
	"rfc5424 cut": func(p Parts) string {
		tag, _, _ := strings.Cut(p.Tag, "/")
		return fmt.Sprintf("<22>1 %s %s %s %s - - %s", p.At.Format(time.RFC3339Nano), p.Host, tag, p.PID, p.Text)
	},
	"rfc5424 of rsyslog": func(p Parts) string {
		tag, _, _ := strings.Cut(p.Tag, "/")
		return fmt.Sprintf("<22>1 %s %s %s %s - -  %s", p.At.Format("2006-01-02T15:04:05.000000-07:00"), p.Host, tag, p.PID, p.Text)
	},
	"rfc5424 cut without priority": func(p Parts) string {
		tag, _, _ := strings.Cut(p.Tag, "/")
		return fmt.Sprintf("%s %s %s %s - - %s", p.At.Format(time.RFC3339Nano), p.Host, tag, p.PID, p.Text)
	},
	"rfc5424 with data": func(p Parts) string {
		return fmt.Sprintf(`<22>1 %s %s %s %s ID47 [origin ip="192.0.2.1" x="a\"]b"][x y="["] `+"\xef\xbb\xbf%s", p.At.Format(time.RFC3339), p.Host, p.Tag, p.PID, p.Text)
	},
	"journal":       func(p Parts) string { return journalLine(p, p.Text) },
	"journal bytes": func(p Parts) string { return journalLine(p, numbers(p.Text)) },
}

// numbers are how journald writes a field that is no UTF-8.
func numbers(text string) (all []int) {
	for i := range len(text) {
		all = append(all, int(text[i]))
	}
	return all
}

func journalLine(p Parts, message any) string {
	object, err := json.Marshal(map[string]any{
		"MESSAGE": message, "SYSLOG_IDENTIFIER": p.Tag, "SYSLOG_PID": p.PID, "_PID": "1", "_HOSTNAME": p.Host, "PRIORITY": "6",
		"__REALTIME_TIMESTAMP": fmt.Sprint(p.At.UnixMicro()), "__CURSOR": "s=1;i=2", "_SYSTEMD_INVOCATION_ID": []string{"a", "b"},
	})
	if err != nil {
		panic(err)
	}
	return string(object)
}
