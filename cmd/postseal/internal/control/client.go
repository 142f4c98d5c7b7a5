package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"postseal/cmd/postseal/internal/overrides"
)

// ErrNoDaemon is returned when nobody answers at any of a client's sockets.
var ErrNoDaemon = errors.New("no daemon answers")

// maxAnswer bounds what a client reads into memory: an explanation with all its
// steps, or ten thousand overrides.
const maxAnswer = 64 << 20

// Client talks to the daemon behind the first of its sockets that answers.
type Client struct {
	Sockets []string // paths, in order of preference

	http *http.Client
}

// dial finds the socket that answers.
func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var errs []error
	for _, path := range c.Sockets {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", path, reason(err)))
	}
	return nil, fmt.Errorf("%w: %w", ErrNoDaemon, joined(errs))
}

// reason leaves away what the caller says in other words.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// joined is errors.Join on one line.
func joined(errs []error) error {
	var all error
	for _, err := range errs {
		if all == nil {
			all = err
			continue
		}
		all = fmt.Errorf("%w; %w", all, err)
	}
	return all
}

// do sends a request and hands the body of a good answer to read.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any, read func(io.Reader) error) error {
	var payload bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&payload).Encode(body); err != nil {
			return err
		}
	}
	target := "http://postseal" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, &payload)
	if err != nil {
		return err
	}
	if c.http == nil {
		c.http = &http.Client{Transport: &http.Transport{DialContext: c.dial, DisableKeepAlives: true}}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // its text has a URL that nobody asked for
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return read(resp.Body)
	}
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&f); err != nil || f.Error == "" {
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return errors.New(f.Error)
}

// into reads a JSON answer into v.
func into(v any) func(io.Reader) error {
	return func(r io.Reader) error { return json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(v) }
}

// Explain asks for the explanation of a destination; fresh looks everything up again.
func (c *Client) Explain(ctx context.Context, dest string, fresh bool) (*Explanation, error) {
	q := url.Values{"domain": {dest}}
	if fresh {
		q.Set("fresh", "1")
	}
	x := new(Explanation)
	return x, c.do(ctx, http.MethodGet, "/v1/explain", q, nil, into(x))
}

// Refresh has a destination looked up again, its policy body included.
func (c *Client) Refresh(ctx context.Context, dest string) (*Explanation, error) {
	x := new(Explanation)
	return x, c.do(ctx, http.MethodPost, "/v1/cache/refresh", url.Values{"domain": {dest}}, nil, into(x))
}

// List hands every remembered destination to f, or those of one domain.
func (c *Client) List(ctx context.Context, domain string, f func(Entry) error) error {
	q := url.Values{}
	if domain != "" {
		q.Set("domain", domain)
	}
	return c.do(ctx, http.MethodGet, "/v1/cache", q, nil, each(f))
}

// Answers hands what a map answers for every known destination to f.
func (c *Client) Answers(ctx context.Context, name string, f func(Known) error) error {
	return c.do(ctx, http.MethodGet, "/v1/answers", url.Values{"map": {name}}, nil, each(f))
}

// each reads an answer that has a line for each T, and perhaps an error as the last.
func each[T any](f func(T) error) func(io.Reader) error {
	return func(r io.Reader) error {
		for dec := json.NewDecoder(r); ; {
			var text json.RawMessage
			switch err := dec.Decode(&text); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			var broken failure
			if err := json.Unmarshal(text, &broken); err == nil && broken.Error != "" {
				return errors.New(broken.Error)
			}
			var line T
			if err := json.Unmarshal(text, &line); err != nil {
				return err
			}
			if err := f(line); err != nil {
				return err
			}
		}
	}
}

// Purge forgets a domain, or everything with "".
func (c *Client) Purge(ctx context.Context, domain string) (Purged, error) {
	q := url.Values{"domain": {domain}}
	if domain == "" {
		q = url.Values{"all": {"1"}}
	}
	var p Purged
	err := c.do(ctx, http.MethodDelete, "/v1/cache", q, nil, into(&p))
	return p, err
}

// Overrides lists the operator's rules.
func (c *Client) Overrides(ctx context.Context) (Overrides, error) {
	var o Overrides
	err := c.do(ctx, http.MethodGet, "/v1/overrides", nil, nil, into(&o))
	return o, err
}

// SetOverride adds a rule or replaces that for the same domain, and returns it as stored.
func (c *Client) SetOverride(ctx context.Context, r overrides.Rule) (Stored, error) {
	var stored Stored
	err := c.do(ctx, http.MethodPut, "/v1/overrides", nil, r, into(&stored))
	return stored, err
}

// RemoveOverride removes the rule for a domain and returns it.
func (c *Client) RemoveOverride(ctx context.Context, domain string) (overrides.Rule, error) {
	var removed overrides.Rule
	err := c.do(ctx, http.MethodDelete, "/v1/overrides", url.Values{"domain": {domain}}, nil, into(&removed))
	return removed, err
}

// Status asks for the state of the daemon.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, "/v1/status", nil, nil, into(&s))
	return s, err
}

// Reload does what SIGHUP does.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var r Reloaded
	err := c.do(ctx, http.MethodPost, "/v1/reload", nil, nil, into(&r))
	return r, err
}

func quoted(s string) string {
	const most = 100
	return strconv.QuoteToASCII(s[:min(len(s), most)])
}
