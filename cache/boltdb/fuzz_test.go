package boltdb_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"postseal/cache/boltdb"
)

// mutate changes a good file: each six bytes of edits are an offset (four), what
// to do there, and with which value.
func mutate(edits []byte) []byte {
	b := bytes.Clone(good())
	for ; len(edits) >= 6 && len(b) > 0; edits = edits[6:] {
		at := int(binary.BigEndian.Uint32(edits)) % len(b)
		switch kind, v := edits[4]%4, edits[5]; kind {
		case 0:
			b[at] = v
		case 1:
			b[at] ^= 1 << (v % 8)
		case 2:
			b = b[:at]
		case 3:
			copy(b[at:], bytes.Repeat([]byte{v}, 512))
		}
	}
	return b
}

// FuzzOpen changes a good file and reads all of it: it is read or set aside,
// and the process lives on.
func FuzzOpen(f *testing.F) {
	page := uint32(os.Getpagesize())
	edit := func(at uint32, kind, v byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, at), kind, v)
	}
	f.Add([]byte{})
	f.Add(edit(0, 2, 0))
	f.Add(edit(page*5+100, 2, 0))
	for p := range uint32(12) {
		for _, at := range []uint32{0, 8, 10, 12, 16, 20, 24, 28} {
			f.Add(edit(page*p+at, 1, 1))
			f.Add(edit(page*p+at, 0, 255))
		}
		f.Add(edit(page*p, 3, 0))
		f.Add(append(edit(16, 0, 0), edit(page*p+600, 3, 7)...))
	}
	f.Fuzz(func(t *testing.T, edits []byte) {
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(path, mutate(edits), 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := boltdb.Open(path, options(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := count(db); err != nil {
			t.Errorf("reading: %v", err)
		}
		if err := put(db, 50, 100); err != nil {
			t.Errorf("writing: %v", err)
		}
		if n, err := count(db); n < 50 || err != nil {
			t.Errorf("%d records after writing, %v", n, err)
		}
	})
}
