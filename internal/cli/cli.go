// Package cli is the lockstep command: one package per noun below it, each a
// function of what it is given, so that tests run it in-process.
//
// Input: arguments, streams, environment ([Options]). Output: data on standard
// output, progress and errors on standard error, an exit code ([Main]). Start
// reading at [New].
package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/action"
	"github.com/lockstep-gitops/lockstep/internal/cli/app"
	"github.com/lockstep-gitops/lockstep/internal/cli/image"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/logs"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/cli/run"
	"github.com/lockstep-gitops/lockstep/internal/cli/secret"
	"github.com/lockstep-gitops/lockstep/internal/cli/status"
	"github.com/lockstep-gitops/lockstep/internal/cli/trace"
	"github.com/lockstep-gitops/lockstep/internal/cli/version"
)

// Options are what the program is started with.
type Options struct {
	Streams output.Streams
	Getenv  func(string) string // usually os.Getenv
	Version string
	Self    string           // path of the program
	Now     func() time.Time // nil means time.Now
	// Location of the times that are shown; nil means time.Local.
	Location *time.Location
	// Commands are nouns that are wired elsewhere: up, down, doctor, env.
	Commands []invocation.Constructor
}

// Main runs the command of args and returns its exit code.
func Main(ctx context.Context, o Options, args []string) int {
	inv, root := build(o)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && context.Cause(ctx) == context.Canceled {
		err = context.Canceled // whatever it broke in the middle of
	}
	return output.Report(inv.Streams.Err, inv.ErrColor(), err)
}

// New makes the root command. Run it with [Main] to have errors reported.
func New(o Options) *cobra.Command {
	_, root := build(o)
	return root
}

func build(o Options) (*invocation.Invocation, *cobra.Command) {
	inv := &invocation.Invocation{Streams: o.Streams, Getenv: o.Getenv, Version: o.Version, Self: o.Self, Now: o.Now, Location: o.Location,
		Output: output.FormatTable}
	if inv.Now == nil {
		inv.Now = time.Now
	}
	if inv.Location == nil {
		inv.Location = time.Local
	}
	root := &cobra.Command{
		Use:   "lockstep",
		Short: "Commits into lockstep with what runs",
		Long: `Lockstep is a Git host, an Actions engine, a registry, Azure with its Key Vault,
a real Kubernetes and the GitOps engine that brings commits to it, as one program.`,
		Example: `  lockstep up --example storefront   start everything, with an example
  lockstep status                    what runs and where it answers
  lockstep trace storefront          one commit from push to ready`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return inv.Check() },
	}
	root.SetIn(o.Streams.In)
	root.SetOut(o.Streams.Out)
	root.SetErr(o.Streams.Err)
	name := o.Getenv("LOCKSTEP_NAME")
	if name == "" {
		name = invocation.DefaultName
	}
	flags := root.PersistentFlags()
	flags.StringVar(&inv.Name, "name", name, "platform to talk to (env LOCKSTEP_NAME)")
	flags.StringVar(&inv.StateDir, "state-dir", invocation.DefaultStateDir(o.Getenv), "folder of all platforms (env LOCKSTEP_STATE_DIR)")
	flags.VarP(&inv.Output, "output", "o", "format of the output")
	flags.BoolVar(&inv.NoColor, "no-color", false, "no colours (env NO_COLOR)")
	flags.DurationVar(&inv.Timeout, "timeout", 0, "give up after this time, as in 90s or 5m")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &output.Error{What: err.Error(), Try: cmd.CommandPath() + " --help", Err: err}
	})
	nouns := append([]invocation.Constructor{status.New, trace.New, app.New, run.New, action.New, image.New, secret.New, logs.New, version.New}, o.Commands...)
	for _, noun := range nouns {
		root.AddCommand(noun(inv))
	}
	explainArgs(root)
	return inv, root
}

// explainArgs gives wrong arguments of every command the form of our errors,
// and makes a noun alone, or with an unknown verb, an error that helps.
func explainArgs(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2 // cobra sets it only for the root
	check := cmd.Args
	if cmd.HasSubCommands() && cmd.Run == nil && cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return cmd.Help() }
		check = cobra.NoArgs
	}
	if check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil {
				return nil
			}
			e := &output.Error{What: firstLine(err), Why: "it is used as: " + cmd.UseLine(), Try: cmd.CommandPath() + " --help", Err: err}
			if cmd.HasSubCommands() && len(args) > 0 {
				e.Why, e.What = "", "there is no command "+cmd.CommandPath()+" "+args[0]
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					e.Try = cmd.CommandPath() + " " + near[0]
				}
			}
			return e
		}
	}
	for _, sub := range cmd.Commands() {
		explainArgs(sub)
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
