package exim

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"postseal/reporting/ingest/foreign"
)

const (
	// maxEvent is the longest event line: that of the door it comes through.
	maxEvent = 64 << 10

	// maxEventData is what is looked at of the text of an event: a reply to EHLO has
	// at most 512 bytes a line (RFC 5321 §4.5.3.1.5), and 20 keywords or so.
	maxEventData = 8 << 10
)

var errEvent = errors.New("not an event line")

// event is one call of Exim's event_action, in the form that contrib/exim gives it:
//
//	event n=tls:cert m=1xUxp6-0006vs-2u i=BASE64 t=postseal_smtp d=example.org h=mx.example.org
//	  a=192.0.2.1 p=25 la=198.51.100.1 lp=40120 ds=no tv= tc= cv=0 dane=no
//	  sni=mx.example.org e=0 der=BASE64 x=BASE64
//
// in one line. Empty values are usual, and der is there for tls:cert, and for
// msg:host:defer if Exim has a certificate. i, the Message-ID, may be missing.
type event struct {
	name      string
	message   string
	transport string
	domain    string
	host      string
	addr      netip.Addr
	local     netip.Addr
	port      uint16 // our own; 0 if unknown
	encrypted bool   // tv: TLS is on
	dane      bool   // and verified so
	errno     int
	der       []byte
	data      string
	messageID []byte

	skip bool // it does not count; not in the line
}

// parseEvent reads an event line. Values that remote domains choose stand between
// others, so no key may occur twice: whoever could slip one in cannot take out the
// real one that follows.
func parseEvent(line string) (ev event, err error) {
	if len(line) > maxEvent {
		return ev, fmt.Errorf("%w: %d bytes", errEvent, len(line))
	}
	rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "event ")
	if !ok {
		return ev, errEvent
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(rest, " ") {
		if word == "" {
			continue
		}
		key, value, ok := strings.Cut(word, "=")
		if !ok || seen[key] {
			return ev, fmt.Errorf("%w: %s", errEvent, foreign.Printable(word, 60))
		}
		seen[key] = true
		if err := ev.set(key, value); err != nil {
			return ev, err
		}
	}
	for _, key := range []string{"n", "m", "d", "h", "a", "tv", "x"} {
		if !seen[key] {
			return ev, fmt.Errorf("%w: no %s", errEvent, key)
		}
	}
	return ev, nil
}

func (ev *event) set(key, value string) (err error) {
	switch key {
	case "n":
		ev.name = value
	case "m":
		ev.message = strings.Clone(value) // what is kept must not keep the line
	case "t":
		ev.transport = value
	case "d":
		ev.domain = strings.Clone(value)
	case "h":
		ev.host = strings.Clone(value)
	case "a":
		ev.addr = foreign.Address(value)
	case "la":
		ev.local = foreign.Address(value)
	case "lp":
		// What Exim does not know yet is empty, 0 or -1.
		port, _ := strconv.ParseUint(value, 10, 16)
		ev.port = uint16(port)
	case "tv":
		ev.encrypted = value != ""
	case "dane":
		ev.dane = value == "yes"
	case "e":
		ev.errno, _ = strconv.Atoi(value)
	case "der":
		if ev.der, err = base64.StdEncoding.DecodeString(value); err != nil {
			return fmt.Errorf("%w: certificate: %w", errEvent, err)
		}
	case "i":
		if ev.messageID, err = base64.StdEncoding.DecodeString(value); err != nil {
			return fmt.Errorf("%w: Message-ID: %w", errEvent, err)
		}
	case "x":
		data, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return fmt.Errorf("%w: text: %w", errEvent, err)
		}
		ev.data = string(data[:min(len(data), maxEventData)])
	}
	return nil // keys of tomorrow
}

// offersSTARTTLS reads a reply to EHLO (RFC 3207 §4).
func offersSTARTTLS(reply string) bool {
	for line := range strings.SplitSeq(strings.ReplaceAll(reply, "\r", "\n"), "\n") {
		if len(line) > 4 && strings.EqualFold(strings.TrimSpace(line[4:]), "STARTTLS") {
			return true
		}
	}
	return false
}
