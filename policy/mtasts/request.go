package mtasts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

const (
	maxHeader = 32 << 10 // of a response; the largest of real servers have some 4 KiB

	// maxWire is the most that is read of a body in transfer coding: chunks of a
	// single octet, the worst, take six.
	maxWire = 6*MaxBody + 4<<10
)

// get makes the one request of a fetch and returns the body. The request is
// written, and the response read, without [http.Client] and its transport: there
// is nothing to follow, to pool or to share, and so nothing to switch off.
func get(ctx context.Context, conn io.ReadWriter, host string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+policyPath, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	req.Header.Set("User-Agent", "postseal")
	req.Header.Set("Accept-Encoding", "identity") // whose size is known
	if err := req.Write(conn); err != nil {
		return "", temporary(inWords(err, "send request to %s: %s", host, ioReason(err)))
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	resp, err := readResponse(bufio.NewReader(limited), req)
	if err != nil {
		if limited.N <= 0 {
			return "", fmt.Errorf("response header of %s is larger than %d octets", host, maxHeader)
		}
		return "", temporary(inWords(err, "read response of %s: %s", host, ioReason(err)))
	}
	// The body is never closed, which would read it to its end first. The connection is.
	if err := checkResponse(resp, host); err != nil {
		return "", err
	}
	limited.N = maxWire
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if len(body) > MaxBody {
		return "", fmt.Errorf("policy text is larger than %d octets", MaxBody)
	}
	if err != nil {
		return "", temporary(inWords(err, "read policy text from %s: %s", host, ioReason(err)))
	}
	return string(body), nil
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

// checkResponse refuses everything that is not a policy text.
func checkResponse(resp *http.Response, host string) error {
	code := resp.StatusCode
	switch {
	case code >= 300 && code < 400 && code != http.StatusNotModified:
		// RFC 8461 §3.3: redirects must not be followed.
		return fmt.Errorf("%s answers with a redirect (status %d), which MTA-STS forbids", host, code)
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return temporary(fmt.Errorf("%s answers with status %d, not 200", host, code))
	case code != http.StatusOK:
		// RFC 8461 §3.3: only 200 is success.
		return fmt.Errorf("%s answers with status %d, not 200", host, code)
	}
	for _, coding := range resp.Header.Values("Content-Encoding") {
		if c := strings.TrimSpace(coding); c != "" && !strings.EqualFold(c, "identity") {
			return fmt.Errorf("%s sends content encoding %s although identity was asked for", host, quoted(coding))
		}
	}
	if resp.ContentLength > MaxBody {
		return fmt.Errorf("policy text has %d octets, more than %d", resp.ContentLength, MaxBody)
	}
	return checkMediaType(resp.Header.Values("Content-Type"))
}

// checkMediaType demands text/plain, which keeps the text that users may upload to
// a web server, or its error pages, from being policies (RFC 8461 §3.2). Parameters
// do not matter: the text is checked to be UTF-8 anyway.
func checkMediaType(values []string) error {
	if len(values) == 0 {
		return &FetchError{Result: PolicyInvalid, Err: errors.New("the policy has no media type, text/plain is needed")}
	}
	for _, v := range values {
		// A malformed parameter comes as an error together with the type.
		if t, _, _ := mime.ParseMediaType(v); t != "text/plain" {
			return &FetchError{Result: PolicyInvalid, Err: fmt.Errorf("the policy has media type %s, not text/plain", quoted(v))}
		}
	}
	return nil
}
