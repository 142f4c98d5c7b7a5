package sidecar

import (
	"slices"
	"strconv"
	"strings"
	"syscall"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup"
)

// User is the account that README and packages have the daemon run as.
const User = "postseal"

// FindLog finds the log that a mail server writes, the first of the candidates that
// exists, else the journal; "" without one.
func FindLog(s *host.System, candidates ...string) string {
	if name := s.FirstOf(candidates...); name != "" {
		return name
	}
	if s.FirstOf(host.Journals()...) != "" {
		return config.Journal
	}
	return ""
}

// CountFrom has the daemon count sessions from a log, and the plan say what the daemon
// needs to read it.
func (f *File) CountFrom(p *setup.Plan, l config.MailLog) {
	for _, has := range f.Config.Reporting.Logs {
		if has.Format == l.Format && has.Path != l.Path {
			p.Keep("sessions are counted from %s, by [[reporting.log]]; from %s as well, each would count twice", has.Path, l.Path)
			return
		}
	}
	f.logs = append(f.logs, l)
	group := "systemd-journal"
	if l.Path != config.Journal {
		info, err := f.system.Stat(l.Path)
		if err != nil || info.Mode().Perm()&0o004 != 0 {
			return
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || info.Mode().Perm()&0o040 == 0 {
			p.Warn("%s is for its owner alone; the daemon cannot read it", l.Path)
			return
		}
		group = groupName(f.system, owner.Gid)
	}
	if !inGroup(f.system, group) && !unitInGroup(f.system, group) {
		p.Before = append(p.Before, "usermod -aG "+group+" "+User+"   # to read "+l.Path)
	}
}

// groupName finds a group in the system's own file.
func groupName(s *host.System, gid uint32) string {
	number := strconv.FormatUint(uint64(gid), 10)
	for _, fields := range groups(s) {
		if fields[2] == number {
			return fields[0]
		}
	}
	return number
}

// inGroup reports whether the user of the daemon is a member.
func inGroup(s *host.System, group string) bool {
	for _, fields := range groups(s) {
		if fields[0] != group {
			continue
		}
		for member := range strings.SplitSeq(fields[3], ",") {
			if member == User {
				return true
			}
		}
	}
	return false
}

// unitInGroup reports whether systemd runs here and gives the service the group
// (systemd.exec(5), SupplementaryGroups), as the package's unit does with adm.
func unitInGroup(s *host.System, group string) bool {
	if !s.Exists("/run/systemd/system") { // sd_booted(3)
		return false
	}
	unit, err := s.Read(s.FirstOf("/etc/systemd/system/postseal.service", "/usr/lib/systemd/system/postseal.service", "/lib/systemd/system/postseal.service"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(unit)) {
		if names, is := strings.CutPrefix(line, "SupplementaryGroups="); is && slices.Contains(strings.Fields(names), group) {
			return true
		}
	}
	return false
}

// groups are the lines of group(5).
func groups(s *host.System) [][]string {
	text, err := s.Read("/etc/group")
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
