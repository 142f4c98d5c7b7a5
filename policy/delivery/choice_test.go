package delivery

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// Of many addresses some are left out, but never a whole family.
func TestFew(t *testing.T) {
	four := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"}
	six := []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6"}
	for _, c := range []struct {
		name string
		in   []string
		want []string
	}{
		{"one family", four, four[:5]},
		{"the other", six, six[:5]},
		{"both, the first first", append(four[:6:6], six...), []string{four[0], four[1], four[2], six[0], six[1]}},
		{"one of the other", append(four[:6:6], six[0]), []string{four[0], four[1], four[2], four[3], six[0]}},
		{"the other way round", append(six[:6:6], four[0], four[1]), []string{six[0], six[1], six[2], four[0], four[1]}},
	} {
		var in, got []string
		var addrs []netip.AddrPort
		for _, a := range c.in {
			in = append(in, a)
			addrs = append(addrs, netip.AddrPortFrom(netip.MustParseAddr(a), 25))
		}
		for _, a := range few(addrs) {
			got = append(got, a.Addr().String())
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: of %v %v, want %v", c.name, in, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
				break
			}
		}
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"postseal-message-1", "postseal-message-2", "delivery.db"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "delivery.db" {
		t.Errorf("%v, %v", left, err)
	}
	if err := Sweep(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a folder that is not there")
	}
}
