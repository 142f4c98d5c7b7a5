package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
	"postseal/reporting/daily"
)

func reportSendCommand() *cli.Command {
	return &cli.Command{
		Name:  "send",
		Usage: "send a report now, and say what became of it at each target",
		Description: `For a day that is closed, whenever the report would be due. What fails is tried again
by the daemon as usual. A report that is done with is sent only with --again, under
the same report id, by which receivers know that it came twice. Takes up to 6 minutes.

The exit code is 1 if no target has taken the report.

  postseal report send --domain example.org --day 2026-11-27 --dry-run
  postseal report send --domain example.org --day 2026-11-27
  postseal report send --domain example.org --day 2026-11-27 --again`,
		Flags: aboutFlags(" that is closed",
			&cli.BoolFlag{Name: "again", Usage: "once more, though it was sent or given up", DisableDefaultText: true},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing", DisableDefaultText: true}, jsonFlag()),
		HideHelpCommand: true,
		Action:          reportSend,
	}
}

func reportSend(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	if !c.IsSet("day") {
		return wrongCount(c, "needs --day DAY")
	}
	day, err := dayOr(c, time.Now(), 0)
	if err != nil {
		return err
	}
	a, err := about(c, day)
	if err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return dryRun(c, client, a)
	}
	ctx, cancel := context.WithTimeout(c.Context, control.SendLimit+time.Minute)
	defer cancel()
	sent, err := client.SendReport(ctx, a, c.Bool("again"))
	switch {
	case err != nil:
		return noDaemon(err)
	case c.Bool("json"):
		err = printJSON(c.App.Writer, sent)
	default:
		_, err = c.App.Writer.Write(renderSent(sent))
	}
	if err != nil {
		return err
	}
	return cameOf(sent)
}

// renderSent says what came of sending a report, target by target.
func renderSent(s control.Sent) []byte {
	b := &sheet{}
	p := &control.Preview{Report: s.Report}
	b.line("state", stateOf(p), 3)
	for _, t := range s.Targets {
		b.line("target", atTarget(t), 4)
	}
	return b.Bytes()
}

// cameOf is an error unless a target has taken the report now.
func cameOf(s control.Sent) error {
	switch {
	case s.Done:
		return hinted(fmt.Errorf("the report was done with before, and nothing is sent: %s", s.State), "--again sends it once more")
	case s.Delivered():
		return nil
	case s.State == string(daily.Suppressed):
		return hinted(errors.New("no target has taken the report"), "postseal report suppress remove TARGET lets it go there again")
	case s.State == string(daily.Waiting):
		return errors.New("no target has taken the report yet; the daemon goes on trying")
	}
	return errors.New("no target has taken the report")
}

// dryRun says what sending would do.
func dryRun(c *cli.Context, client *control.Client, a control.About) error {
	p, err := client.Preview(c.Context, a, false)
	if err != nil {
		return noDaemon(err)
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, p)
	} else {
		_, err = c.App.Writer.Write(renderPreview(p))
	}
	if err != nil {
		return err
	}
	to, err := wouldSend(p, c.Bool("again"))
	if err != nil || c.Bool("json") {
		return err
	}
	b := &sheet{}
	for _, uri := range to {
		b.line("would send", "to "+uri, 3)
	}
	_, err = c.App.Writer.Write(b.Bytes())
	return err
}

// wouldSend lists the targets that a report would go to; the error says why to none.
func wouldSend(p *control.Preview, again bool) (to []string, err error) {
	settled := p.State != string(daily.Waiting) && p.State != control.Planned && p.State != control.Missed
	switch {
	case !p.Closed:
		return nil, fmt.Errorf("nothing would be sent: %s is not closed", p.Day)
	case settled && !again:
		return nil, hinted(fmt.Errorf("nothing would be sent: the report is done with: %s", p.State), "--again sends it once more")
	case p.JSON == "":
		return nil, noReport(p)
	case p.Own:
		return nil, errors.New("nothing would be sent: all sessions may be those of our own report mails")
	}
	for _, d := range p.To {
		if !d.Withheld && (again && settled || open(p, d.URI)) {
			to = append(to, d.URI)
		}
	}
	if len(to) == 0 {
		return nil, errors.New("nothing would be sent: there is no target that it could go to")
	}
	return to, nil
}

// open reports whether a target was not tried yet, or is to be tried again.
func open(p *control.Preview, uri string) bool {
	for _, t := range p.Targets {
		if t.URI == uri {
			return t.State == daily.Waiting
		}
	}
	return true
}
