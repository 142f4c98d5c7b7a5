package setup

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"postseal/cmd/postseal/internal/config"
)

// daemonUser is the user that README and packages have the daemon run as.
const daemonUser = "postseal"

// journals are where systemd keeps its journal.
var journals = []string{"/var/log/journal", "/run/log/journal"}

// log finds the log that a mail server writes, the first of the candidates that
// exists, else the journal; "" without one.
func (s *System) log(candidates ...string) string {
	if name := s.firstOf(candidates...); name != "" {
		return name
	}
	if s.firstOf(journals...) != "" {
		return config.Journal
	}
	return ""
}

// countFrom adds a log to the daemon's configuration, and says what the daemon needs
// to read it.
func (s *System) countFrom(p *Plan, f *daemonFile, l config.MailLog) {
	for _, has := range f.config.Reporting.Logs {
		if has.Format == l.Format && has.Path != l.Path {
			p.kept("sessions are counted from %s, by [[reporting.log]]; from %s as well, each would count twice", has.Path, l.Path)
			return
		}
	}
	f.logs = append(f.logs, l)
	group := "systemd-journal"
	if l.Path != config.Journal {
		info, err := os.Stat(s.path(s.followed(l.Path)))
		if err != nil || info.Mode().Perm()&0o004 != 0 {
			return
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || info.Mode().Perm()&0o040 == 0 {
			p.warn("%s is for its owner alone; the daemon cannot read it", l.Path)
			return
		}
		group = s.groupName(owner.Gid)
	}
	if !s.inGroup(group) {
		p.Before = append(p.Before, "usermod -aG "+group+" "+daemonUser+"   # to read "+l.Path)
	}
}

// groupName finds a group in the system's own file.
func (s *System) groupName(gid uint32) string {
	number := strconv.FormatUint(uint64(gid), 10)
	for _, fields := range s.groups() {
		if fields[2] == number {
			return fields[0]
		}
	}
	return number
}

// inGroup reports whether the user of the daemon is a member.
func (s *System) inGroup(group string) bool {
	for _, fields := range s.groups() {
		if fields[0] != group {
			continue
		}
		for member := range strings.SplitSeq(fields[3], ",") {
			if member == daemonUser {
				return true
			}
		}
	}
	return false
}

// groups are the lines of group(5).
func (s *System) groups() [][]string {
	text, _, err := s.read("/etc/group")
	if err != nil {
		return nil
	}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) == 4 {
			all = append(all, fields)
		}
	}
	return all
}
