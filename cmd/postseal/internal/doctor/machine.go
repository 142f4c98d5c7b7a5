package doctor

import (
	"context"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postseal/cmd/postseal/internal/host"
)

// Machine is where the checks look. The zero value is this one.
type Machine struct {
	host.System
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	User    func(name string) (Account, error)
	Synced  func() (bool, error) // whether the clock is disciplined
	Stat    func(name string) (fs.FileInfo, error)
	Read    func(name string) ([]byte, error)
	Free    func(name string) (octets uint64, err error) // on the disk of a folder, for who is not root
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

func (m Machine) complete() Machine {
	if m.Dial == nil {
		m.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	if m.User == nil {
		m.User = account
	}
	if m.Synced == nil {
		m.Synced = synced
	}
	if m.Stat == nil {
		m.Stat = m.System.Stat
	}
	if m.Read == nil {
		m.Read = m.System.Read
	}
	if m.Free == nil {
		m.Free = m.free
	}
	if m.Now == nil {
		m.Now = time.Now
	}
	if m.UID == 0 {
		m.UID = os.Getuid()
	}
	return m
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
		info, err := m.Stat(at)
		if err != nil {
			return err
		}
		if !a.may(info, search) {
			return denied(a, at, "x", info)
		}
	}
	info, err := m.Stat(path)
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
	infoA, errA := m.Stat(a)
	infoB, errB := m.Stat(b)
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
