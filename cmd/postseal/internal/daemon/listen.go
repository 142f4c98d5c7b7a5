package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"postseal/cmd/postseal/internal/config"
)

// permissions are those of a unix socket.
type permissions struct{ mode, owner, group string }

// doors are all open listeners, by the name of their section in the configuration.
type doors map[string][]net.Listener

// openDoors opens every listener of the configuration. Those that the service
// manager has opened, by the name of their section (systemd.socket(5),
// FileDescriptorName=), stand in for the same addresses there, and come beside all
// others: a line of the configuration counts with and without them.
func openDoors(c *config.Config, files []*os.File) (doors, error) {
	all := doors{}
	if err := all.inherit(c, files); err != nil {
		all.close()
		return nil, err
	}
	for _, section := range c.Sections() {
		given := all[section.Name]
		endpoints, err := section.Listen.Endpoints()
		if err != nil {
			all.close()
			return nil, fmt.Errorf("%s: %w", section.Key, err)
		}
		for _, e := range endpoints {
			if slices.ContainsFunc(given, func(ln net.Listener) bool { return same(e, ln.Addr()) }) {
				continue
			}
			ln, err := open(e, permissions{section.Mode, section.Owner, section.Group})
			if err != nil {
				all.close()
				return nil, fmt.Errorf("%s: %w", section.Key, err)
			}
			all[section.Name] = append(all[section.Name], ln)
		}
	}
	return all, nil
}

func (all doors) inherit(c *config.Config, files []*os.File) error {
	var names []string
	for _, s := range c.Sections() {
		names = append(names, s.Name)
	}
	for _, f := range files {
		name := f.Name()
		if !slices.Contains(names, name) {
			return fmt.Errorf("socket %q of the service manager: FileDescriptorName must be one of %s", name, strings.Join(names, ", "))
		}
		ln, err := net.FileListener(f) // a duplicate
		f.Close()
		if err != nil {
			return fmt.Errorf("socket %q of the service manager: %w", name, err)
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // it is the service manager's
		}
		all[name] = append(all[name], ln)
	}
	return nil
}

// same reports whether a listener at the address serves what the configuration asks
// for; any port will do for port 0.
func same(e config.Endpoint, at net.Addr) bool {
	if e.Network == "unix" {
		return at.Network() == "unix" && filepath.Clean(e.Address) == at.String()
	}
	want, err := net.ResolveTCPAddr("tcp", e.Address)
	has, ok := at.(*net.TCPAddr)
	if err != nil || !ok || want.Port != 0 && want.Port != has.Port {
		return false
	}
	return want.IP.Equal(has.IP) || (want.IP == nil || want.IP.IsUnspecified()) && has.IP.IsUnspecified()
}

// strange are the listeners of a section that the service manager opened and the
// configuration does not name.
func (all doors) strange(section config.Section) []string {
	endpoints, err := section.Listen.Endpoints()
	if err != nil { // checked before
		return nil
	}
	var list []string
	for _, ln := range all[section.Name] {
		if !slices.ContainsFunc(endpoints, func(e config.Endpoint) bool { return same(e, ln.Addr()) }) {
			list = append(list, address(ln))
		}
	}
	return list
}

// close closes all listeners.
func (all doors) close() {
	for _, list := range all {
		for _, ln := range list {
			ln.Close()
		}
	}
}

// list are the addresses as the configuration writes them.
func (all doors) list(name string) []string {
	var s []string
	for _, ln := range all[name] {
		s = append(s, address(ln))
	}
	return s
}

func address(ln net.Listener) string { return ln.Addr().Network() + ":" + ln.Addr().String() }

func open(e config.Endpoint, p permissions) (net.Listener, error) {
	if e.Network == "unix" {
		return openUnix(e.Address, p)
	}
	return net.Listen(e.Network, e.Address)
}

// openUnix makes the socket under a name beside the wanted one and renames it when
// mode and owner are right, so that nobody can come in before, and a socket left
// behind by a crash is replaced. One that somebody answers at is left alone.
func openUnix(path string, p permissions) (net.Listener, error) {
	if err := vacant(path); err != nil {
		return nil, err
	}
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: its folder does not exist and must be made first: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it knows the temporary name only
	if err := permit(temporary, p); err != nil {
		ln.Close()
		os.Remove(temporary)
		return nil, err
	}
	if err := os.Rename(temporary, path); err != nil {
		ln.Close()
		os.Remove(temporary)
		return nil, err
	}
	file, err := os.Lstat(path)
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &unixListener{UnixListener: ln, path: path, file: file}, nil
}

// vacant is an error unless nothing is at path but perhaps a socket that nobody
// listens at.
func vacant(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s: there is a file that is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%s: another program listens there", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil // left behind by a crash
	}
	return fmt.Errorf("%s: whether another program listens there cannot be told: %w", path, err)
}

// permit sets owner and group before the mode, which chown may change.
func permit(path string, p permissions) error {
	uid, err := userID(p.owner)
	if err != nil {
		return fmt.Errorf("owner of %s: %w", path, err)
	}
	gid, err := groupID(p.group)
	if err != nil {
		return fmt.Errorf("group of %s: %w", path, err)
	}
	mode, err := config.ParseMode(p.mode)
	if err != nil {
		return fmt.Errorf("mode of %s: %w", path, err)
	}
	if uid != -1 || gid != -1 {
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// userID is the number of a user by name or number, -1 (no change) for "".
func userID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// unixListener knows its final name, and removes it when closed unless somebody
// else's socket has taken its place.
type unixListener struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	once sync.Once
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
