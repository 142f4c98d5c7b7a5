package send

import (
	"context"
	"io"
	"net/http"
)

// Post is one request with a body of any size.
func (h *HTTPS) Post(ctx context.Context, uri string, body []byte) error {
	to, err := parseOrigin(uri)
	if err != nil {
		return err
	}
	_, err = h.follow(ctx, to, body)
	return err
}

// Redirect is the URI that a Location leads to.
func Redirect(uri, location string) (string, error) {
	from, err := parseOrigin(uri)
	if err != nil {
		return "", err
	}
	to, err := from.redirect(location)
	if err != nil {
		return "", err
	}
	return to.url.String(), nil
}

// Answer is what is made of a response.
func Answer(r io.Reader, req *http.Request) (code int, status, location, words string, err error) {
	a, err := readAnswer(r, req, func() {})
	if err != nil {
		return 0, "", "", "", err
	}
	return a.code, a.status, a.location, a.words, nil
}

// Kept is how much is kept of a program's output in lines.
func Kept(line string, lines int) int {
	var c clipped
	for range lines {
		c.Write([]byte(line))
	}
	return len(c.buf)
}
