package daily

import (
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// perTarget is the time between two reports to one place. A provider of ten thousand
	// domains gets theirs over the hours anyway; this is for records that a stranger
	// points at somebody (RFC 8460 §7).
	perTarget = time.Second
	// atOnce is how many reports are under way to one place.
	atOnce = 2
	// largeReports stands beside the places for reports that take much memory while they
	// are under way, of which there are largeAtOnce.
	largeReports = "large"
	largeAtOnce  = 8
	// busyPause is for a report that finds a place busy.
	busyPause = 15 * time.Second
	// brief is what a worker waits itself for a turn.
	brief = 2 * time.Second
	// longestTurn is the longest that a turn may lie ahead; who comes then and finds the
	// place busy gets another.
	longestTurn = 4 * time.Hour
)

// pace keeps reports to one place, a web server or the mail domain of an address, apart.
// A clock that is put right must not change that, so it goes by the time that has passed.
// The zero value is ready.
type pace struct {
	mu     sync.Mutex
	places map[string]*place
	many   int // places before forget looks through them
}

type place struct {
	tail time.Time // of the turns that are booked
	last time.Time // when the last report went there
	busy int
	most int           // at once
	took time.Duration // by the last report
}

// apart is the time between two turns: as long as the place needs for one.
func (p *place) apart() time.Duration {
	return min(max(p.took/time.Duration(p.most), perTarget), time.Minute)
}

// enter reports whether a report may go to all places after a brief wait, and else how
// long it must wait; its turn is booked then, and it says so when it comes again. Where
// it may go, leave must follow.
func (p *pace) enter(places []string, booked bool) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.forget(now)
	busy := false
	for _, name := range places {
		at := p.at(name)
		full := at.busy >= at.most
		if wait = max(wait, at.last.Add(perTarget).Sub(now)); full || !booked {
			wait = max(wait, at.tail.Sub(now))
		}
		busy = busy || full
	}
	if ok = !busy && wait <= brief; !ok {
		wait = min(max(wait, busyPause), longestTurn)
	}
	for _, name := range places {
		at := p.at(name)
		if !booked || at.busy >= at.most {
			at.tail = now.Add(wait + at.apart())
		}
		if ok {
			at.busy++
			at.last = now.Add(wait)
		}
	}
	return wait, ok
}

func (p *pace) at(name string) *place {
	if p.places == nil {
		p.places = map[string]*place{}
	}
	if p.places[name] == nil {
		p.places[name] = &place{most: atOnce}
		if name == largeReports {
			p.places[name].most = largeAtOnce
		}
	}
	return p.places[name]
}

// leave ends what enter has begun at some time.
func (p *pace) leave(places []string, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, name := range places {
		at := p.places[name]
		at.busy--
		slow := at.apart() > perTarget
		at.took = now.Sub(since)
		if recovered := slow && at.apart() == perTarget; recovered && at.tail.After(now.Add(busyPause)) {
			at.tail = now.Add(busyPause)
		}
	}
}

// forget drops what holds nobody up any more, before there are many.
func (p *pace) forget(now time.Time) {
	if len(p.places) < max(p.many, 4*workers) {
		return
	}
	for name, at := range p.places {
		if at.busy == 0 && !at.tail.After(now) && now.Sub(at.last) > perTarget {
			delete(p.places, name)
		}
	}
	p.many = 2 * len(p.places)
}

// places names where targets are, each once.
func places(targets []Target) []string {
	var list []string
	seen := map[string]bool{}
	for _, t := range targets {
		name := ""
		switch {
		case t.Folder != "":
			continue
		case t.Mail():
			name = "mailto:" + domainOf(t.Address)
		default:
			if u, err := url.Parse(t.URI); err == nil {
				name = "https:" + strings.ToLower(u.Host)
			}
		}
		if !seen[name] {
			seen[name] = true
			list = append(list, name)
		}
	}
	return list
}
