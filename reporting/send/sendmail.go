package send

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	maxOutput  = 1 << 10     // of the program, for an error's text
	afterwards = time.Second // for who has inherited its output, as a queue runner of Exim
)

// exits are the codes of sysexits(3) that sendmail(8) ends with.
var exits = map[int]string{
	64: "EX_USAGE", 65: "EX_DATAERR", 66: "EX_NOINPUT", 67: "EX_NOUSER", 68: "EX_NOHOST",
	69: "EX_UNAVAILABLE", 70: "EX_SOFTWARE", 71: "EX_OSERR", 72: "EX_OSFILE", 73: "EX_CANTCREAT",
	74: "EX_IOERR", 75: "EX_TEMPFAIL", 76: "EX_PROTOCOL", 77: "EX_NOPERM", 78: "EX_CONFIG",
}

const (
	exNoUser = 67
	exNoHost = 68
)

// sendmail submits by the program that every mail server has under this name. A dot
// on a line of its own is text (-i). With ctx its whole process group ends, since it is
// its child that waits, as postdrop of Postfix.
func sendmail(ctx context.Context, path, from, to string, message []byte) (string, error) {
	if !filepath.IsAbs(path) {
		return "", ours("submit = %s: the path of sendmail must be absolute", quoted("sendmail:"+path))
	}
	cmd := exec.CommandContext(ctx, path, "-i", "-f", from, "--", to)
	cmd.Stdin = bytes.NewReader(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")))
	var output clipped
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = afterwards
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // it ended well; somebody has its output still
		err = nil
	}
	if err != nil {
		return "", sendmailFailure(ctx, path, to, err, output.String())
	}
	return strings.TrimSpace("taken by " + path + " " + output.String()), nil
}

func sendmailFailure(ctx context.Context, path, to string, err error, output string) *Failure {
	if ctx.Err() != nil {
		return ours("%s: %w", path, context.Cause(ctx))
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return ours("submit by %s: %w", path, cause(ctx, err))
	}
	what := err.Error()
	if name := exits[exit.ExitCode()]; name != "" {
		what += " (" + name + ")"
	}
	if output != "" {
		what += ": " + output
	}
	code := exit.ExitCode()
	gone := code == exNoUser || code == exNoHost
	return &Failure{Target: gone, Final: gone, Err: fmt.Errorf("%s for %s: %s", path, to, what)}
}

// clipped keeps the first bytes of what is written to it.
type clipped struct{ buf []byte }

func (c *clipped) Write(p []byte) (int, error) {
	c.buf = append(c.buf, p[:min(len(p), maxOutput-len(c.buf))]...)
	return len(p), nil
}

// String is one printable line.
func (c *clipped) String() string {
	return printable(strings.Join(strings.Fields(string(c.buf)), " "), maxWords/2)
}
