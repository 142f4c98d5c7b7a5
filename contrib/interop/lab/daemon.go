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
	"strconv"
	"strings"
	"time"
)

// daemon is the program under test, with a state folder and a config of its own.
type daemon struct {
	name      string
	binary    string
	folder    string
	config    string   // path of the TOML file
	resolver  string   // address of its name server
	authority string   // PEM file
	address   string   // of its TCP listeners
	mapping   string   // address of its TCP socketmap
	exim      string   // address of its listener for Exim
	folders   []string // of the mail servers, for its unix sockets

	localRelay string // address of the milter-free smtpd for local recipients; "": none

	held      []*os.File // sockets that outlive it; nil: it has its own
	heldNames []string   // the sections of its config that they are for

	process *process
}

// newDaemon writes the config; start launches the program.
func newDaemon(work, binary, name, resolver, address string, folders []string) (*daemon, error) {
	d := &daemon{name: name, binary: binary, folder: filepath.Join(work, name), resolver: resolver, folders: folders,
		authority: filepath.Join(work, "ca.pem"), address: address, mapping: address + ":8461", exim: address + ":8464"}
	d.config = filepath.Join(d.folder, "postseal.toml")
	return d, d.configure()
}

// start launches the daemon and waits until it answers.
func (d *daemon) start(ctx context.Context) (err error) {
	d.process, err = launchCommand(filepath.Join(d.folder, "log"), d.serve())
	if err != nil {
		return err
	}
	return until(ctx, func() error {
		if d.process.ended() {
			return fmt.Errorf("%w: postseal ended, see %s", errHopeless, d.process.log.Name())
		}
		_, err := d.ask("postfix", ".test") // a parent domain: answered at once, without DNS
		return err
	})
}

// restart ends the daemon, if it runs, and starts it with the config as it is
// now.
func (d *daemon) restart(ctx context.Context) error {
	d.process.stop()
	if err := d.configure(); err != nil {
		return err
	}
	return d.start(ctx)
}

// command runs a subcommand against the running daemon.
func (d *daemon) command(ctx context.Context, args ...string) (string, error) {
	return output(ctx, d.binary, append([]string{"--config", d.config}, args...)...)
}

// ask sends one socketmap request, as Postfix would (socketmap_table(5)), and
// returns the reply, for example "OK dane-only" or "NOTFOUND ".
func (d *daemon) ask(mapName, key string) (string, error) {
	c, err := net.DialTimeout("tcp", d.mapping, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	request := mapName + " " + key
	if _, err := fmt.Fprintf(c, "%d:%s,", len(request), request); err != nil {
		return "", err
	}
	return readNetstring(bufio.NewReader(c))
}

// askExim sends one line to the listener for Exim, and returns the line that
// comes back.
func (d *daemon) askExim(line string) (string, error) {
	c, err := net.DialTimeout("tcp", d.exim, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "%s\n", line); err != nil {
		return "", err
	}
	reply, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(reply), err
}

// readNetstring reads LENGTH:TEXT, and returns the text.
func readNetstring(r *bufio.Reader) (string, error) {
	length, err := r.ReadString(':')
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(length, ":"), 10, 17) // Postfix takes 100 000 bytes
	if err != nil {
		return "", err
	}
	text := make([]byte, n+1)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	if text[n] != ',' {
		return "", errors.New("netstring without its comma")
	}
	return string(text[:n]), nil
}

// awaitAnswer asks until the reply begins with a prefix.
func (d *daemon) awaitAnswer(ctx context.Context, mapName, key, prefix string) error {
	return until(ctx, func() error {
		reply, err := d.ask(mapName, key)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(reply, prefix) {
			return fmt.Errorf("%s %s: %q, not %q", mapName, key, reply, prefix)
		}
		return nil
	})
}
