package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
	"postseal/reporting"
	"postseal/reporting/tlsrpt"
)

func reportShowCommand() *cli.Command {
	return &cli.Command{
		Name:  "show",
		Usage: "show a report, as a table and as the JSON that is sent",
		Description: `The report about a day that is closed is always the same, whether it was sent or
not. What is not in it is said below the table; with --json, which prints the JSON
alone, on standard error.

  postseal report show --domain example.org
  postseal report show --domain example.org --day 2026-11-27 --json | jq .policies
  postseal report show --domain mx.example.net --mx`,
		Flags:           aboutFlags(" (default: yesterday, in UTC)", jsonFlag()),
		HideHelpCommand: true,
		Action:          reportShow,
	}
}

func reportShow(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	now := time.Now()
	day, err := dayOr(c, now, reporting.DayOf(now)-1)
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
	p, err := client.Preview(c.Context, a, false)
	if err != nil {
		return noDaemon(err)
	}
	if p.JSON == "" {
		return noReport(p)
	}
	if c.Bool("json") {
		for _, text := range missing(p) {
			fmt.Fprintf(c.App.ErrWriter, "postseal: %s\n", text)
		}
		_, err := io.WriteString(c.App.Writer, p.JSON)
		return err
	}
	text, err := reportText(p)
	if err != nil {
		return err
	}
	b := &sheet{}
	b.remarks(missing(p))
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	return printLines(c.App.Writer, text+"\n"+b.String()+p.JSON)
}

// reportText is the report of a preview as a table.
func reportText(p *control.Preview) (string, error) {
	report, _, err := tlsrpt.Decode(strings.NewReader(p.JSON))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = report.WriteText(&b, p.Domain, 0)
	return b.String(), err
}

// noReport is the error for sessions that are in no report, or for none.
func noReport(p *control.Preview) error {
	texts := missing(p)
	if len(texts) > 0 && !p.Closed {
		texts = texts[1:]
	}
	what, hint := "mail to "+p.Domain, fmt.Sprintf("postseal sessions --day %s shows what happened", p.Day)
	if p.MX {
		what, hint = "MX host "+p.Domain, "MX hosts have reports once the day is closed, with reporting.mx_hosts = true"
	}
	err := fmt.Errorf("there is no report about %s for %s: no sessions are known", what, p.Day)
	if len(texts) > 0 {
		err = fmt.Errorf("there is no report about %s for %s: %s", what, p.Day, strings.Join(texts, "; "))
	}
	return hinted(err, hint)
}

// missing says what is not, or not yet, in a report.
func missing(p *control.Preview) (texts []string) {
	if !p.Closed {
		texts = append(texts, fmt.Sprintf("%s is not closed: more may be counted, and nothing is sent before", p.Day))
	}
	for _, t := range []struct {
		n    uint64
		text string
	}{
		{p.NoPolicy, "%d sessions are not in it: it is not known which policy they were held to"},
		{p.Unverified, "%d sessions are not in it: the policy is in mode testing, and nobody has verified the MX host"},
		{p.Late, "%d sessions are not in it: they became known after the day was closed"},
		{p.Cut, "%d sessions are not in it: there were too many policies"},
		{uint64(p.MergedDetails), "%d kinds of failure are told by their result alone, being too many"},
	} {
		if t.n > 0 {
			texts = append(texts, fmt.Sprintf(t.text, t.n))
		}
	}
	if p.Own {
		texts = append(texts, "it is not sent: all sessions may be those of our own report mails")
	}
	return texts
}

// remarks adds lines of which the first has a title.
func (s *sheet) remarks(texts []string) {
	title := "note"
	for _, text := range texts {
		s.line(title, text, 3)
		title = ""
	}
}

func reportReadCommand() *cli.Command {
	return &cli.Command{
		Name:      "read",
		Usage:     "read the reports that others have sent, without a daemon",
		ArgsUsage: "FILE...",
		Description: `A file is JSON, JSON packed by gzip, or a whole mail with either in it, whatever its
name; - is standard input. Each report is shown as a table; what it has that RFC 8460
has not is told, and read as it is meant.

With --json one report a line, with the names of RFC 8460 and in one form, whoever
wrote it; remarks go to standard error.

  postseal report read google.com\!example.org\!*.json.gz
  postseal report read --json *.eml | jq -c '.policies[].summary'`,
		Flags:           []cli.Flag{jsonFlag()},
		HideHelpCommand: true,
		Action:          reportRead,
	}
}

func reportRead(c *cli.Context) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		return wrongCount(c, "needs one FILE or more, or - for standard input")
	}
	var errs []error
	shown := 0
	for _, name := range names {
		report, remarks, err := readReport(c, name)
		if err != nil {
			errs = append(errs, errors.New(printable(name+": "+err.Error())))
			continue
		}
		if c.Bool("json") {
			for _, text := range remarks {
				fmt.Fprintf(c.App.ErrWriter, "postseal: %s: %s\n", printable(name), printable(text))
			}
			err = printReport(c.App.Writer, &report)
		} else {
			title := ""
			if len(names) > 1 {
				title = "==> " + name + " <=="
			}
			err = printRead(c.App.Writer, &report, title, shown > 0, remarks)
		}
		if err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
		shown++
	}
	return errors.Join(errs...)
}

func readReport(c *cli.Context, name string) (tlsrpt.Report, []string, error) {
	if name == "-" {
		return tlsrpt.Read(c.App.Reader)
	}
	f, err := os.Open(name)
	if err != nil {
		return tlsrpt.Report{}, nil, pathless(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return tlsrpt.Report{}, nil, errors.New("is a folder")
	}
	return tlsrpt.Read(f)
}

// printRead prints a report of others, apart from one before it.
func printRead(w io.Writer, r *tlsrpt.Report, title string, apart bool, remarks []string) error {
	var text strings.Builder
	if apart {
		text.WriteString("\n")
	}
	if title != "" {
		text.WriteString(printable(title) + "\n")
	}
	if err := r.WriteText(&text, "", 0); err != nil {
		return err
	}
	b := &sheet{}
	b.remarks(remarks)
	if b.Len() > 0 {
		text.WriteString("\n")
	}
	return printLines(w, text.String()+b.String())
}

// printReport prints a report of others as JSON in a line.
func printReport(w io.Writer, r *tlsrpt.Report) error {
	var b, line bytes.Buffer
	if err := r.EncodeRead(&b); err != nil {
		return err
	}
	if err := json.Compact(&line, b.Bytes()); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err := w.Write(line.Bytes())
	return err
}
