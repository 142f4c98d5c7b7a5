package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/daemon"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the daemon",
		Description: `Answers mail servers until SIGTERM or SIGINT, then lets requests in flight end
(10 s; a second signal ends them at once). SIGHUP reads the configuration and the
overrides again. Logs go to standard error. Without a configuration everything
listens on loopback: lookups on 127.0.0.1:8461, the status page on 127.0.0.1:8460.

  postseal serve
  postseal serve --config new.toml

"postseal setup" has your mail server ask it.`,
		HideHelpCommand: true,
		Action:          serve,
	}
}

// gcPercent makes garbage be collected twice as often as by default: lookups
// leave little of it, and memory is what a mail server has other uses for.
const gcPercent = 50

func serve(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	watchdog, err := sdnotify.SdWatchdogEnabled(true)
	if err != nil {
		return err
	}
	err = daemon.Run(c.Context, daemon.Options{
		Load:     func() (*config.Config, error) { return load(c) },
		Version:  version().Version,
		Log:      c.App.ErrWriter,
		Signals:  signals,
		Files:    activation.Files(true),
		Notify:   func(state string) { sdnotify.SdNotify(false, state) }, // nobody listens, or the manager is gone: no harm
		Watchdog: watchdog,
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return hinted(err, "another program, perhaps another postseal, listens there; see socketmap.listen and http.listen in the configuration")
	}
	return err
}
