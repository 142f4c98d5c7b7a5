package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// packagedUnit is what systemd starts the daemon by, where there is systemd.
const packagedUnit = "/usr/lib/systemd/system/postseal.service"

// packagedMap is where the packaged configuration has the daemon listen.
const packagedMap = "127.0.0.1:8461"

// unit is the section [Service] of a unit: each key with its last value (systemd.service(5)).
func unit(text string) map[string]string {
	keys := map[string]string{}
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, value, isKey := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = line
		case isKey && section == "[Service]":
			keys[name] = value
		}
	}
	return keys
}

// startDaemon does what systemd would with the unit of the package, but for the
// sandbox: its folders, user, groups, mask, environment and command.
func (m *machine) startDaemon(ctx context.Context, log string) error {
	text, err := os.ReadFile(filepath.Join(m.root, packagedUnit))
	if err != nil {
		return err
	}
	u := unit(string(text))
	for _, key := range []string{"User", "Group", "UMask", "ExecStart", "ExecStartPre", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory", "ConfigurationDirectory"} {
		if u[key] == "" {
			return fmt.Errorf("%s has no %s=", packagedUnit, key)
		}
	}
	_, err = m.shell(ctx, fmt.Sprintf("install -d -o %[1]s -g %[2]s -m %[3]s /var/lib/%[4]s\ninstall -d -o %[1]s -g %[2]s /run/%[5]s\n%[6]s",
		u["User"], u["Group"], u["StateDirectoryMode"], u["StateDirectory"], u["RuntimeDirectory"], strings.TrimLeft(u["ExecStartPre"], "-+")))
	if err != nil {
		return err
	}
	groups, err := m.groupsOf(u["User"], strings.Fields(u["SupplementaryGroups"]))
	if err != nil {
		return err
	}
	cmd := exec.Command("chroot", "--userspec="+u["User"]+":"+u["Group"], "--groups="+strings.Join(groups, ","), m.root,
		"sh", "-c", "umask "+u["UMask"]+"; exec "+u["ExecStart"])
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "USER=" + u["User"], "LOGNAME=" + u["User"],
		"STATE_DIRECTORY=/var/lib/" + u["StateDirectory"], "RUNTIME_DIRECTORY=/run/" + u["RuntimeDirectory"],
		"CONFIGURATION_DIRECTORY=/etc/" + u["ConfigurationDirectory"]}
	if m.daemon, err = launchCommand(log, cmd); err != nil {
		return err
	}
	asked := &daemon{mapping: packagedMap}
	return until(ctx, func() error {
		if m.daemon.ended() {
			return fmt.Errorf("%w: postseal ended, see %s", errHopeless, log)
		}
		_, err := asked.ask("postfix", ".test") // a parent domain: answered at once, without DNS
		return err
	})
}

// groupsOf are the groups that the daemon has: those of the unit, and those that
// somebody has made its user a member of. systemd-journal is missing where systemd is.
func (m *machine) groupsOf(user string, supplementary []string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(m.root, "etc/group"))
	if err != nil {
		return nil, err
	}
	var groups []string
	for line := range strings.Lines(string(text)) {
		field := strings.Split(strings.TrimSpace(line), ":")
		if len(field) != 4 {
			return nil, errors.New("etc/group: what is " + line)
		}
		if slices.Contains(supplementary, field[0]) || slices.Contains(strings.Split(field[3], ","), user) {
			groups = append(groups, field[0])
		}
	}
	return groups, nil
}
