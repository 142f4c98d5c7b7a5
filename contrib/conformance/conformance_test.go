package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestList compares items.txt with the test files of the repository.
func TestList(t *testing.T) {
	l, err := readList("items.txt")
	if err != nil {
		t.Fatal(err)
	}
	files, err := scan(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scanLab(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range compare(l, files, lab) {
		t.Error(complaint)
	}
	t.Log(l.summary())
}

// TestOrder keeps the items in the order of their documents and numbers.
func TestOrder(t *testing.T) {
	l, err := readList("items.txt")
	if err != nil {
		t.Fatal(err)
	}
	order := []string{"STS", "DANE", "SM", "MIL", "RT", "SMTP", "RPT", "SEED"}
	rank := func(i *item) (int, string) {
		document, number, _ := strings.Cut(i.id, "-")
		return slices.Index(order, document), number
	}
	if !slices.IsSortedFunc(l.items(), func(a, b *item) int {
		documentA, numberA := rank(a)
		documentB, numberB := rank(b)
		if documentA != documentB {
			return documentA - documentB
		}
		return strings.Compare(numberA, numberB)
	}) {
		t.Error("the items are out of order")
	}
}

// TestForm holds the file to the form in which the command writes it.
func TestForm(t *testing.T) {
	l, err := readList("items.txt")
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseList(l.String())
	if err != nil {
		t.Fatal(err)
	}
	if again.String() != l.String() {
		t.Error("the list changes when written twice")
	}
}

func TestParseItem(t *testing.T) {
	good := func(line string) {
		t.Helper()
		if _, err := parseItem(line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	bad := func(line string) {
		t.Helper()
		if i, err := parseItem(line); err == nil {
			t.Errorf("%s: taken as %v", line, i)
		}
	}
	good("STS-001 | test | policy TestTable/STS-001 | a title")
	good("STS-001 | test | policy TestTable/STS-001, policy/mtasts TestFetch | a title")
	good("STS-001 | test+step2 | policy TestTable/STS-001; then delivery | a title")
	good("STS-001 | step3 | sessions | a title")
	good("STS-001 | lab | outage, sts-expired | a title")
	good("STS-001 | n/a | the RFC leaves it open | a title")

	bad("STS-1 | n/a | why | a title")                         // three digits
	bad("XXX-001 | n/a | why | a title")                       // no such document
	bad("STS-001 | done | policy TestTable | a title")         // no such state
	bad("STS-001 | step6 | policy | a title")                  // no such step
	bad("STS-001 | n/a | | a title")                           // no reason
	bad("STS-001 | lab | | a title")                           // no story
	bad("STS-001 | step2 | | a title")                         // no part
	bad("STS-001 | test | | a title")                          // no test
	bad("STS-001 | test+step2 | policy TestTable | a title")   // no part
	bad("STS-001 | test | policy/TestTable/STS-001 | title")   // no blank
	bad("STS-001 | n/a | why | ")                              // no title
	bad("STS-001 | n/a | why | " + strings.Repeat("x", 81))    // too long
	bad("STS-001 | n/a | why")                                 // a column is missing
	bad("STS-001 | test | policy TestTable/other | a title")   // not an item
	bad("STS-001 | test | policy BenchmarkTable | a title")    // asserts nothing
	bad("STS-001 | n/a | why | a title | and one column more") // too many
}

func TestNamedIn(t *testing.T) {
	for name, want := range map[string][]string{
		"STS-012 strings are joined":       {"STS-012"},
		"STS-012_strings_are_joined":       {"STS-012"},
		"STS-012":                          {"STS-012"},
		"STS-012, STS-013 two":             {"STS-012", "STS-013"},
		"STS-012_and_DANE-013_two":         {"STS-012", "DANE-013"},
		"STS-012 differs from STS-013":     {"STS-012"},
		"STS-0123":                         nil,
		"as STS-012":                       nil,
		"":                                 nil,
		"XSTS-012":                         nil,
		"SM-002/SM-003 the space is there": {"SM-002", "SM-003"},
	} {
		if got := namedIn(name); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	l, err := parseList("STS-012 | test | policy/mtasts TestRecord/STS-012 | joined\n" +
		"STS-013 | test+step2 | policy TestTable; then delivery | dropped\n" +
		"STS-014 | step2 | delivery | one remains\n")
	if err != nil {
		t.Fatal(err)
	}
	pass := []outcome{
		{"policy/mtasts", "TestRecord/STS-012_strings_are_joined", "pass"},
		{"policy/mtasts", "TestRecord/group/STS-012", "pass"},
		{"policy", "TestTable", "pass"},
	}
	if complaints := l.check(pass); len(complaints) > 0 {
		t.Errorf("all passed: %q", complaints)
	}
	for n := range pass {
		for _, action := range []string{"fail", "skip"} {
			run := slices.Clone(pass)
			run[n].action = action
			if len(l.check(run)) == 0 {
				t.Errorf("%s: %s is not noticed", run[n].name, action)
			}
		}
	}
	if complaints := l.check(pass[:2]); len(complaints) != 1 {
		t.Errorf("one did not run: %q", complaints)
	}
	elsewhere := []outcome{{"policy/dane", "TestRecord/STS-012", "pass"}, {"policy/mtasts", "TestRecord/STS-0123", "pass"}, pass[2]}
	if len(l.check(elsewhere)) == 0 {
		t.Error("a test of another package or item is taken for it")
	}
}

func TestFill(t *testing.T) {
	l, err := parseList("STS-012 | n/a | no test yet | joined\nSTS-013 | step2 | delivery | dropped\nSTS-014 | step2 | delivery | one remains\n")
	if err != nil {
		t.Fatal(err)
	}
	l.fill([]outcome{
		{"policy/mtasts", "TestRecord/STS-012_strings_are_joined", "pass"},
		{"policy/mtasts", "TestRecord/STS-012_also_these", "pass"},
		{"policy", "TestTable/STS-013", "pass"},
		{"policy", "TestTable/STS-014", "fail"},
	})
	var got []string
	for _, i := range l.items() {
		got = append(got, strings.Join(strings.Fields(i.String()), " "))
	}
	want := []string{
		"STS-012 | test | policy/mtasts TestRecord/STS-012 | joined",
		"STS-013 | test+step2 | policy TestTable/STS-013; then delivery | dropped",
		"STS-014 | step2 | delivery | one remains",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
