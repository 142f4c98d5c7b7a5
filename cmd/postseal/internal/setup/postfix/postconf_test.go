package postfix_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/postfix"
	"postseal/cmd/postseal/internal/setup/setuptest"
)

// machine is one with Postfix, and enough of postconf(1) for files without continuation
// lines in main.cf.
type machine struct {
	*setuptest.Machine

	version string            // of Postfix
	tls     string            // postconf -T compile-version
	chroot  string            // of smtp(8)
	builtin map[string]string // defaults of parameters
}

func newMachine(t *testing.T, tree string) *machine {
	t.Helper()
	m := &machine{Machine: setuptest.New(t, tree), version: "3.7.11", tls: "OpenSSL 3.0.11 19 Sep 2023", chroot: "y"}
	m.builtin = map[string]string{
		"config_directory": "/etc/postfix", "queue_directory": "/var/spool/postfix", "myhostname": "localhost",
		"smtp_helo_name": "$myhostname", "smtp_tls_loglevel": "0", "virtual_alias_domains": "$virtual_alias_maps",
		"smtpd_milters": "", "maillog_file": "", "multi_instance_directories": "",
	}
	m.Run = m.run
	return m
}

func (m *machine) plan(t *testing.T, o postfix.Options) (*setup.Plan, error) {
	return postfix.Plan(t.Context(), m.System, o)
}

// put sets a parameter in main.cf, as an administrator would.
func (m *machine) put(name, value string) {
	m.edit("/etc/postfix", name+" = "+value)
}

func (m *machine) run(ctx context.Context, argv ...string) (string, error) {
	if argv[0] != "postconf" {
		return m.Say(ctx, argv...)
	}
	dir, args := "/etc/postfix", argv[1:]
	if args[0] == "-c" {
		dir, args = args[1], args[2:]
	}
	switch args[0] {
	case "-d":
		return m.version + "\n", nil
	case "-T":
		return m.tls + "\n", nil
	case "-F":
		return m.chroot + "\n", nil
	case "-n":
		return listed(m.main(dir)), nil
	case "-x":
		return listed(m.expanded(dir)), nil
	case "-P":
		return m.options(dir), nil
	case "-e":
		m.edit(dir, args[1:]...)
		return "", nil
	case "-M":
		return m.master(dir, args[1]), nil
	}
	return "", fmt.Errorf("postconf: fatal: what is %s?", args)
}

func listed(values map[string]string) string {
	var lines []string
	for name, value := range values {
		lines = append(lines, name+" = "+value+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// main is what main.cf sets. Parameters of a transport that is not in master.cf are
// not known, as to the real one.
func (m *machine) main(dir string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(m.Text(dir + "/main.cf")) {
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		transport, _, limit := strings.Cut(name, "_destination_concurrency_")
		if ok && !strings.HasPrefix(name, "#") && (!limit || strings.Contains("\n"+m.Text(dir+"/master.cf"), "\n"+transport+" ")) {
			all[name] = strings.TrimSpace(value)
		}
	}
	return all
}

var parameter = regexp.MustCompile(`\$\{?(\w+)\}?`)

func (m *machine) expanded(dir string) map[string]string {
	all := map[string]string{}
	for name, value := range m.builtin {
		all[name] = value
	}
	for name, value := range m.main(dir) {
		all[name] = value
	}
	for name := range all {
		for range 3 {
			all[name] = parameter.ReplaceAllStringFunc(all[name], func(s string) string { return all[strings.Trim(s, "${}")] })
		}
	}
	return all
}

func (m *machine) edit(dir string, settings ...string) {
	lines := strings.SplitAfter(m.Text(dir+"/main.cf"), "\n")
	for _, s := range settings {
		name, _, _ := strings.Cut(s, " =")
		at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+" ") || strings.HasPrefix(l, name+"=") })
		if at < 0 {
			lines = append(lines, s+"\n")
			continue
		}
		lines[at] = s + "\n"
	}
	m.Write(dir+"/main.cf", strings.Join(lines, ""))
}

// options are what services have of their own.
func (m *machine) options(dir string) string {
	out, service := "", ""
	for line := range strings.Lines(m.Text(dir + "/master.cf")) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "-o":
			name, value, _ := strings.Cut(fields[1], "=")
			out += service + "/" + name + " = " + value + "\n"
		case len(fields) > 1 && line[0] != ' ':
			service = fields[0] + "/" + fields[1]
		}
	}
	return out
}

// master shows a service, or adds it at the end.
func (m *machine) master(dir, arg string) string {
	name, entry, set := strings.Cut(arg, "=")
	text := m.Text(dir + "/master.cf")
	if set {
		m.Write(dir+"/master.cf", text+strings.ReplaceAll(entry, " -o ", "\n    -o ")+"\n")
		return ""
	}
	found := ""
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case line[0] != ' ' && line[0] != '\t':
			if found != "" {
				return found + "\n"
			}
			if fields[0]+"/"+fields[1] == name {
				found = strings.Join(fields, "  ")
			}
		case found != "":
			found += " " + strings.Join(fields, " ")
		}
	}
	return found
}
