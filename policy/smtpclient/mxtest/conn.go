package mxtest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Conn is what a host saw of one connection.
type Conn struct {
	Remote   netip.AddrPort // the client's
	TLS      bool           // the handshake ended well
	TLSErr   string         // why it did not; "" if it did, or there was none
	Resumed  bool
	Hello    *tls.ClientHelloInfo // nil if there was none; not its Conn
	Certs    int                  // certificates of the client
	Commands []string             // in order; the first inside TLS comes after "STARTTLS"
	Groups   []int                // how many commands came together, for each time that the host had to wait for some
	Mails    []Mail
	Quit     bool // said, before the connection ended
}

// Mail is one message with its envelope.
type Mail struct {
	From  string   // the MAIL command without verb and "FROM:": "<a@b> SIZE=1"
	To    []string // so the RCPT commands that were accepted
	Data  []byte   // as on the wire, without the doubled dots and the last one
	Size  int64    // of Data, even if that was not kept
	Taken bool     // the reply was of class 2, and was going to be said
	TLS   bool
}

func (c Conn) clone() Conn {
	c.Commands = slices.Clone(c.Commands)
	c.Groups = slices.Clone(c.Groups)
	c.Mails = slices.Clone(c.Mails)
	return c
}

// Verbs are the first words of the commands.
func (c Conn) Verbs() []string {
	var verbs []string
	for _, line := range c.Commands {
		verb, _, _ := strings.Cut(line, " ")
		verbs = append(verbs, strings.ToUpper(verb))
	}
	return verbs
}

type conn struct {
	host   *Host
	raw    net.Conn
	config Config
	done   chan struct{}
	record Conn // guarded by host.mu

	r      *bufio.Reader
	w      io.Writer
	secure bool
	from   string
	began  bool // MAIL was accepted
	to     []string
}

var errGone = errors.New("gone")

// note changes the record.
func (c *conn) note(change func(r *Conn)) {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	change(&c.record)
}

func (c *conn) serve() {
	if tcp, ok := c.raw.RemoteAddr().(*net.TCPAddr); ok {
		c.note(func(r *Conn) { r.Remote = tcp.AddrPort() })
	}
	c.r, c.w = bufio.NewReader(c.raw), c.raw
	if c.config.Banner != "" {
		if _, err := io.WriteString(c.w, c.config.Banner); err != nil {
			return
		}
	} else if err := c.answer("GREETING", "", "220 "+c.host.Name+" ESMTP mxtest"); err != nil {
		return
	}
	waiting := 0
	for {
		if waiting == 0 {
			c.r.Peek(1)
			buffered, _ := c.r.Peek(c.r.Buffered())
			waiting = max(1, strings.Count(string(buffered), "\n"))
			c.note(func(r *Conn) { r.Groups = append(r.Groups, waiting) })
		}
		waiting--
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		c.note(func(r *Conn) { r.Commands = append(r.Commands, line) })
		if c.command(line) != nil {
			return
		}
		waiting = min(waiting, strings.Count(c.buffered(), "\n"))
	}
}

func (c *conn) buffered() string {
	b, _ := c.r.Peek(c.r.Buffered())
	return string(b)
}

func (c *conn) command(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "EHLO":
		c.reset()
		return c.answer(verb, line, c.hello())
	case "HELO":
		c.reset()
		return c.answer(verb, line, "250 "+c.host.Name)
	case "STARTTLS":
		return c.startTLS(line)
	case "MAIL":
		return c.mail(line, rest)
	case "RCPT":
		return c.rcpt(line, rest)
	case "DATA":
		return c.data(line)
	case "RSET":
		c.reset()
		return c.answer(verb, line, "250 2.0.0 ok")
	case "NOOP":
		return c.answer(verb, line, "250 2.0.0 ok")
	case "QUIT":
		c.note(func(r *Conn) { r.Quit = true })
		c.answer(verb, line, "221 2.0.0 bye")
		return errGone
	}
	return c.answer(verb, line, "502 5.5.1 unknown command")
}

func (c *conn) reset() { c.from, c.began, c.to = "", false, nil }

func (c *conn) hello() string {
	usual := []string{"PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"}
	keywords := c.config.Keywords
	switch {
	case c.secure && c.config.TLSKeywords != nil:
		keywords = c.config.TLSKeywords
	case c.secure:
		keywords = append(usual, "REQUIRETLS")
	case keywords == nil:
		keywords = usual
	}
	if !c.secure && !c.config.NoSTARTTLS {
		keywords = append([]string{"STARTTLS"}, keywords...)
	}
	return "250 " + strings.Join(append([]string{c.host.Name + " greets you"}, keywords...), "\n")
}

