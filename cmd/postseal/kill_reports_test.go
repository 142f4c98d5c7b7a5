package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postseal/policy/dnssec/dnstest"
	"postseal/policy/smtpclient/mxtest"
	"postseal/reporting"
	"postseal/reporting/store/storetest"
	"postseal/reporting/tlsrpt"
)

// killReports are owed for each time that the daemon is killed: more than it can send
// before. One of ten is sent by mail, which has a limit of 20 a second.
const killReports = 120

// TestReportsKilled kills the daemon again and again while it sends reports. None is
// lost; twice come only those that the daemon has announced, with the same id.
func TestReportsKilled(t *testing.T) {
	rounds := killCount(t)
	k := newKilledReports(t, killReports*rounds)
	kills := 0
	for range rounds {
		before := k.count()
		if before == k.owed {
			break
		}
		d := k.start()
		k.await(before + 1)
		time.Sleep(time.Duration(k.random.IntN(60)) * time.Millisecond)
		kill(d)
		kills++
	}
	k.start()
	k.await(k.owed)
	log, err := os.ReadFile(filepath.Join(k.dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	twice := 0
	for domain, ids := range k.arrived() {
		for _, id := range ids[1:] {
			twice++
			if id != ids[0] {
				t.Errorf("%s: reports %s and %s", domain, ids[0], id)
			}
		}
		if announced := bytes.Count(log, []byte("may arrive twice: it was under way when the daemon ended\" about="+domain+" ")); len(ids)-1 > announced {
			t.Errorf("%s: %d reports, %d announced", domain, len(ids), announced)
		}
	}
	t.Logf("%d kills, %d reports, %d twice", kills, k.owed, twice)
}

type killedReports struct {
	*killed
	owed int
	host *mxtest.Host

	mu     sync.Mutex
	posted map[string][]string // ids by domain
}

func newKilledReports(t *testing.T, owed int) *killedReports {
	k := &killedReports{killed: newKilled(t), owed: owed, posted: map[string][]string{}}
	k.host = mxtest.New(t).Host("localhost", "127.0.0.1")
	web := httptest.NewTLSServer(http.HandlerFunc(k.take))
	t.Cleanup(web.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(k.dir, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	zone := &strings.Builder{}
	domains := []string{}
	for i := range owed {
		domain := fmt.Sprintf("d%d.test", i)
		rua := "mailto:reports@" + domain
		if i%10 > 0 {
			name := fmt.Sprintf("h%d.example.com", i) // which the server's certificate covers
			rua = "https://" + name + strings.TrimPrefix(web.URL, "https://127.0.0.1") + "/" + domain
			fmt.Fprintf(zone, "%s. A 127.0.0.1\n", name)
		}
		fmt.Fprintf(zone, "_smtp._tls.%s. TXT \"v=TLSRPTv1; rua=%s\"\n", domain, rua)
		domains = append(domains, domain)
	}
	text := fmt.Sprintf(`state_dir = %q
dns = { servers = [%q], self_test = false }
socketmap.listen = []
http.listen = []
control.listen = [%q]
[reporting]
probe = false
contact = "tlsrpt@sender.test"
submit = "smtp://%s"
retry = "1s"
spread = "1m"
ca_file = %q
allow_private_addresses = true
[[reporting.log]]
path = %q
format = "postfix"
`, k.dir+"/state", dnstest.New(t, zone.String()).Addr, "unix:"+k.dir+"/control.sock", k.host.Addr(), k.dir+"/ca.pem", k.path())
	if err := os.WriteFile(k.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.seed(domains)
	return k
}

// take is the web server.
func (k *killedReports) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the daemon was killed
	}
	report, _, err := tlsrpt.Read(bytes.NewReader(body))
	if err != nil {
		k.Errorf("%s: %v", r.URL, err)
		return
	}
	domain := strings.TrimPrefix(r.URL.Path, "/")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.posted[domain] = append(k.posted[domain], report.ID)
	w.WriteHeader(http.StatusCreated)
}

// count is how many domains a report has arrived for.
func (k *killedReports) count() int { return len(k.arrived()) }

// await waits until reports on so many domains have arrived.
func (k *killedReports) await(n int) {
	k.Helper()
	last, since := 0, time.Now()
	for k.count() < n {
		if now := k.count(); now > last {
			last, since = now, time.Now()
		}
		if time.Since(since) > 2*patience {
			k.Fatalf("%d reports of %d arrived\n%s", k.count(), n, k.stderr())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// arrived are the ids of the reports on each domain that arrived.
func (k *killedReports) arrived() map[string][]string {
	ids := map[string][]string{}
	k.mu.Lock()
	for domain, list := range k.posted {
		ids[domain] = list
	}
	k.mu.Unlock()
	for _, m := range k.host.Mails() {
		report, _, err := tlsrpt.Read(bytes.NewReader(m.Data))
		if err != nil {
			k.Fatal(err)
		}
		_, domain, _ := strings.Cut(m.To[0], "@")
		domain, _, _ = strings.Cut(domain, ">")
		ids[domain] = append(ids[domain], report.ID)
	}
	return ids
}

// seed counts a session with each domain on the day before yesterday, as a daemon does
// that was then stopped.
func (k *killedReports) seed(domains []string) {
	k.Helper()
	dir := filepath.Join(k.dir, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		k.Fatal(err)
	}
	s := storetest.Open(k, filepath.Join(dir, "sessions.db"))
	defer s.DB.Close()
	day := reporting.DayOf(time.Now()) - 2
	batch := reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day: {}}, Policies: map[reporting.PolicyID]reporting.Policy{},
		Marks: map[string][]byte{"closed": []byte(day.String())}}
	for _, d := range domains {
		p := reporting.Policy{Type: tlsrpt.NoPolicy, Domain: d}
		batch.Policies[p.ID()] = p
		batch.Counts[day][reporting.Key{Domain: d, Policy: p.ID(), Source: "postfix", MXHost: "mx." + d}] = 1
	}
	if err := s.Write(batch); err != nil {
		k.Fatal(err)
	}
}
