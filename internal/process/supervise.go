package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Back-off between restarts, and the run time after which a child counts as
// healthy again so that its next restart is quick.
const (
	minBackoff   = 500 * time.Millisecond
	maxBackoff   = 30 * time.Second
	healthyAfter = time.Minute
)

// Deps is what Supervise reports to. Every field but Log may be nil.
type Deps struct {
	Log *slog.Logger
	// Journal receives an event of StagePlatform for each unexpected end.
	Journal journal.Appender
	// OnStart is called after each successful start.
	OnStart func(pid int)
	// OnRestart is called after each unexpected end, before the pause.
	OnRestart func(Restart)
}

// Restart tells of an unexpected end of a child.
type Restart struct {
	Count  int           // ends so far, from 1
	Reason string        // exit code or signal, and the last lines of the log
	Wait   time.Duration // pause before the next start
}

// Supervise ends what an earlier supervisor left (by PIDFile), starts the
// child and starts it again each time it ends, after a pause that grows from
// 0.5 s to 30 s. It returns nil when ctx has ended and the child is gone, and
// an error when the very first start is impossible.
func Supervise(ctx context.Context, spec Spec, deps Deps) error {
	if spec.PIDFile != "" {
		if err := EndLeftover(spec.PIDFile); err != nil {
			return fmt.Errorf("supervise %s: %w", spec.Name, err)
		}
	}
	pause := minBackoff
	for count := 1; ; count++ {
		begin, from := time.Now(), logSize(spec.Log)
		reason, err := runOnce(ctx, spec, deps, from)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if count == 1 {
				return err
			}
			reason = err.Error()
		}
		if time.Since(begin) > healthyAfter {
			pause = minBackoff
		}
		report(ctx, spec, deps, Restart{Count: count, Reason: reason, Wait: pause})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, maxBackoff)
	}
}

// runOnce runs the child to its end and says why it ended. The error is one
// of starting it. A forced end after ctx is logged here: nobody else sees it.
func runOnce(ctx context.Context, spec Spec, deps Deps, from int64) (reason string, err error) {
	c, err := Start(context.WithoutCancel(ctx), spec)
	if err != nil {
		return "", err
	}
	if deps.OnStart != nil {
		deps.OnStart(c.PID())
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		if err := c.Stop(context.WithoutCancel(ctx)); err != nil {
			deps.Log.Warn("child did not stop by itself", "child", spec.Name, "err", err)
		}
		return "", nil
	}
	reason = describeEnd(c.Wait())
	if tail := logTail(spec.Log, from, 3); tail != "" {
		reason += ": " + tail
	}
	return reason, nil
}

// describeEnd turns the result of Wait into words.
func describeEnd(err error) string {
	if err == nil {
		return "ended with exit code 0"
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err.Error()
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		words := "killed by signal " + ws.Signal().String()
		if ws.Signal() == syscall.SIGKILL {
			words += " (out of memory, or somebody's kill -9)"
		}
		return words
	}
	return fmt.Sprintf("ended with exit code %d", exit.ExitCode())
}

func report(ctx context.Context, spec Spec, deps Deps, r Restart) {
	deps.Log.Warn("child ended, starting it again", "child", spec.Name, "reason", r.Reason, "restarts", r.Count, "wait", r.Wait)
	if deps.OnRestart != nil {
		deps.OnRestart(r)
	}
	if deps.Journal == nil {
		return
	}
	first, _, _ := strings.Cut(r.Reason, "\n")
	_, err := deps.Journal.Append(ctx, journal.Event{
		Stage: journal.StagePlatform, Subject: spec.Name, Status: journal.StatusFailed,
		Message: fmt.Sprintf("%s %s; it is started again in %s", spec.Name, first, r.Wait),
		Hint:    "its log: " + spec.Log,
		Data:    map[string]string{"restarts": strconv.Itoa(r.Count)},
	})
	if err != nil && ctx.Err() == nil {
		deps.Log.Error("event not recorded", "child", spec.Name, "err", err)
	}
}
