package bench

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"postseal/cache/boltdb"
	"postseal/policy"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

// fillVariable makes the test binary a process that only fills a database.
const fillVariable = "POSTSEAL_BENCH_FILL"

type fillJob struct {
	DNS     string
	Port    uint16
	CA      []byte
	DB      string
	Domains int
}

// fill discovers the policies of all domains with the daemon's own parts (the
// daemon itself fetches from port 443 only) and prints its peak memory.
func fill(ctx context.Context, text string) error {
	var job fillJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(job.CA)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	db, err := boltdb.Open(job.DB, boltdb.Options{Schema: 1, Buckets: []string{policy.Bucket}})
	if err != nil {
		return err
	}
	defer db.Close()
	dns := &dnssec.Client{Servers: []string{job.DNS}}
	e := &policy.Engine{DNS: dns, DB: db, Fetch: &mtasts.Fetcher{DNS: dns, Roots: roots, AllowPrivate: true, Port: job.Port}}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(running) }()
	missing := decideAll(ctx, e, job.Domains)
	stop()
	if err := <-ended; err != nil {
		return err
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d domains without a policy", missing, job.Domains)
	}
	peak, err := statusField(os.Getpid(), "VmHWM")
	fmt.Println(peak)
	return err
}

// decideAll asks for every domain, 16 at a time as busy mail servers do.
func decideAll(ctx context.Context, e *policy.Engine, n int) (missing int) {
	var g sync.WaitGroup
	var mu sync.Mutex
	next := make(chan int)
	for range 16 {
		g.Go(func() {
			for i := range next {
				c, cancel := context.WithTimeout(ctx, time.Minute)
				d := e.Decide(c, policy.Destination{Domain: name(i), Port: 25})
				cancel()
				if d.Level != policy.LevelSTS {
					mu.Lock()
					missing++
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	g.Wait()
	return missing
}

// statusField reads a size from /proc/PID/status, in bytes.
func statusField(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no %s of process %d", field, pid)
}
