// Postseal gives a mail server MTA-STS (RFC 8461) and DANE (RFC 7672): it tells
// Postfix, Exim or Sendmail, through a lookup that they have anyway, which TLS a
// destination demands. "postseal serve" is the daemon; the other subcommands ask
// it what it knows, and why it decided as it did.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// What people read on standard error begins with "postseal: ", in lower case and
// without a full stop; advice follows on lines of its own with "postseal: hint: ".

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for the exit: only main exits.
func run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(stdin, stdout, stderr)
	var err error
	if !completing(argv) {
		argv, err = arrange(app, argv)
	}
	if err == nil {
		err = app.RunContext(ctx, argv)
	}
	return report(stderr, err)
}

// completing reports whether a shell asks what may come next (contrib/completion):
// the library answers that by itself, and does nothing else.
func completing(argv []string) bool {
	return argv[len(argv)-1] == "--generate-bash-completion" && !slices.Contains(argv, "--")
}

// report prints an error and returns the exit code: 0, 2 for wrong usage, 1 for
// all else, or what the subcommand said.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	var e *exitError
	if !errors.As(err, &e) {
		e = &exitError{err: err, code: 1}
	}
	if e.err != nil {
		for line := range strings.Lines(e.err.Error()) {
			fmt.Fprintf(w, "postseal: %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	for _, hint := range e.hints {
		fmt.Fprintf(w, "postseal: hint: %s\n", hint)
	}
	return e.code
}

// exitError is an error with an exit code and advice. Without err nothing is printed.
type exitError struct {
	err   error
	code  int
	hints []string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage is an error of whoever typed the command.
func usage(hint, format string, args ...any) error {
	e := &exitError{err: fmt.Errorf(format, args...), code: 2}
	if hint != "" {
		e.hints = []string{hint}
	}
	return e
}

// hinted adds advice to an error.
func hinted(err error, hints ...string) error {
	return &exitError{err: err, code: 1, hints: hints}
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:      "postseal",
		Usage:     "MTA-STS and DANE for the mail server beside it",
		UsageText: "postseal [--config FILE] COMMAND [OPTIONS] [ARGUMENTS]",
		Description: `Start with two commands, without any configuration:

  postseal serve                                 # answers on 127.0.0.1:8461
  postseal query --map postfix example.org       # what Postfix would be told

"postseal COMMAND --help" has examples.`,
		Version:     version().Version,
		HideVersion: true, // there is a subcommand

		EnableBashCompletion: true,
		Flags: []cli.Flag{&cli.StringFlag{
			Name:  "config",
			Usage: "configuration `FILE` (default: /etc/postseal/postseal.toml, if it exists)",
		}},
		Commands: []*cli.Command{
			serveCommand(), explainCommand(), queryCommand(), cacheCommand(),
			overrideCommand(), sessionsCommand(), reportsCommand(), logsCommand(), setupCommand(), configCommand(), doctorCommand(), statusCommand(), versionCommand(),
		},
		Reader:         stdin,
		Writer:         stdout,
		ErrWriter:      stderr,
		ExitErrHandler: func(*cli.Context, error) {}, // the library would exit
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usage("", "%w", err) },
	}
}
