package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postseal/cmd/postseal/internal/control"
	"postseal/reporting"
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
)

func logsCommand() *cli.Command {
	return &cli.Command{
		Name:  "logs",
		Usage: "read logs of mail servers",
		Description: `  postseal logs replay --format postfix /var/log/mail.log.1 /var/log/mail.log
  journalctl -o json | postseal logs replay --format postfix -`,
		Subcommands: []*cli.Command{{
			Name:      "replay",
			Usage:     "print the TLS sessions that logs tell of, without a daemon",
			ArgsUsage: "FILE...",
			Description: `One JSON object a session, on standard output; what was read, on standard error.
Files are read as one log, so name them from the oldest to the latest. Files packed
by gzip are unpacked; - is standard input. A log does not say which policy applied,
but for Postfix 3.10 and later: policy_type is empty then.

A time without a year is taken for the latest one before the file's last change.

  postseal logs replay --format postfix /var/log/mail.log.2.gz /var/log/mail.log.1
  postseal logs replay --format exim --timezone Europe/Berlin mainlog
  journalctl -o json | postseal logs replay --format postfix - | jq -r .domain`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "format", Usage: "`FORMAT` of the files: postfix, exim or sendmail"},
				&cli.StringFlag{Name: "timezone", Usage: "`ZONE` of times that name none, as Europe/Berlin (default: this machine's)"},
			},
			HideHelpCommand: true,
			Action:          replay,
		}},
		Action: needsSubcommand,
	}
}

// replayed is a session as replay prints it.
type replayed struct {
	Time time.Time `json:"time"`
	control.Outcome
}

func replay(c *cli.Context) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		return wrongCount(c, "needs one FILE or more, or - for standard input")
	}
	if !c.IsSet("format") {
		return wrongCount(c, "needs --format postfix, exim or sendmail")
	}
	zone := time.Local
	if c.IsSet("timezone") {
		var err error
		if zone, err = time.LoadLocation(c.String("timezone")); err != nil || c.String("timezone") == "" {
			return usage("a zone is named as Europe/Berlin or UTC", "option --timezone: unknown zone %q", c.String("timezone"))
		}
	}
	r := &replayer{c: c, out: bufio.NewWriterSize(c.App.Writer, 64<<10)}
	reader, err := ingest.New(c.String("format"), maillog.Options{Location: zone, Now: func() time.Time { return r.changed }})
	if err != nil {
		return usage("", "option --format: %w", err)
	}
	r.reader, r.enc = reader, json.NewEncoder(r.out)
	r.enc.SetEscapeHTML(false)
	r.progress = newProgress(c.App.ErrWriter, names)
	return r.run(names)
}

// replayer reads files and prints sessions.
type replayer struct {
	c        *cli.Context
	reader   maillog.Reader
	out      *bufio.Writer
	enc      *json.Encoder
	changed  time.Time // when the file at hand was
	progress *progress
	broken   error // of the output
}

// run reads all files that can be read.
func (r *replayer) run(names []string) error {
	var errs []error
	for _, name := range names {
		if err := r.file(name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		if r.broken != nil || r.c.Context.Err() != nil {
			break
		}
	}
	r.reader.Flush(r.emit)
	if err := r.out.Flush(); r.broken == nil && err != nil {
		r.broken = err
	}
	r.progress.clear()
	if r.broken != nil {
		return fmt.Errorf("standard output: %w", r.broken)
	}
	s := r.reader.Stats()
	fmt.Fprintf(r.c.App.ErrWriter, "postseal: lines: %d, sessions: %d; lines not understood: %d, too long: %d; sessions without their domain: %d\n",
		s.Lines, s.Sessions, s.Unparsed, s.Oversize, s.Dropped)
	return errors.Join(errs...)
}

func (r *replayer) emit(s reporting.Session) {
	if r.broken == nil {
		r.broken = r.enc.Encode(replayed{s.Time.UTC(), control.NewOutcome(&s)})
	}
}

func (r *replayer) file(name string) error {
	from, close, err := r.open(name)
	if err != nil {
		return err
	}
	defer close()
	text, err := unpacked(&counter{r: from, ctx: r.c.Context, replayer: r})
	if err != nil {
		return err
	}
	return ingest.Replay(text, r.reader, r.emit)
}

// open opens a file and says when it was changed last.
func (r *replayer) open(name string) (from io.Reader, close func() error, err error) {
	if r.changed = time.Now(); name == "-" {
		return r.c.App.Reader, func() error { return nil }, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, pathless(err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("is a folder")
	}
	if err != nil {
		f.Close()
		return nil, nil, pathless(err)
	}
	if info.Mode().IsRegular() {
		r.changed = info.ModTime()
	}
	return f, f.Close, nil
}

// pathless is an error without the path that is said anyway.
func pathless(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// unpacked reads what gzip has packed (RFC 1952 §2.3.1), by its first two bytes.
func unpacked(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	return gzip.NewReader(b)
}

// counter tells how far a file was read, and ends with ctx or the output.
type counter struct {
	r        io.Reader
	ctx      context.Context
	replayer *replayer
}

func (c *counter) Read(p []byte) (int, error) {
	if c.replayer.broken != nil {
		return 0, c.replayer.broken
	}
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.replayer.progress.add(n, c.replayer.reader.Stats)
	return n, err
}

// progressEvery is how often a person is told.
const progressEvery = 200 * time.Millisecond

// progress is a line on a terminal that is written over and over.
type progress struct {
	w     io.Writer // nil: nobody looks
	total int64     // bytes; 0: unknown
	done  int64
	shown time.Time
	width int // of what is shown
}

func newProgress(w io.Writer, names []string) *progress {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &progress{}
	}
	p := &progress{w: w}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			p.total = 0
			break
		}
		p.total += info.Size()
	}
	return p
}

func (p *progress) add(n int, stats func() maillog.Stats) {
	p.done += int64(n)
	if p.w == nil || time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	text := fmt.Sprintf("%d MB", p.done/1e6)
	if p.total > 0 {
		text += fmt.Sprintf(" of %d MB, %d %%", p.total/1e6, min(100*p.done/p.total, 100))
	}
	text += fmt.Sprintf(", %d sessions", stats().Sessions)
	fmt.Fprintf(p.w, "\r%s%s", text, strings.Repeat(" ", max(0, p.width-len(text))))
	p.width = len(text)
}

// clear makes room for what is said next.
func (p *progress) clear() {
	if p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
	}
}
