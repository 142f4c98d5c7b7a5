// Package send brings one TLS report to one target, once (RFC 8460 §3, §5.3 to §5.5).
// When, how often and whether at all is for others to decide; they learn from a
// [Failure] whether another try may do better.
//
// By mail ([Mail]), a report is handed to the host's own mail server, which has the
// queue: over SMTP, or by its sendmail program. It is signed with DKIM on the way,
// since receivers ignore reports that are not (§3), and says "TLS-Required: No", since
// it has to arrive in spite of the trouble that it reports.
//
// By https ([HTTPS]), the report is posted to the URI that the domain has published.
// Whose server that is, and what it answers, is up to a stranger: it is reached at no
// address that is not allowed, is followed nowhere else, and can neither fill memory
// nor hold anybody up.
package send

import "fmt"

// maxWords bounds an error's text.
const maxWords = 400

// Failure is why a target did not take a report.
type Failure struct {
	// Target: it is the target's own doing, which refused or cannot be reached;
	// otherwise ours: the host's mail server is down, or refuses us.
	Target bool

	// Final: there is no use in trying again with this report. Otherwise there is
	// (RFC 8460 §5.5).
	Final bool

	Err error
}

// Error is printable and of at most about 400 bytes, whatever the other side sent.
func (f *Failure) Error() string { return printable(f.Err.Error(), maxWords) }

func (f *Failure) Unwrap() error { return f.Err }

// ours is a failure that has nothing to do with the target and may pass.
func ours(format string, args ...any) *Failure {
	return &Failure{Err: fmt.Errorf(format, args...)}
}

// theirs is a failure of the target that may pass.
func theirs(format string, args ...any) *Failure {
	return &Failure{Target: true, Err: fmt.Errorf(format, args...)}
}
