package setup

import (
	"fmt"
	"regexp"
	"strconv"
)

// release is a version of Postfix. Snapshots bear the name of the release to come,
// with a date behind it.
type release struct {
	major, minor int
	snapshot     bool
}

var (
	postfixVersion = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.\d+)?(-\d{8}\b)?`)

	oldest   = release{major: 3, minor: 4}  // servername= in policies, without which SNI is missing
	patterns = release{major: 3, minor: 10} // policy_type= and mx_host_pattern=
	native   = release{major: 3, minor: 11} // REQUIRETLS; also the latest that the lab has run
)

func parseRelease(s string) (release, error) {
	m := postfixVersion.FindStringSubmatch(s)
	if m == nil {
		return release{}, fmt.Errorf("%q is no version of Postfix", s)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return release{}, err
	}
	minor, err := strconv.Atoi(m[2])
	return release{major, minor, m[3] != ""}, err
}

// has reports whether r comes after o or is it. What a release brought may be missing
// in the snapshots before it.
func (r release) has(o release) bool {
	if r.major == o.major && r.minor == o.minor {
		return !r.snapshot
	}
	return r.major > o.major || r.major == o.major && r.minor > o.minor
}

func (r release) String() string { return fmt.Sprintf("%d.%d", r.major, r.minor) }
