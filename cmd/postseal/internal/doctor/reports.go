package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy/dnssec"
	"postseal/reporting/send"
	"postseal/reporting/tlsrpt"
)

// checkReports looks at what reports need on their way out: a mail server that takes
// them, and a key that receivers find (RFC 8460 §3).
func checkReports(ctx context.Context, e *env) []Finding {
	if !e.Config.Reports() {
		return []Finding{hint("no reports are sent to others", `reporting.contact = "tlsrpt@YOUR.DOMAIN" in `+e.file())}
	}
	found := []Finding{e.submits(ctx)}
	if len(e.Config.Reporting.DKIM) == 0 {
		found = append(found, warning("reports are not signed by postseal: receivers ignore unsigned ones, so the mail server has to sign them (RFC 8460 §3)", `[[reporting.dkim]] selector = "tlsrpt", key_file = "/etc/postseal/dkim.pem"`))
	}
	for _, k := range e.Config.Reporting.DKIM {
		domain := k.Domain
		if domain == "" {
			domain = domainOf(e.Config.ReportFrom())
		}
		found = append(found, e.key(ctx, domain, k.Selector, k.KeyFile)...)
	}
	return found
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// submits greets the mail server that reports are handed to, and sends nothing.
func (e *env) submits(ctx context.Context) Finding {
	submit := e.Config.Reporting.Submit
	if path, is := strings.CutPrefix(submit, "sendmail:"); is {
		info, err := e.Machine.Stat(path)
		if err != nil || info.Mode().Perm()&0o111 == 0 || info.IsDir() {
			return failure("reporting.submit "+submit+" is no program: reports cannot be handed over", `reporting.submit = "smtp://127.0.0.1:25"`)
		}
		return ok("reports are handed to " + path)
	}
	address := strings.TrimPrefix(submit, "smtp://")
	reply, err := e.hello(ctx, address)
	if err != nil {
		return failure(fmt.Sprintf("reporting.submit %s does not take mail: %s", submit, reason(err)), "systemctl status postfix; or another reporting.submit")
	}
	return ok("reports are handed to " + address + ", which greets with " + reply)
}

// hello goes as far as EHLO (RFC 5321 §4.1.1.1).
func (e *env) hello(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := e.Machine.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(dialLimit))
	r := bufio.NewReaderSize(conn, 1024)
	greeting, err := reply(r)
	if err != nil || greeting[:3] != "220" {
		return "", errors.Join(err, errors.New("it greets with "+greeting))
	}
	name, err := e.hostname()
	if err != nil {
		name = "localhost"
	}
	fmt.Fprintf(conn, "EHLO %s\r\n", name)
	answer, err := reply(r)
	fmt.Fprint(conn, "QUIT\r\n")
	if err != nil || answer[:3] != "250" {
		return "", errors.Join(err, errors.New("it says to EHLO "+answer))
	}
	return greeting, nil
}

// reply is the last line of a reply (RFC 5321 §4.2), at least its code.
func reply(r *bufio.Reader) (string, error) {
	for range 100 {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "   ", err
		}
		text := strings.TrimSpace(string(line))
		if len(text) < 3 {
			return "   ", errors.New("it does not speak SMTP")
		}
		if len(text) == 3 || text[3] != '-' {
			return text, nil
		}
	}
	return "   ", errors.New("it does not come to an end")
}

