package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/config"
)

const (
	codeNotFound  = 1
	codeNoAnswer  = 69 // EX_UNAVAILABLE of sysexits.h
	codeTemporary = 75 // EX_TEMPFAIL

	queryLimit = 30 * time.Second // Postfix would wait 100 s (socketmap_table(5))
	maxReply   = 100_000          // as Postfix, socketmap_max_reply_size
)

func queryCommand() *cli.Command {
	return &cli.Command{
		Name:      "query",
		Usage:     "ask as a mail server does, over the socketmap protocol",
		ArgsUsage: "KEY...",
		Description: `Prints the reply: "OK ANSWER", "NOTFOUND" (no policy: the mail server does as it
would by itself) or "TEMP REASON" (the mail waits). Exit code 0 if all keys were
found, 1 if one was not, 75 if one got a temporary failure, 69 if nobody answers.

  postseal query --map postfix example.org
  postseal query --map sts example.org example.net
  postseal query --map QUERY --socket unix:/var/spool/postfix/postseal/map.sock example.org

Maps: postfix (Postfix 3.4 to 3.9), postfix-tlsrpt (3.10 and later), QUERY and
QUERYwithTLSRPT (as postfix-tlspol has them), sts and mailertable (Sendmail),
transport, requiretls (Postfix 3.11 and later).`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "map", Value: "postfix", Usage: "`NAME` of the map"},
			&cli.StringFlag{Name: "socket", Usage: "`ADDRESS` of the listener, unix:/path or tcp:host:port (default: the first of socketmap.listen)"},
		},
		HideHelpCommand: true,
		Action:          query,
	}
}

func query(c *cli.Context) error {
	keys := c.Args().Slice()
	if len(keys) == 0 {
		return wrongCount(c, "needs one KEY or more")
	}
	if name := c.String("map"); name == "" || strings.ContainsAny(name, " ,:") {
		return usage("", "%q is no name of a map", name)
	}
	e, err := queryEndpoint(c)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout(e.Network, e.Address, 5*time.Second)
	if err != nil {
		return &exitError{err: err, code: codeNoAnswer, hints: []string{`is "postseal serve" running, with this configuration?`}}
	}
	defer conn.Close()
	defer context.AfterFunc(c.Context, func() { conn.Close() })()
	code := 0
	r := bufio.NewReader(conn)
	for _, key := range keys {
		reply, err := ask(conn, r, c.String("map"), key)
		if err != nil {
			return &exitError{err: fmt.Errorf("%s: %w", key, err), code: codeNoAnswer}
		}
		if len(keys) > 1 {
			fmt.Fprintf(c.App.Writer, "%s: ", key)
		}
		fmt.Fprintln(c.App.Writer, printable(strings.TrimSuffix(reply, " ")))
		code = max(code, codeOf(reply))
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}

func queryEndpoint(c *cli.Context) (config.Endpoint, error) {
	if s := c.String("socket"); s != "" {
		e, err := config.ParseEndpoint(s)
		if err != nil {
			return e, usage("", "option --socket: %w", err)
		}
		return e, nil
	}
	cfg, err := load(c)
	if err != nil {
		return config.Endpoint{}, err
	}
	if len(cfg.Socketmap.Listen) == 0 {
		return config.Endpoint{}, hinted(errors.New("socketmap.listen is empty in the configuration"), "name the listener with --socket ADDRESS")
	}
	return config.ParseEndpoint(cfg.Socketmap.Listen[0])
}

// ask sends one request, a netstring "map key", and reads the reply.
func ask(conn net.Conn, r *bufio.Reader, name, key string) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(queryLimit)); err != nil {
		return "", err
	}
	request := name + " " + key
	if _, err := fmt.Fprintf(conn, "%d:%s,", len(request), request); err != nil {
		return "", err
	}
	length, err := r.ReadSlice(':') // at most a buffer full
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return "", noReply(err)
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(string(length), ":"), 10, 32)
	if err != nil || n > maxReply {
		return "", fmt.Errorf("the reply is no netstring: it begins with %q", length[:min(len(length), 40)])
	}
	reply := make([]byte, n+1)
	if _, err := io.ReadFull(r, reply); err != nil {
		return "", noReply(err)
	}
	if reply[n] != ',' {
		return "", errors.New("the reply is no netstring: it does not end with a comma")
	}
	return string(reply[:n]), nil
}

func noReply(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection was closed without a reply")
	}
	return err
}

// codeOf is the exit code for a reply (socketmap_table(5)).
func codeOf(reply string) int {
	status, _, _ := strings.Cut(reply, " ")
	switch status {
	case "OK":
		return 0
	case "NOTFOUND":
		return codeNotFound
	case "TEMP", "TIMEOUT":
		return codeTemporary
	}
	return codeNoAnswer
}

// printable keeps what comes from elsewhere from playing tricks on a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
