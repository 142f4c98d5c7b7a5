package datagram_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/datagram"
)

const goodDatagram = `{"d":"good.example","policies":[{"policy-type":9,"policy-domain":"good.example","t":0,"f":0}]}`

// socket returns both ends of a datagram socket.
func socket(t *testing.T) (receiver, sender *net.UnixConn) {
	t.Helper()
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixgram"}
	receiver, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { receiver.Close() })
	sender, err = net.DialUnix("unixgram", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sender.Close() })
	return receiver, sender
}

// start runs r; stop ends it and waits.
func start(t *testing.T, r *datagram.Receiver, conn *net.UnixConn) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, conn) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func send(t *testing.T, conn *net.UnixConn, text string) {
	t.Helper()
	for {
		_, err := conn.Write([]byte(text))
		if errors.Is(err, syscall.EAGAIN) { // a full queue is waited for, but not with an empty datagram
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

func TestReceiverCountsEveryGoodDatagramAmongBadOnes(t *testing.T) {
	receiver, sender := socket(t)
	var got []reporting.Session
	r := &datagram.Receiver{Emit: func(s reporting.Session) { got = append(got, s) }}
	stop := start(t, r, receiver)
	bad := 0
	for i, text := range malformed {
		if len(text) > 100_000 {
			continue // beyond what a socket takes by default on some systems
		}
		send(t, sender, text)
		send(t, sender, fmt.Sprintf(`{"d":"d%d.example","policies":[{"policy-type":9,"f":0}]}`, i))
		bad++
	}
	stop()
	if len(got) != bad {
		t.Errorf("%d sessions of %d good datagrams", len(got), bad)
	}
	for _, s := range got {
		if s.Time.IsZero() {
			t.Errorf("session without a time: %+v", s)
		}
	}
	st := r.Stats()
	if st.Received != uint64(2*bad) || st.Malformed != uint64(bad) || st.Sessions != uint64(bad) || st.Lost != 0 || st.Waiting != 0 {
		t.Errorf("counted %+v, sent %d good and %d bad", st, bad, bad)
	}
}

// TestReceiverStalled stops the consumer altogether: what fits waits, what does not is
// counted, to the last one.
func TestReceiverStalled(t *testing.T) {
	receiver, sender := socket(t)
	stalled, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	emitted := 0
	var latest time.Time
	r := &datagram.Receiver{
		MaxWaiting: 1000,
		Emit: func(s reporting.Session) {
			once.Do(func() { close(stalled) })
			<-open
			emitted++
			latest = s.Time
		},
	}
	stop := start(t, r, receiver)
	send(t, sender, goodDatagram)
	<-stalled // with that one in its hands
	const sent = 5000
	for range sent {
		send(t, sender, goodDatagram)
	}
	for r.Stats().Received != sent+1 {
		time.Sleep(time.Millisecond)
	}
	opened := time.Now()
	close(open)
	stop()
	if latest.After(opened) {
		t.Errorf("a session is of %s, and all had come by %s", latest, opened)
	}
	st := r.Stats()
	if st.Received != sent+1 || st.Lost+uint64(emitted) != sent+1 {
		t.Errorf("sent %d, emitted %d, counted %+v", sent+1, emitted, st)
	}
	if emitted < 1001 {
		t.Errorf("emitted %d, and 1000 had room", emitted)
	}
}

// A fuzzer's datagrams between good ones take nothing away from these.
func TestReceiverAmongMutations(t *testing.T) {
	receiver, sender := socket(t)
	got := map[string]int{}
	r := &datagram.Receiver{Emit: func(s reporting.Session) { got[s.Domain]++ }}
	stop := start(t, r, receiver)
	random := rand.New(rand.NewPCG(1, 2))
	const n = 3000
	for i := range n {
		bad := []byte(`{"dpv":"1","d":"bad.test","pr":"v=TLSRPTv1;rua=mailto:a@bad.test","policies":[{"policy-type":2,"policy-domain":"bad.test",` +
			`"policy-string":["version: STSv1"],"mx-host":["mx.bad.test"],"failure-details":[{"c":205,"s":"192.0.2.1","n":"mx.bad.test","h":"250 mx","r":"192.0.2.2","f":"x"}],"t":1,"f":1}]}`)
		for range 1 + random.IntN(4) {
			at := random.IntN(len(bad))
			switch random.IntN(4) {
			case 0:
				bad[at] = byte(random.IntN(256))
			case 1:
				bad = bad[:at+1]
			case 2:
				bad = slices.Insert(bad, at, bad[random.IntN(at+1):at]...)
			case 3:
				bad = slices.Delete(bad, at, at+min(len(bad)-at, random.IntN(9)))
			}
			if len(bad) == 0 {
				bad = []byte{0}
			}
		}
		send(t, sender, string(bad))
		send(t, sender, fmt.Sprintf(`{"d":"d%d.example","policies":[{"policy-type":9,"f":0}]}`, i))
	}
	stop()
	for i := range n {
		if c := got[fmt.Sprintf("d%d.example", i)]; c != 1 {
			t.Errorf("d%d.example: %d sessions, want 1", i, c)
		}
	}
	if st := r.Stats(); st.Received != 2*n || st.Malformed < n/4 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}

// sleeping is a store whose disk has stalled.
type sleeping struct {
	awake   chan struct{}
	counted uint64
}

func (s *sleeping) Write(b reporting.Batch) error {
	<-s.awake
	for _, counts := range b.Counts {
		for _, n := range counts {
			s.counted += n
		}
	}
	return nil
}

func (s *sleeping) Mark(string) ([]byte, error) { return nil, nil }

// A burst into a recorder whose disk has stalled: it waits in memory by its outcomes, and
// before the queue would have to hold it.
func TestReceiverWithStalledDisk(t *testing.T) {
	receiver, sender := socket(t)
	disk := &sleeping{awake: make(chan struct{})}
	recorder := &reporting.Recorder{Store: disk, Interval: time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- recorder.Run(ctx) }()
	r := &datagram.Receiver{Emit: func(s reporting.Session) { recorder.Record(s, "datagram") }}
	stop := start(t, r, receiver)
	for i := range burst {
		send(t, sender, fmt.Sprintf(`{"d":"d%d.example","policies":[{"policy-type":9,"f":0}]}`, i%5000))
	}
	stop()
	close(disk.awake)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if st := r.Stats(); st.Lost != 0 || recorder.Dropped() != 0 || disk.counted != burst {
		t.Errorf("%d of %d counted, %d dropped, %+v", disk.counted, burst, recorder.Dropped(), st)
	}
}

// TestReceiverHoldsABurst is the promise of the package: 20 000 datagrams a second for
// ten seconds, while a disk stands still.
func TestReceiverHoldsABurst(t *testing.T) {
	receiver, sender := socket(t)
	open := make(chan struct{})
	emitted := 0
	r := &datagram.Receiver{Emit: func(reporting.Session) { <-open; emitted++ }}
	stop := start(t, r, receiver)
	for range burst {
		send(t, sender, goodDatagram)
	}
	close(open)
	stop()
	if st := r.Stats(); emitted != burst || st.Lost != 0 || st.Received != burst {
		t.Errorf("emitted %d of %d, counted %+v", emitted, burst, st)
	}
}

func TestReceiverBytes(t *testing.T) {
	receiver, sender := socket(t)
	stalled, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	emitted := 0
	r := &datagram.Receiver{
		MaxWaitingBytes: 10 * len(goodDatagram),
		Emit: func(reporting.Session) {
			once.Do(func() { close(stalled) })
			<-open
			emitted++
		},
	}
	stop := start(t, r, receiver)
	send(t, sender, goodDatagram)
	<-stalled
	for range 100 {
		send(t, sender, goodDatagram)
	}
	send(t, sender, "") // received after all others
	close(open)
	stop()
	if st := r.Stats(); st.Received != 102 || st.Lost+uint64(emitted)+st.Malformed != 102 || emitted < 11 {
		t.Errorf("emitted %d, counted %+v", emitted, st)
	}
}

func TestReceiverClosedByOthers(t *testing.T) {
	receiver, _ := socket(t)
	r := &datagram.Receiver{Emit: func(reporting.Session) {}}
	receiver.Close()
	if err := r.Run(t.Context(), receiver); err == nil {
		t.Error("no error of a closed socket")
	}
}

func BenchmarkParse(b *testing.B) {
	line := []byte(`{"d": "sts-expired.example.test","pr": "v=TLSRPTv1; rua=mailto:tlsrpt@sts-expired.example.test","policies":[{"policy-type":2,"policy-domain": "sts-expired.example.test","policy-string":["version: STSv1","mode: enforce","mx: mx.sts-expired.example.test","max_age: 86400"],"mx-host":["mx.sts-expired.example.test"],"failure-details":[{"c":204,"s": "127.0.60.38","n": "mx.sts-expired.example.test","h": "250-expired.sink.example.test\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES","r": "127.0.60.103"}],"t":1,"f":1}]}`)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := datagram.Parse(line); err != nil {
			b.Fatal(err)
		}
	}
}
