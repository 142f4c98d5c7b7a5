// Lab runs real Postfixes against the real daemon and checks what became of
// the mail.
//
// One table, scenarios.go, says which destination domains exist: their zone
// (signed or not), their MX hosts (which certificate, which TLSA records), their
// MTA-STS policy, and what must happen to a message for them. From it come the
// zones, certificates, policy hosts (RFC 8461 §3.3) and SMTP servers. A message
// is then sent to every domain through every Postfix; the verdict rests on
// Postfix's own log and on what the SMTP servers saw, not on what the daemon
// says of itself. The stories, story_*.go, go on from there: policies that
// change, outages, restarts, overrides.
//
// It expects to be alone in a network namespace, and as the first process of a
// process namespace, so that nothing it starts outlives it: see ../run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A healthy run takes some ten minutes, and a few seconds more for each kill.
const (
	whole   = 25 * time.Minute
	perKill = 10 * time.Second
)

func main() {
	var o options
	flag.StringVar(&o.work, "work", "", "`folder` with the chroots")
	flag.StringVar(&o.postseal, "postseal", "", "the daemon's `binary`")
	flag.StringVar(&o.pkg, "package", "", "the Debian `package`")
	flag.StringVar(&o.contrib, "contrib", "", "`folder` with the configurations that administrators include")
	flag.StringVar(&o.eximRoot, "exim", "exim", "`name` of the chroot with Exim; in "+eximOpenSSL+" it is built with OpenSSL")
	flag.StringVar(&o.sendmailRoot, "sendmail", "sendmail", "`name` of the chroot with Sendmail")
	flag.IntVar(&o.kills, "kills", 20, "how often the daemon is killed in the story of that name")
	flag.BoolVar(&o.keep, "keep", false, "when done, keep everything running until interrupted")
	suites := flag.String("suites", "bookworm,trixie", "comma-separated chroots")
	flag.Parse()
	o.suites, o.only = strings.Split(*suites, ","), flag.Args()
	for _, name := range o.only {
		if !known(name) {
			fmt.Fprintf(os.Stderr, "lab: %s is neither a scenario nor a story\n", name)
			os.Exit(2)
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := run(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(2)
	case failed:
		os.Exit(1)
	}
}

type options struct {
	work         string
	postseal     string
	pkg          string
	contrib      string
	eximRoot     string // chroot of Exim
	sendmailRoot string // and of Sendmail
	kills        int
	suites       []string
	only         []string
	keep         bool
}

// known reports whether there is a scenario or story of that name.
func known(name string) bool {
	return slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) ||
		slices.ContainsFunc(stories, func(s story) bool { return s.name == name })
}

// wants reports whether a scenario or story was asked for.
func (o options) wants(name string) bool {
	for _, only := range o.only {
		if only == name {
			return true
		}
	}
	return len(o.only) == 0
}

// run is the whole lab from start to end. It reports whether anything that
// gates has failed; an error means that the lab itself is broken.
func run(ctx context.Context, o options) (failed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, whole+time.Duration(o.kills)*perKill)
	defer cancel()
	l, err := start(ctx, o)
	if err != nil {
		return true, err
	}
	defer l.stop()
	l.report.moving = strings.HasSuffix(o.sendmailRoot, "-"+moving)
	l.runTable(ctx)
	l.runStories(ctx)
	l.report.summary(os.Stdout)
	if o.keep {
		fmt.Fprintln(os.Stderr, "lab: kept running; interrupt to end")
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		<-signals
	}
	return l.report.failed > 0, nil
}
