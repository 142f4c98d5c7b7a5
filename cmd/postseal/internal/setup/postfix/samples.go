package postfix

import (
	"regexp"
	"slices"
	"strings"

	postfixfiles "postseal/contrib/postfix"
)

// setting is one of contrib/postfix/main.cf and its likes, with the beginning of the
// comment above it.
type setting struct{ name, value, why string }

// service is one of contrib/postfix/master.cf: "name/type" and the whole entry as
// postconf -M takes it.
type service struct{ name, entry string }

// milterDown stays a variable in main.cf, unlike the others of contrib/postfix: an
// administrator changes it while the daemon is down (contrib/postfix/README.md).
const milterDown = "postseal_milter_down"

// What belongs together of the settings in contrib/postfix: each is in one set.
var (
	policySet  = []string{"smtp_tls_policy_maps", "smtp_dns_support_level", "smtp_tls_security_level", "smtp_tls_loglevel", "smtp_tls_CAfile"}
	routingSet = []string{"transport_maps", "postseal_destination_concurrency_limit", "postseal_destination_concurrency_failed_cohort_limit"}
	tagSet     = []string{
		milterDown, "smtpd_milters", "non_smtpd_milters", "milter_header_checks", "smtp_requiretls_policy",
		"postseal-requiretls_destination_concurrency_limit", "postseal-relaxed_destination_concurrency_limit",
		"postseal-requiretls_destination_concurrency_failed_cohort_limit", "postseal-relaxed_destination_concurrency_failed_cohort_limit",
	}
	datagramSet = []string{"smtp_tlsrpt_enable", "smtp_tlsrpt_socket_name", "smtp_tlsrpt_skip_reused_handshakes"}
)

var ourVariable = regexp.MustCompile(`\$(?:\{postseal_[a-z_]+\}|postseal_[a-z_]+)`)

// contribFile reads a file of contrib/postfix, which is part of the program.
func contribFile(name string) string {
	text, err := postfixfiles.Files.ReadFile(name)
	if err != nil {
		return "" // a test reads all of them
	}
	return string(text)
}

// settings reads files of contrib/postfix, the later ones before the earlier, and puts
// the values of their own variables in.
func settings(names ...string) []setting {
	var all []setting
	variables := map[string]string{}
	for _, name := range names {
		for _, s := range parseSettings(contribFile(name)) {
			if strings.HasPrefix(s.name, "postseal_") && !strings.HasPrefix(s.name, "postseal_destination_") && s.name != milterDown {
				variables[s.name] = s.value
				continue
			}
			all = append(slices.DeleteFunc(all, func(o setting) bool { return o.name == s.name }), s)
		}
	}
	for i := range all {
		for range 4 { // variables within variables
			all[i].value = ourVariable.ReplaceAllStringFunc(all[i].value, func(v string) string {
				if name := strings.Trim(v, "${}"); name != milterDown {
					return variables[name]
				}
				return v
			})
		}
	}
	return all
}

// parseSettings reads "name = value" lines, each with the first sentence of the
// paragraph of comment that it stands below.
func parseSettings(text string) []setting {
	var all []setting
	var comment []string
	fresh := true // a line of comment begins another paragraph
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if said, ok := strings.CutPrefix(line, "#"); ok {
			if fresh {
				comment = nil
			}
			fresh, comment = false, append(comment, strings.TrimSpace(said))
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if fresh = true; ok {
			all = append(all, setting{strings.TrimSpace(name), strings.TrimSpace(value), sentence(strings.Join(comment, " "))})
		}
	}
	return all
}

var sentenceEnd = regexp.MustCompile(`[.:](\s|$)`)

// sentence is the first sentence of a comment.
func sentence(text string) string {
	if at := sentenceEnd.FindStringIndex(text); at != nil {
		return text[:at[0]]
	}
	return text
}

// services reads contrib/postfix/master.cf.
func services() []service {
	var all []service
	for line := range strings.Lines(contribFile("master.cf")) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
		case line[0] == ' ' || line[0] == '\t':
			last := &all[len(all)-1]
			last.entry += " " + strings.Join(fields, " ")
		default:
			all = append(all, service{fields[0] + "/" + fields[1], strings.Join(fields, " ")})
		}
	}
	return all
}
