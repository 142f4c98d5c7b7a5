package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// moment is when the daemon is killed: at a step of a conversation with an MX host,
// before that host replies, or after the reply.
type moment struct {
	step  string        // of a sink; "": none
	after time.Duration // the step
}

// duringMilter is the step at which a message has come as far as the milter.
const duringMilter = "milter"

// moments are all steps of a delivery. Those behind the MX host's last reply look
// for the window that nothing can close (RFC 1047): the reply is on its way, or
// read, and not on disk yet.
var moments = []moment{
	{duringMilter, 0}, {"connect", 0}, {"EHLO", 0}, {"STARTTLS", 0}, {"EHLO in TLS", 0}, {"MAIL", 0}, {"RCPT", 0}, {"DATA", 0}, {"text", 0}, {"end", 0},
	{"taken", 0}, {"taken", time.Millisecond}, {"taken", 2 * time.Millisecond}, {"taken", 4 * time.Millisecond},
	{"taken", 8 * time.Millisecond}, {"taken", 16 * time.Millisecond}, {"taken", 32 * time.Millisecond}, {"taken", 64 * time.Millisecond},
}

func (m moment) String() string {
	if m.after > 0 {
		return fmt.Sprintf("%s + %s", m.step, m.after)
	}
	return m.step
}

// tally is what came of some kills. A delivery is one message for one recipient.
type tally struct {
	kills    int
	all      int // deliveries that were due
	taken    int // by an MX host when the daemon died
	recorded int // of these, in the ledger that it left
	twice    int // deliveries that were made twice in the end
}

func (t *tally) add(o tally) {
	t.kills += o.kills
	t.all += o.all
	t.taken += o.taken
	t.recorded += o.recorded
	t.twice += o.twice
}

func (t tally) String() string {
	return fmt.Sprintf("%d kills, %d deliveries, %d taken, %d recorded, %d twice", t.kills, t.all, t.taken, t.recorded, t.twice)
}

// kill: kill -9 of the daemon at every step of a delivery, again and again, while
// messages with several recipients are on their way. Every delivery is made, and
// only those that an MX host had taken but that were not in the ledger yet are made
// twice: exactly those.
func (l *lab) kill(ctx context.Context) error {
	const name = "kill"
	var gating []*postfix
	for _, p := range l.postfixes {
		if !p.gates {
			continue
		}
		gating = append(gating, p)
		if _, err := p.run(ctx, "postsuper", "-d", "ALL"); err != nil { // what other stories have left
			return err
		}
	}
	sums, whole := make([]tally, len(moments)), tally{}
	for round := range l.kills {
		p := gating[round%len(gating)]
		at := moments[round%len(moments)]
		// Later turns come a little later each, to meet what is between the steps.
		at.after += time.Duration(round/len(moments)) * time.Millisecond / 4
		t, problems, err := l.killOnce(ctx, p, round, at)
		if err != nil {
			return fmt.Errorf("round %d, %s: %w", round, at, err)
		}
		if len(problems) > 0 {
			l.report.add(p, name, fmt.Sprintf("round %d, %s", round, at), t.String(), problems)
		}
		sums[round%len(moments)].add(t)
		whole.add(t)
	}
	for i, m := range moments {
		if sums[i].kills > 0 {
			l.expect(name, "at "+m.String()+": all arrive, twice only what is not recorded", sums[i].String(), sums[i].twice == sums[i].taken-sums[i].recorded)
		}
	}
	l.expect(name, "together", whole.String(), whole.twice == whole.taken-whole.recorded)
	return nil
}

// killOnce is one round: messages, a kill, a restart, and the count.
func (l *lab) killOnce(ctx context.Context, p *postfix, round int, at moment) (t tally, problems []string, err error) {
	// With every session gone, each step happens again.
	l.daemon.process.stop()
	before, err := l.daemon.recorded()
	if err != nil {
		return t, nil, err
	}
	if err := l.daemon.start(ctx); err != nil {
		return t, nil, err
	}
	batch := l.newBatch(p, round)
	died, err := l.killAt(ctx, p, at, batch)
	if err != nil {
		return t, nil, err
	}
	after, err := l.daemon.recorded()
	if err != nil {
		return t, nil, err
	}
	if err := l.daemon.start(ctx); err != nil {
		return t, nil, err
	}
	if err := batch.drain(ctx, l); err != nil {
		return t, nil, err
	}
	t, problems = batch.count(l, died)
	t.recorded = after - before
	if t.twice != t.taken-t.recorded {
		problems = append(problems, "what is made twice is not what was not recorded")
	}
	return t, problems, nil
}

