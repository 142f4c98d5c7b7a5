package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"postseal/cmd/postseal/internal/control"
)

const (
	// Databases grow by some kilobytes a domain; below this a busy host may fill the
	// disk within a day, and a full one makes the ledger and the sessions fail.
	littleSpace = 512 << 20
	noSpace     = 32 << 20
)

// checkState looks at the folder of the databases.
func checkState(_ context.Context, e *env) []Finding {
	dir := e.Config.StateDir
	info, err := e.Machine.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.statusErr != nil:
		return []Finding{hint("state_dir "+dir+" does not exist yet", "nothing: the daemon makes it when it starts")}
	case errors.Is(err, fs.ErrPermission):
		return []Finding{hint("state_dir "+dir+" cannot be looked at as this user", "sudo postseal doctor")}
	case err != nil:
		return []Finding{failure("state_dir: "+err.Error(), "set state_dir in "+e.file()+" to a folder that the daemon may write to")}
	case !info.IsDir():
		return []Finding{failure("state_dir "+dir+" is no folder", "set state_dir in "+e.file())}
	}
	found := []Finding{}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		found = append(found, warning(fmt.Sprintf("state_dir %s has mode %04o: other users may read whom you write to", dir, mode), "chmod 0700 "+dir))
	}
	found = append(found, e.owners(info)...)
	found = append(found, e.held()...)
	found = append(found, e.space(dir)...)
	if len(found) == 0 {
		found = append(found, ok("state_dir "+dir+" is in order"))
	}
	return found
}

// held tells who keeps the database locked where no daemon answers: another postseal,
// with another configuration, and a second one cannot start beside it. /proc/locks
// (proc(5)) has a line "N: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END".
func (e *env) held() []Finding {
	info, err := e.Machine.Stat(e.Config.Policies())
	if err != nil || !errors.Is(e.statusErr, control.ErrNoDaemon) || errors.Is(e.statusErr, fs.ErrPermission) {
		return nil
	}
	text, err := e.Machine.Read("/proc/locks")
	stat, known := info.Sys().(*syscall.Stat_t)
	if err != nil || !known {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) >= 6 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], fmt.Sprintf(":%d", stat.Ino)) {
			return []Finding{failure(fmt.Sprintf("no daemon answers, but process %s keeps %s locked: another postseal works on this state, with another configuration", fields[4], e.Config.Policies()),
				"ps -fp "+fields[4]+"   (see its --config; end it, or look at that one)")}
		}
	}
	return nil
}

// owners: a file made by root in a try by hand locks the daemon out.
func (e *env) owners(dir fs.FileInfo) []Finding {
	owner, known := dir.Sys().(*syscall.Stat_t)
	if !known {
		return nil
	}
	var found []Finding
	c := e.Config
	for _, path := range []string{c.Policies(), c.Ledger(), c.Sessions(), c.Overrides()} {
		info, err := e.Machine.Stat(path)
		if err != nil {
			continue // it may not be there
		}
		if stat, known := info.Sys().(*syscall.Stat_t); known && stat.Uid != owner.Uid {
			found = append(found, failure(fmt.Sprintf("%s belongs to user %d, its folder to %d: the daemon cannot write it", path, stat.Uid, owner.Uid),
				fmt.Sprintf("chown %d:%d %s; systemctl restart postseal", owner.Uid, owner.Gid, path)))
		}
	}
	return found
}

// free asks the file system (statfs(2)).
func (m *Machine) free(name string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(m.Path(name), &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}

// space judges what is left on the disk of a folder.
func (e *env) space(name string) []Finding {
	free, err := e.Machine.Free(name)
	if err != nil {
		return []Finding{hint("the space on the disk of "+name+" cannot be told: "+err.Error(), "df -h "+name)}
	}
	text := fmt.Sprintf("%d MiB are free on the disk of %s", free>>20, name)
	switch {
	case free < noSpace:
		return []Finding{failure(text+": nothing can be recorded", "df -h "+name+"   (make room)")}
	case free < littleSpace:
		return []Finding{warning(text, "df -h "+name+"   (make room)")}
	}
	return nil
}
