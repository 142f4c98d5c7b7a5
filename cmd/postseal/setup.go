package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/edit"
	"postseal/cmd/postseal/internal/setup/exim"
	"postseal/cmd/postseal/internal/setup/postfix"
	"postseal/cmd/postseal/internal/setup/sendmail"
)

func setupCommand() *cli.Command {
	return &cli.Command{
		Name:  "setup",
		Usage: "put into a mail server's configuration what it needs to ask postseal",
		Description: `Without --apply nothing is changed: every line is printed, with its reason and
the file that it belongs to.

  postseal setup postfix
  postseal setup postfix --apply
  postseal setup postfix --revert`,
		Subcommands: []*cli.Command{setupPostfixCommand(), setupEximCommand(), setupSendmailCommand()},
		Action:      needsSubcommand,
	}
}

func setupPostfixCommand() *cli.Command {
	return &cli.Command{
		Name:  "postfix",
		Usage: "set up Postfix 3.4 and later",
		Description: `Postfix asks for the TLS policy of each destination; your own tables in
smtp_tls_policy_maps keep winning. More only by an option.

  postseal setup postfix                        # print what would change
  postseal setup postfix --apply                # change it, keep copies
  postseal setup postfix --apply --requiretls --fallback --tlsrpt
  postseal setup postfix --apply --from postfix-tlspol
  postseal setup postfix --revert               # undo the latest --apply`,
		Flags: append(setupFlags("/etc/postfix"),
			&cli.BoolFlag{Name: "fallback", Usage: "hand over domains that Postfix cannot do itself (transport_maps)", DisableDefaultText: true},
			&cli.BoolFlag{Name: "requiretls", Usage: "have messages tagged for REQUIRETLS and TLS-Required: No (milter)", DisableDefaultText: true},
			&cli.BoolFlag{Name: "datagrams", Usage: "of --tlsrpt: from libtlsrpt, though there is a log", DisableDefaultText: true},
			&cli.StringFlag{Name: "socket", Value: "inet", Usage: "`KIND` of the sockets: inet, on loopback, or unix, below the queue folder"},
			&cli.StringFlag{Name: "from", Usage: "take over from `SERVICE`: postfix-mta-sts-resolver or postfix-tlspol"},
			&cli.BoolFlag{Name: "keep-line", Usage: "of --from: leave its line in main.cf, and listen where it listened", DisableDefaultText: true},
			&cli.StringFlag{Name: "relay-port", Usage: "of --requiretls: `PORT` on loopback where your own domains' recipients come back (default: 10026)"},
		),
		HideHelpCommand: true,
		Action: setupAction("postfix", func(c *cli.Context, s *host.System, o setup.Options) (*setup.Plan, error) {
			o.Direct = c.Bool("datagrams")
			p := postfix.Options{Options: o, Fallback: c.Bool("fallback"), RequireTLS: c.Bool("requiretls"),
				From: c.String("from"), KeepLine: c.Bool("keep-line"), RelayPort: c.String("relay-port")}
			switch c.String("socket") {
			case "inet":
			case "unix":
				p.Unix = true
			default:
				return nil, usage("", "option --socket: %q is neither inet nor unix", c.String("socket"))
			}
			if p.From != "" && p.From != postfix.FromResolver && p.From != postfix.FromTLSPol {
				return nil, usage("", "option --from: %q is neither %s nor %s", p.From, postfix.FromResolver, postfix.FromTLSPol)
			}
			if p.KeepLine && p.From == "" {
				return nil, usage("", "option --keep-line needs --from")
			}
			if p.RelayPort != "" {
				if n, err := net.LookupPort("tcp", p.RelayPort); err != nil || n == 0 {
					return nil, usage("", "option --relay-port: %q is no port", p.RelayPort)
				}
			}
			return postfix.Plan(c.Context, s, p)
		}),
	}
}

func setupEximCommand() *cli.Command {
	return &cli.Command{
		Name:  "exim",
		Usage: "set up Exim 4.96 and later",
		Description: `Exim asks for each remote domain, and hands over what it cannot do. Debian's split
and single-file configuration can be changed; for another, the places are printed.

  postseal setup exim
  postseal setup exim --apply --tlsrpt
  postseal setup exim --revert`,
		Flags: append(setupFlags("/etc/exim4"),
			&cli.BoolFlag{Name: "events", Usage: "of --tlsrpt: from Exim's events, though there is a log", DisableDefaultText: true}),
		HideHelpCommand: true,
		Action: setupAction("exim", func(c *cli.Context, s *host.System, o setup.Options) (*setup.Plan, error) {
			o.Direct = c.Bool("events")
			return exim.Plan(c.Context, s, o)
		}),
	}
}

