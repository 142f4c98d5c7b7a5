package tomlfile_test

import (
	"testing"

	"postseal/cmd/postseal/internal/tomlfile"
)

type element struct {
	Name string
	Text string
}

type sample struct {
	Top   string
	Count int
	Table struct {
		On   bool
		List []string
	}
	Element []element
}

func TestErrorsNamePlaceAndKey(t *testing.T) {
	bad := func(name, text, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			var v sample
			_, err := tomlfile.Decode("f.toml", text, &v)
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
	bad("unknown key", "top = 'x'\nbottom = 1\n", "f.toml:2: bottom: unknown key")
	bad("unknown key in a table", "# one\n[table]\n\non = true\nof = true\n", "f.toml:5: table.of: unknown key")
	bad("unknown table", "[table]\non = true\n[tabel]\non = true\n", "f.toml:3: tabel: unknown key")
	bad("unknown key behind a list over lines", "[table]\nlist = [ # a list\n  \"on = x\", \"]\",\n  'y']\nwrong = 1\n", "f.toml:5: table.wrong: unknown key")
	bad("unknown key behind a long string", "top = \"\"\"\nfalse = \"1\"\n[table]\n\"\"\"\nwrong = 1\n", "f.toml:5: wrong: unknown key")
	bad("dotted", "table.on = true\ntable . \"o n\" = true\n", `f.toml:2: table."o n": unknown key`)
	bad("unknown key in an element", "[[element]]\nname = 'a'\n[[element]]\nname = 'b'\nnme = 'c'\n", "f.toml:5: element.nme: unknown key")
	bad("inline", "top = 'x'\ntable = { of = true }\n", "f.toml:2: table.of: unknown key")
	bad("type", "top = 'x'\n[table]\non = 'yes'\n", "f.toml:3: table.on: must be of type boolean, not string")
	bad("list", "[table]\nlist = 'x'\n", "f.toml:2: table.list: must be of type list, not string")
	bad("number", "\ncount = 'x'\n", "f.toml:2: count: must be of type integer, not string")
	bad("syntax", "top = 'x'\ncount = \n", `f.toml:2: count: expected value but found '\n' instead`)
	bad("twice", "top = 'x'\ntop = 'y'\n", "f.toml:2: top: Key 'top' has already been defined.")
}

func TestErrorFindsElements(t *testing.T) {
	var v sample
	f, err := tomlfile.Decode("f.toml", "[[element]]\nname = 'a'\ntext = '''\n[[element]]\n'''\n\n[[element]] # second\ntext = 'x'\n", &v)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"element.2.text": "f.toml:8: element.2.text: no",
		"element.2.name": "f.toml:7: element.2.name: no",
		"element.1.text": "f.toml:3: element.1.text: no",
		"nothing":        "f.toml: nothing: no",
	} {
		if got := f.Error(key, "no").Error(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "a", "[", "[[element]]\nname=", "top=\"\"\"", "top='", "table={list=[", "\"", "= 1\n", "[a]]\nb=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v sample
		if file, err := tomlfile.Decode("f.toml", text, &v); err == nil {
			_ = file.Error("element.1.name", "x")
		}
	})
}
