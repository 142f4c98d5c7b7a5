//go:build !linux

package delivery

import "os"

// nameless opens a file without a name.
func nameless(dir string) (*os.File, error) { return named(dir) }
