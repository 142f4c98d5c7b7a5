package doctor

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is where the checks look. The zero value is this one.
type Machine struct {
	Root    string // files are looked at below it; "": /
	Program func(name string) (path string)
	Output  func(ctx context.Context, name string, args ...string) (string, error)
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	User    func(name string) (Account, error)
	Synced  func() (bool, error) // whether the clock is disciplined
	Now     func() time.Time
	Name    func() (string, error) // of the mail server; nil: as configured, else the system's
	UID     int                    // of whoever looks, -1: unknown
	Web     WebClient              // for https
	DNSWait time.Duration          // for one question; 0: the default of policy/dnssec
}

// Account is a user as access to files counts.
type Account struct {
	Name string
	UID  uint32
	GIDs []uint32
}

// maxFile bounds what is read of a file.
const maxFile = 4 << 20

func (m Machine) complete() Machine {
	if m.Program == nil {
		m.Program = program
	}
	if m.Output == nil {
		m.Output = output
	}
	if m.Dial == nil {
		m.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	if m.User == nil {
		m.User = account
	}
	if m.Synced == nil {
		m.Synced = synced
	}
	if m.Now == nil {
		m.Now = time.Now
	}
	if m.UID == 0 {
		m.UID = os.Getuid()
	}
	return m
}

func (m *Machine) path(name string) string { return filepath.Join(m.Root, name) }

func (m *Machine) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

// read reads a file, at most the first maxFile bytes.
func (m *Machine) read(name string) (string, error) {
	f, err := os.Open(m.path(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(text), err
}

// program finds a program, also where an administrator's PATH does not lead.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// output runs a program that only prints, without input and without our environment's
// language.
func output(ctx context.Context, name string, args ...string) (string, error) {
	path := program(name)
	if path == "" {
		return "", errors.New("there is no program " + name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if e, failed := errors.AsType[*exec.ExitError](err); failed {
		line, _, _ := strings.Cut(strings.TrimSpace(string(e.Stderr)), "\n")
		return string(out), errors.New(name + ": " + line)
	}
	return string(out[:min(len(out), maxFile)]), err
}

func account(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return Account{}, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return Account{}, err
	}
	a := Account{Name: u.Username, UID: uint32(uid)}
	groups, err := u.GroupIds()
	if err != nil {
		groups = []string{u.Gid}
	}
	for _, g := range groups {
		if gid, err := strconv.ParseUint(g, 10, 32); err == nil {
			a.GIDs = append(a.GIDs, uint32(gid))
		}
	}
	return a, nil
}

// may reports whether the account has all bits, of rwx, on a file.
func (a Account) may(info os.FileInfo, bits os.FileMode) bool {
	stat, known := info.Sys().(*syscall.Stat_t)
	if a.UID == 0 || !known {
		return true
	}
	mode := info.Mode().Perm()
	if stat.Uid == a.UID {
		return mode>>6&bits == bits
	}
	for _, gid := range a.GIDs {
		if stat.Gid == gid {
			return mode>>3&bits == bits
		}
	}
	return mode&bits == bits
}

const (
	search = 1 // x of a folder
	write  = 2 // what connecting to a socket needs (unix(7))
	read   = 4
)

// accessError says where on a path an account is stopped.
type accessError struct {
	account, at, lacks string
	group              uint32 // of what stops it
}

func (e *accessError) Error() string {
	return "user " + e.account + " has no " + e.lacks + " on " + e.at
}

// reach tells whether an account gets to a file with some bits; the error is an
// [*accessError], or that of looking.
func (m *Machine) reach(a Account, path string, bits os.FileMode) error {
	path = filepath.Clean(path)
	at := "/"
	for _, part := range strings.Split(strings.TrimPrefix(filepath.Dir(path), "/"), "/") {
		at = filepath.Join(at, part)
		info, err := os.Stat(m.path(at))
		if err != nil {
			return err
		}
		if !a.may(info, search) {
			return denied(a, at, "x", info)
		}
	}
	info, err := os.Stat(m.path(path))
	if err != nil {
		return err
	}
	if !a.may(info, bits) {
		return denied(a, path, map[os.FileMode]string{write: "w", read: "r"}[bits], info)
	}
	return nil
}

func denied(a Account, at, lacks string, info os.FileInfo) error {
	e := &accessError{account: a.Name, at: at, lacks: lacks}
	if stat, known := info.Sys().(*syscall.Stat_t); known {
		e.group = stat.Gid
	}
	return e
}

// same reports whether two paths lead to one file.
func (m *Machine) same(a, b string) bool {
	infoA, errA := os.Stat(m.path(a))
	infoB, errB := os.Stat(m.path(b))
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

func owner(info os.FileInfo) (uint32, bool) {
	stat, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 0, false
	}
	return stat.Uid, true
}

func groupOf(info os.FileInfo) (uint32, bool) {
	if info == nil {
		return 0, false
	}
	stat, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 0, false
	}
	return stat.Gid, true
}

func containsID(ids []uint32, id uint32) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}