func setupSendmailCommand() *cli.Command {
	return &cli.Command{
		Name:  "sendmail",
		Usage: "set up Sendmail 8.17 and later, by its sendmail.mc",
		Description: `Two lines in sendmail.mc, above and below the MAILER lines.

  postseal setup sendmail
  postseal setup sendmail --apply --tlsrpt
  postseal setup sendmail --revert`,
		Flags:           setupFlags("/etc/mail"),
		HideHelpCommand: true,
		Action: setupAction("sendmail", func(c *cli.Context, s *host.System, o setup.Options) (*setup.Plan, error) {
			return sendmail.Plan(c.Context, s, o)
		}),
	}
}

// setupFlags are those of every mail server.
func setupFlags(dir string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "apply", Usage: "make the changes, and keep a copy of each file", DisableDefaultText: true},
		&cli.BoolFlag{Name: "revert", Usage: "undo the latest --apply that is in force", DisableDefaultText: true},
		&cli.BoolFlag{Name: "reload", Usage: "of --apply: have the mail server read its configuration again, if postseal answers", DisableDefaultText: true},
		&cli.BoolFlag{Name: "tlsrpt", Usage: "count TLS sessions, from the mail server's log if there is one", DisableDefaultText: true},
		&cli.StringFlag{Name: "dane", Value: setup.DANEAuto, Usage: "whether the mail server does DANE itself: yes, no, or auto, if its resolver is proven to validate"},
		&cli.StringFlag{Name: "config-dir", Usage: "`FOLDER` of the mail server's configuration (default: as it says itself, such as " + dir + ")"},
		&cli.StringFlag{Name: "root", Usage: "`FOLDER` to take for /, such as a chroot; needs root"},
		&cli.StringFlag{Name: "backups", Value: edit.DefaultFolder, Usage: "`FOLDER` for copies of what is changed"},
	}
}

type planner func(*cli.Context, *host.System, setup.Options) (*setup.Plan, error)

// setupAction is what the three have in common.
func setupAction(mta string, plan planner) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := none(c); err != nil {
			return err
		}
		h, o, err := setupSystem(c)
		if err != nil {
			return err
		}
		if c.Bool("revert") {
			return setupRevert(c, h, mta)
		}
		p, err := plan(c, h.System, o)
		if err != nil {
			return refused(err)
		}
		p.Print(c.App.Writer)
		for _, w := range p.Warnings {
			fmt.Fprintf(c.App.ErrWriter, "postseal: warning: %s\n", w)
		}
		switch {
		case p.Empty() && len(p.ByHand) == 0:
			fmt.Fprintf(c.App.Writer, "\nnothing to change: all of it is there\n")
			return nil
		case p.Empty():
			printNext(c.App.Writer, p)
			return nil
		case !c.Bool("apply"):
			printNext(c.App.Writer, p)
			fmt.Fprintf(c.App.Writer, "\nthis was a dry run, nothing is changed; --apply does it\n")
			return nil
		}
		return setupApply(c, h, p)
	}
}

func setupSystem(c *cli.Context) (*edit.History, setup.Options, error) {
	o := setup.Options{Config: c.String("config"), Dir: c.String("config-dir"), DANE: c.String("dane"), TLSRPT: c.Bool("tlsrpt")}
	h := &edit.History{System: &host.System{}, Folder: c.String("backups")}
	var err error
	for _, path := range []*string{&o.Config, &o.Dir, &h.Folder} {
		if *path != "" && c.String("root") == "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return nil, o, err
			}
		}
	}
	if root := c.String("root"); root != "" {
		if h.Root, err = filepath.Abs(root); err != nil {
			return nil, o, err
		}
		if h.Root == "/" {
			h.Root = ""
		}
	}
	switch {
	case c.Bool("apply") && c.Bool("revert"):
		return nil, o, usage("", "--apply and --revert exclude each other")
	case c.Bool("reload") && !c.Bool("apply"):
		return nil, o, usage("", "option --reload needs --apply")
	case o.DANE != setup.DANEAuto && o.DANE != setup.DANEYes && o.DANE != setup.DANENo:
		return nil, o, usage("", "option --dane: %q is not auto, yes or no", o.DANE)
	}
	return h, o, nil
}

