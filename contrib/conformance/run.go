package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// module is cut from the package paths that the go tool prints.
const module = "postseal/"

// An outcome is how one test, one subtest, or all tests of a package ended.
type outcome struct {
	pkg, name string // name with its subtests, as in TestX/STS-012_joined; "" for the package
	action    string // pass, fail or skip
}

// readRun reads the output of go test -json. Lines that are not JSON, such as
// those of the compiler, are passed over.
func readRun(path string) ([]outcome, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []outcome
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		var event struct{ Action, Package, Test string }
		if json.Unmarshal(line, &event) == nil {
			if slices.Contains([]string{"pass", "fail", "skip"}, event.Action) {
				all = append(all, outcome{strings.TrimPrefix(event.Package, module), event.Test, event.Action})
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no test results: is it the output of go test -json?", path)
	}
	return all, nil
}

// holds reports whether the outcome belongs to the reference: to the test
// itself, or to any subtest whose name begins with the item.
func (o outcome) holds(r reference) bool {
	if o.pkg != r.pkg {
		return false
	}
	test, rest, _ := strings.Cut(o.name, "/")
	if test != r.test {
		return false
	}
	return r.subtest == "" && rest == "" || r.subtest != "" && slices.Contains(itemsOf(rest), r.subtest)
}

// itemsOf collects the items that any part of a subtest's path begins with.
// The go tool keeps a slash within a name, so an item may follow one.
func itemsOf(path string) []string {
	var all []string
	for part := range strings.SplitSeq(path, "/") {
		all = append(all, namedIn(part)...)
	}
	return all
}

// check says which tests of the list did not run, or did not pass.
func (l list) check(run []outcome) []string {
	var complaints []string
	for _, i := range l.items() {
		for _, r := range i.tests {
			passed := false
			for _, o := range run {
				if !o.holds(r) {
					continue
				}
				if o.action == "pass" {
					passed = true
					continue
				}
				complaints = append(complaints, fmt.Sprintf("%s: %s %s: %s", i.id, o.pkg, o.name, o.action))
			}
			if !passed {
				complaints = append(complaints, fmt.Sprintf("%s: %s did not run and pass", i.id, r))
			}
		}
	}
	return complaints
}

// broken lists the packages that failed, but for this one, which fails while
// the list is out of date.
func broken(run []outcome) []string {
	var all []string
	for _, o := range run {
		if o.name == "" && o.action == "fail" && o.pkg != "contrib/conformance" {
			all = append(all, o.pkg)
		}
	}
	return all
}

// fill writes the tests that passed into the list. References to whole tests
// stay, others that no longer pass are dropped, unless nothing would be left. An
// item of a later step that is now tested waits for that step still, until
// somebody says otherwise; the first step has no parts to wait for.
func (l list) fill(run []outcome) {
	found := map[string][]reference{}
	for _, o := range run {
		test, rest, sub := strings.Cut(o.name, "/")
		if !sub || o.action != "pass" {
			continue
		}
		for _, id := range itemsOf(rest) {
			if r := (reference{o.pkg, test, id}); !slices.Contains(found[id], r) {
				found[id] = append(found[id], r)
			}
		}
	}
	for _, i := range l.items() {
		tests := found[i.id]
		if len(tests) == 0 {
			continue
		}
		for _, r := range i.tests {
			if r.subtest == "" {
				tests = append(tests, r)
			}
		}
		slices.SortFunc(tests, func(a, b reference) int { return strings.Compare(a.String(), b.String()) })
		i.tests = tests
		switch {
		case i.tested():
		case i.state == "n/a", i.state == "lab", i.state == "step1":
			i.state, i.note = "test", ""
		default:
			i.state = "test+" + i.state
		}
	}
}
