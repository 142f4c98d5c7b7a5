package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"postseal/cmd/postseal/internal/config"
)

// sendmail is its sendmail.cf.
type sendmail struct {
	options map[string]string // O name=value
	maps    map[string]string // K name, the rest
	milters map[string]string // X name, the rest
	made    string            // the version whose macros made it
	rules   string            // D{postseal_rules}, of postseal_rules.m4
	build   string            // what the program was compiled with, below its version
}

func readSendmail(ctx context.Context, m *Machine) (*sendmail, error) {
	text, err := m.Read("/etc/mail/sendmail.cf")
	if err != nil {
		return nil, err
	}
	s := &sendmail{options: map[string]string{}, maps: map[string]string{}, milters: map[string]string{}}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, " \t\n")
		if len(line) < 2 {
			continue
		}
		rest := strings.TrimSpace(line[1:])
		switch line[0] {
		case 'O':
			if name, value, found := strings.Cut(rest, "="); found {
				s.options[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
		case 'K':
			if name, value, found := strings.Cut(rest, " "); found {
				s.maps[name] = value
			}
		case 'D':
			if version, is := strings.CutPrefix(rest, "Z"); is { // DZ8.18.1/Debian-6
				s.made, _, _ = strings.Cut(version, "/")
			}
			if version, is := strings.CutPrefix(rest, "{postseal_rules}"); is {
				s.rules = version
			}
		case 'X':
			if name, value, found := strings.Cut(rest, ","); found {
				s.milters[name] = value
			}
		}
	}
	s.build, _ = m.Output(ctx, "sendmail", "-d0.13", "-bt") // without it, what was compiled in is not judged
	return s, nil
}

// mapPlace is where a map of class socket asks: "inet:port@host" or a path.
func mapPlace(definition string) (config.Endpoint, bool) {
	fields := strings.Fields(definition)
	if len(fields) < 2 || fields[0] != "socket" {
		return config.Endpoint{}, false
	}
	return sendmailPlace(fields[len(fields)-1])
}

func sendmailPlace(text string) (config.Endpoint, bool) {
	kind, rest, found := strings.Cut(text, ":")
	if !found {
		return config.Endpoint{}, false
	}
	switch kind {
	case "inet":
		port, host, found := strings.Cut(rest, "@")
		if !found || host == "localhost" {
			host = "127.0.0.1"
		}
		return config.Endpoint{Network: "tcp", Address: host + ":" + port}, true
	case "unix", "local":
		return config.Endpoint{Network: "unix", Address: rest}, true
	}
	return config.Endpoint{}, false
}

// sendmailRules is what postseal_rules.m4 of this version has for D{postseal_rules}.
const sendmailRules = "2"

const rebuild = "; make -C /etc/mail; systemctl restart sendmail"

// checkSendmail looks at whether Sendmail asks us, whom it trusts, and what it logs.
func checkSendmail(_ context.Context, e *env) []Finding {
	s := e.sendmail
	if s == nil {
		return nil
	}
	found := e.sendmailMaps()
	found = append(found, e.sendmailTrust()...)
	found = append(found, e.sendmailMilter()...)
	dane := strings.EqualFold(s.options["DANE"], "true")
	switch {
	case e.Config.Host.DANE && !dane:
		found = append(found, failure("host.dane is true, but Sendmail has no O DANE=true: mail to domains with DANE goes unprotected", "define(`confDANE', `true')dnl in sendmail.mc (8.18 and later)"+rebuild+"; or host.dane = false with a delivery.listen"))
	case !e.Config.Host.DANE && len(e.Config.Delivery.Listen) == 0:
		found = append(found, failure("host.dane is false, and there is no delivery.listen: mail to domains with DANE waits", `delivery.listen = ["tcp:127.0.0.1:8463"], and the mailertable of contrib/sendmail`))
	}
	if version := s.version(); version != "" && s.made != "" && version != s.made {
		// rules of 8.17 let 8.18 send in clear, where DANE demands TLS and STARTTLS is missing
		found = append(found, failure("sendmail.cf was made for Sendmail "+s.made+", but this is "+version+": its rules for TLS may not hold mail back where these would", "touch /etc/mail/sendmail.mc"+rebuild))
	}
	if missing := s.lacks("SOCKETMAP", "MILTER", "STARTTLS", "_FFR_MTA_STS", "_FFR_TLS_ALTNAMES"); len(missing) > 0 {
		found = append(found, failure("this Sendmail was built without "+strings.Join(missing, ", "), "a Sendmail that was, such as Debian's; or all domains with a policy through the fallback: delivery.for = [\"sts\", \"dane\"]"))
	}
	if len(found) == 0 {
		found = append(found, ok("Sendmail asks postseal"))
	}
	return found
}

// version is that of the program, as -d0.13 prints it first; "" if it does not.
func (s *sendmail) version() string {
	rest, is := strings.CutPrefix(s.build, "Version ")
	if !is {
		return ""
	}
	version, _, _ := strings.Cut(rest, "\n")
	return version
}

