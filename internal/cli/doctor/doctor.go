// Package doctor is `lockstep doctor`: what this machine lacks for a platform,
// and the exact command that mends it. Start reading at [New].
package doctor

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

// Finding is one thing that was looked at and is not as it should be.
type Finding struct {
	What  string `json:"what"`
	Why   string `json:"why"`
	Fix   string `json:"fix"`
	Fatal bool   `json:"fatal"` // a platform cannot start
}

// Machine examines the machine for the platform of that name.
type Machine interface {
	Examine(name, stateDir string) []Finding
}

// Report is what `doctor -o json` prints.
type Report struct {
	Healthy  bool      `json:"healthy"` // a platform can start
	Findings []Finding `json:"findings"`
}

// New returns the command's constructor.
func New(machine Machine) invocation.Constructor {
	return func(inv *invocation.Invocation) *cobra.Command {
		return &cobra.Command{
			Use:   "doctor",
			Short: "Say what this machine lacks and how to mend it",
			Example: `  lockstep doctor
  lockstep doctor -o json | jq '.findings[].fix'`,
			Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				report := Report{Healthy: true, Findings: append([]Finding{}, machine.Examine(inv.Name, inv.StateDir)...)}
				var names []string
				for _, f := range report.Findings {
					report.Healthy = report.Healthy && !f.Fatal
					names = append(names, f.What)
				}
				if err := inv.Print(report, names, func(w io.Writer) error { return write(w, inv.Color(), report) }); err != nil {
					return err
				}
				if !report.Healthy {
					return output.Exit(output.ExitError)
				}
				return nil
			},
		}
	}
}

func write(w io.Writer, p output.Paint, r Report) error {
	if len(r.Findings) == 0 {
		_, err := fmt.Fprintln(w, p.Good("✓")+" This machine can run a platform.")
		return err
	}
	for _, f := range r.Findings {
		mark := p.Warn("!")
		if f.Fatal {
			mark = p.Bad("✗")
		}
		if _, err := fmt.Fprintf(w, "%s %s\n  why: %s\n  try: %s\n", mark, f.What, f.Why, f.Fix); err != nil {
			return err
		}
	}
	return nil
}
