package daemon

import (
	"io"
	"log/slog"

	"postseal/cmd/postseal/internal/config"
)

// Keys of the daemon's own log lines. What is logged of mail are domains, never
// addresses of people.
const (
	keyConfig   = "config"
	keyErr      = "err"
	keyKeys     = "keys"
	keyListen   = "listen"
	keyReason   = "reason"
	keyRules    = "rules"
	keyBefore   = "before"
	keySection  = "section"
	keySignal   = "signal"
	keyStateDir = "state_dir"
	keyTook     = "took"
	keyVersion  = "version"
)

// newLogger logs to w at a level that a reload can change. The service manager
// adds the time to what it reads, but not everybody has one.
func newLogger(w io.Writer, c *config.Config, level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
