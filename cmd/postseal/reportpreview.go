package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/send"
	"postseal/reporting/tlsrpt"
)

func reportPreviewCommand() *cli.Command {
	return &cli.Command{
		Name:  "preview",
		Usage: "show exactly what would be sent now, and where to",
		Description: `Asks the domain's TLSRPT record, and shows every target with what speaks against it,
and each mail with its header, signatures included. Nothing is sent or written down.
The compressed report is summed up; with --out it is written as it is sent, beside
the JSON and each mail.

  postseal report preview --domain example.org
  postseal report preview --domain example.org --day 2026-11-27 --out previews`,
		Flags: aboutFlags(" (default: yesterday, in UTC, or today if there are no sessions of yesterday)",
			&cli.StringFlag{Name: "out", Usage: "`FOLDER` to write report and mails to; it is made if need be"}, jsonFlag()),
		HideHelpCommand: true,
		Action:          reportPreview,
	}
}

func reportPreview(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	if c.IsSet("out") && c.String("out") == "" {
		return usage("", "option --out needs the name of a folder, but got an empty one")
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
	p, err := client.Preview(c.Context, a, true)
	if err == nil && !c.IsSet("day") && p.JSON == "" && p.NoPolicy+p.Unverified+p.Late == 0 {
		a.Day = reporting.DayOf(now).String()
		p, err = client.Preview(c.Context, a, true)
	}
	if err != nil {
		return noDaemon(err)
	}
	var written []string
	if c.IsSet("out") && p.JSON != "" {
		if written, err = writePreview(c.String("out"), p); err != nil {
			return err
		}
	}
	switch {
	case c.Bool("json"):
		return printJSON(c.App.Writer, p)
	case p.JSON == "":
		return noReport(p)
	}
	if err := printLines(c.App.Writer, string(renderPreview(p))); err != nil {
		return err
	}
	if c.IsSet("out") {
		for i, name := range written {
			written[i] = fmt.Sprintf("%-*s%s\n", indent, "written", printable(name)) // in one piece, to be copied
		}
		return printLines(c.App.Writer, strings.Join(written, ""))
	}
	return printDestinations(c.App.Writer, p)
}

// renderPreview says what would be sent and where to, without the mails.
func renderPreview(p *control.Preview) []byte {
	b := &sheet{}
	name := p.Domain
	if p.MX {
		name += " (MX host)"
	}
	b.line(printable(name), "", 1)
	closed := "closed"
	if !p.Closed {
		closed = "NOT CLOSED"
	}
	b.line("day", p.Day+" (UTC, "+closed+")", 1)
	if p.JSON != "" {
		b.line("report", p.ID, 2)
		if report, _, err := tlsrpt.Decode(strings.NewReader(p.JSON)); err == nil {
			total := report.Total()
			b.line("", fmt.Sprintf("sessions succeeded: %d, failed: %d; policies: %d", total.Successful, total.Failed, len(report.Policies)), 1)
		}
		b.line("", fmt.Sprintf("%s, %d bytes", p.File, p.Size), 3)
	}
	b.line("state", stateOf(p), 3)
	b.remarks(missing(p))
	b.record(p)
	for _, d := range p.To {
		b.line("target", standing(p, d), 4)
	}
	return b.Bytes()
}

// stateOf says where a report stands and when something comes next.
func stateOf(p *control.Preview) string {
	text := p.State
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	switch {
	case p.Due.IsZero():
	case p.State == control.Planned:
		text += ", for " + stamp(p.Due)
	default:
		text += ", next try " + stamp(p.Due)
	}
	return text
}

// record says who decided where the report goes.
func (s *sheet) record(p *control.Preview) {
	switch {
	case p.Rule == string(daily.Drop):
		s.line("rule", "a rule of the configuration sends nothing to the domain's own targets", 2)
	case p.Rule == string(daily.Replace):
		s.line("rule", "a rule of the configuration names the targets", 2)
	case p.NoRecord != "":
		s.line("record", p.NoRecord, 4)
	}
	for _, note := range p.Notes {
		s.line("record", note, 3)
	}
	if len(p.To) == 0 {
		s.line("target", "none: nothing is sent", 1)
	}
}

// standing is a target, what became of the report there, and what speaks against it.
func standing(p *control.Preview, d control.Destination) string {
	text := d.URI
	for _, t := range p.Targets {
		if t.URI == d.URI {
			text = atTarget(t)
		}
	}
	if d.Standing == nil {
		return text
	}
	return text + " (" + against(*d.Standing, d.Withheld) + ")"
}

// against says what speaks against a target.
func against(s daily.Standing, withheld bool) string {
	var words []string
	if withheld {
		by, until := "after failures", "until "+stamp(s.Until)
		if s.Operator {
			by = "by you"
		}
		if control.Forever(s) {
			until = "until that is removed"
		}
		words = append(words, "SUPPRESSED "+by+" "+until)
	}
	if s.BadDays > 0 {
		days := "1 day"
		if s.BadDays > 1 {
			days = fmt.Sprintf("%d days in a row", s.BadDays)
		}
		words = append(words, "has failed on "+days+", last "+stamp(s.Last))
	}
	text := strings.Join(words, "; ")
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}

// printDestinations shows what would go to each target.
func printDestinations(w io.Writer, p *control.Preview) error {
	for _, d := range p.To {
		var text string
		switch {
		case d.Trouble != "":
			text = "there is no mail: " + printable(d.Trouble) + "\n"
		case d.Folder != "":
			text = "the file " + printable(filepath.Join(d.Folder, p.File)) + "\n"
		case d.Address == "":
			text = fmt.Sprintf("POST %s\nUser-Agent: %s\nContent-Type: %s\nContent-Length: %d\n", printable(d.URI), send.UserAgent, tlsrpt.MediaType, p.Size)
		default:
			var err error
			if text, err = mailText(d.Mail); err != nil {
				return fmt.Errorf("mail to %s: %w", d.Address, err)
			}
		}
		if err := printLines(w, "\n--- "+printable(d.URI)+"\n\n"+text); err != nil {
			return err
		}
	}
	return nil
}

// mailText is a mail with its header as it is, its text decoded and its attachments
// summed up.
func mailText(raw []byte) (string, error) {
	header, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	b := &strings.Builder{}
	fmt.Fprintf(b, "%s\n\n", header)
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return "", err
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	for parts := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return "", err
		}
		media, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if media == "text/plain" {
			_, err = io.Copy(b, part)
			b.WriteString("\n\n")
		} else {
			var n int64
			n, err = io.Copy(io.Discard, part)
			fmt.Fprintf(b, "[%s, %s, %d bytes in %s]\n", part.FileName(), media, n, part.Header.Get("Content-Transfer-Encoding"))
		}
		if err != nil {
			return "", err
		}
	}
}

// writePreview writes the report, compressed and not, and each mail, and returns the
// names of the files.
func writePreview(folder string, p *control.Preview) (names []string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	base, ok := strings.CutSuffix(p.File, ".json.gz")
	if !ok || !filepath.IsLocal(p.File) || filepath.Base(p.File) != p.File {
		return nil, fmt.Errorf("the daemon names the file %q", p.File)
	}
	type file struct {
		name, about string
		data        []byte
	}
	files := []file{{name: p.File, data: p.Packed}, {name: base + ".json", data: []byte(p.JSON)}}
	for i, d := range p.To {
		if d.Mail != nil { // addresses may have characters that no file name has
			files = append(files, file{fmt.Sprintf("%s.%d.eml", base, i+1), " to " + d.Address, d.Mail})
		}
	}
	for _, f := range files {
		path := filepath.Join(folder, f.name)
		if err := writeWhole(path, f.data); err != nil {
			return nil, err
		}
		names = append(names, path+f.about)
	}
	return names, nil
}

// writeWhole replaces a file, whole or not at all; a link in its place is not followed.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".postseal-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone by then, if all went well
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
