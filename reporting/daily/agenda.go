package daily

import (
	"container/heap"
	"slices"
	"sync"
	"time"

	"postseal/reporting"
)

const (
	// ahead is how far an agenda reaches. To read what became of all reports of a day
	// takes about half a second for 200 000 domains.
	ahead = 5 * time.Minute
	// maxAgenda entries take about 5 MB. Where more are due, the agenda ends sooner.
	maxAgenda = 50_000
)

// agenda is what is due soon, in order, so that nobody has to look through all reports
// to find the next. The zero value is empty and out of date.
type agenda struct {
	mu      sync.Mutex
	entries entries
	days    []reporting.Day // that it is of
	since   time.Time       // when it was begun
	until   time.Time       // what is due before is in it
}

type entry struct {
	due time.Time
	job job
}

// current reports whether nothing is due that is not in the agenda. It is not if the
// clock was put back.
func (a *agenda) current(now time.Time, days []reporting.Day) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	isNew := func(d reporting.Day) bool { return !slices.Contains(a.days, d) }
	return now.Before(a.until) && !now.Before(a.since) && !slices.ContainsFunc(days, isNew)
}

// begin empties the agenda. Everything that is due before it ends is to be added then.
func (a *agenda) begin(now time.Time, days []reporting.Day) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries, a.days, a.since, a.until = a.entries[:0], days, now, now.Add(ahead)
}

// add leaves out what is due after the end.
func (a *agenda) add(j job, due time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !due.Before(a.until) {
		return
	}
	heap.Push(&a.entries, entry{due, j})
	if len(a.entries) < maxAgenda {
		return
	}
	slices.SortFunc(a.entries, func(x, y entry) int { return x.due.Compare(y.due) }) // is a heap
	half := len(a.entries) / 2
	a.until = a.entries[half].due
	clear(a.entries[half:])
	a.entries = a.entries[:half]
}

// take returns what is due first, if it is now.
func (a *agenda) take(now time.Time) (j job, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.entries) == 0 || a.entries[0].due.After(now) {
		return job{}, false
	}
	return heap.Pop(&a.entries).(entry).job, true
}

// next is when to look again.
func (a *agenda) next() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.entries) > 0 {
		return a.entries[0].due
	}
	return a.until
}

// entries is a heap.
type entries []entry

func (e entries) Len() int           { return len(e) }
func (e entries) Less(i, j int) bool { return e[i].due.Before(e[j].due) }
func (e entries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *entries) Push(x any)        { *e = append(*e, x.(entry)) }

func (e *entries) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = entry{}
	*e = (*e)[:last]
	return x
}
