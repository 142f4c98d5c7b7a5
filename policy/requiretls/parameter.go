package requiretls

import (
	"fmt"
	"strings"
)

// Parameter reports whether REQUIRETLS is among the parameters of a MAIL command,
// which are given without the address. The parameter has no value (RFC 8689 §2):
// REQUIRETLS=CHAIN and the like, of the drafts, ask for nothing, and are an error,
// which a server answers with 501 5.5.4. A parameter that is given twice is one
// too, but does ask.
func Parameter(params []string) (bool, error) {
	found := false
	var err error
	for _, p := range params {
		key, value, valued := strings.Cut(p, "=")
		switch {
		case !equal(key, Keyword):
		case valued:
			err = fmt.Errorf("parameter %s has the value %s, it must have none", Keyword, quote(value))
		case found:
			err = fmt.Errorf("parameter %s: %w", Keyword, ErrTwice)
		default:
			found = true
		}
	}
	return found, err
}
