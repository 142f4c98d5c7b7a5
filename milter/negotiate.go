package milter

import (
	"encoding/binary"
	"fmt"
	"strings"

	gomilter "github.com/emersion/go-milter"
)

const (
	minVersion = 2 // of Sendmail 8.11 and Postfix 2.3; version 1 cannot change headers
	maxVersion = 6 // Postfix since 2.6, Sendmail since 8.14
)

// agreement is what mail server and milter have agreed upon for a connection.
type agreement struct {
	version uint32
	actions gomilter.OptAction
	steps   gomilter.OptProtocol
}

func (a agreement) may(action gomilter.OptAction) bool { return a.actions&action != 0 }

// silent says that no reply may be sent to a command.
func (a agreement) silent(step gomilter.OptProtocol) bool { return a.steps&step != 0 }

// steps are what we ask for where it is offered: no bodies, no commands that mean
// nothing to us, and no waiting for replies that would always be the same. Header
// values come without their first blank, and the mail server adds one to ours, as
// long as OptHeaderLeadingSpace is not asked for.
const steps = gomilter.OptNoBody | gomilter.OptNoEOH | gomilter.OptNoUnknown | gomilter.OptNoData |
	gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply |
	gomilter.OptNoRcptReply | gomilter.OptNoHeaderReply

// actions returns what is needed for a route, and what is good to have: CHGFROM
// for RET=HDRS, recipients with their parameters, and a say in the macros.
func actions(r Route) (need, want gomilter.OptAction) {
	need, want = gomilter.OptChangeHeader, gomilter.OptChangeFrom|gomilter.OptSetSymList
	if r == RouteRecipient {
		return need | gomilter.OptAddRcpt | gomilter.OptRemoveRcpt, want | gomilter.OptAddRcptWithArgs
	}
	return need | gomilter.OptAddHeader, want
}

// Macros that are used.
const (
	macroQueueID    = "i"
	macroUser       = "{auth_authen}"
	macroMailer     = "{rcpt_mailer}"
	macroTLSVersion = "{tls_version}"
)

// macroLists are the macros by stage. Postfix starts from an empty list once one
// stage is named, so every stage that matters must be. Postfix knows the queue id
// only from the first recipient on (MILTER_README).
var macroLists = []struct {
	stage  gomilter.Stage
	macros []string
}{
	{gomilter.StageHelo, []string{macroTLSVersion}},
	{gomilter.StageMailFrom, []string{macroQueueID, macroUser, macroTLSVersion}},
	{gomilter.StageRcptTo, []string{macroQueueID, macroMailer}},
	{gomilter.StageEOM, []string{macroQueueID}},
}

// negotiate answers an offer: never with more than was offered, and not at all if
// something is missing without which nothing could be done.
func negotiate(route Route, data []byte) (agreement, []byte, error) {
	if len(data) < 12 {
		return agreement{}, nil, malformed(byte(gomilter.CodeOptNeg), "too short")
	}
	version := binary.BigEndian.Uint32(data)
	offered := gomilter.OptAction(binary.BigEndian.Uint32(data[4:]))
	if version < minVersion {
		return agreement{}, nil, fmt.Errorf("mail server speaks version %d of the milter protocol, needed is %d", version, minVersion)
	}
	need, want := actions(route)
	if missing := need &^ offered; missing != 0 {
		return agreement{}, nil, fmt.Errorf("mail server does not let milters do what is needed: actions %#x are missing of %#x", missing, need)
	}
	a := agreement{
		version: min(version, maxVersion),
		actions: need | want&offered,
		steps:   steps & gomilter.OptProtocol(binary.BigEndian.Uint32(data[8:])),
	}
	answer := binary.BigEndian.AppendUint32(nil, a.version)
	answer = binary.BigEndian.AppendUint32(answer, uint32(a.actions))
	answer = binary.BigEndian.AppendUint32(answer, uint32(a.steps))
	if a.may(gomilter.OptSetSymList) {
		for _, l := range macroLists {
			answer = binary.BigEndian.AppendUint32(answer, uint32(l.stage))
			answer = append(append(answer, strings.Join(l.macros, " ")...), 0)
		}
	}
	return a, answer, nil
}
