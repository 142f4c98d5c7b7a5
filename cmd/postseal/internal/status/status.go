// Package status is the status page: what a person wants to see at a glance, and
// the same as JSON for a monitor. Any user of the machine can read it, so it has
// counts, but no domains: those tell who writes to whom.
package status

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Report is the state of the daemon.
type Report struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Config  string    `json:"config"`

	Validation Validation `json:"dnssec_validation"`

	Entries          int               `json:"remembered_destinations"` // in memory
	Lookups          int               `json:"lookups_under_way"`
	Decisions        map[string]uint64 `json:"decisions"` // by level, since the start
	FailingRefreshes int               `json:"failing_refreshes"`
	Overrides        int               `json:"overrides"`
	ExpiredOverrides int               `json:"expired_overrides"`

	Listen         map[string][]string          `json:"listen"`
	Connections    int64                        `json:"socketmap_connections"`
	Refused        uint64                       `json:"socketmap_connections_refused"`
	ProtocolErrors uint64                       `json:"socketmap_protocol_errors"`
	Answers        map[string]map[string]uint64 `json:"socketmap_answers"` // by map and kind

	// What the configuration leaves out is absent. Counts are since the start.
	Milter    *Milter    `json:"milter,omitempty"`
	Delivery  *Delivery  `json:"delivery,omitempty"`
	Recording *Recording `json:"recording,omitempty"`
}

// Milter counts messages.
type Milter struct {
	Messages uint64 `json:"messages"`
	Required uint64 `json:"tagged_requiretls"`
	Relaxed  uint64 `json:"tagged_relaxed"`
	Errors   uint64 `json:"not_judged"`
}

// Delivery counts what the delivery fallback was handed, recipients but for Messages.
type Delivery struct {
	Messages  uint64 `json:"messages"`
	Delivered uint64 `json:"delivered"`
	Deferred  uint64 `json:"deferred"`
	Bounced   uint64 `json:"bounced"`
	Already   uint64 `json:"already_delivered"` // of Delivered: before, in a try whose reply was lost
	InFlight  int64  `json:"messages_in_flight"`
}

// Recording is how it becomes known what happened.
type Recording struct {
	Sessions  uint64     `json:"sessions"`
	Dropped   uint64     `json:"sessions_dropped"` // the disk did not take them in time
	LastDay   string     `json:"last_closed_day"`
	Probes    uint64     `json:"hosts_probed"`
	Logs      []Log      `json:"logs"`
	Datagrams *Datagrams `json:"datagrams,omitempty"`
	Events    *Events    `json:"exim_events,omitempty"`
	Reports   *Reports   `json:"reports,omitempty"`
}

// Reports counts those that are sent to others. But for Waiting, since the start.
type Reports struct {
	Sent    uint64 `json:"sent"`
	Failed  uint64 `json:"attempts_failed"`
	GaveUp  uint64 `json:"given_up"`
	Waiting int64  `json:"waiting"` // of days that are closed
}

// Log is a log that is followed.
type Log struct {
	Path     string    `json:"path"`
	Format   string    `json:"format"`
	CaughtUp time.Time `json:"read_up_to,omitzero"` // absent: not yet
	Lines    uint64    `json:"lines"`
	Sessions uint64    `json:"sessions"`
	Own      uint64    `json:"sessions_of_own_reports"` // which are not counted
	Unparsed uint64    `json:"not_understood"`
	Oversize uint64    `json:"too_long"`
	NoDomain uint64    `json:"sessions_without_domain"`
	Open     int       `json:"open"` // sessions that wait for more lines
}

// Events are those of Exim.
type Events struct {
	Received  uint64 `json:"received"`
	Sessions  uint64 `json:"sessions"`
	Malformed uint64 `json:"malformed"`
	Dropped   uint64 `json:"sessions_without_result"`
	Open      int    `json:"open"`
}

// Datagrams are those of libtlsrpt.
type Datagrams struct {
	Received  uint64 `json:"received"`
	Sessions  uint64 `json:"sessions"`
	Lost      uint64 `json:"lost"` // came too fast
	Malformed uint64 `json:"malformed"`
	Refused   uint64 `json:"refused"` // from users who may not
	Waiting   int    `json:"waiting"`
}

// Validation is whether DANE can work at present.
type Validation struct {
	On     bool   `json:"on"`
	Never  bool   `json:"switched_off_by_operator,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Words says it in a line.
func (v Validation) Words() string {
	switch {
	case v.Never:
		return "off by configuration (dns.trust_ad): DANE is not used"
	case !v.On:
		return "OFF: DANE is not used: " + v.Reason
	case v.Reason != "":
		return "on, but " + v.Reason
	}
	return "on"
}

// styleHash is the SHA-256 of the page's style (CSP Level 3 §2.3.1); a test keeps it true.
const styleHash = "LhznSNThcAK/XZlYtao1vMLlA4mdclFgnoOntmOYXKo="

//go:embed page.html
var page string

// policy lets the page load nothing and run nothing.
const policy = "default-src 'none'; style-src 'sha256-" + styleHash + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page at /, the report at /status.json and "ok" at /healthz.
// It refuses requests for a host other than an IP address, localhost or one of
// names: a web page whose name suddenly means this machine (DNS rebinding) would
// read the report otherwise.
func Handler(report func() Report, names []string) http.Handler {
	tmpl := template.Must(template.New("page").Parse(page))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		if err := tmpl.Execute(&b, newView(report())); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(b.Bytes())
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.Encode(report())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n"))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !known(r.Host, names) {
			http.Error(w, "ask by IP address, as localhost, or by the name in http.listen", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// known reports whether a Host header (RFC 9110 §7.2) names this machine. HTTP/1.0
// may go without, and a browser never does.
func known(host string, names []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "" || host == "localhost" {
		return true
	}
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) })
}
