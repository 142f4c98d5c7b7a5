//go:build !linux

package doctor

import "errors"

// synced cannot be told here.
func synced() (bool, error) { return false, errors.New("this system does not tell") }
