package doctor_test

import (
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/doctor"
)

// TestWell: where all is well nothing is found, but that the resolver of the tests is
// at another port than that of resolv.conf.
func TestWell(t *testing.T) {
	r := newBed(t).run()
	n := 0
	for _, f := range r.Findings {
		if f.Level == doctor.OK {
			n++
			continue
		}
		if !strings.Contains(f.Text, "the mail server asks 127.0.0.1, postseal asks 127.0.0.1:") {
			t.Errorf("%+v", f)
		}
	}
	if n < 15 || !r.Daemon || len(r.MTAs) != 1 || r.MTAs[0] != "postfix" {
		t.Errorf("%d are ok: %+v", n, r)
	}
}
