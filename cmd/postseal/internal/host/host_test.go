package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/host"
)

// rooted is a system in a folder with these files; a text that begins with -> makes a
// link.
func rooted(t *testing.T, files map[string]string) *host.System {
	t.Helper()
	s := &host.System{Root: t.TempDir()}
	for name, text := range files {
		err := os.MkdirAll(filepath.Dir(s.Path(name)), 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if target, link := strings.CutPrefix(text, "->"); link {
			err = os.Symlink(target, s.Path(name))
		} else {
			err = os.WriteFile(s.Path(name), []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ root, name, want string }{
		{"", "/etc/hosts", "/etc/hosts"}, {"", "state", "state"}, {"/jail", "/etc/hosts", "/jail/etc/hosts"}, {"/jail", "state", "/jail/state"},
	} {
		if got := (&host.System{Root: c.root}).Path(c.name); got != c.want {
			t.Errorf("%q in %q: got %s, want %s", c.name, c.root, got, c.want)
		}
	}
}

// TestRead follows links within the root, not out of it.
func TestRead(t *testing.T) {
	s := rooted(t, map[string]string{
		"/run/real": "real", "/etc/absolute": "->/run/real", "/etc/relative": "->../run/real", "/etc/chain": "->relative",
		"/etc/broken": "->/run/none", "/etc/outside": "->/etc/none", "/etc/large": strings.Repeat("x", 4<<20+1),
	})
	for _, name := range []string{"/run/real", "/etc/absolute", "/etc/relative", "/etc/chain"} {
		if text, err := s.Read(name); err != nil || string(text) != "real" || !s.Exists(name) {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
	}
	for _, name := range []string{"/etc/none", "/etc/broken", "/etc/outside"} {
		if _, err := s.Read(name); !errors.Is(err, fs.ErrNotExist) || s.Exists(name) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, exists, err := s.Lookup(name); err != nil || exists {
			t.Errorf("%s: got %v, %v", name, exists, err)
		}
	}
	if _, _, err := s.Lookup("/etc/large"); err == nil {
		t.Error("a file without bounds is read")
	}
	if got := s.FirstOf("/etc/none", "/etc/chain", "/run/real"); got != "/etc/chain" {
		t.Errorf("got %s", got)
	}
}

func TestProgram(t *testing.T) {
	s := rooted(t, map[string]string{"/usr/sbin/postconf": "", "/usr/local/sbin/exim": "", "/usr/sbin/exim": ""})
	for name, want := range map[string]string{"postconf": "/usr/sbin/postconf", "exim": "/usr/local/sbin/exim", "ls": "", "/usr/sbin/exim": "/usr/sbin/exim", "/bin/none": ""} {
		if got := s.Program(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if _, err := s.Output(t.Context(), "ls"); !errors.Is(err, host.ErrNoProgram) {
		t.Errorf("a program outside the root: %v", err)
	}
}

func TestOutput(t *testing.T) {
	var s host.System
	if out, err := s.Output(t.Context(), "sh", "-c", "echo $LC_ALL"); err != nil || out != "C\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := s.Output(t.Context(), "sh", "-c", "echo why >&2; echo more >&2; exit 3"); err == nil || err.Error() != "sh: exit status 3: why" {
		t.Errorf("got %v", err)
	}
	if out, err := s.Output(t.Context(), "sh", "-c", "head -c 5000000 /dev/zero"); err != nil || len(out) != 4<<20 {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
}

func TestResolvConf(t *testing.T) {
	for _, c := range []struct {
		name, text string
		asked      []string
		trustAD    bool
	}{
		{"one", "nameserver 127.0.0.1\noptions edns0 trust-ad\n", []string{"127.0.0.1"}, true},
		{"none", "# nameserver 192.0.2.1\noptions edns0\nnameserver\n", []string{"127.0.0.1"}, false},
		{"four", "nameserver 192.0.2.1\nnameserver 2001:DB8::0:1\nnameserver here\nnameserver 192.0.2.4\n", []string{"192.0.2.1", "2001:db8::1", "here"}, false},
	} {
		s := rooted(t, map[string]string{host.ResolvConfFile: c.text})
		conf, err := s.ReadResolvConf(host.ResolvConfFile)
		if err != nil || !slices.Equal(conf.Asked(), c.asked) || conf.TrustAD != c.trustAD {
			t.Errorf("%s: got %+v, %v", c.name, conf, err)
		}
	}
	for server, want := range map[string]bool{"127.0.0.1": true, "127.0.0.53": true, "::1": true, "127.0.0.11": false, "192.0.2.1": false, "localhost": false} {
		if got := host.OnMachine(server); got != want {
			t.Errorf("%s: got %v", server, got)
		}
	}
}