// key compares the key that signs with the one that is published (RFC 6376 §3.6).
func (e *env) key(ctx context.Context, domain, selector, file string) []Finding {
	if _, err := e.Machine.Read(file); errors.Is(err, fs.ErrPermission) {
		return []Finding{hint("DKIM key "+file+" cannot be read as this user", "sudo postseal doctor")}
	}
	k, err := send.LoadKey(domain, selector, e.Machine.Path(file))
	if err != nil {
		return []Finding{failure("reports cannot be signed: "+err.Error(), "openssl genrsa -out "+file+" 2048; chown postseal "+file+"; chmod 0600 "+file)}
	}
	var found []Finding
	if w := k.Warning(); w != "" {
		found = append(found, hint(w, "openssl genrsa -out "+file+" 2048, and publish its record under a new selector"))
	}
	if account, known := e.daemonAccount(); known {
		if denied, is := errors.AsType[*accessError](e.Machine.reach(account, file, read)); is {
			found = append(found, failure("the daemon cannot read its DKIM key: "+denied.Error(), "chown "+account.Name+" "+file+"; chmod 0600 "+file))
		}
	}
	name := selector + "._domainkey." + domain
	publish := name + `. TXT "` + k.Record() + `"   (in strings of at most 255 octets)`
	a, err := e.dns(dnssec.TrustAlways).LookupTXT(ctx, name)
	if err != nil {
		return append(found, warning("whether the DKIM key at "+name+" is published cannot be told: "+reason(err), "dig TXT "+name))
	}
	if len(a.Records) == 0 {
		return append(found, failure("there is no DKIM key at "+name+": receivers ignore our reports (RFC 8460 §3)", publish))
	}
	for _, txt := range a.Records {
		if tag(txt, "p") == tag(k.Record(), "p") {
			if s := tag(txt, "s"); s != "" && s != "*" && !strings.Contains(s, "email") {
				return append(found, warning(name+" has s="+s+": for mail it is no key (RFC 6376 §3.6.1)", publish))
			}
			return append(found, ok("the DKIM key at "+name+" is the one that signs"))
		}
	}
	return append(found, failure("the DKIM key at "+name+" is another than "+file+": receivers ignore our reports (RFC 8460 §3)", publish))
}

// tag is the value of a tag of a DKIM record, without white space (RFC 6376 §3.2).
func tag(record, name string) string {
	for field := range strings.SplitSeq(record, ";") {
		if n, value, found := strings.Cut(field, "="); found && strings.TrimSpace(n) == name {
			return strings.Join(strings.Fields(value), "")
		}
	}
	return ""
}

// checkOwnDomain looks at what others find who send mail to us: not our task, but the
// same administrator's.
func checkOwnDomain(ctx context.Context, e *env) []Finding {
	if !e.Config.Reports() {
		return nil
	}
	domain := domainOf(e.Config.ReportFrom())
	name, err := tlsrpt.RecordName(domain)
	if err != nil {
		return nil // as checked with the configuration
	}
	a, err := e.dns(dnssec.TrustAlways).LookupTXT(ctx, name)
	if err != nil {
		return []Finding{warning("own TLSRPT record: "+reason(err), "dig TXT "+name)}
	}
	found := []Finding{}
	switch r, err := tlsrpt.ParseRecord(a.Records); {
	case errors.Is(err, tlsrpt.ErrNoRecord):
		found = append(found, hint(domain+" has no TLSRPT record: others do not tell when their mail to it fails", name+`. TXT "v=TLSRPTv1; rua=mailto:tlsrpt@`+domain+`"`))
	case err != nil:
		found = append(found, warning(name+": "+err.Error(), "postseal explain "+domain+" --lint"))
	case len(r.Notes) > 0:
		found = append(found, warning(name+": "+strings.Join(r.Notes, "; "), "postseal explain "+domain+" --lint"))
	default:
		found = append(found, ok(domain+" asks for reports"))
	}
	return append(found, e.incoming(ctx, domain))
}

// incoming: whether others can tell our mail servers from somebody else's.
func (e *env) incoming(ctx context.Context, domain string) Finding {
	x, err := e.Explain(ctx, domain)
	switch {
	case err != nil:
		return hint("what others find at "+domain+" could not be found out: "+reason(err), "postseal explain "+domain)
	case x.STS != nil || x.DANE.Class == "full" || x.DANE.Class == "partial" || x.DANE.NullMX:
		return ok(domain + " protects its incoming mail with " + protection(x))
	}
	return hint(domain+" has neither MTA-STS nor DANE for its own incoming mail", "postseal explain "+domain+" --lint")
}

func protection(x *control.Explanation) string {
	switch {
	case x.DANE.NullMX:
		return "a null MX"
	case x.STS == nil:
		return "DANE"
	case x.DANE.Class == "full":
		return "DANE and MTA-STS"
	}
	return "MTA-STS, mode " + x.STS.Mode
}
