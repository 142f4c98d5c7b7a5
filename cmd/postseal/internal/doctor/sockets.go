package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path"
	"strconv"
	"strings"
)

// client is who connects to our sockets.
type client struct {
	mta, account string
	listeners    map[string]bool // by section; nil: all
}

func (e *env) clients() []client {
	var list []client
	if p := e.postfix; p != nil {
		list = append(list, client{"Postfix", p.get("mail_owner"), map[string]bool{
			"socketmap": true, "milter": true, "delivery": true, "delivery-requiretls": true, "delivery-relaxed": true, "tlsrpt": true}})
	}
	if x := e.exim; x != nil {
		list = append(list, client{"Exim", x.user, map[string]bool{"exim": true, "delivery": true, "delivery-requiretls": true, "delivery-relaxed": true}})
	}
	if s := e.sendmail; s != nil && s.options["RunAsUser"] != "" {
		name, _, _ := strings.Cut(s.options["RunAsUser"], ":")
		list = append(list, client{"Sendmail", name, map[string]bool{"socketmap": true, "milter": true, "delivery": true, "delivery-requiretls": true, "delivery-relaxed": true}})
	}
	return list
}

// checkSockets walks to each unix socket as the mail server's user: every folder must
// let it through, and the socket itself be writable (unix(7)).
func checkSockets(_ context.Context, e *env) []Finding {
	type socket struct{ section, key, path string }
	var sockets []socket
	for _, s := range e.Config.Sections() {
		endpoints, err := s.Listen.Endpoints()
		if err != nil {
			continue // as checked
		}
		for _, at := range endpoints {
			if at.Network == "unix" {
				sockets = append(sockets, socket{s.Name, s.Key, at.Address})
			}
		}
	}
	if at := e.Config.TLSRPTPath(); at != "" {
		sockets = append(sockets, socket{"tlsrpt", "reporting.tlsrpt_socket", at})
	}
	found := []Finding{}
	reached := 0
	for _, c := range e.clients() {
		account, err := e.Machine.User(c.account)
		if err != nil {
			found = append(found, hint(fmt.Sprintf("%s runs as user %s, who is not known here", c.mta, c.account), "id "+c.account))
			continue
		}
		for _, s := range sockets {
			if !c.listeners[s.section] {
				continue
			}
			err := e.Machine.reach(account, s.path, write)
			if err == nil {
				reached++
				continue
			}
			found = append(found, e.unreached(err, c.mta, account, s.key, s.path))
		}
	}
	if reached > 0 {
		found = append(found, ok(fmt.Sprintf("the mail server reaches %d of postseal's unix sockets", reached)))
	}
	return found
}

// unreached says why an account does not get to a socket.
func (e *env) unreached(err error, mta string, account Account, key, at string) Finding {
	denied, isDenied := errors.AsType[*accessError](err)
	switch {
	case isDenied && denied.at == at:
		table, _, _ := strings.Cut(key, ".")
		return failure(fmt.Sprintf("%s cannot connect to %s %s: %s", mta, key, at, denied), fmt.Sprintf(`%s.group = "%s" and %s.mode = "0660"; systemctl restart postseal`, table, groupName(account), table))
	case isDenied:
		return failure(fmt.Sprintf("%s cannot connect to %s %s: %s", mta, key, at, denied), fmt.Sprintf("chgrp %s %s; chmod g+x %s", groupName(account), denied.at, denied.at))
	case errors.Is(err, fs.ErrNotExist) && !e.Machine.Exists(path.Dir(at)):
		return failure(fmt.Sprintf("the folder of %s %s does not exist", key, at), fmt.Sprintf("install -d -o postseal -g %s -m 0750 %s; systemctl restart postseal", groupName(account), path.Dir(at)))
	case errors.Is(err, fs.ErrNotExist) && e.statusErr != nil:
		return hint(fmt.Sprintf("%s %s is not there, and no daemon answers", key, at), "systemctl start postseal")
	case errors.Is(err, fs.ErrNotExist):
		return failure(fmt.Sprintf("%s %s is not there, although the daemon runs", key, at), "systemctl restart postseal")
	}
	return hint(fmt.Sprintf("%s %s cannot be looked at as this user: %s", key, at, reason(err)), "sudo postseal doctor")
}

// groupName is the account's own group, by name where it has one.
func groupName(a Account) string {
	if len(a.GIDs) == 0 {
		return a.Name
	}
	id := strconv.FormatUint(uint64(a.GIDs[0]), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// daemonAccount is who the daemon runs as: by the running process, else by the owner
// of its state.
func (e *env) daemonAccount() (Account, bool) {
	if e.statusErr == nil {
		if a, err := e.processAccount(e.status.PID); err == nil {
			return a, true
		}
	}
	info, err := e.Machine.Stat(e.Config.StateDir)
	if err != nil {
		return Account{}, false
	}
	uid, known := owner(info)
	if !known {
		return Account{}, false
	}
	a, err := e.Machine.User(strconv.FormatUint(uint64(uid), 10))
	return a, err == nil
}

// processAccount reads proc(5): a service manager may have given groups that the
// database of users has not.
func (e *env) processAccount(pid int) (Account, error) {
	text, err := e.Machine.Read(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Account{}, err
	}
	a := Account{Name: fmt.Sprintf("of process %d", pid)}
	known := false
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		var ids []uint32
		for _, f := range strings.Fields(rest) {
			if id, err := strconv.ParseUint(f, 10, 32); err == nil {
				ids = append(ids, uint32(id))
			}
		}
		switch {
		case name == "Uid" && len(ids) > 1:
			a.UID, known = ids[1], true // effective
			if u, err := user.LookupId(strconv.FormatUint(uint64(ids[1]), 10)); err == nil {
				a.Name = u.Username
			}
		case name == "Gid" && len(ids) > 1:
			a.GIDs = append(a.GIDs, ids[1])
		case name == "Groups":
			a.GIDs = append(a.GIDs, ids...)
		}
	}
	if !known {
		return a, errors.New("no Uid in proc")
	}
	return a, nil
}
