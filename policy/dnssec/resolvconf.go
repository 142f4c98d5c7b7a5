package dnssec

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	defaultResolvConf = "/etc/resolv.conf"
	maxResolvConf     = 64 << 10
	maxNameservers    = 3           // MAXNS of resolv.conf(5)
	lookInterval      = time.Second // between two looks at the file
)

// resolvConf is what the file was when last seen.
type resolvConf struct {
	looked time.Time
	info   fs.FileInfo // nil: never read
}

// followed returns the servers of resolv.conf, read anew if the file changed.
func (c *Client) followed() []*server {
	servers, changed := c.look()
	if changed {
		c.epoch.Add(1)
		names := make([]string, len(servers))
		for i, s := range servers {
			names[i] = s.name
		}
		c.log().Info("resolvers changed", "servers", names)
		select {
		case c.pool.changed <- struct{}{}:
		default:
		}
	}
	return servers
}

// look returns the servers, and whether they are others than before. A file
// that cannot be read leaves the last ones in use.
func (c *Client) look() (servers []*server, changed bool) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	before, conf, now := c.pool.servers, &c.pool.conf, c.now()
	if before != nil && now.Sub(conf.looked).Abs() < lookInterval {
		return before, false
	}
	conf.looked = now
	names, ok := conf.read(c.ResolvConf)
	switch {
	case ok:
	case before == nil:
		names = parseResolvConf(nil)
	default:
		return before, false
	}
	c.pool.servers = c.newServers(names)
	return c.pool.servers, before != nil
}

// read returns the servers named in the file if it is another than before.
func (r *resolvConf) read(path string) ([]string, bool) {
	if path == "" {
		path = defaultResolvConf
	}
	info, err := os.Stat(path)
	if err != nil || r.info != nil && os.SameFile(info, r.info) && info.Size() == r.info.Size() && info.ModTime().Equal(r.info.ModTime()) {
		return nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return nil, false
	}
	r.info = info
	return parseResolvConf(text), true
}

// parseResolvConf returns the addresses on the nameserver lines; without one
// it is the local machine (resolv.conf(5)).
func parseResolvConf(text []byte) []string {
	var names []string
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "nameserver" || len(names) == maxNameservers {
			continue
		}
		if _, err := parseServer(fields[1]); err == nil {
			names = append(names, fields[1])
		}
	}
	if names == nil {
		return []string{"127.0.0.1"}
	}
	return names
}