func (c *conn) mail(line, rest string) error {
	if c.began {
		return c.answer("MAIL", line, "503 5.5.1 nested MAIL")
	}
	reply := c.reply("MAIL", line, "250 2.1.0 ok")
	if reply[0] == '2' {
		c.began, c.from = true, cutPrefix(rest, "FROM:")
	}
	return c.send(reply)
}

func (c *conn) rcpt(line, rest string) error {
	usual := "250 2.1.5 ok"
	switch {
	case !c.began:
		return c.send("503 5.5.1 MAIL first")
	case c.config.MaxRcpts > 0 && len(c.to) >= c.config.MaxRcpts:
		usual = "452 4.5.3 too many recipients"
	}
	reply := c.reply("RCPT", line, usual)
	if reply[0] == '2' {
		c.to = append(c.to, cutPrefix(rest, "TO:"))
	}
	return c.send(reply)
}

func cutPrefix(s, prefix string) string {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):]
	}
	return s
}

func (c *conn) data(line string) error {
	usual := "354 go on"
	if len(c.to) == 0 {
		usual = "554 5.5.1 no valid recipients"
	}
	reply := c.reply("DATA", line, usual)
	if err := c.send(reply); err != nil || reply[0] != '3' {
		return err
	}
	if reply := c.reply("CONTENT", "", ""); reply != "" {
		if err := c.send(reply); err != nil {
			return err
		}
	}
	data, size, err := c.content()
	if err != nil {
		return err
	}
	mail := Mail{From: c.from, To: c.to, Data: data, Size: size, TLS: c.secure}
	c.note(func(r *Conn) {
		r.Commands = append(r.Commands, ".")
		r.Mails = append(r.Mails, mail)
	})
	reply = c.reply(".", "", "250 2.0.0 taken")
	c.note(func(r *Conn) { r.Mails[len(r.Mails)-1].Taken = reply[0] == '2' })
	c.reset()
	return c.send(reply)
}

// content reads up to the last dot. Only CRLF ends a line.
func (c *conn) content() (data []byte, size int64, err error) {
	start := true
	for {
		p, err := c.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, 0, err
		}
		if start && string(p) == ".\r\n" {
			return data, size, nil
		}
		if start && len(p) > 0 && p[0] == '.' {
			p = p[1:]
		}
		size += int64(len(p))
		if !c.config.Discard {
			data = append(data, p...)
		}
		start = err == nil && bytes.HasSuffix(p, []byte("\r\n"))
	}
}

// reply is what the host says to a command: as set, or usual, perhaps after a while.
func (c *conn) reply(verb, line, usual string) string {
	reply, ok := c.host.scripted(verb, line)
	if !ok {
		return usual
	}
	rest, stall := strings.CutPrefix(reply, Stall)
	switch {
	case !stall:
		return reply
	case !c.stall():
		return Drop
	case rest != "":
		return rest[1:]
	}
	return usual
}

func (c *conn) answer(verb, line, usual string) error {
	return c.send(c.reply(verb, line, usual))
}

// send says a reply, or acts.
func (c *conn) send(reply string) error {
	switch reply {
	case Drop:
		return errGone
	case Reset:
		if tcp, ok := c.raw.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		return errGone
	case Endless, Long:
		piece := "250-without end\r\n"
		if reply == Long {
			piece = strings.TrimSpace(piece)
		}
		piece = strings.Repeat(piece, 100)
		for {
			if _, err := io.WriteString(c.w, piece); err != nil {
				return err
			}
		}
	}
	var b strings.Builder
	lines := strings.Split(reply, "\n")
	for i, line := range lines {
		code, isCode := codeOf(lines[0])
		if i > 0 && isCode {
			if _, has := codeOf(line); !has {
				line = code + " " + line
			}
		}
		if i < len(lines)-1 && len(line) > 3 && line[3] == ' ' {
			line = line[:3] + "-" + line[4:]
		}
		b.WriteString(line + "\r\n")
	}
	_, err := io.WriteString(c.w, b.String())
	return err
}

// codeOf finds the code of a reply line that is one.
func codeOf(line string) (string, bool) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return "", false
	}
	_, err := strconv.Atoi(line[:3])
	return line[:3], err == nil
}

// stall waits for Release, and reports whether it was that, and not the client that
// hung up. That cannot be told once the client has sent more than a buffer holds.
func (c *conn) stall() bool {
	c.host.mu.Lock()
	released, closed := c.host.stalled, c.host.closed
	c.host.mu.Unlock()
	if closed {
		return false
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for c.r.Buffered() < c.r.Size() {
			if _, err := c.r.Peek(c.r.Buffered() + 1); err != nil {
				return
			}
		}
		<-released
	}()
	defer func() {
		c.raw.SetReadDeadline(time.Unix(1, 0))
		<-gone
		c.raw.SetReadDeadline(time.Time{})
	}()
	select {
	case <-released:
	case <-gone:
	}
	select {
	case <-released:
		return true
	default:
		return false
	}
}
