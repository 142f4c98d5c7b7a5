package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// lostReply: the mail server dies when the MX host has taken a message and before it
// hears of it. Its retry does not make the delivery again: the daemon has gone on, and
// knows the message by its Received field, without XFORWARD.
func (l *lab) lostReply(ctx context.Context, o *other) error {
	domain := byName("rt-dane")
	host := l.sinks[domain.host(0)]
	var once sync.Once
	var killed int
	host.observe(func(step string) {
		if step == "end" { // the MX host's reply waits for us
			once.Do(func() { killed = o.killDeliveries() })
		}
	})
	defer host.observe(nil)
	to := o.recipient("m", domain.domain())
	lost := mail{from: user + "@" + o.domain, to: []string{to}, headers: []string{asking}}.submit(o.address) // what has the session may die too
	err := until(ctx, func() error {
		if n := len(l.takenFor(to)); n == 0 {
			return fmt.Errorf("%s is not taken: %w", to, lost)
		}
		return nil
	})
	if err != nil {
		return err
	}
	host.observe(nil)
	before, err := o.attempts(to)
	if err != nil {
		return err
	}
	l.expect(o.name+" lost reply", "the mail server dies before it hears of the delivery", fmt.Sprintf("%d processes killed, in the log: %v", killed, before), killed > 0 && len(before) == 0)
	err = o.retry(ctx, to)
	if n := len(l.takenFor(to)); err == nil && n != 1 {
		err = fmt.Errorf("taken %d times", n)
	}
	l.expectNo(err, o.name+" lost reply", "its retry is answered, and delivers nothing again")
	return nil
}

// killDeliveries kills every process of the mail server but the first, and returns
// how many.
func (o *other) killDeliveries() int {
	n := 0
	root, err := filepath.EvalSymlinks(o.root)
	if err != nil {
		return 0
	}
	processes, _ := filepath.Glob("/proc/[0-9]*") // of this namespace
	for _, p := range processes {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || pid == o.process.cmd.Process.Pid {
			continue
		}
		if r, err := os.Readlink(filepath.Join(p, "root")); err == nil && r == root && syscall.Kill(pid, syscall.SIGKILL) == nil {
			n++
		}
	}
	return n
}
