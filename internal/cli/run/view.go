package run

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

type viewOptions struct {
	id                  string // empty: the newest
	log, follow, failed bool
	job                 string
}

func viewCommand(inv *invocation.Invocation) *cobra.Command {
	var o viewOptions
	cmd := &cobra.Command{
		Use: "view [id]", Short: "One run with its jobs and steps, or its log", Args: cobra.MaximumNArgs(1),
		Long: `Shows a run with its jobs and steps, the newest where no ID is given. With --log it
prints the log instead. With --follow it goes on until the run ends; the exit code
is 1 when it failed.`,
		Example: `  lockstep run view
  lockstep run view 12 --log --failed
  lockstep run view --follow`,
		ValidArgsFunction: inv.Complete(ids),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.id = args[0]
			}
			return view(cmd.Context(), inv, o)
		},
	}
	cmd.Flags().BoolVar(&o.log, "log", false, "print the log")
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "print the log as it comes, until the run ends")
	cmd.Flags().BoolVar(&o.failed, "failed", false, "only the steps that failed")
	cmd.Flags().StringVar(&o.job, "job", "", "only this job, by ID or name")
	return cmd
}

func view(ctx context.Context, inv *invocation.Invocation, o viewOptions) error {
	var r server.Run
	err := inv.Ask(ctx, func(ctx context.Context, c *client.Client) (err error) {
		r, err = find(ctx, c, o.id)
		return err
	})
	if err != nil {
		return err
	}
	if !o.log && !o.follow && !o.failed && o.job == "" {
		return inv.Print(r, []string{fmt.Sprint(r.ID)}, func(w io.Writer) error { return draw(w, inv, r) })
	}
	ctx, cancel := inv.Bound(ctx, 0)
	defer cancel()
	c := inv.Client()
	defer c.Close()
	log, err := c.RunLog(ctx, r.ID, server.RunLogOptions{Job: o.job, Failed: o.failed, Follow: o.follow})
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if _, err := io.Copy(inv.Streams.Out, log); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &output.Error{What: "the log ended early", Why: err.Error(), Try: fmt.Sprintf("lockstep run view %d --log", r.ID), Err: err}
	}
	if !o.follow {
		return nil
	}
	if r, err = c.Run(ctx, r.ID); err != nil {
		return err
	}
	inv.Say("run %d: %s", r.ID, state(r.Status, r.Conclusion))
	if r.Conclusion == "failure" || r.Conclusion == "cancelled" {
		return output.Exit(output.ExitError)
	}
	return nil
}

// find returns the run of that ID, or the newest.
func find(ctx context.Context, c *client.Client, text string) (server.Run, error) {
	if text != "" {
		id, err := parse(text)
		if err != nil {
			return server.Run{}, err
		}
		return c.Run(ctx, id)
	}
	runs, err := c.Runs(ctx, server.RunQuery{Limit: 1})
	if err != nil {
		return server.Run{}, err
	}
	if len(runs) == 0 {
		return server.Run{}, &output.Error{What: "no workflow has run", Try: "push a commit to a repository with a workflow in .github/workflows"}
	}
	return c.Run(ctx, runs[0].ID)
}

func draw(w io.Writer, inv *invocation.Invocation, r server.Run) error {
	p := inv.Color()
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // w is a buffer
	line("%s %s  %s", p.Bold(fmt.Sprintf("run %d", r.ID)), p.State(state(r.Status, r.Conclusion)), p.Bold(output.Clean(r.Title)))
	line("%s %s for %s of %s at %s by %s, %s", output.Clean(r.Repo), output.Clean(r.Workflow), r.Event, output.Clean(trace.ShortRef(r.Ref)), trace.Short(r.Commit),
		output.Clean(r.Actor), took(inv, r.Started, r.Ended))
	reason(w, p, "", r.File, r.Line, r.Message)
	if r.Hint != "" {
		line("%s %s", p.Busy("try:"), output.Clean(r.Hint))
	}
	for _, j := range r.Jobs {
		name := j.Name
		if name == "" {
			name = j.ID
		}
		line("")
		line("%s %-40s %8s", mark(p, j.Status, j.Conclusion), p.Bold(output.Clean(name)), took(inv, j.Started, j.Ended))
		reason(w, p, "  ", "", 0, j.Message)
		for _, s := range j.Steps {
			line("  %s %2d %-35s %8s", mark(p, s.Status, s.Conclusion), s.Number, output.Fit(output.Clean(s.Name), 35), took(inv, s.Started, s.Ended))
			reason(w, p, "       ", s.File, s.Line, s.Message)
		}
	}
	return nil
}

// reason says why something is as it is, with the place in the repository.
func reason(w io.Writer, p output.Paint, indent, file string, at int, message string) {
	if file != "" {
		if at > 0 {
			file = fmt.Sprintf("%s:%d", file, at)
		}
		_, _ = fmt.Fprintf(w, "%s%s\n", indent, p.Bold(output.Clean(file))) // w is a buffer
	}
	if message != "" {
		_, _ = fmt.Fprintf(w, "%s%s\n", indent, p.Bad(output.Clean(message)))
	}
}

func mark(p output.Paint, status, conclusion string) string {
	switch {
	case conclusion == "success":
		return p.Good("✓")
	case conclusion == "failure":
		return p.Bad("✗")
	case conclusion == "skipped":
		return p.Dim("-")
	case conclusion != "":
		return p.Dim("⊘")
	case status == "in_progress":
		return p.Busy("▸")
	}
	return p.Warn("…")
}
