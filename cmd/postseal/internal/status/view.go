package status

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// view is the report in the order of the page.
type view struct {
	Report
	Uptime time.Duration
	Rows   []row
	Maps   []answers
	Doors  []door
}

type row struct {
	Name  string
	Value uint64
	Alarm bool
}

type answers struct {
	Map                string
	OK, NotFound, Temp uint64
}

type door struct {
	Name   string
	Listen []string
}

func newView(r Report) view {
	v := view{Report: r, Uptime: time.Since(r.Started).Round(time.Second)}
	for _, level := range slices.Sorted(maps.Keys(r.Decisions)) {
		v.Rows = append(v.Rows, row{Name: "decisions: " + level, Value: r.Decisions[level]})
	}
	v.Rows = append(v.Rows,
		row{Name: "destinations in memory", Value: uint64(r.Entries)},
		row{Name: "lookups under way", Value: uint64(r.Lookups)},
		row{Name: "policies that cannot be refreshed", Value: uint64(r.FailingRefreshes), Alarm: r.FailingRefreshes > 0},
		row{Name: "overrides", Value: uint64(r.Overrides)},
		row{Name: "overrides that have expired", Value: uint64(r.ExpiredOverrides)},
		row{Name: "connections of mail servers", Value: uint64(max(r.Connections, 0))},
		row{Name: "connections refused, being too many", Value: r.Refused, Alarm: r.Refused > 0},
		row{Name: "connections with garbage", Value: r.ProtocolErrors})
	v.Rows = append(v.Rows, mailRows(r)...)
	v.Rows = append(v.Rows, recordingRows(r.Recording)...)
	for _, name := range slices.Sorted(maps.Keys(r.Answers)) {
		c := r.Answers[name]
		v.Maps = append(v.Maps, answers{name, c["ok"], c["notfound"], c["temp"]})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Listen)) {
		v.Doors = append(v.Doors, door{name, r.Listen[name]})
	}
	return v
}

// mailRows are those of the parts that mail goes through.
func mailRows(r Report) (rows []row) {
	if m := r.Milter; m != nil {
		rows = append(rows,
			row{Name: "milter: messages", Value: m.Messages},
			row{Name: "milter: messages that require TLS", Value: m.Required},
			row{Name: "milter: messages that waive TLS", Value: m.Relaxed},
			row{Name: "milter: messages that could not be judged", Value: m.Errors, Alarm: m.Errors > 0})
	}
	if d := r.Delivery; d != nil {
		rows = append(rows,
			row{Name: "delivery: messages", Value: d.Messages},
			row{Name: "delivery: messages in flight", Value: uint64(max(d.InFlight, 0))},
			row{Name: "delivery: recipients delivered", Value: d.Delivered},
			row{Name: "delivery: of them delivered before", Value: d.Already},
			row{Name: "delivery: recipients deferred", Value: d.Deferred},
			row{Name: "delivery: recipients bounced", Value: d.Bounced})
	}
	return rows
}

// recordingRows are those of what is recorded.
func recordingRows(r *Recording) (rows []row) {
	if r == nil {
		return nil
	}
	rows = append(rows,
		row{Name: "sessions recorded", Value: r.Sessions},
		row{Name: "sessions lost by a disk that stalled", Value: r.Dropped, Alarm: r.Dropped > 0},
		row{Name: "MX hosts probed", Value: r.Probes})
	for _, l := range r.Logs {
		rows = append(rows,
			row{Name: fmt.Sprintf("%s: sessions", l.Path), Value: l.Sessions},
			row{Name: fmt.Sprintf("%s: lines not understood", l.Path), Value: l.Unparsed})
	}
	if d := r.Datagrams; d != nil {
		rows = append(rows,
			row{Name: "datagrams", Value: d.Received},
			row{Name: "datagrams lost", Value: d.Lost, Alarm: d.Lost > 0},
			row{Name: "datagrams malformed or refused", Value: d.Malformed + d.Refused})
	}
	if e := r.Events; e != nil {
		rows = append(rows,
			row{Name: "events of Exim", Value: e.Received},
			row{Name: "events of Exim malformed", Value: e.Malformed})
	}
	if p := r.Reports; p != nil {
		rows = append(rows,
			row{Name: "reports sent", Value: p.Sent},
			row{Name: "reports waiting", Value: uint64(max(p.Waiting, 0))},
			row{Name: "reports given up", Value: p.GaveUp})
	}
	return rows
}