// lacks are the words that -d0.13 does not print; nil where it printed nothing.
func (s *sendmail) lacks(words ...string) []string {
	if !strings.Contains(s.build, "Compiled with") {
		return nil
	}
	return slices.DeleteFunc(words, func(w string) bool { return slices.Contains(strings.Fields(s.build), w) })
}

func (e *env) sendmailMaps() []Finding {
	s := e.sendmail
	const include = "include(`/usr/share/postseal/sendmail/postseal.m4')dnl and postseal_rules.m4 in sendmail.mc" + rebuild
	found := []Finding{}
	listed := func(name string) bool {
		at, is := mapPlace(s.maps[name])
		return is && e.listed(place{endpoint: at}, e.Config.Socketmap.Listen)
	}
	switch _, defined := s.maps["sts"]; {
	case !defined:
		found = append(found, failure("Sendmail does not ask postseal: sendmail.cf has no map sts", include))
	case !listed("sts"):
		found = append(found, failure(fmt.Sprintf("Sendmail asks %q, but postseal listens at %s", s.maps["sts"], strings.Join(e.Config.Socketmap.Listen, ", ")), "define(`POSTSEAL_MAP_PORT', `8461')dnl above the include"+rebuild))
	case s.rules != sendmailRules:
		found = append(found, failure("sendmail.cf has no rules of postseal, or those of another version: mail to domains with MTA-STS is not judged well", include))
	case !strings.Contains(s.maps["sts"], "-T"):
		found = append(found, failure("the map sts has no -T<TMPF>: while postseal is down mail goes unprotected", include))
	}
	if m := s.maps["mailertable"]; strings.HasPrefix(m, "socket") && strings.Contains(m, "-T") {
		found = append(found, failure("the map mailertable has -T: while postseal is down Sendmail rejects mail for good (553 Unbalanced)", "FEATURE(`mailertable', `socket -d5 inet:8461@127.0.0.1')dnl"+rebuild))
	}
	_, table := mapPlace(s.maps["mailertable"])
	_, rules := mapPlace(s.maps["transport"]) // POSTSEAL_RULE_0
	if len(e.Config.Delivery.Listen) > 0 && len(e.Config.Delivery.For) > 0 && !table && !rules {
		found = append(found, hint("delivery.listen is set, but the map mailertable does not ask postseal", include+"   (with a mailertable of your own: define(`POSTSEAL_RULE_0')dnl above it)"))
	}
	return found
}

// sendmailTrust: Sendmail reads neither of the two stores if one is missing.
func (e *env) sendmailTrust() []Finding {
	s := e.sendmail
	file, dir := s.options["CACertFile"], s.options["CACertPath"]
	const do = "define(`confCACERT', `/etc/ssl/certs/ca-certificates.crt')dnl define(`confCACERT_PATH', `/etc/ssl/certs')dnl in sendmail.mc" + rebuild
	switch {
	case file == "" && dir == "":
		return []Finding{failure("neither CACertFile nor CACertPath is set: mail to domains with MTA-STS waits", do)}
	case file == "":
		return []Finding{failure("CACertPath is set, but not CACertFile: Sendmail reads neither then, and mail to domains with MTA-STS waits", do)}
	case dir == "":
		return []Finding{failure("CACertFile is set, but not CACertPath: Sendmail reads neither then, and mail to domains with MTA-STS waits", do)}
	}
	return append(e.store("CACertFile "+file, file, do), e.folder("CACertPath "+dir, dir, do)...)
}

func (e *env) sendmailMilter() []Finding {
	s, listen := e.sendmail, e.Config.Milter.Listen
	asked, named := false, ""
	for name, definition := range s.milters {
		for _, part := range strings.Split(definition, ",") {
			where, is := strings.CutPrefix(strings.TrimSpace(part), "S=")
			if at, good := sendmailPlace(where); is && good && e.listed(place{endpoint: at}, listen) {
				asked = true
			}
		}
		if name == "postseal" {
			named = definition
		}
	}
	switch {
	case len(listen) == 0 && named != "":
		return []Finding{failure("sendmail.cf names the milter postseal, but milter.listen is not set: mail is refused for now", `milter.listen = ["tcp:127.0.0.1:8462"]; systemctl restart postseal`)}
	case len(listen) == 0:
		return nil
	case !asked:
		return []Finding{warning("milter.listen is set, but sendmail.cf has no such milter: no message is tagged", "INPUT_MAIL_FILTER(`postseal', `S=inet:8462@127.0.0.1, F=T')dnl in sendmail.mc"+rebuild)}
	case e.Config.Milter.Route != "recipient":
		return []Finding{failure("milter.route is "+e.Config.Milter.Route+", but Sendmail routes by recipients", `milter.route = "recipient"; systemctl restart postseal`)}
	case named != "" && !strings.Contains(named, "F=T"):
		return []Finding{warning("the milter postseal has no F=T: while it is down mail goes on untagged", "INPUT_MAIL_FILTER(`postseal', `S=..., F=T')dnl in sendmail.mc"+rebuild)}
	}
	return nil
}

// logLevel is O LogLevel, 9 by default.
func (s *sendmail) logLevel() int {
	if n, err := strconv.Atoi(s.options["LogLevel"]); err == nil {
		return n
	}
	return 9
}
