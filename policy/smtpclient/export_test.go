package smtpclient

import (
	"bufio"
	"crypto/tls"
	"io"
)

// ReadReply reads one reply as sessions do.
func ReadReply(r io.Reader) (Reply, []string, error) {
	a, err := readReply(bufio.NewReaderSize(r, maxLine))
	if err != nil {
		return Reply{}, nil, err
	}
	return a.Reply(), a.lines, nil
}

// TLSConfig is what a session with t would shake hands with.
func (c *Client) TLSConfig(t Target) *tls.Config {
	return (&Session{target: t}).config(c)
}

const (
	MaxLine  = maxLine
	MaxLines = maxLines
	MaxReply = maxReply
)
