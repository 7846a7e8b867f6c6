// Package trace is `lockstep trace`: one commit from push to ready, drawn as
// lanes; with --follow until it is there or failed. Start reading at [New].
package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
)

type options struct {
	what   string // commit, prefix of one, application, or empty
	follow bool
	repo   string
	limit  int
}

// New makes the command.
func New(inv *invocation.Invocation) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "trace [commit|application]",
		Short: "One commit from push to ready",
		Long: `Draws the way of a commit: push, workflow run, image, render, plan, apply, ready,
with the time that each took, and the commits that its run pushed. An application
stands for the commit that runs. Without an argument it lists the newest pushes.

With --follow it goes on until the commit is ready (exit code 0), has failed (1),
or nothing follows within --timeout (8).`,
		Example: `  lockstep trace                      the newest pushes
  lockstep trace storefront           how the running version got there
  lockstep trace 1a2b3c4 --follow     wait for a commit
  lockstep trace $(git rev-parse HEAD) -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.what = args[0]
			}
			return show(cmd.Context(), inv, o)
		},
		ValidArgsFunction: inv.Complete(complete),
	}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "draw again as it goes on, until it is ready or failed")
	cmd.Flags().StringVar(&o.repo, "repo", "", "of the list: only this repository, owner/name")
	cmd.Flags().IntVar(&o.limit, "limit", 20, "of the list: at most this many pushes, 1 to 100")
	return cmd
}

func complete(ctx context.Context, c *client.Client) []string {
	names := invocation.AppNames(ctx, c)
	traces, err := c.Traces(ctx, "", 20)
	if err != nil {
		return names
	}
	for _, t := range traces {
		names = append(names, trace.Short(t.Commit)+"\t"+output.Clean(t.Subject))
	}
	return names
}

func show(ctx context.Context, inv *invocation.Invocation, o options) error {
	if o.what == "" {
		return list(ctx, inv, o)
	}
	ctx, cancel := inv.Bound(ctx, map[bool]time.Duration{false: 40 * time.Second}[o.follow])
	defer cancel()
	c := inv.Client()
	defer c.Close()
	commit, err := resolve(ctx, inv, c, o.what)
	if err != nil {
		return err
	}
	if o.follow {
		return follow(ctx, inv, c, commit)
	}
	t, err := c.Trace(ctx, commit)
	if err != nil {
		return err
	}
	return print(inv, t)
}

var commitLike = regexp.MustCompile(`^[0-9a-fA-F]{4,64}$`)

// resolve turns what a person named into a commit that the journal knows.
func resolve(ctx context.Context, inv *invocation.Invocation, c *client.Client, what string) (string, error) {
	var notFound error
	if commitLike.MatchString(what) {
		t, err := c.Trace(ctx, what)
		if err == nil {
			return t.Commit, nil
		}
		if !client.NotFound(err) {
			return "", err
		}
		notFound = err
	}
	app, err := c.App(ctx, what)
	switch {
	case client.NotFound(err) && notFound != nil:
		return "", notFound
	case client.NotFound(err):
		return "", &output.Error{What: fmt.Sprintf("%q is neither a commit nor an application", what), Why: "a commit is 4 or more hexadecimal digits",
			Try: "lockstep trace, or lockstep app list", Err: err}
	case err != nil:
		return "", err
	case app.Commit == "" && app.Wanted == "":
		return "", &output.Error{What: fmt.Sprintf("application %s has no commit yet", app.Name), Why: app.Message, Try: "lockstep app get " + app.Name}
	case app.Commit == "":
		return app.Wanted, nil
	}
	if app.Wanted != "" && app.Wanted != app.Commit {
		inv.Say("This is what runs. %s wants %s: lockstep trace %s", app.Name, trace.Short(app.Wanted), trace.Short(app.Wanted))
	}
	return app.Commit, nil
}

func print(inv *invocation.Invocation, t trace.Trace) error {
	return inv.Print(t, []string{t.Commit}, func(w io.Writer) error { return trace.Render(w, t, style(inv)) })
}

func style(inv *invocation.Invocation) trace.Style {
	return trace.Style{Color: bool(inv.Color()), Width: inv.Streams.Width, Location: inv.Location}
}

// follow draws the trace each time it changes. On a terminal each drawing
// replaces the one before; elsewhere only the last goes to standard output,
// and standard error tells where it stands.
func follow(ctx context.Context, inv *invocation.Invocation, c *client.Client, commit string) error {
	var t trace.Trace
	lines, said := 0, ""
	live := inv.Streams.OutTTY && inv.Output == output.FormatTable
	changes := c.Changes(ctx, time.Second)
	for {
		select {
		case <-ctx.Done():
			return ended(inv, t, live, ctx.Err())
		case <-changes:
		}
		next, err := c.Trace(ctx, commit)
		switch {
		case ctx.Err() != nil || client.NotRunning(err) && t.Commit != "":
			continue // it ends above, or the platform comes back
		case err != nil:
			return err
		}
		t = next
		if live {
			if lines, err = redraw(inv, t, lines); err != nil {
				return err
			}
		} else if now := standing(t); now != said {
			inv.Say("%s", now)
			said = now
		}
		if t.State.Settled() {
			return ended(inv, t, live, nil)
		}
	}
}

// standing says where a trace stands, without the clock.
func standing(t trace.Trace) string {
	for len(t.Children) > 0 {
		t = t.Children[len(t.Children)-1]
	}
	stage := "push"
	if n := len(t.Lanes); n > 0 {
		stage = string(t.Lanes[n-1].Stage)
	}
	return fmt.Sprintf("%s: %s, %s", trace.Short(t.Commit), stage, t.State)
}

// redraw replaces the last drawing of so many lines.
func redraw(inv *invocation.Invocation, t trace.Trace, lines int) (int, error) {
	var b strings.Builder
	if lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", lines)
	}
	before := b.Len()
	if err := trace.Render(&b, t, style(inv)); err != nil {
		return 0, err
	}
	_, err := io.WriteString(inv.Streams.Out, b.String())
	return strings.Count(b.String()[before:], "\n"), err
}

// ended chooses how following ends.
func ended(inv *invocation.Invocation, t trace.Trace, live bool, cause error) error {
	if !live && t.Commit != "" {
		if err := print(inv, t); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(cause, context.DeadlineExceeded) || t.State == trace.StateIdle:
		return output.Exit(output.ExitPending)
	case cause != nil:
		return cause
	case t.State == trace.StateReady:
		return nil
	}
	return output.Exit(output.ExitError)
}

func list(ctx context.Context, inv *invocation.Invocation, o options) error {
	if o.follow {
		return &output.Error{What: "--follow needs a commit or an application", Try: "lockstep trace <commit> --follow"}
	}
	return inv.Ask(ctx, func(ctx context.Context, c *client.Client) error {
		traces, err := c.Traces(ctx, o.repo, o.limit)
		if err != nil {
			return err
		}
		names := make([]string, len(traces))
		for i, t := range traces {
			names[i] = t.Commit
		}
		return inv.Print(traces, names, func(w io.Writer) error {
			if len(traces) == 0 {
				_, err := fmt.Fprintln(w, "Nothing was pushed yet. Push a commit, or start with `lockstep up --example storefront`.")
				return err
			}
			t := inv.Table("COMMIT", "REPOSITORY", "REF", "AUTHOR", "PUSHED", "STATE", "TOTAL", "SUBJECT")
			for _, tr := range traces {
				t.Row(output.Text(trace.Short(tr.Commit)), output.Text(tr.Repo), output.Text(trace.ShortRef(tr.Ref)), output.Text(tr.Author),
					output.Text(trace.Format(max(time.Second, inv.Now().Sub(tr.Start)))+" ago"), t.State(string(tr.State)), output.Text(trace.Format(time.Duration(tr.Total))), output.Text(tr.Subject))
			}
			return t.Write(w)
		})
	})
}
