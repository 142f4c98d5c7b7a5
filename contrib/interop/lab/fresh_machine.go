package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// machine is a Debian with a mail server as its package sets it up. It is a chroot of
// the lab under an overlay in memory: what is done to it is gone with the story, and
// what other stories have left in the chroot is taken away in it first.
type machine struct {
	root    string // where all of it is to be seen
	scratch string // what is in memory
	syslog  []io.Closer
	daemon  *process
}

// machineLog is the log that the lab writes in the place of rsyslog, on the machine.
const machineLog = "/var/log/mail.log"

// newMachine lays the overlay over a chroot.
func newMachine(ctx context.Context, folder, chroot string) (m *machine, err error) {
	scratch := filepath.Join(folder, "fresh-"+filepath.Base(chroot))
	m = &machine{scratch: scratch, root: filepath.Join(scratch, "root")}
	defer func() {
		if err != nil {
			m.close(ctx)
		}
	}()
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	if _, err := output(ctx, "mount", "-t", "tmpfs", "tmpfs", scratch); err != nil {
		return nil, err
	}
	for _, name := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(scratch, name), 0o755); err != nil {
			return nil, err
		}
	}
	layers := "lowerdir=" + chroot + ",upperdir=" + filepath.Join(scratch, "upper") + ",workdir=" + filepath.Join(scratch, "work")
	if _, err := output(ctx, "mount", "-t", "overlay", "-o", layers, "overlay", m.root); err != nil {
		return nil, err
	}
	_, err = output(ctx, "mount", "-t", "proc", "proc", filepath.Join(m.root, "proc")) // for start-stop-daemon
	return m, err
}

// close takes the machine away, with what runs on it by then that the lab has started.
func (m *machine) close(ctx context.Context) error {
	m.daemon.stop()
	for _, s := range m.syslog {
		s.Close()
	}
	_, err := output(ctx, "umount", "--lazy", "--recursive", m.scratch)
	return err
}

// shell runs commands as root of the machine and returns what they print. A pipe would
// stay open as long as a daemon that they start, so it is a file.
func (m *machine) shell(ctx context.Context, commands string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := os.CreateTemp("", "postseal-lab")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.CommandContext(ctx, "chroot", m.root, "sh", "-ec", commands)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	cmd.Stdout, cmd.Stderr = out, out
	failed := cmd.Run()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return "", err
	}
	if failed != nil {
		return string(text), fmt.Errorf("%s: %w: %s", commands, failed, text)
	}
	return string(text), nil
}

// types is shell for what a user types: the transcript shows it.
func (m *machine) types(ctx context.Context, command string) (string, error) {
	fmt.Printf("  # %s\n", command)
	text, err := m.shell(ctx, command)
	if strings.TrimSpace(text) != "" {
		fmt.Println(indent(text))
	}
	return text, err
}

// write puts a file onto the machine.
func (m *machine) write(path, text string) error {
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// logs is what rsyslog does on a user's machine: the file is as its package makes it.
func (m *machine) logs(ctx context.Context, sockets ...string) error {
	for _, socket := range sockets {
		path := filepath.Join(m.root, socket)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		s, err := syslog(path, "fresh", filepath.Join(m.root, machineLog))
		if err != nil {
			return err
		}
		m.syslog = append(m.syslog, s)
	}
	_, err := m.shell(ctx, "chown root:adm "+machineLog+"; chmod 0640 "+machineLog)
	return err
}

// settings are all files and links in /etc with what is in them, but for the copies
// that the tools for users and groups keep, and for what the regular expression matches.
func (m *machine) settings(stamp string) (map[string]string, error) {
	stamps := regexp.MustCompile(stamp)
	all := map[string]string{}
	etc := filepath.Join(m.root, "etc")
	err := filepath.WalkDir(etc, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "-") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var text []byte
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text = []byte(target)
		} else if text, err = os.ReadFile(path); err != nil {
			return err
		}
		all[strings.TrimPrefix(path, m.root)] = info.Mode().String() + "\n" + stamps.ReplaceAllString(string(text), "")
		return nil
	})
	return all, err
}

// changed names the files that differ.
func changed(before, after map[string]string) (names []string) {
	both := maps.Clone(before)
	maps.Copy(both, after)
	for _, name := range slices.Sorted(maps.Keys(both)) {
		was, old := before[name]
		is, new := after[name]
		switch {
		case !old:
			names = append(names, name+" is new")
		case !new:
			names = append(names, name+" is gone")
		case was != is:
			names = append(names, name+" has changed")
		}
	}
	return names
}
