package edit

import (
	"bytes"
	"strings"
)

// maxCompared bounds the table of a comparison: the product of the two numbers of
// lines that differ. Beyond it no line counts as the same.
const maxCompared = 16 << 20

// match finds the lines of a in b, as a longest common subsequence: for each its
// place there, or -1.
func match(a, b []string) []int {
	at := make([]int, len(a))
	for i := range at {
		at[i] = -1
	}
	lo := 0
	for lo < len(a) && lo < len(b) && a[lo] == b[lo] {
		at[lo] = lo
		lo++
	}
	hiA, hiB := len(a), len(b)
	for hiA > lo && hiB > lo && a[hiA-1] == b[hiB-1] {
		hiA, hiB = hiA-1, hiB-1
		at[hiA] = hiB
	}
	n, m := hiA-lo, hiB-lo
	if n == 0 || m == 0 || n*m > maxCompared {
		return at
	}
	width := m + 1
	longest := make([]int32, (n+1)*width) // of a[i:], b[j:]
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if a[lo+i] == b[lo+j] {
				longest[i*width+j] = longest[(i+1)*width+j+1] + 1
			} else {
				longest[i*width+j] = max(longest[(i+1)*width+j], longest[i*width+j+1])
			}
		}
	}
	for i, j := 0, 0; i < n && j < m; {
		switch {
		case a[lo+i] == b[lo+j]:
			at[lo+i] = lo + j
			i, j = i+1, j+1
		case longest[(i+1)*width+j] >= longest[i*width+j+1]:
			i++
		default:
			j++
		}
	}
	return at
}

// hunk says that lines lo to hi of the text as we left it were others before.
type hunk struct {
	lo, hi int
	before []string
}

// hunks are the differences that lead from after back to before.
func hunks(after, before []string) []hunk {
	var all []hunk
	at := match(after, before)
	i, j := 0, 0
	for i < len(after) || j < len(before) {
		if i < len(after) && at[i] == j {
			i, j = i+1, j+1
			continue
		}
		h := hunk{lo: i}
		for i < len(after) && at[i] < 0 {
			i++
		}
		end := len(before)
		if i < len(after) {
			end = at[i]
		}
		h.hi, h.before = i, before[j:end]
		j = end
		all = append(all, h)
	}
	return all
}

// undo takes back, in the text as it is now, what led from before to after, and
// leaves all else as it is. Where the lines that we wrote have been changed since, or
// torn apart, it gives these lines, and nothing is to be undone.
func undo(before, after, current []byte) (result []byte, changed []string) {
	if bytes.Equal(current, before) || bytes.Equal(current, after) {
		return before, nil
	}
	a, c := Lines(after), Lines(current)
	at := match(a, c)
	var out strings.Builder
	next := 0 // of c, to be copied
	for _, h := range hunks(a, Lines(before)) {
		lo, hi, ok := place(h, at, len(c))
		if !ok {
			changed = append(changed, lost(h, a)...)
			continue
		}
		out.WriteString(strings.Join(c[next:lo], ""))
		out.WriteString(strings.Join(h.before, ""))
		next = hi
	}
	if len(changed) > 0 {
		return nil, changed
	}
	out.WriteString(strings.Join(c[next:], ""))
	return []byte(out.String()), nil
}

// place is where the lines of a hunk are now: in one piece, or not at all.
func place(h hunk, at []int, length int) (lo, hi int, ok bool) {
	if h.lo == h.hi { // only taken away: between two lines that are still neighbours
		left, right := -1, length
		if h.lo > 0 {
			left = at[h.lo-1]
		}
		if h.lo < len(at) {
			right = at[h.lo]
		}
		return left + 1, left + 1, (h.lo == 0 || left >= 0) && right == left+1
	}
	for i := h.lo; i < h.hi; i++ {
		if at[i] < 0 || i > h.lo && at[i] != at[i-1]+1 {
			return 0, 0, false
		}
	}
	return at[h.lo], at[h.hi-1] + 1, true
}

// lost names the lines of a hunk, for people.
func lost(h hunk, after []string) []string {
	lines := after[h.lo:h.hi]
	if len(lines) == 0 {
		lines = h.before
	}
	var all []string
	for _, line := range lines {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	if all == nil {
		all = []string{"an empty line"}
	}
	return all
}
