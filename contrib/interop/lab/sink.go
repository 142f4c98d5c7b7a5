package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// sink is the SMTP server of one MX host. It takes every message and remembers
// who came, what was said and what was sent. The local part of a recipient
// scripts the reply to it: see rcptReply.
type sink struct {
	name      string
	address   string
	cert      tls.Certificate
	mx        mx
	authority string // hash of the issuer's key, for DANE-TA

	mu     sync.Mutex
	visits []visit
	once   map[string]bool   // recipients that got their temporary failure
	watch  func(step string) // called before each reply, and after the last one of a message

	listener net.Listener
	group    sync.WaitGroup
}

// visit is one connection to a sink.
type visit struct {
	from  string // IP address: tells the Postfixes apart
	tls   bool   // STARTTLS was done
	begun time.Time
	taken []taken
	lines []string // MAIL and RCPT as received, in all transactions
}

// taken is one message that a sink has taken.
type taken struct {
	host  string
	from  string // IP address
	tls   bool
	begun time.Time // of the connection
	at    time.Time // when the reply was about to be sent
	mail  string    // the MAIL command as received
	rcpt  []string  // the RCPT commands that were accepted
	text  string    // of the message, lines end in \n
}

// to are the recipients that the message was taken for.
func (t taken) to() []string {
	var all []string
	for _, line := range t.rcpt {
		all = append(all, path(line))
	}
	return all
}

// header returns the values of a header field.
func (t taken) header(name string) []string {
	h, _ := textproto.NewReader(bufio.NewReader(strings.NewReader(t.text))).ReadMIMEHeader()
	return h.Values(name)
}

// id is the Message-ID.
func (t taken) id() string { return strings.Join(t.header("Message-Id"), " ") }

// path is the address in MAIL FROM:<address> or RCPT TO:<address>.
func path(command string) string {
	_, rest, _ := strings.Cut(command, "<")
	address, _, _ := strings.Cut(rest, ">")
	return address
}

// listen starts the server; close ends it.
func (s *sink) listen() error {
	if s.mx.cert == absent {
		return nil
	}
	l, err := net.Listen("tcp", s.address+":25")
	if err != nil {
		return err
	}
	s.listener = l
	s.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.group.Go(func() { s.serve(c) })
		}
	})
	return nil
}

func (s *sink) close() {
	if s.listener != nil {
		s.listener.Close()
	}
	s.group.Wait()
}

// seen returns the connections from an address, all if it is "".
func (s *sink) seen(from string) []visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []visit
	for _, v := range s.visits {
		if v.from == from || from == "" {
			out = append(out, v)
		}
	}
	return out
}

// observe has f called at each step of every conversation, before the reply is
// sent; nil ends that.
func (s *sink) observe(f func(step string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = f
}

func (s *sink) step(name string) {
	s.mu.Lock()
	watch := s.watch
	s.mu.Unlock()
	if watch != nil {
		watch(name)
	}
}

// note changes the record of one connection.
func (s *sink) note(id int, change func(*visit)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.visits[id])
}

// rcptReply is the reply to a recipient: its local part tells which.
func (s *sink) rcptReply(address string) string {
	switch {
	case strings.HasPrefix(address, "tmp"):
		return "451 4.2.1 mailbox is busy"
	case strings.HasPrefix(address, "perm"):
		return "550 5.1.1 no such mailbox"
	case strings.HasPrefix(address, "once"):
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.once[address] {
			if s.once == nil {
				s.once = map[string]bool{}
			}
			s.once[address] = true
			return "451 4.2.1 come again"
		}
	}
	return "250 2.1.5 ok"
}

// conversation is a connection to a sink while it lasts.
type conversation struct {
	sink  *sink
	conn  net.Conn
	lines *bufio.Reader
	visit int
	now   taken // the transaction at hand
}

