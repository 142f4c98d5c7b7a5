package setup

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
	maxOutput  = 1 << 20         // of a command
	maxCommand = 2 * time.Minute // a restart of a busy mail server takes seconds
)

// System is the machine, or a folder that holds one, such as a chroot.
type System struct {
	Root    string // the folder that its programs see as /; "": this machine
	Backups string // folder of copies and manifests, within the root; "": DefaultBackups

	// Run starts a program of the system and returns its standard output. nil: for real,
	// within Root, which only root may.
	Run func(ctx context.Context, argv ...string) (string, error)

	// Validates says whether the resolvers at these addresses validate and may be
	// believed, and if not why. nil: the self-test of policy/dnssec.
	Validates func(ctx context.Context, servers []string) (bool, string)

	Now func() time.Time // nil: time.Now

	wrote func(path string) error // for tests: after each file
}

// path is where a file of the system is for us.
func (s *System) path(name string) string { return filepath.Join("/", s.Root, name) }

// followed is the path behind a symbolic link, whose target is within the root too.
func (s *System) followed(name string) string {
	if s.Root == "" {
		return name // for the kernel
	}
	for range 8 {
		target, err := os.Readlink(s.path(name))
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	return name
}

func (s *System) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// read reads a file; of one that is missing exists is false.
func (s *System) read(name string) (text []byte, exists bool, err error) {
	text, err = tomlfile.Read(s.path(s.followed(name)), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return text, err == nil, err
}

func (s *System) exists(name string) bool {
	_, err := os.Stat(s.path(s.followed(name)))
	return err == nil
}

// firstOf is the first of the files that exists, "" without one.
func (s *System) firstOf(names ...string) string {
	for _, name := range names {
		if s.exists(name) {
			return name
		}
	}
	return ""
}

// programs are the folders of a mail server's commands, which an administrator's PATH
// may lack.
var programs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/sendmail"}

// program is the path of a command within the root; "" if there is none.
func (s *System) program(name string) string {
	if strings.Contains(name, "/") {
		return s.firstOf(name)
	}
	if s.Root == "" {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	for _, dir := range programs {
		if s.exists(filepath.Join(dir, name)) {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// errNoProgram is returned when a command is not installed.
var errNoProgram = errors.New("is not installed")

// run starts a program of the system.
func (s *System) run(ctx context.Context, argv ...string) (string, error) {
	if s.Run != nil {
		return s.Run(ctx, argv...)
	}
	path := s.program(argv[0])
	if path == "" {
		return "", fmt.Errorf("%s %w", argv[0], errNoProgram)
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

// bounded keeps the beginning of what a command says.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// Reload runs the commands of a plan.
func (s *System) Reload(ctx context.Context, p *Plan) error {
	for _, argv := range p.Reload {
		if _, err := s.run(ctx, argv...); err != nil {
			return err
		}
	}
	return nil
}
