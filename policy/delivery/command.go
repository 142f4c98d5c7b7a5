package delivery

import (
	"strconv"
	"strings"

	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// command reads one command line. It is answered here, or handed to go-smtp.
func (w *wire) command() error {
	if w.isStopping() {
		return errShutdown
	}
	line, err := w.readLine()
	if err != nil {
		return err
	}
	if !printable(line) {
		return w.wrong(reply(500, "5.5.2", "control characters or invalid UTF-8 in a command"))
	}
	verb, args, _ := strings.Cut(line, " ")
	verb, args = strings.ToUpper(verb), strings.Trim(args, " ")
	if verb == "BDAT" {
		return w.bdat(args)
	}
	if w.door.mustTLS && !w.secure {
		switch verb {
		case "LHLO", "STARTTLS", "NOOP", "QUIT": // RFC 3207 §4
		default:
			return w.wrong(reply(530, "5.7.0", "STARTTLS comes first here"))
		}
	}
	switch verb {
	case "LHLO":
		return w.lhlo(args)
	case "HELO", "EHLO": // RFC 2033 §4.1
		return w.wrong(reply(500, "5.5.1", "this is LMTP: say LHLO"))
	case "STARTTLS":
		return w.startTLS(args)
	case "XFORWARD":
		return w.xforward(args)
	case "MAIL":
		return w.mail(args)
	case "RCPT":
		return w.rcpt(args)
	case "DATA":
		return w.data(args)
	case "RSET", "QUIT":
		if args != "" {
			return w.wrong(reply(501, "5.5.4", verb+" takes no argument"))
		}
		w.hand(verb, verb)
		return nil
	case "NOOP", "VRFY":
		w.hand(verb, verb)
		return nil
	}
	return w.wrong(reply(500, "5.5.2", "command not known"))
}

// hand gives go-smtp a command.
func (w *wire) hand(verb, line string) { w.handed, w.pending, w.errors = verb, line+"\r\n", 0 }

// wrong refuses a command. Who does not learn is sent away.
func (w *wire) wrong(r smtpclient.Reply) error {
	w.answer(r)
	if w.errors++; w.errors < maxErrors {
		return nil
	}
	w.answer(reply(421, "4.7.0", "too many errors"))
	return errClosing
}

func (w *wire) lhlo(args string) error {
	if args == "" || strings.Contains(args, " ") {
		return w.wrong(reply(501, "5.5.4", "LHLO takes a name"))
	}
	w.helo = args
	w.hand("LHLO", "LHLO "+args)
	return nil
}

func (w *wire) xforward(args string) error {
	if w.helo == "" || w.begun() {
		return w.wrong(reply(503, "5.5.1", "XFORWARD comes between LHLO and MAIL"))
	}
	queueID, err := forwarded(w.queueID, args)
	if err != nil {
		return w.wrong(reply(501, "5.5.4", err.Error()))
	}
	w.queueID = queueID
	w.answer(reply(250, "2.0.0", "ok"))
	return nil
}

// begun reports that MAIL was accepted.
func (w *wire) begun() bool { return w.session != nil && w.session.transaction != nil }

// ready reports that there is a recipient for a text.
func (w *wire) ready() bool {
	return w.helo != "" && w.begun() && len(w.session.transaction.envelope.To) > 0
}

func (w *wire) mail(args string) error {
	switch {
	case w.helo == "":
		return w.wrong(reply(503, "5.5.1", "LHLO comes first"))
	case w.begun():
		return w.wrong(reply(503, "5.5.1", "one sender at a time"))
	}
	p, rest, err := parsePath(args, "FROM:", true)
	if err != nil {
		return w.wrong(reply(501, "5.1.7", err.Error()))
	}
	t, r := w.mailParameters(rest)
	if r.Code != 0 {
		return w.wrong(r)
	}
	if !t.envelope.UTF8 && !ascii(p.address) {
		return w.wrong(reply(553, "5.6.7", "this address needs SMTPUTF8"))
	}
	t.envelope.From, t.bare = p.address, p.bare
	t.queueID = w.queueID
	w.from = t
	w.hand("MAIL", "MAIL FROM:<"+p.address+">")
	return nil
}

// mailParameters reads what stands behind the path. What is not known here could
// not be kept on the way, so it is refused (RFC 5321 §4.1.1.11: 555).
func (w *wire) mailParameters(s string) (transaction, smtpclient.Reply) {
	t := transaction{mode: w.door.mode}
	parameters, err := parseParameters(s)
	if err != nil {
		return t, reply(501, "5.5.4", err.Error())
	}
	for _, p := range parameters {
		if r := w.mailParameter(&t, p); r.Code != 0 {
			return t, r
		}
	}
	return t, smtpclient.Reply{}
}

func (w *wire) mailParameter(t *transaction, p parameter) smtpclient.Reply {
	bad := reply(501, "5.5.4", "bad value of "+p.key)
	switch p.key {
	case "SIZE": // RFC 1870 §6.1
		n, err := strconv.ParseUint(p.value, 10, 63)
		if err != nil {
			return bad
		}
		if int64(n) > w.door.maxMessage {
			return w.tooLarge()
		}
		t.size = int64(n)
	case "BODY": // BINARYMIME is not offered
		t.envelope.Body = strings.ToUpper(p.value)
		if t.envelope.Body != "7BIT" && t.envelope.Body != "8BITMIME" {
			return bad
		}
	case "SMTPUTF8":
		if p.has {
			return bad
		}
		t.envelope.UTF8 = true
	case requiretls.Keyword:
		switch {
		case p.has: // RFC 8689 §2(4)
			return bad
		case !w.secure: // it demands the same of the way to us
			return reply(530, "5.7.10", "REQUIRETLS needs TLS")
		}
		t.mode = requiretls.Required
	case "RET":
		t.envelope.Ret = strings.ToUpper(p.value)
		if t.envelope.Ret != "FULL" && t.envelope.Ret != "HDRS" {
			return bad
		}
	case "ENVID":
		if !isXtext(p.value) {
			return bad
		}
		t.envelope.EnvID = p.value
	case "AUTH": // nobody is trusted to say who wrote this (RFC 4954 §5)
		if !isXtext(p.value) {
			return bad
		}
	default:
		return reply(555, "5.5.4", "parameter not known: "+p.key)
	}
	return smtpclient.Reply{}
}

func (w *wire) tooLarge() smtpclient.Reply {
	return reply(552, "5.3.4", "message larger than "+strconv.FormatInt(w.door.maxMessage, 10)+" octets")
}

func (w *wire) rcpt(args string) error {
	if w.helo == "" || !w.begun() {
		return w.wrong(reply(503, "5.5.1", "MAIL comes first"))
	}
	p, rest, err := parsePath(args, "TO:", false)
	if err != nil {
		return w.wrong(reply(501, "5.1.3", err.Error()))
	}
	parameters, err := parseParameters(rest)
	if err != nil {
		return w.wrong(reply(501, "5.5.4", err.Error()))
	}
	utf := w.session.transaction.envelope.UTF8
	to := recipient{bare: p.bare}
	to.Addr, to.mode = requiretls.CutSuffix(p.address)
	for _, q := range parameters {
		bad := false
		switch q.key {
		case "NOTIFY":
			to.Notify, bad = q.value, !isNotify(q.value)
		case "ORCPT":
			to.ORcpt, bad = q.value, !isTypedAddress(q.value, utf)
		default:
			return w.wrong(reply(555, "5.5.4", "parameter not known: "+q.key))
		}
		if bad {
			return w.wrong(reply(501, "5.5.4", "bad value of "+q.key))
		}
	}
	if !utf && !ascii(p.address) {
		return w.wrong(reply(553, "5.6.7", "this address needs SMTPUTF8"))
	}
	w.to = to
	w.hand("RCPT", "RCPT TO:<"+p.address+">")
	return nil
}

func (w *wire) data(args string) error {
	switch {
	case args != "":
		return w.wrong(reply(501, "5.5.4", "DATA takes no argument"))
	case !w.ready(): // RFC 2033 §4.2
		return w.wrong(reply(503, "5.5.1", "no recipient was accepted"))
	}
	w.hand("DATA", "DATA")
	return nil
}

// bdat begins a message that comes in chunks. To go-smtp it is a DATA.
func (w *wire) bdat(args string) error {
	c, err := parseChunk(args)
	if err != nil { // nobody knows where the next command is
		w.answer(reply(501, "5.5.4", err.Error()))
		return errClosing
	}
	if w.door.mustTLS && !w.secure {
		return w.skip(c, reply(530, "5.7.0", "STARTTLS comes first here"))
	}
	if !w.ready() {
		return w.skip(c, reply(503, "5.5.1", "no recipient was accepted"))
	}
	w.session.chunks = newChunkText(w, c)
	w.hand("BDAT", "DATA")
	return nil
}

// skip refuses a chunk, which follows all the same (RFC 3030 §2).
func (w *wire) skip(c chunk, r smtpclient.Reply) error {
	if c.size > w.door.maxMessage {
		w.answer(w.tooLarge())
		return errClosing
	}
	if _, err := w.in.Discard(int(c.size)); err != nil {
		return err
	}
	return w.wrong(r)
}