func (s *sink) serve(c net.Conn) {
	from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	s.mu.Lock()
	v := &conversation{sink: s, conn: c, lines: bufio.NewReader(c), visit: len(s.visits)}
	v.now = taken{host: s.name, from: from, begun: time.Now()}
	s.visits = append(s.visits, visit{from: from, begun: v.now.begun})
	s.mu.Unlock()
	defer func() { v.conn.Close() }()

	c.SetDeadline(time.Now().Add(20 * time.Second))
	v.say("connect", "220 "+s.name+" ESMTP")
	for v.command() {
	}
}

// say sends a reply, after whoever watches has seen the step.
func (v *conversation) say(step, reply string) {
	v.sink.step(step)
	fmt.Fprintf(v.conn, "%s\r\n", reply)
}

func (v *conversation) line() (string, bool) {
	text, err := v.lines.ReadString('\n')
	return strings.TrimRight(text, "\r\n"), err == nil
}

// command reads one command and replies to it. It reports whether another one
// may follow.
func (v *conversation) command() bool {
	line, ok := v.line()
	if !ok {
		return false
	}
	verb, _, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); verb {
	case "EHLO":
		if v.now.tls {
			verb += " in TLS"
		}
		v.say(verb, v.greeting())
	case "STARTTLS":
		return v.startTLS()
	case "MAIL":
		v.now.mail, v.now.rcpt = line, nil
		v.sink.note(v.visit, func(r *visit) { r.lines = append(r.lines, line) })
		v.say(verb, "250 2.1.0 ok")
	case "RCPT":
		reply := v.sink.rcptReply(path(line))
		if reply[0] == '2' {
			v.now.rcpt = append(v.now.rcpt, line)
		}
		v.sink.note(v.visit, func(r *visit) { r.lines = append(r.lines, line) })
		v.say(verb, reply)
	case "DATA":
		if len(v.now.rcpt) == 0 {
			v.say(verb, "503 5.5.1 no valid recipients") // of a client that pipelines (RFC 2920 §3.1)
			return true
		}
		v.say(verb, "354 go ahead")
		return v.data()
	case "QUIT":
		v.say(verb, "221 2.0.0 bye")
		return false
	default: // RSET, NOOP
		v.say(verb, "250 2.0.0 ok")
	}
	return true
}

// greeting is the reply to EHLO.
func (v *conversation) greeting() string {
	reply := "250-" + v.sink.name + "\r\n"
	if v.sink.mx.cert != noTLS && !v.now.tls {
		reply += "250-STARTTLS\r\n"
	}
	if v.sink.mx.requireTLS && v.now.tls { // RFC 8689 §2
		reply += "250-REQUIRETLS\r\n"
	}
	return reply + "250-8BITMIME\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250-SIZE 20000000\r\n250 PIPELINING"
}

func (v *conversation) startTLS() bool {
	v.say("STARTTLS", "220 go ahead")
	if v.sink.mx.cert == broken {
		return false
	}
	session := tls.Server(v.conn, &tls.Config{Certificates: []tls.Certificate{v.sink.cert}, SessionTicketsDisabled: true})
	if session.Handshake() != nil {
		return false
	}
	v.conn, v.lines, v.now.tls = session, bufio.NewReader(session), true
	v.sink.note(v.visit, func(r *visit) { r.tls = true })
	return true
}

// data reads the message and takes it.
func (v *conversation) data() bool {
	var text strings.Builder
	for n := 0; ; n++ {
		line, ok := v.line()
		if !ok {
			return false
		}
		if n == 1 {
			v.sink.step("text")
		}
		if line == "." {
			break
		}
		text.WriteString(strings.TrimPrefix(line, ".") + "\n")
	}
	v.sink.step("end")
	v.now.text, v.now.at = text.String(), time.Now()
	v.sink.note(v.visit, func(r *visit) { r.taken = append(r.taken, v.now) })
	fmt.Fprint(v.conn, "250 2.0.0 taken\r\n")
	v.sink.step("taken")
	return true
}
