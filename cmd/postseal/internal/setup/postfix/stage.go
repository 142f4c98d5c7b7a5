package postfix

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/edit"
)

// stage lets postconf(1) make the changes in copies of main.cf and master.cf, so that
// nothing of Postfix's syntax is read or written by us, and the files themselves can be
// replaced in one step.
func (p *planner) stage(ctx context.Context) error {
	temp := os.TempDir()
	if p.Root != "" {
		temp = "/tmp"
	}
	folder, err := os.MkdirTemp(p.Path(temp), "postseal-setup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	inside := path.Join(temp, filepath.Base(folder))
	master, err := p.copyTo(folder, "master.cf")
	if err != nil {
		return err
	}
	main, err := p.copyTo(folder, "main.cf")
	if err != nil {
		return err
	}
	// First master.cf: what it names there are settings of.
	if master.Lines, err = p.stageMaster(ctx, inside); err != nil {
		return err
	}
	if main.Lines, err = p.stageMain(ctx, inside); err != nil {
		return err
	}
	for name, c := range map[string]*edit.Change{"main.cf": &main, "master.cf": &master} {
		c.After = c.Before
		if len(c.Lines) == 0 {
			continue
		}
		if c.After, err = os.ReadFile(filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return p.collect(main, master)
}

// copyTo copies a file of Postfix to a folder of our own, for postconf to change there.
func (p *planner) copyTo(folder, name string) (edit.Change, error) {
	c, err := edit.Of(p.System, path.Join(p.dir, name))
	if err != nil {
		return c, err
	}
	if c.New {
		return c, setup.Refuse("", "there is no %s", c.Path)
	}
	return c, os.WriteFile(filepath.Join(folder, name), c.Before, 0o600)
}

// collect puts the changes into the order in which they are written: what others refer
// to comes first.
func (p *planner) collect(main, master edit.Change) error {
	daemon, err := p.daemon.Change()
	if err != nil {
		return err
	}
	p.Change(daemon)
	if p.checks != "" {
		c, err := edit.Of(p.System, path.Join(p.dir, checksName))
		if err != nil {
			return err
		}
		c.After = []byte(p.checks)
		for line := range strings.Lines(p.checks) {
			if !strings.HasPrefix(line, "#") {
				c.Lines = append(c.Lines, edit.Line{Text: strings.TrimSpace(line)})
			}
		}
		if len(c.Lines) > 0 {
			c.Lines[0].Why = "routes by the tag of the milter"
		}
		p.Change(c)
	}
	p.Change(master)
	p.Change(main)
	return nil
}

// stageMain has the settings made in the copy.
func (p *planner) stageMain(ctx context.Context, folder string) ([]edit.Line, error) {
	var lines []edit.Line
	argv := []string{"postconf", "-c", folder, "-e"}
	for _, s := range p.settings {
		argv = append(argv, s.name+" = "+s.value)
		line := edit.Line{Text: s.name + " = " + s.value, Why: s.why}
		if was, ok := p.explicit[s.name]; ok {
			line.Was = s.name + " = " + was
		}
		lines = append(lines, line)
	}
	if lines == nil {
		return nil, nil
	}
	if _, err := p.Output(ctx, argv...); err != nil {
		return nil, err
	}
	out, err := p.Output(ctx, "postconf", "-c", folder, "-n")
	if err != nil {
		return nil, err
	}
	for _, s := range p.settings {
		if !strings.Contains("\n"+out, "\n"+s.name+" = "+s.value+"\n") {
			return nil, fmt.Errorf("postconf did not make the setting %s = %s", s.name, s.value)
		}
	}
	return lines, nil
}

// stageMaster has the services made in the copy, unless they are there.
func (p *planner) stageMaster(ctx context.Context, folder string) ([]edit.Line, error) {
	var lines []edit.Line
	for _, s := range p.services {
		has, err := p.Output(ctx, "postconf", "-c", folder, "-M", s.name)
		if err != nil {
			return nil, err
		}
		is := strings.Join(strings.Fields(has), " ")
		if is == s.entry {
			continue
		}
		if is != "" && !strings.Contains(is, "syslog_name=postfix/postseal") {
			return nil, setup.Refuse("if that is the service for local recipients, name another port with --relay-port",
				"master.cf has a service %s that is not ours: %s", s.name, is)
		}
		if _, err := p.Output(ctx, "postconf", "-c", folder, "-M", s.name+"="+s.entry); err != nil {
			return nil, err
		}
		lines = append(lines, edit.Line{Text: strings.ReplaceAll(s.entry, " -o ", "\n    -o "), Was: is, Why: p.reasonOf(s)})
	}
	return lines, nil
}

func (p *planner) reasonOf(s service) string {
	switch {
	case strings.HasSuffix(s.name, "/inet"):
		return "takes recipients of your own domains back, past the milter"
	case s.name == "postseal/unix":
		return "the LMTP client for what the map transport sends to the daemon"
	}
	return "the LMTP client for tagged messages"
}

// commands are what is left to do by hand.
func (p *planner) commands() {
	reload := []string{"postfix"}
	if p.options.Dir != "" {
		reload = append(reload, "-c", p.options.Dir)
	}
	p.Plan.Reload = [][]string{append(reload, "reload")}
	p.After = append(p.After, "postseal doctor   # looks at all of it")
}
