package postconf

import (
	"fmt"
	"regexp"
	"strconv"
)

// Release is a version of Postfix. Snapshots bear the name of the release to come,
// with a date behind it.
type Release struct {
	Major, Minor int
	Snapshot     bool
}

var version = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.\d+)?(-\d{8}\b)?`)

// Releases that brought something.
var (
	Oldest   = Release{Major: 3, Minor: 4}  // servername= in policies, without which SNI is missing
	Patterns = Release{Major: 3, Minor: 10} // policy_type= and mx_host_pattern=; TLSRPT
	Native   = Release{Major: 3, Minor: 11} // REQUIRETLS; also the latest that the lab has run
)

// ParseRelease reads mail_version.
func ParseRelease(s string) (Release, error) {
	m := version.FindStringSubmatch(s)
	if m == nil {
		return Release{}, fmt.Errorf("%q is no version of Postfix", s)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return Release{}, err
	}
	minor, err := strconv.Atoi(m[2])
	return Release{major, minor, m[3] != ""}, err
}

// Has reports whether r comes after o or is it. What a release brought may be missing
// in the snapshots before it.
func (r Release) Has(o Release) bool {
	if r.Major == o.Major && r.Minor == o.Minor {
		return !r.Snapshot
	}
	return r.After(o)
}

// After reports whether r is of a later release than o.
func (r Release) After(o Release) bool {
	return r.Major > o.Major || r.Major == o.Major && r.Minor > o.Minor
}

func (r Release) String() string { return fmt.Sprintf("%d.%d", r.Major, r.Minor) }
