package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// report prints one line for each thing that was checked, and counts.
type report struct {
	passed, failed int
	ungated        struct{ passed, failed int } // what does not gate
	moving         bool                         // what is not a Postfix comes from the suite that moves
}

// add reports one check. problems says what was wrong, nothing if all was well.
func (r *report) add(p *postfix, scenario, expected, seen string, problems []string) {
	version, gates := "-", !r.moving
	if p != nil {
		version, gates = p.version, p.gates
	}
	verdict := "ok"
	switch {
	case len(problems) == 0 && gates:
		r.passed++
	case len(problems) == 0:
		r.ungated.passed++
	case gates:
		r.failed++
		verdict = "FAIL"
	default:
		r.ungated.failed++
		verdict = "fail, not gating"
	}
	if r.passed+r.failed+r.ungated.passed+r.ungated.failed == 1 {
		fmt.Printf("%-18s %-8s %-66s %-66s %s\n", "SCENARIO", "POSTFIX", "EXPECTED", "SEEN", "")
	}
	fmt.Printf("%-18s %-8s %-66s %-66s %s\n", scenario, version, cut(expected), cut(seen), verdict)
	for _, problem := range problems {
		fmt.Printf("    %s\n", strings.ReplaceAll(strings.TrimSpace(problem), "\n", "\n    "))
	}
}

// cut shortens a text to its column.
func cut(text string) string {
	const width = 66
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}

// summary ends the report with the line that tools read.
func (r *report) summary(w io.Writer) {
	if n := r.ungated; n.passed+n.failed > 0 {
		fmt.Fprintf(os.Stderr, "lab: %d passed and %d failed that do not gate\n", n.passed, n.failed)
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", r.passed, r.failed)
}
