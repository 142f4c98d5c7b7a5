package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/store"
	"postseal/reporting/store/storetest"
	"postseal/reporting/tlsrpt"
)

// about is a subject with its state as text.
type about struct {
	Subject store.Subject
	State   string
}

func subjects(t testing.TB, s *store.Store, day reporting.Day) (list []about) {
	t.Helper()
	if err := s.EachSubject(day, func(of store.Subject, state []byte) bool {
		list = append(list, about{of, string(state)})
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func domains(names ...string) map[reporting.Key]uint64 {
	counts := map[reporting.Key]uint64{}
	for _, name := range names {
		counts[key(name)] = 1
	}
	return counts
}

func many(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("d%05d.example", i))
	}
	return names
}

func TestEachSubject(t *testing.T) {
	s := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	if list := subjects(t, s, today); list != nil {
		t.Errorf("of a day that is not there: %v", list)
	}
	names := append(many(2500), "a.exampl", "a.example", "a.example.org", "a-b.example", "aa.example")
	slices.Sort(names)
	write(t, s, domains(names...))
	var want []about
	var progress []store.Progress
	for i, name := range names {
		of := about{Subject: store.Subject{Name: name}}
		if i%3 == 0 || name == "a.example" {
			of.State = "state of " + name
			progress = append(progress, store.Progress{Day: today, Subject: of.Subject, State: []byte(of.State)})
		}
		want = append(want, of)
	}
	if err := s.SetProgress(progress...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, subjects(t, s, today)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	n := 0
	if err := s.EachSubject(today, func(store.Subject, []byte) bool { n++; return n < 1200 }); err != nil || n != 1200 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := storetest.Open(t, path)
	write(t, s, domains("a.example", "a.example.org"))
	domain, host := store.Subject{Name: "a.example"}, store.Subject{Name: "a.example", Host: true}
	for _, p := range []store.Progress{
		{Day: today, Subject: domain, State: []byte("one"), Mailed: []string{"a.example", "b.example"}, On: today + 1},
		{Day: today, Subject: host, State: []byte("two"), Mailed: []string{"a.example"}, On: today + 1},
		{Day: today - 1, Subject: domain, State: []byte("forgotten"), Mailed: []string{"a.example"}, On: today + 1},
		{Day: today, Subject: domain, State: []byte("three")},
	} {
		if err := s.SetProgress(p); err != nil {
			t.Fatal(err)
		}
	}
	s.DB.Close()
	s = storetest.Open(t, path)
	for _, c := range []struct {
		day  reporting.Day
		of   store.Subject
		want string
	}{{today, domain, "three"}, {today, host, "two"}, {today - 1, domain, ""}, {today, store.Subject{Name: "a.example.org"}, ""}} {
		if state, err := s.Progress(c.day, c.of); string(state) != c.want || err != nil {
			t.Errorf("%v %v: %q %v, wanted %q", c.day, c.of, state, err, c.want)
		}
	}
	for _, c := range []struct {
		day    reporting.Day
		domain string
		want   uint64
	}{{today + 1, "a.example", 2}, {today + 1, "b.example", 1}, {today + 1, "a.exampl", 0}, {today, "a.example", 0}, {today + 2, "a.example", 0}} {
		if n, err := s.Mailed(c.day, c.domain); n != c.want || err != nil {
			t.Errorf("%v %s: %d %v", c.day, c.domain, n, err)
		}
	}
	if days, err := s.Days(); err != nil || !slices.Equal(days, []reporting.Day{today, today + 1}) {
		t.Errorf("%v %v", days, err)
	}
	if list := subjects(t, s, today+1); list != nil {
		t.Errorf("a day with mails alone has %v", list)
	}
}

func TestTargets(t *testing.T) {
	s := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	edit := func(uri, after string) {
		t.Helper()
		if err := s.EditTarget(uri, func([]byte) []byte { return []byte(after) }); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for _, name := range many(1003) {
		edit("https://"+name+"/", name)
		want = append(want, "https://"+name+"/ "+name)
	}
	list := func() (got []string) {
		t.Helper()
		if err := s.EachTarget(func(uri string, state []byte) bool {
			got = append(got, uri+" "+string(state))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if diff := cmp.Diff(want, list()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	edit("https://d00007.example/", "")
	edit("https://none.example/", "")
	if diff := cmp.Diff(slices.Delete(want, 7, 8), list()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if state, err := s.Target("https://d00007.example/"); state != nil || err != nil {
		t.Errorf("%q %v", state, err)
	}
	last := "d01002.example" // alone in the second page
	if err := s.ForgetTargets(func(state []byte) bool { return string(state) != "d00500.example" && string(state) != last }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"https://d00500.example/ d00500.example", "https://" + last + "/ " + last}, list()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := s.ForgetTargets(func([]byte) bool { return true }); err != nil || len(list()) > 0 {
		t.Errorf("%v %v", list(), err)
	}
}

func TestHosts(t *testing.T) {
	s := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	batch := reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{today: {}}, Policies: map[reporting.PolicyID]reporting.Policy{}}
	add := func(domain, host string, standing reporting.Standing) {
		p := reporting.Policy{Type: tlsrpt.TLSA, Domain: host, Strings: []string{"3 1 1 00"}}
		k := key(domain)
		k.Policy, k.Standing = p.ID(), standing
		batch.Counts[today][k], batch.Policies[k.Policy] = 1, p
	}
	var want []string
	for _, name := range many(2300) {
		add(name, "mx.example", reporting.Reported)
		want = append(want, name)
	}
	add("d00001.example", "mx.example.org", reporting.Reported)
	add("d00002.example", "mx.exampl", reporting.Reported)
	add("d00003.example", "late.example", reporting.Late)
	if err := s.Write(batch); err != nil {
		t.Fatal(err)
	}
	hosts := func() (list []string) {
		for _, a := range subjects(t, s, today) {
			if a.Subject.Host {
				list = append(list, a.Subject.Name)
			}
		}
		return list
	}
	if list := hosts(); list != nil {
		t.Errorf("before the index: %v", list)
	}
	for range 2 {
		if err := s.IndexHosts(today); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"mx.exampl", "mx.example", "mx.example.org"}, hosts()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	for host, want := range map[string][]string{"mx.example": want, "mx.exampl": {"d00002.example"}, "mx.exam": nil} {
		if got, err := s.HostDomains(today, host, 10_000); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %d domains of %d, %v", host, len(got), len(want), err)
		}
	}
	if got, err := s.HostDomains(today, "mx.example", 5); err != nil || len(got) != 5 {
		t.Errorf("%v %v", got, err)
	}
	if err := s.IndexHosts(today - 1); err != nil {
		t.Errorf("of a day that is not there: %v", err)
	}
}
