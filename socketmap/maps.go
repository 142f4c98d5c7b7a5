package socketmap

import (
	"context"
	"log/slog"

	"postseal/policy"
)

type mapID uint8

const (
	mapPostfix mapID = iota
	mapPostfixTLSRPT
	mapQuery
	mapQueryTLSRPT
	mapSTS
	mapRequireTLS
	mapTransport
	mapMailertable
	mapUnknown
	mapCount
)

// maps by mapID. The names are compared without case.
var maps = [mapCount]struct {
	name    string
	dialect dialect
}{
	mapPostfix:       {"postfix", plain},         // the name that users of postfix-mta-sts-resolver have
	mapPostfixTLSRPT: {"postfix-tlsrpt", tlsrpt}, // attributes that Postfix below 3.10 refuses
	mapQuery:         {"QUERY", plain},           // this and the next: names of postfix-tlspol
	mapQueryTLSRPT:   {"QUERYwithTLSRPT", tlsrpt},
	mapSTS:           {"sts", sendmail}, // FEATURE(sts) has this name built in
	mapRequireTLS:    {"requiretls", plain},
	mapTransport:     {"transport", plain},
	mapMailertable:   {"mailertable", plain},
	mapUnknown:       {"unknown", plain},
}

func findMap(name []byte) mapID {
	for id := range mapUnknown {
		if equalFold(maps[id].name, name) {
			return id
		}
	}
	return mapUnknown
}

// equalFold compares without the case of ASCII letters and no other: the folding
// of Unicode would make "ſts" a map.
func equalFold(s string, b []byte) bool {
	if len(s) != len(b) {
		return false
	}
	for i := range len(s) {
		if lower(s[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// question is a request that was understood. Its answer is reply, or that of
// decision. It holds nothing of the buffer that it was read from.
type question struct {
	id       mapID
	dest     policy.Destination
	wait     bool // for the decision on dest
	decision *policy.Decision
	reply    string
	key      string // for the log; "" unless it is at level debug
}

// ask understands a request and answers as far as that needs no waiting. The
// name ends at the first space; the key is all the rest, and may be empty.
// scratch has room for a domain name.
func (s *session) ask(request []byte) question {
	name, key := request, []byte(nil)
	for i, c := range request {
		if c == ' ' {
			name, key = request[:i], request[i+1:]
			break
		}
	}
	q := question{id: findMap(name)}
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		q.key = string(key)
	}
	switch q.id {
	case mapPostfix, mapPostfixTLSRPT, mapQuery, mapQueryTLSRPT, mapSTS:
		s.askDecision(&q, key)
	case mapRequireTLS:
		q.reply = s.askRequireTLS(key)
	case mapTransport, mapMailertable:
		s.askRoute(&q, key)
	default: // Sendmail takes PERM for "no policy", and any map may ask for it under a wrong name
		q.reply = string(appendTemp(nil, "unknown map "+string(name[:min(len(name), 32)])))
	}
	return q
}

// askDecision looks a plain name up in memory, where nearly all answers come
// from. A key that no policy can exist for is not asked about at all; among them
// are the parents (".example.org") that Postfix asks for after each NOTFOUND.
func (s *session) askDecision(q *question, key []byte) {
	if len(key) > 0 && key[0] == '.' {
		q.reply = replyNotFound
		return
	}
	name, ok := policy.AppendName(s.scratch[:0], key)
	if ok {
		if q.decision = s.server.Decider.Cached(name); q.decision == nil {
			q.dest, q.wait = policy.Destination{Domain: string(name), Port: 25}, true
		}
		return
	}
	dest, err := policy.ParseDestination(string(key))
	if err != nil {
		q.reply = replyNotFound
		return
	}
	if !dest.Fixed && dest.Port == 25 { // U-labels
		q.decision = s.server.Decider.Cached([]byte(dest.Domain))
	}
	q.dest, q.wait = dest, q.decision == nil
}

// askRequireTLS answers for smtp_requiretls_policy of Postfix 3.11, whose key is
// the next hop in A-labels without brackets or port. To relax is a choice of the
// operator only, since it breaks what the sender asked for (RFC 8689 §4.2.1).
// For what is no domain the next item of that setting speaks, in the end enforce.
func (s *session) askRequireTLS(key []byte) string {
	dest, err := policy.ParseDestination(string(key))
	if err != nil {
		return replyNotFound
	}
	rule := s.server.Decider.Override(dest.Domain)
	if rule == nil {
		return replyOK + "enforce"
	}
	switch rule.RequireTLS {
	case "":
		return replyOK + "enforce"
	case "enforce", "opportunistic+starttls", "opportunistic", "disable":
		return replyOK + rule.RequireTLS
	}
	return string(appendTemp(nil, "the override's requiretls is none of Postfix's words for "+dest.Domain))
}

// answer appends the netstring of the answer.
func (s *session) answer(dst []byte, q *question) []byte {
	dst, start := beginFrame(dst)
	switch {
	case q.reply != "":
		dst = append(dst, q.reply...)
	case q.id == mapTransport || q.id == mapMailertable:
		dst = s.server.Delivery.appendRoute(dst, q.id, q.decision)
	default:
		var cut bool
		dst, cut = appendDecision(dst, q.decision, maps[q.id].dialect, s.server.HostDANE)
		if cut {
			s.server.warnCut(s.log, q.decision)
		}
	}
	content := dst[start+len(reserved):]
	s.server.counters.count(q.id, content)
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("answer", "map", maps[q.id].name, "key", q.key, "reply", string(content[:min(len(content), 512)]))
	}
	return endFrame(dst, start)
}
