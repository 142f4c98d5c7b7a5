package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// total is the number of requirements. It changes only together with the
// documents that the list follows.
const total = 540

// done is the last step of the project that is finished: no item waits for it
// or for one before it.
const done = 3

// maxTitle keeps an item on one line of a screen.
const maxTitle = 80

// An item is one requirement.
type item struct {
	id    string
	state string      // test, lab, step1 to step5, n/a, or test+stepN: held in part, the rest later
	tests []reference // for test
	note  string      // the stories of the lab, the part that a later step brings, or why it does not apply
	title string
}

// A reference names a test: the package below the module, the test function,
// and the item if subtests are named by it. Without one, the whole test holds
// the item, as a golden file or a table does.
type reference struct {
	pkg, test, subtest string
}

func (r reference) String() string {
	if r.subtest == "" {
		return r.pkg + " " + r.test
	}
	return r.pkg + " " + r.test + "/" + r.subtest
}

// An entry is a line of the file: an item, or a comment or blank line as it
// stands.
type entry struct {
	text string
	item *item
}

type list struct {
	entries []entry
}

func (l list) items() []*item {
	var all []*item
	for _, e := range l.entries {
		if e.item != nil {
			all = append(all, e.item)
		}
	}
	return all
}

// later gives the step that an item still waits for, or "".
func (i item) later() string {
	step := strings.TrimPrefix(i.state, "test+")
	if !strings.HasPrefix(step, "step") {
		return ""
	}
	return step
}

func (i item) tested() bool { return strings.HasPrefix(i.state, "test") }

// stories are those of the lab that show the item with real mail servers.
func (i item) stories() []string {
	if i.state != "lab" {
		return nil
	}
	return strings.Split(i.note, ", ")
}

var (
	idForm        = regexp.MustCompile(`^(STS|DANE|SM|MIL|RT|SMTP|RPT|SEED)-[0-9]{3}$`)
	stateForm     = regexp.MustCompile(`^(test|lab|(test\+)?step[1-5]|n/a)$`)
	referenceForm = regexp.MustCompile(`^([a-z0-9/]+) ((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([A-Z]+-[0-9]{3}))?$`)
	leadingIDs    = regexp.MustCompile(`^(?:STS|DANE|SM|MIL|RT|SMTP|RPT|SEED)-[0-9]{3}\b(?:(?:, | and | |/|\+)(?:STS|DANE|SM|MIL|RT|SMTP|RPT|SEED)-[0-9]{3}\b)*`)
	anyID         = regexp.MustCompile(`[A-Z]+-[0-9]{3}`)
)

// namedIn returns the items that the name of a subtest begins with.
func namedIn(name string) []string {
	return anyID.FindAllString(leadingIDs.FindString(strings.ReplaceAll(name, "_", " ")), -1)
}

func readList(path string) (list, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return list{}, err
	}
	l, err := parseList(string(text))
	if err != nil {
		return list{}, fmt.Errorf("%s:%w", path, err)
	}
	return l, nil
}

func parseList(text string) (list, error) {
	var l list
	for number, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		e := entry{text: line}
		if line != "" && !strings.HasPrefix(line, "#") {
			parsed, err := parseItem(line)
			if err != nil {
				return list{}, fmt.Errorf("%d: %w", number+1, err)
			}
			e.item = &parsed
		}
		l.entries = append(l.entries, e)
	}
	return l, nil
}

func parseItem(line string) (item, error) {
	columns := strings.Split(line, "|")
	if len(columns) != 4 {
		return item{}, fmt.Errorf("%d columns, not ID | state | reference | title", len(columns))
	}
	for n := range columns {
		columns[n] = strings.TrimSpace(columns[n])
	}
	i := item{id: columns[0], state: columns[1], title: columns[3]}
	if !idForm.MatchString(i.id) {
		return item{}, fmt.Errorf("%q is no item", i.id)
	}
	if !stateForm.MatchString(i.state) {
		return item{}, fmt.Errorf("%s: unknown state %q", i.id, i.state)
	}
	if i.title == "" || len([]rune(i.title)) > maxTitle {
		return item{}, fmt.Errorf("%s: the title has %d characters, not 1 to %d", i.id, len([]rune(i.title)), maxTitle)
	}
	names := columns[2]
	if !i.tested() {
		names, i.note = "", columns[2]
	} else if i.later() != "" {
		names, i.note, _ = strings.Cut(columns[2], "; then ")
	}
	if i.note == "" && i.state != "test" {
		return item{}, fmt.Errorf("%s: %s says neither which part or story nor why", i.id, i.state)
	}
	for name := range strings.SplitSeq(names, ", ") {
		if !i.tested() {
			break
		}
		parts := referenceForm.FindStringSubmatch(name)
		if parts == nil {
			return item{}, fmt.Errorf("%s: %q is not PACKAGE TEST or PACKAGE TEST/ITEM", i.id, name)
		}
		i.tests = append(i.tests, reference{pkg: parts[1], test: parts[2], subtest: parts[3]})
	}
	return i, nil
}

func (i item) String() string {
	var names []string
	for _, r := range i.tests {
		names = append(names, r.String())
	}
	column := strings.Join(names, ", ")
	switch {
	case i.tested() && i.later() != "":
		column += "; then " + i.note
	case !i.tested():
		column = i.note
	}
	return fmt.Sprintf("%-8s | %-10s | %-44s | %s", i.id, i.state, column, i.title)
}

// String writes the list as it stands in the file.
func (l list) String() string {
	var b strings.Builder
	for _, e := range l.entries {
		if e.item != nil {
			b.WriteString(e.item.String())
		} else {
			b.WriteString(e.text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (l list) summary() string {
	counts := map[string]int{}
	for _, i := range l.items() {
		counts[i.state]++
	}
	var parts []string
	for state, count := range counts {
		parts = append(parts, strconv.Itoa(count)+" "+state)
	}
	slices.Sort(parts)
	return fmt.Sprintf("conformance: %d items: %s", len(l.items()), strings.Join(parts, ", "))
}
