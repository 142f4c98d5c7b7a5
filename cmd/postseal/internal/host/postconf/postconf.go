// Package postconf reads Postfix's configuration from what postconf(1) prints: the
// settings of main.cf, lists with braces in them, maps that are asked over sockets, and
// the column of master.cf that says who is chrooted.
//
// A [Release] says what this Postfix understands. That matters more than it seems: of a
// policy with an attribute that it does not know smtp(8) takes nothing, and holds all
// mail to the domain. servername= came with 3.4, policy_type= and mx_host_pattern= with
// 3.10, REQUIRETLS with 3.11; package setup chooses the map by it and package doctor
// checks the choice, so the rule stands here and only here.
//
// Sources: postconf(1), postconf(5), master(5), socketmap_table(5), Postfix's RELEASE_NOTES.
package postconf

import "strings"

// Values reads the "name = value" lines of postconf -n, -x and -P.
func Values(out string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, "="); ok {
			all[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return all
}

// List takes a list apart: at commas and blanks outside of braces.
func List(value string) []string {
	var all []string
	depth, start := 0, -1
	for i := 0; i <= len(value); i++ {
		end := i == len(value)
		switch {
		case !end && value[i] == '{':
			depth++
		case !end && value[i] == '}':
			depth--
		}
		separates := end || depth == 0 && strings.IndexByte(", \t\r\n", value[i]) >= 0
		switch {
		case separates && start >= 0:
			all = append(all, value[start:i])
			start = -1
		case !separates && start < 0:
			start = i
		}
	}
	return all
}

// Chrooted reads the column of master.cf for chroot, whose default is no, but yes below
// compatibility_level 1 (master(5)).
func Chrooted(column, compatibilityLevel string) bool {
	return column == "y" || column == "-" && strings.HasPrefix(compatibilityLevel, "0")
}

// Socketmap is "socketmap:inet:host:port:name" or "socketmap:unix:path:name".
type Socketmap struct {
	Kind, Address, Name string
	Proxied             bool // "proxy:" before it: proxymap(8) asks
}

// ParseSocketmap reads an item of a list of maps; ok is false for other tables.
func ParseSocketmap(item string) (m Socketmap, ok bool) {
	item, proxied := strings.CutPrefix(item, "proxy:")
	rest, ok := strings.CutPrefix(item, "socketmap:")
	if !ok {
		return Socketmap{}, false
	}
	kind, rest, ok := strings.Cut(rest, ":")
	at := strings.LastIndexByte(rest, ':')
	if !ok || at < 0 {
		return Socketmap{}, false
	}
	return Socketmap{kind, rest[:at], rest[at+1:], proxied}, true
}

// Dialect says whether the answers of a map of TLS policies are for releases from
// [Patterns] on. known is false of a map that is none. The names in capitals are those
// of postfix-tlspol.
func Dialect(name string) (patterns, known bool) {
	switch strings.ToLower(name) {
	case "postfix", "query":
		return false, true
	case "postfix-tlsrpt", "querywithtlsrpt":
		return true, true
	}
	return false, false
}
