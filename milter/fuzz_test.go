package milter_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postseal/milter"
	"postseal/socketmap/pipetest"
)

// FuzzFrames sends whatever it likes to the milter. The connection must end when
// its client ends it, and every answer must be one that we give: no frame but
// these, and never a rejection.
func FuzzFrames(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("%q, %v", files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var session []byte
		for _, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, ">") {
				session = append(session, parseLine(f, line)...)
			}
		}
		f.Add(session, strings.Contains(name, "sendmail"))
	}
	f.Add(append(offer(2, 0x1f, 0), frame('M', "<a> REQUIRETLS", "RET=\xff")...), true)
	f.Add(append(offer(6, allActions, allSteps), 0, 0, 0, 0), false)
	f.Add(append(offer(6, allActions, allSteps), 0xff, 0xff, 0xff, 0xff, 'M'), false)
	f.Fuzz(play)
}

// FuzzCommands sends frames that are whole, one for every line: more of them get
// past the first checks.
func FuzzCommands(f *testing.F) {
	f.Add([]byte("Chost\x004\x00\x19192.0.2.1\x00\nHhost\x00\nDMi\x00x\x00{auth_authen}\x00y\x00\nM<a@b.example>\x00REQUIRETLS\x00\nR<c@d>\x00NOTIFY=NEVER\x00\nE"), true)
	f.Add([]byte("Clocalhost\x00U\nM<a@b>\x00\nR<c@d.requiretls.invalid>\x00\nLX-Postseal-Route\x00x\x00\nLTLS-Required\x00No\x00\nN\nBbody\nE\nA\nK\nM<>\x00\nE\nQ"), true)
	f.Add([]byte("Lrequire-tls-esmtp\x00yes\x00\nT\nUxyz\x00\nM<a@b> SIZE=1 REQUIRETLS\x00\nE\nx"), false)
	f.Fuzz(func(t *testing.T, lines []byte, byRecipient bool) {
		session := offer(6, allActions, allSteps)
		if len(lines)%2 == 1 {
			session = offer(2, 0x1f, 0)
		}
		for line := range bytes.SplitSeq(lines, []byte("\n")) {
			if len(line) > 0 {
				session = append(session, rawFrame(line[0], line[1:])...)
			}
		}
		play(t, session, byRecipient)
	})
}

// play sends data to a new server and checks how it ends.
func play(t *testing.T, data []byte, byRecipient bool) {
	s := &milter.Server{Rules: []milter.Rule{{Sender: ".example", Tag: "requiretls"}, {User: "*", Tag: "relaxed"}}}
	if byRecipient {
		s.Route = milter.RouteRecipient
	}
	p := pipetest.Listen()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, p) }()
	ours := p.Dial()
	answers := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(ours)
		answers <- all
	}()
	ours.Write(data) // until the milter has enough of it
	ours.Close()
	checkAnswers(t, <-answers)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func checkAnswers(t *testing.T, all []byte) {
	for len(all) >= 4 {
		n := binary.BigEndian.Uint32(all)
		if n == 0 || n > 1<<20 {
			t.Fatalf("a frame of %d octets", n)
		}
		all = all[4:]
		if len(all) == 0 {
			return
		}
		if !strings.ContainsRune("Ochm+-2ey", rune(all[0])) {
			t.Fatalf("answered %q", all[0])
		}
		if all[0] == 'y' && !bytes.HasPrefix(all, []byte("y451 ")) {
			t.Fatalf("rejected: %q", all[:min(len(all), 80)])
		}
		all = all[min(len(all), int(n)):]
	}
}
