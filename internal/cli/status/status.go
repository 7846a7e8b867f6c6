// Package status is `lockstep status`: how the platform stands, where it
// answers, its parts and its applications in one look. Start reading at [New].
package status

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// New makes the command.
func New(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "How the platform stands and where it answers", Args: cobra.NoArgs,
		Long: `How the platform stands: where its services answer, what its parts do, and how
its applications are. The exit code is 8 while it starts.`,
		Example: "  lockstep status\n  lockstep status -o json | jq .urls",
		RunE:    func(cmd *cobra.Command, _ []string) error { return show(cmd.Context(), inv) },
	}
}

func show(ctx context.Context, inv *invocation.Invocation) error {
	var s server.Status
	var apps []server.App
	err := inv.Ask(ctx, func(ctx context.Context, c *client.Client) (err error) {
		if s, err = c.Status(ctx); err != nil {
			return err
		}
		apps, _ = c.Apps(ctx) // while it starts there may be no engine to ask
		return nil
	})
	if err != nil {
		return err
	}
	if err := inv.Print(s, []string{s.Name}, func(w io.Writer) error { return draw(w, inv, s, apps) }); err != nil {
		return err
	}
	if s.State == "starting" {
		return output.Exit(output.ExitPending)
	}
	return nil
}

func draw(w io.Writer, inv *invocation.Invocation, s server.Status, apps []server.App) error {
	p := inv.Color()
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // w is a buffer
	up := ""
	if s.UptimeSeconds > 0 {
		up = ", up " + trace.Format(time.Duration(s.UptimeSeconds*float64(time.Second)))
	}
	line("%s %s is %s%s", p.Bold(s.Name), s.Version, p.State(s.State), up)
	if s.Message != "" {
		line("  %s", output.Clean(s.Message))
	}
	if s.Hint != "" {
		line("  %s %s", p.Busy("try:"), output.Clean(s.Hint))
	}
	for _, name := range slices.Sorted(maps.Keys(s.URLs)) {
		line("  %-10s %s", name, s.URLs[name])
	}
	if s.KubeContext != "" {
		line("  %-10s kubectl --context %s", "cluster", s.KubeContext)
	}
	if s.State != "ready" && len(s.Steps) > 0 {
		line("")
		steps(w, inv, s.Steps)
	}
	if len(s.Components) > 0 {
		line("")
		t := inv.Table("COMPONENT", "STATE", "PID", "RESTARTS", "SINCE", "REASON")
		for _, c := range s.Components {
			pid := ""
			if c.PID > 0 {
				pid = strconv.Itoa(c.PID)
			}
			t.Row(output.Text(c.Name), t.State(c.State), output.Text(pid), output.Text(strconv.Itoa(c.Restarts)), output.Text(ago(inv, c.Since)), output.Text(reason(c)))
		}
		if err := t.Write(w); err != nil {
			return err
		}
	}
	if len(apps) == 0 {
		return nil
	}
	line("")
	t := inv.Table("APPLICATION", "SYNC", "HEALTH", "COMMIT", "MESSAGE")
	for _, a := range apps {
		t.Row(output.Text(a.Namespace+"/"+a.Name), t.State(a.Sync), t.State(a.Health), output.Text(trace.Short(a.Commit)), output.Text(a.Message))
	}
	return t.Write(w)
}

// steps draws the start: what is done, what runs, what it waits for.
func steps(w io.Writer, inv *invocation.Invocation, steps []server.Step) {
	p := inv.Color()
	for _, s := range steps {
		mark, end := p.Good("✓"), s.Ended
		switch {
		case s.Error != "":
			mark = p.Bad("✗")
		case s.Ended.IsZero():
			mark, end = p.Busy("▸"), inv.Now()
		}
		note := s.Note
		if s.Error != "" {
			note = s.Error
		}
		_, _ = fmt.Fprintf(w, "  %s %-30s %7s  %s\n", mark, output.Fit(output.Clean(s.Name), 30), trace.Format(end.Sub(s.Started)), output.Clean(note)) // w is a buffer
	}
}

func reason(c server.Component) string {
	if c.Reason != "" && c.Hint != "" {
		return c.Reason + " (" + c.Hint + ")"
	}
	return c.Reason + c.Hint
}

func ago(inv *invocation.Invocation, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return trace.Format(max(time.Second, inv.Now().Sub(t)))
}