// large is the size of a message that the daemon does not keep in memory.
const large = 256 << 10

// batch are the messages of one round.
type batch struct {
	postfix *postfix
	from    string
	mails   []mail
	done    sync.WaitGroup
}

func (l *lab) newBatch(p *postfix, round int) *batch {
	b := &batch{postfix: p, from: fmt.Sprintf("kill%d@lab.test", round)}
	dane, sts := byName("rt-dane").domain(), byName("rt-sts").domain()
	for _, domains := range [][]string{{dane, dane, sts}, {sts, sts}, {dane}} {
		m := mail{from: b.from, headers: []string{asksForTLS}}
		for _, d := range domains {
			m.to = append(m.to, p.name("m", d))
		}
		m.id = m.to[0]
		if len(domains) == 1 {
			m.body = lines(large)
		}
		b.mails = append(b.mails, m)
	}
	return b
}

// killAt submits the messages and kills the daemon at the given moment. It returns
// when that was; messages that are refused meanwhile are submitted again.
func (l *lab) killAt(ctx context.Context, p *postfix, at moment, b *batch) (time.Time, error) {
	var once sync.Once
	dead := make(chan time.Time, 1)
	kill := func() {
		once.Do(func() {
			time.Sleep(at.after)
			l.daemon.process.kill()
			dead <- time.Now()
		})
	}
	hosts := []*sink{l.sinks[byName("rt-dane").host(0)], l.sinks[byName("rt-sts").host(0)]}
	for _, s := range hosts {
		s.observe(func(step string) {
			if step == at.step {
				kill()
			}
		})
		defer s.observe(nil)
	}
	if at.step == duringMilter {
		b.mails[0].beforeData = kill
	}
	for _, m := range b.mails {
		b.done.Go(func() { p.patiently(ctx, m) }) // what is not accepted does not arrive, and is missed then
	}
	select {
	case t := <-dead:
		return t, nil
	case <-time.After(patience):
		return time.Time{}, errors.New("that moment did not come")
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// drain waits until the mail server has nothing left of the batch.
func (b *batch) drain(ctx context.Context, l *lab) error {
	b.done.Wait()
	flushed := time.Time{}
	return until(ctx, func() error {
		if time.Since(flushed) > time.Second {
			flushed = time.Now()
			if _, err := b.postfix.run(ctx, "postqueue", "-f"); err != nil {
				return err
			}
		}
		queue, err := b.postfix.run(ctx, "postqueue", "-j")
		if err == nil && strings.Contains(queue, `"`+b.from+`"`) {
			err = errors.New("still in the queue:\n" + queue)
		}
		return err
	})
}

// count compares what the MX hosts have taken with what was due.
func (b *batch) count(l *lab, died time.Time) (t tally, problems []string) {
	t.kills = 1
	all := l.taken(func(t taken) bool { return path(t.mail) == b.from })
	for _, m := range b.mails {
		for _, to := range m.to {
			t.all++
			arrived := slices.DeleteFunc(slices.Clone(all), func(t taken) bool { return !slices.Contains(t.to(), to) })
			if len(arrived) == 0 || len(arrived) > 2 {
				problems = append(problems, fmt.Sprintf("for %s: arrived %d times", to, len(arrived)))
				continue
			}
			if arrived[0].begun.Before(died) {
				t.taken++
			}
			t.twice += len(arrived) - 1
			for _, a := range arrived {
				if !withParameter.MatchString(a.mail) || !a.tls || a.id() != "<"+m.id+">" {
					problems = append(problems, fmt.Sprintf("for %s: arrived as %q, %s", to, a.mail, a.id()))
				}
			}
		}
	}
	return t, problems
}
