package doctor

import "golang.org/x/sys/unix"

// synced asks the kernel whether somebody disciplines the clock (adjtimex(2)). In a
// container that is the host.
func synced() (bool, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}
