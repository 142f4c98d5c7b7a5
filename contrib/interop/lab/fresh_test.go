package main

import (
	"slices"
	"testing"
)

func TestUnit(t *testing.T) {
	got := unit("# x\n[Unit]\nUser=nobody\n[Service]\nExecStart=/bin/old\nExecStart=/bin/new serve=1\n # Group=no\nUMask=0077\n[Install]\nUMask=0\n")
	for name, want := range map[string]string{"ExecStart": "/bin/new serve=1", "UMask": "0077", "User": "", "Group": ""} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}

func TestChanged(t *testing.T) {
	before := map[string]string{"/etc/a": "1", "/etc/b": "2", "/etc/c": "3"}
	after := map[string]string{"/etc/a": "1", "/etc/b": "4", "/etc/d": ""}
	want := []string{"/etc/b has changed", "/etc/c is gone", "/etc/d is new"}
	if got := changed(before, after); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := changed(before, before); got != nil {
		t.Errorf("got %q without a change", got)
	}
}

func TestSystemctl(t *testing.T) {
	for step, want := range map[string]string{
		"systemctl reload exim4":     "/etc/init.d/exim4 reload",
		"systemctl restart a && b":   "systemctl restart a && b",
		"postfix reload":             "postfix reload",
		"make -C /etc/mail all":      "make -C /etc/mail all",
		"systemctl restart sendmail": "/etc/init.d/sendmail restart",
	} {
		if got := systemctl.ReplaceAllString(step, "/etc/init.d/$2 $1"); got != want {
			t.Errorf("%s: got %q, want %q", step, got, want)
		}
	}
}

// The times in what Debian's make has written for Sendmail.
func TestStamp(t *testing.T) {
	m := &machine{root: t.TempDir()}
	read := func(text string) map[string]string {
		if err := m.write("etc/mail/sendmail.cf", text); err != nil {
			t.Fatal(err)
		}
		all, err := m.settings(freshSendmail.stamp)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	then := read("##### built by root@x on Sat Nov 28\n##### in /\nDj\n")
	if got := changed(then, read("##### built by root@y on Sun Nov 29\n##### in /etc/mail\nDj\n")); got != nil {
		t.Errorf("the time counts: %q", got)
	}
	if got := changed(then, read("##### built by root@x on Sat Nov 28\n##### in /\nDk\n")); len(got) != 1 {
		t.Errorf("a line does not count: %q", got)
	}
}
