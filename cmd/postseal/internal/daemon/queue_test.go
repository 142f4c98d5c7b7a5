package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestWarnOfQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "max_dgram_qlen")
	for text, want := range map[string]bool{"10\n": true, "512\n": false, "4096\n": false, "?": false, "": false} {
		var said bytes.Buffer
		d := &daemon{log: slog.New(slog.NewTextHandler(&said, nil))}
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d.warnOfQueue(path)
		if got := bytes.Contains(said.Bytes(), []byte("max_dgram_qlen=10 ")); got != want {
			t.Errorf("%q: said %q", text, said.String())
		}
		os.Remove(path)
	}
}
