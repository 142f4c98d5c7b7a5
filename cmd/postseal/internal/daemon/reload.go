package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
)

// reloaded is what came of a reload.
type reloaded struct {
	control.Reloaded
	err error
}

// reload reads the configuration and the rules again. What cannot be used is
// logged and leaves everything as it is.
func (d *daemon) reload() reloaded {
	d.Notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonic()))
	defer d.Notify("READY=1")
	var r reloaded
	err := errors.Join(d.reloadConfig(&r), d.reloadRules())
	if err != nil {
		d.log.Error("reload: what cannot be used is left as it was", keyErr, err)
		r.err = err
		return r
	}
	if len(r.NeedRestart) > 0 {
		d.log.Warn("reload: some changes need a restart", keyKeys, strings.Join(r.NeedRestart, " "))
	}
	d.log.Info("reloaded", keyConfig, d.config.Origin(), keyKeys, strings.Join(r.Changed, " "))
	return r
}

// reloadRules tells loudly of rules that are gone: one may have kept a partner's
// mail encrypted.
func (d *daemon) reloadRules() error {
	before := len(d.rules.List())
	if err := d.rules.Reload(); err != nil {
		return err
	}
	now := len(d.rules.List())
	if now >= before {
		d.log.Info("overrides read", keyRules, now, keyBefore, before)
		return nil
	}
	text := "fewer overrides than before"
	if _, err := os.Stat(d.rules.Path); errors.Is(err, fs.ErrNotExist) {
		text = "the file of overrides is gone, and with it all rules"
	}
	d.log.Warn(text, keyRules, now, keyBefore, before)
	return nil
}

func (d *daemon) reloadConfig(r *reloaded) error {
	c, err := d.Load()
	if err != nil {
		return err
	}
	level, err := c.LogLevel()
	if err != nil {
		return err
	}
	for _, key := range config.Diff(d.config, c) {
		if key == "log.level" {
			r.Changed = append(r.Changed, key)
			d.level.Set(level)
			continue
		}
		r.NeedRestart = append(r.NeedRestart, key)
	}
	// What is in force is still the old configuration, but for the level.
	d.config.Log.Level = c.Log.Level
	return nil
}

// askReload has the daemon's own loop reload, so that two never do at once.
func (d *daemon) askReload(ctx context.Context) (control.Reloaded, error) {
	answer := make(chan reloaded, 1)
	select {
	case d.reloads <- answer:
		r := <-answer
		return r.Reloaded, r.err
	case <-ctx.Done():
		return control.Reloaded{}, context.Cause(ctx)
	}
}
