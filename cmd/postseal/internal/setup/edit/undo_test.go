package edit_test

import (
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup/edit"
)

func TestUndo(t *testing.T) {
	const before, after = "a\nb\nc\n", "a\nB\nc\nnew1\nnew2\n"
	good := func(name, before, after, current, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			got, changed := edit.Undo(before, after, current)
			if got != want || changed != nil {
				t.Errorf("got %q, changed %q; want %q", got, changed, want)
			}
		})
	}
	bad := func(name, before, after, current, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			got, changed := edit.Undo(before, after, current)
			if got != "" || strings.Join(changed, "|") != want {
				t.Errorf("got %q, changed %q; want %q", got, changed, want)
			}
		})
	}
	good("untouched", before, after, after, before)
	good("never done", before, after, before, before)
	good("line added behind", before, after, after+"mine\n", before+"mine\n")
	good("line added in front", before, after, "mine\n"+after, "mine\n"+before)
	good("line added right behind ours", before, "a\nB\nc\n", "a\nB\nmine\nc\n", "a\nb\nmine\nc\n")
	good("another line changed", before, after, "A\nB\nc\nnew1\nnew2\n", "A\nb\nc\n")
	good("another line removed", before, after, "B\nc\nnew1\nnew2\n", "b\nc\n")
	good("ours was a removal", before, "a\nc\n", "a\nc\nmine\n", "a\nb\nc\nmine\n")
	good("no line end", "a\nb", "a\nb\nnew\n", "x\na\nb\nnew\n", "x\na\nb")
	bad("ours changed", before, after, "a\nBB\nc\nnew1\nnew2\n", "B")
	bad("ours removed", before, after, "a\nc\nnew1\nnew2\n", "B")
	bad("ours torn apart", before, after, "a\nB\nc\nnew1\nmine\nnew2\n", "new1|new2")
	bad("removed already", before, after, before+"mine\n", "B|new1|new2")
	bad("neighbours of a removal are gone", before, "a\nc\n", "a\nx\nc\n", "b")
}

func FuzzUndo(f *testing.F) {
	f.Add("a\nb\n", "a\nc\nb\n", "x\n")
	f.Add("", "a", "")
	f.Add("a\na\na\n", "a\n", "a\n")
	f.Fuzz(func(t *testing.T, before, after, own string) {
		if len(before)+len(after) > 4<<10 {
			return
		}
		if got, changed := edit.Undo(before, after, after); got != before || changed != nil {
			t.Errorf("undone at once: %q, %q", got, changed)
		}
		// What others add stays, or all of it is refused.
		if !strings.HasSuffix(after, "\n") || !strings.HasSuffix(before, "\n") || after+own == before {
			return
		}
		if got, changed := edit.Undo(before, after, after+own); changed == nil && got != before+own {
			t.Errorf("got %q, want %q", got, before+own)
		}
	})
}
