package send

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"postseal/reporting/tlsrpt"
)

const (
	maxHeader = 32 << 10 // of a response; the largest of real servers have some 4 KiB
	maxBody   = 4 << 10  // of which the reason of a refusal is taken
	maxReason = 160
	maxStatus = 100
)

// UserAgent is how we name ourselves to web servers.
const UserAgent = "postseal"

// answer is what a server said.
type answer struct {
	code     int
	status   string // "201 Created", printable
	location string
	words    string // the beginning of its text if it refuses, printable; or ""
}

// post makes one request. It is written, and the response read, without [http.Client]
// and its transport: there is nothing to pool or to share, and so nothing to switch off.
func (h *HTTPS) post(ctx context.Context, to *origin, report []byte) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url.String(), bytes.NewReader(report))
	if err != nil {
		return nil, err
	}
	req.URL = to.url // as published
	req.Close = true
	req.Header.Set("User-Agent", UserAgent)
	req.Header.Set("Content-Type", tlsrpt.MediaType) // which says gzip; RFC 8460 §5.4 has no Content-Encoding
	conn, err := h.connect(ctx, to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()

	unsent := req.Write(conn)
	if unsent != nil { // a server that has seen enough may have said why
		conn.SetReadDeadline(time.Now().Add(lastWords))
	}
	a, err := readAnswer(conn, req, func() { conn.SetReadDeadline(time.Now().Add(lastWords)) })
	switch {
	case unsent == nil:
		return a, err
	case err != nil:
		return nil, unsent
	case a.code/100 == 2:
		return nil, theirs("%s answers with status %s to half a report: %w", to, a.status, cause(ctx, unsent))
	}
	return a, nil
}

// readAnswer reads the header of the final response, and a little of the body if it is
// a refusal in words, for which patience is asked for. The body is never closed, which
// would read it to its end first; the connection is.
func readAnswer(r io.Reader, req *http.Request, patience func()) (*answer, error) {
	limited := &io.LimitedReader{R: r, N: maxHeader}
	resp, err := readResponse(bufio.NewReader(limited), req)
	if err != nil {
		if limited.N <= 0 {
			return nil, theirs("response header of %s is larger than %d bytes", quoted(req.URL.Host), maxHeader)
		}
		return nil, err
	}
	a := &answer{
		code:     resp.StatusCode,
		status:   printable(strings.TrimSpace(resp.Status), maxStatus),
		location: resp.Header.Get("Location"),
	}
	if a.code < 400 || !inWords(resp.Header.Get("Content-Type")) {
		return a, nil
	}
	patience()
	limited.N = maxBody
	var text [maxReason]byte
	n, _ := io.ReadFull(resp.Body, text[:])
	if said := strings.Join(strings.Fields(string(text[:n])), " "); said != "" {
		a.words = ": " + quoted(said)
	}
	return a, nil
}

// readResponse reads the header of the final response.
func readResponse(r *bufio.Reader, req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, errors.New("status 101 was not asked for")
		}
		// RFC 9110 §15.2: a client must be able to parse 1xx responses before the
		// final one. The limit of the header counts for all of them together.
		if resp.StatusCode >= 200 {
			return resp, nil
		}
	}
}

// inWords reports whether a text is one to show: the page of a web server is none.
func inWords(contentType string) bool {
	switch media, _, _ := mime.ParseMediaType(contentType); media {
	case "text/plain", "application/json", "application/problem+json":
		return true
	}
	return false
}
