package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// logFile is where a supervisor in the background writes.
func logFile(dir string) string { return filepath.Join(dir, "logs", "lockstep.log") }

// start makes sure that the platform runs and waits until it is ready, showing
// each step of its start.
func (o *options) start(ctx context.Context, c *client.Client, s Settings) (server.Status, error) {
	ctx, cancel := o.Bound(ctx, startLimit)
	defer cancel()
	status, err := c.Status(ctx)
	switch {
	case err == nil:
		o.Say("Platform %s is running.", o.Name)
		if status.Version != o.Version {
			o.Say("It runs version %s, this is %s; `lockstep down` and `lockstep up` change over.", status.Version, o.Version)
		}
		return o.watch(ctx, c, nil)
	case !client.NotRunning(err):
		return status, err
	}
	daemon, err := o.spawn(s)
	if err != nil {
		return status, err
	}
	return o.watch(ctx, c, daemon)
}

// daemon is a supervisor that this command started.
type daemon struct {
	ended chan struct{} // closed when the process is gone
	log   string
	from  int64 // where in the log it began
}

// spawn starts the supervisor in a session of its own, so that it outlives this
// command and its terminal.
func (o *options) spawn(s Settings) (*daemon, error) {
	path := logFile(o.Dir())
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, &output.Error{What: "the platform's folder cannot be made", Why: err.Error(), Try: "lockstep up --state-dir FOLDER", Err: err}
	}
	if info, err := os.Stat(path); err == nil && info.Size() > 20<<20 {
		_ = os.Rename(path, path+".1")
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("open the supervisor's log: %w", err)
	}
	args := []string{"up", "--foreground", "--no-color", "--name", s.Name, "--state-dir", s.StateDir}
	if s.Port != 0 {
		args = append(args, "--port", strconv.Itoa(s.Port))
	}
	if s.Kubeconfig != "" {
		args = append(args, "--kubeconfig", s.Kubeconfig)
	}
	cmd := exec.Command(s.Self, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.UserKubeconfig)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	d := &daemon{ended: make(chan struct{}), log: path, from: from}
	go func() {
		_ = cmd.Wait() // its log says why it ended
		close(d.ended)
	}()
	return d, nil
}

// watch shows the steps of the start until the platform is ready. daemon is nil
// when the platform was running already.
func (o *options) watch(ctx context.Context, c *client.Client, d *daemon) (server.Status, error) {
	var ended <-chan struct{}
	if d != nil {
		ended = d.ended
	}
	printer := o.printer()
	shown := map[string]bool{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := c.Status(ctx)
		if err == nil {
			for _, s := range status.Steps {
				if s.Ended.IsZero() || shown[s.Name] {
					continue
				}
				shown[s.Name] = true
				if d != nil || s.Error != "" {
					printer.Done(s.Name, s.Ended.Sub(s.Started), s.Note, asError(s.Error))
				}
			}
			if status.State == "ready" || status.State == "degraded" {
				return status, nil
			}
		}
		select {
		case <-tick.C:
		case <-ended:
			return status, d.failure()
		case <-ctx.Done():
			return status, o.gaveUp(ctx, status)
		}
	}
}

func asError(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

// gaveUp explains an end before the platform was ready.
func (o *options) gaveUp(ctx context.Context, status server.Status) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		o.Say("The platform goes on starting in the background; `lockstep down` stops it.")
		return ctx.Err()
	}
	why := "it did not answer"
	for _, s := range status.Steps {
		if s.Ended.IsZero() {
			why = fmt.Sprintf("it waits for: %s %s", s.Name, s.Note)
		}
	}
	return &output.Error{What: "the platform did not become ready in time", Why: why, Try: "lockstep status, lockstep logs", Code: output.ExitPending}
}

// maxReason bounds how much of the end of a log is searched for its reason.
const maxReason = 1 << 20

// failure is the reason that the supervisor's log gives for its end.
func (d *daemon) failure() error {
	e := &output.Error{What: "the platform ended while starting", Try: "look into " + d.log}
	text, err := d.tail()
	if err != nil {
		return e
	}
	_, reason, found := cutLast(text, "error: ")
	if !found {
		// It was killed, or it broke: the last words have to do.
		lines := strings.Split(strings.TrimSpace(text), "\n")
		e.Why = strings.TrimSpace(lines[len(lines)-1])
		return e
	}
	what, rest, _ := strings.Cut(reason, "\n")
	e.What = strings.TrimSpace(what)
	field := &e.What
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "  ") {
			break // somebody else's
		}
		line = strings.TrimSpace(line)
		if why, ok := strings.CutPrefix(line, "why: "); ok {
			field, e.Why = &e.Why, why
		} else if try, ok := strings.CutPrefix(line, "try: "); ok {
			field, e.Try = &e.Try, try
		} else {
			*field += "\n" + line
		}
	}
	return e
}

// tail is the end of what the supervisor has written since it began.
func (d *daemon) tail() (string, error) {
	f, err := os.Open(d.log)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	from := max(d.from, info.Size()-maxReason)
	text, err := io.ReadAll(io.NewSectionReader(f, from, maxReason))
	return string(text), err
}

// cutLast cuts text at the last line that begins with prefix.
func cutLast(text, prefix string) (before, after string, found bool) {
	text = "\n" + text
	i := strings.LastIndex(text, "\n"+prefix)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1+len(prefix):], true
}
