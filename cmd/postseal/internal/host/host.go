// Package host is the machine beside which postseal runs, as its subcommands look at
// it: files and programs of the mail server, and what its C library knows of resolvers.
// All paths are as the machine's own programs see them; where they lead, with a chroot
// or a container's folder in place of /, is said once, in [System].
//
// A mail server is never guessed at from what it writes elsewhere: its own programs are
// asked, such as postconf(1). What they print, and what files hold, is bounded.
//
// Nothing here judges and nothing here is changed: package doctor judges, package setup
// changes, and both see the same machine by this one. Sources: resolv.conf(5), chroot(2).
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"postseal/cmd/postseal/internal/tomlfile"
)

const (
	maxFile    = 4 << 20         // of a configuration file; Debian's largest has 80 kB
	maxOutput  = 4 << 20         // of a command; postconf(1) prints 60 kB
	maxCommand = 2 * time.Minute // a restart of a busy mail server takes seconds
)

// System is the machine, or a folder that holds one, such as a chroot. The zero value
// is this machine.
type System struct {
	Root string // the folder that its programs see as /; "": this machine

	// Run starts a program of the system and returns its standard output. nil: for real,
	// within Root, which only root may.
	Run func(ctx context.Context, argv ...string) (string, error)
}

// Path is where a file of the system is for us. It follows no link; a relative path stays
// one, if this machine is looked at.
func (s *System) Path(name string) string { return filepath.Join(s.Root, name) }

// followed is where the file behind a symbolic link is for us: its target is within the
// root, too.
func (s *System) followed(name string) string {
	if s.Root == "" {
		return s.Path(name) // the kernel follows
	}
	for range 8 {
		target, err := os.Readlink(s.Path(name))
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	return s.Path(name)
}

// Read reads a file of at most 4 MB. The error of one that is missing is
// [fs.ErrNotExist].
func (s *System) Read(name string) ([]byte, error) {
	return tomlfile.Read(s.followed(name), maxFile)
}

// Lookup reads a file as [System.Read] does; one that is missing is no error, and
// exists is false.
func (s *System) Lookup(name string) (text []byte, exists bool, err error) {
	text, err = s.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return text, err == nil, err
}

// Stat is of the file behind a symbolic link.
func (s *System) Stat(name string) (fs.FileInfo, error) { return os.Stat(s.followed(name)) }

// Exists reports whether there is such a file or folder that we can see.
func (s *System) Exists(name string) bool {
	_, err := s.Stat(name)
	return err == nil
}

// FirstOf is the first of the files that exists, "" without one.
func (s *System) FirstOf(names ...string) string {
	for _, name := range names {
		if s.Exists(name) {
			return name
		}
	}
	return ""
}

// programs are the folders of a mail server's commands, which an administrator's PATH
// may lack.
var programs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/sendmail"}

// Program is the path of a command within the root; "" if there is none.
func (s *System) Program(name string) string {
	if strings.Contains(name, "/") {
		return s.FirstOf(name)
	}
	if s.Root == "" {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	for _, dir := range programs {
		if s.Exists(filepath.Join(dir, name)) {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// ErrNoProgram is returned when a command is not installed.
var ErrNoProgram = errors.New("is not installed")

// Output runs a program of the system, without input and in no language, for at most
// two minutes, and returns the first 4 MB of what it prints. The error has the first
// line of its complaint.
func (s *System) Output(ctx context.Context, argv ...string) (string, error) {
	if s.Run != nil {
		return s.Run(ctx, argv...)
	}
	path := s.Program(argv[0])
	if path == "" {
		return "", fmt.Errorf("%s %w", argv[0], ErrNoProgram)
	}
	ctx, cancel := context.WithTimeout(ctx, maxCommand)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	if s.Root != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: s.Root}
		cmd.Dir = "/"
	}
	var stdout, stderr bounded
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, syscall.EPERM) && s.Root != "" {
		return "", fmt.Errorf("%s in %s: only root may run programs within another root", argv[0], s.Root)
	}
	if err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		if said != "" {
			return stdout.String(), fmt.Errorf("%s: %w: %s", argv[0], err, said)
		}
		return stdout.String(), fmt.Errorf("%s: %w", argv[0], err)
	}
	return stdout.String(), nil
}

// bounded keeps the beginning of what a command says. It does not embed the buffer, whose
// ReadFrom would take all of it.
type bounded struct{ buffer bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.buffer.Len(); room > 0 {
		b.buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (b *bounded) String() string { return b.buffer.String() }

// Authorities are the files that may hold all certificate authorities: Debian's, Red
// Hat's, SUSE's, BSDs'. crypto/x509 looks there, too.
func Authorities() []string {
	return []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem", "/usr/local/share/certs/ca-root-nss.crt"}
}

// Journals are the folders where systemd may keep its journal (systemd-journald(8)).
func Journals() []string { return []string{"/var/log/journal", "/run/log/journal"} }
