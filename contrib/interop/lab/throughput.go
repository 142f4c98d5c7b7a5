package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// throughput: how fast many messages go through Postfix's own smtp(8) and through
// the daemon to the same kind of server. The figures are printed, and not judged.
func (l *lab) throughput(ctx context.Context) error {
	fmt.Fprintln(os.Stdout)
	l.each(ctx, "throughput", func(ctx context.Context, p *postfix) error {
		for _, load := range []struct{ count, size int }{{300, 1 << 10}, {30, 1 << 20}} {
			for _, s := range []scenario{byName("bulk"), byName("bulk-fallback")} {
				took, err := l.pour(ctx, p, s, load.count, load.size)
				if err != nil {
					return err
				}
				by := "smtp(8)"
				if s.name == "bulk-fallback" {
					by = "the daemon"
				}
				l.expectAt(p, "throughput", fmt.Sprintf("%d messages of %d KiB through %s", load.count, load.size>>10, by),
					fmt.Sprintf("%.1f s, %.0f messages/s", took.Seconds(), float64(load.count)/took.Seconds()), true)
			}
		}
		return nil
	})
	return nil
}

// clients submit side by side.
const clients = 8

// pour submits messages and waits until all have arrived.
func (l *lab) pour(ctx context.Context, p *postfix, s scenario, count, size int) (time.Duration, error) {
	body := lines(size)
	recipients := make(chan string)
	failures := make(chan error, clients)
	begin := time.Now()
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for to := range recipients {
				if err := p.patiently(ctx, mail{from: sender, to: []string{to}, body: body}); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	var last string
	due := map[string]bool{}
	for range count {
		last = p.name("m", s.domain())
		due[last] = true
		select {
		case recipients <- last:
		case err := <-failures:
			close(recipients)
			return 0, err
		}
	}
	close(recipients)
	group.Wait()
	err := until(ctx, func() error {
		arrived := 0
		for _, v := range l.sinks[s.host(0)].seen("") {
			for _, t := range v.taken {
				for _, to := range t.to() {
					if due[to] {
						arrived++
					}
				}
			}
		}
		if arrived < count {
			return fmt.Errorf("%d of %d messages arrived", arrived, count)
		}
		return nil
	})
	return time.Since(begin), err
}

// lines is a text of a given size.
func lines(size int) string { return strings.Repeat(strings.Repeat("x", 62)+"\r\n", size/64) }
