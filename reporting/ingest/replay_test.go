package ingest_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
)

// lineReader remembers the lengths of its lines, and their text if they are short.
type lineReader struct {
	maillog.Reader
	lines []string
	sizes []int
}

func (r *lineReader) Line(line []byte, _ func(reporting.Session)) {
	r.sizes = append(r.sizes, len(line))
	r.lines = append(r.lines, string(line[:min(len(line), 20)]))
}

func TestReplay(t *testing.T) {
	long := strings.Repeat("x", maillog.MaxLine)
	huge := strings.Repeat("y", 5*maillog.MaxLine)
	for _, test := range []struct {
		name, log string
		want      []string
		tooLong   int
	}{
		{"nothing", "", nil, 0},
		{"one line", "a\n", []string{"a"}, 0},
		{"the last line lacks its end", "a\nb", []string{"a", "b"}, 0},
		{"empty lines", "\n\na\n", []string{"", "", "a"}, 0},
		{"the longest line", long + "\nb\n", []string{long[:20], "b"}, 0},
		{"one byte more", long + "x\nb\n", []string{long[:20], "b"}, 1},
		{"huge lines", "a\n" + huge + "\nb\n" + huge + huge + "\nc\n", []string{"a", huge[:20], "b", huge[:20], "c"}, 2},
		{"a huge line lacks its end", "a\n" + huge, []string{"a", huge[:20]}, 1},
		{"many lines", strings.Repeat("abc\n", 70_000), strings.Split(strings.TrimSuffix(strings.Repeat("abc\n", 70_000), "\n"), "\n"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			readers := map[string]io.Reader{
				"whole": strings.NewReader(test.log), "halves": iotest.HalfReader(strings.NewReader(test.log)),
				"end with data": iotest.DataErrReader(strings.NewReader(test.log)), "bytes": iotest.OneByteReader(strings.NewReader(test.log)),
			}
			for how, from := range readers {
				var r lineReader
				if err := ingest.Replay(from, &r, nil); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, r.lines); diff != "" {
					t.Errorf("%s: %s", how, diff)
				}
				tooLong := 0
				for _, n := range r.sizes {
					if n > maillog.MaxLine {
						tooLong++
					}
				}
				if tooLong != test.tooLong {
					t.Errorf("%s: %d lines too long, want %d", how, tooLong, test.tooLong)
				}
			}
		})
	}
	t.Run("an error", func(t *testing.T) {
		var r lineReader
		broken := errors.New("broken")
		err := ingest.Replay(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), &r, nil)
		if !errors.Is(err, broken) || len(r.lines) != 1 {
			t.Errorf("%v after %q", err, r.lines)
		}
	})
}

func TestCursor(t *testing.T) {
	for line, want := range map[string]string{
		`{"__CURSOR":"s=1;i=2","MESSAGE":"x"}`: "s=1;i=2",
		`{"MESSAGE":"x"}`:                      "",
		`{"__CURSOR":["a"]}`:                   "",
		`{`:                                    "",
		"":                                     "",
		"Nov 22 03:00:00 mta37 x: y":           "",
	} {
		if got := ingest.Cursor([]byte(line)); got != want {
			t.Errorf("Cursor(%s) = %q, want %q", line, got, want)
		}
	}
}
