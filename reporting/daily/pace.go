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
	// busyPause is for a report that finds a place busy.
	busyPause = 15 * time.Second
)

// pace keeps reports to one place, a web server or the mail domain of an address, apart.
// The zero value is ready.
type pace struct {
	mu     sync.Mutex
	places map[string]*place
}

type place struct {
	next time.Time // when the next may go there
	busy int
}

// enter reports whether a report may go to all places now, and else how long it must
// wait; its turn is booked then, and it says so when it comes again. Where it may,
// leave must follow.
func (p *pace) enter(places []string, now time.Time, booked bool) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(now)
	for _, name := range places {
		at := p.at(name)
		if at.busy >= atOnce {
			wait = max(wait, busyPause)
		}
		if !booked {
			wait = max(wait, at.next.Sub(now))
		}
	}
	for _, name := range places {
		at := p.at(name)
		if !booked {
			at.next = now.Add(wait + perTarget)
		}
		if wait == 0 {
			at.busy++
		}
	}
	return wait, wait == 0
}

func (p *pace) at(name string) *place {
	if p.places == nil {
		p.places = map[string]*place{}
	}
	if p.places[name] == nil {
		p.places[name] = &place{}
	}
	return p.places[name]
}

func (p *pace) leave(places []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range places {
		p.places[name].busy--
	}
}

// forget drops what holds nobody up any more, before there are many.
func (p *pace) forget(now time.Time) {
	if len(p.places) < 4*workers {
		return
	}
	for name, at := range p.places {
		if at.busy == 0 && !at.next.After(now) {
			delete(p.places, name)
		}
	}
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