// refused adds what a refusal advises.
func refused(err error) error {
	if r, ok := errors.AsType[*setup.Refusal](err); ok {
		return hinted(err, r.Hints...)
	}
	if conflict, ok := errors.AsType[*edit.Conflict](err); ok {
		return hinted(err, "undo these by hand; the files as they were are in "+strings.Join(conflict.Runs, ", "))
	}
	if errors.Is(err, os.ErrPermission) {
		return hinted(err, "setup reads and writes the mail server's configuration: run it as root")
	}
	return err
}

func setupApply(c *cli.Context, h *edit.History, p *setup.Plan) error {
	folder, err := h.Apply(p.MTA, p.Changes)
	if err != nil {
		hint := "nothing is changed yet"
		if folder != "" {
			hint = "setup " + p.MTA + " --revert undoes what was done; copies are in " + folder
		}
		return hinted(refused(err), hint)
	}
	fmt.Fprintf(c.App.Writer, "\ndone; copies and a manifest are in %s\n", folder)
	if !c.Bool("reload") {
		printNext(c.App.Writer, p)
		return nil
	}
	if err := answers(c, h.System); err != nil {
		printNext(c.App.Writer, p)
		return hinted(fmt.Errorf("the mail server was not told to reload: %w", err), "all its mail would wait; start postseal first")
	}
	return setup.Reload(c.Context, h.System, p)
}

// answers asks the daemon as a mail server would.
func answers(c *cli.Context, s *host.System) error {
	file := c.String("config")
	if file == "" && s.Root != "" {
		file = config.DefaultFile
	}
	if s.Root != "" {
		file = filepath.Join(s.Root, file)
	}
	cfg, err := config.Load(file, os.Getenv)
	if err != nil {
		return err
	}
	endpoints, err := cfg.Socketmap.Listen.Endpoints()
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if err := answersAt(c.Context, e); err != nil {
			return err
		}
	}
	return nil
}

// answersAt asks for a map that no other policy service has, since one that we take
// over from may still listen where we shall.
func answersAt(ctx context.Context, e config.Endpoint) error {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, e.Network, e.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	reply, err := ask(conn, bufio.NewReader(conn), "requiretls", "example.org")
	if err != nil {
		return fmt.Errorf("%s: %w", e, err)
	}
	if codeOf(reply) != 0 {
		return fmt.Errorf("at %s another service than postseal answers", e)
	}
	return nil
}

// printNext says what is left to do.
func printNext(w io.Writer, p *setup.Plan) {
	if len(p.ByHand) > 0 {
		fmt.Fprintf(w, "\nby hand:\n")
	}
	for _, step := range p.ByHand {
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(step, "\n", "\n    "))
	}
	fmt.Fprintf(w, "\nthen:\n")
	for _, step := range p.Before {
		fmt.Fprintf(w, "  %s\n", step)
	}
	fmt.Fprintf(w, "  postseal config check && systemctl restart postseal   # it must run before the mail server asks\n")
	for _, argv := range p.Reload {
		fmt.Fprintf(w, "  %s\n", strings.Join(argv, " "))
	}
	for _, step := range p.After {
		fmt.Fprintf(w, "  %s\n", step)
	}
}

func setupRevert(c *cli.Context, h *edit.History, mta string) error {
	r, err := h.Revert(mta)
	if err != nil {
		return refused(err)
	}
	if len(r.Runs) == 0 {
		fmt.Fprintf(c.App.Writer, "nothing to undo: no setup of %s is in force\n", mta)
		return nil
	}
	for _, run := range r.Runs {
		fmt.Fprintf(c.App.Writer, "undone: %s\n", run)
	}
	for _, file := range r.Files {
		fmt.Fprintf(c.App.Writer, "  %s\n", file)
	}
	if r.Older > 0 {
		fmt.Fprintf(c.App.Writer, "%d earlier are still in force; --revert again undoes the next\n", r.Older)
	}
	fmt.Fprintf(c.App.Writer, "now have the mail server read its configuration again; stop postseal only then\n")
	return nil
}
