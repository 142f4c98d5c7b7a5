package delivery

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

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

// printable reports valid UTF-8 without control characters, those of Unicode
// and blanks other than " " included.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
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
	f, err := w.forward.with(args)
	if err != nil {
		return w.wrong(reply(501, "5.5.4", err.Error()))
	}
	w.forward = f
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
	t.forward = w.forward
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

var (
	errPath       = errors.New("want <local-part@domain>")
	errParameters = errors.New("want parameters as KEY or KEY=value, each once")
	errChunk      = errors.New("want BDAT with a size, and LAST behind the last chunk")
)

// path of a MAIL or RCPT.
type path struct {
	address string // as written, without a source route
	bare    string // without quotes and backslashes, as go-smtp has it
}

// parsePath reads "FROM:<path>" or "TO:<path>" (RFC 5321 §4.1.2). rest is what
// stands behind.
func parsePath(args, prefix string, null bool) (p path, rest string, err error) {
	if len(args) < len(prefix) || !strings.EqualFold(args[:len(prefix)], prefix) {
		return path{}, "", errPath
	}
	s, ok := strings.CutPrefix(strings.TrimLeft(args[len(prefix):], " "), "<")
	if !ok {
		return path{}, "", errPath
	}
	if strings.HasPrefix(s, "@") { // a source route, which is ignored (appendix C)
		route, after, ok := strings.Cut(s, ":")
		if !ok || strings.ContainsAny(route, `<>" `) {
			return path{}, "", errPath
		}
		s, null = after, false
	}
	if after, ok := strings.CutPrefix(s, ">"); ok && null {
		return path{}, after, behind(after)
	}
	start := s
	local, s, ok := cutLocalPart(s)
	if !ok || local == "" || !strings.HasPrefix(s, "@") {
		return path{}, "", errPath
	}
	domain, after, ok := strings.Cut(s[1:], ">")
	if !ok || domain == "" || strings.IndexFunc(domain, notInDomain) >= 0 {
		return path{}, "", errPath
	}
	p = path{address: start[:len(start)-len(after)-1], bare: local + "@" + domain}
	return p, after, behind(after)
}

func behind(rest string) error {
	if rest != "" && rest[0] != ' ' {
		return errPath
	}
	return nil
}

// cutLocalPart reads a local part without its quotes.
func cutLocalPart(s string) (local, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, `()<>[]:;@\," `)
		if end < 0 {
			return "", "", false
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// notInDomain reports what is in no name and no address literal.
func notInDomain(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r >= utf8.RuneSelf:
		return false
	}
	return !strings.ContainsRune("-._[]:", r)
}

// parameter of MAIL or RCPT.
type parameter struct {
	key, value string // the key in capitals
	has        bool   // a value, be it empty
}

func parseParameters(s string) ([]parameter, error) {
	var list []parameter
	for s := range strings.FieldsSeq(s) {
		key, value, has := strings.Cut(s, "=")
		p := parameter{strings.ToUpper(key), value, has}
		if key == "" || strings.IndexFunc(key, notInKey) >= 0 {
			return nil, errParameters
		}
		for _, other := range list {
			if other.key == p.key {
				return nil, errParameters
			}
		}
		list = append(list, p)
	}
	return list, nil
}

func notInKey(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
}

// isXtext checks the encoding of RFC 3461 §4.
func isXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ', c > '~', c == '=':
			return false
		case c == '+':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return false
			}
			i += 2
		}
	}
	return s != ""
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
}

// isNotify checks RFC 3461 §4.1.
func isNotify(s string) bool {
	if strings.EqualFold(s, "NEVER") {
		return true
	}
	for word := range strings.SplitSeq(strings.ToUpper(s), ",") {
		switch word {
		case "SUCCESS", "FAILURE", "DELAY":
		default:
			return false
		}
	}
	return true
}

// isTypedAddress checks RFC 3461 §4.2, and the form with UTF-8 of RFC 6533 §3.
func isTypedAddress(s string, utf bool) bool {
	kind, address, ok := strings.Cut(s, ";")
	if !ok || kind == "" || address == "" || strings.IndexFunc(kind, notInKey) >= 0 {
		return false
	}
	if strings.EqualFold(kind, "utf-8") {
		return !strings.Contains(address, "=") && (utf || ascii(address))
	}
	return isXtext(address)
}

// parseChunk reads the arguments of BDAT (RFC 3030 §2).
func parseChunk(args string) (chunk, error) {
	size, last, ok := strings.Cut(args, " ")
	n, err := strconv.ParseUint(size, 10, 31)
	if err != nil || ok && !strings.EqualFold(strings.TrimSpace(last), "LAST") {
		return chunk{}, errChunk
	}
	return chunk{size: int64(n), last: ok}, nil
}
