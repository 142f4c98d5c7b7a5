package setup

import (
	"fmt"
	"io"
	"strings"

	"postseal/cmd/postseal/internal/setup/edit"
)

// Print writes a plan for people: what was found, and each line in the file that it
// belongs to below its reason.
func (p *Plan) Print(w io.Writer) {
	for _, f := range p.Found {
		fmt.Fprintln(w, f)
	}
	for _, k := range p.Kept {
		fmt.Fprintln(w, "stays as it is: "+k)
	}
	for i, c := range p.Changes {
		note := ""
		if c.New {
			note = " (new)"
		}
		if c.Copy != "" {
			note += ", a copy of " + c.Copy
		}
		if i == 0 || c.Copy == "" || p.Changes[i-1].Copy == "" {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, c.Path+note)
		for _, l := range c.Lines {
			printLine(w, l)
		}
	}
}

func printLine(w io.Writer, l edit.Line) {
	if l.Why != "" {
		fmt.Fprintf(w, "  # %s\n", l.Why)
	}
	if l.Was != "" {
		fmt.Fprintf(w, "  # was: %s\n", indented(l.Was))
	}
	fmt.Fprintf(w, "  %s\n", indented(l.Text))
}

func indented(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }
