// Package invocation is what every command is given: its streams, the global
// flags, and where the platform is.
//
// Input: flags and environment. Output: [Invocation], whose methods open a
// client, bound the time and print in the chosen format. A noun's package has
// one function New(*Invocation) *cobra.Command. Start reading at [Invocation].
package invocation

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

// DefaultName is the platform that commands mean when none is named.
const DefaultName = "lockstep"

// callTimeout bounds a command that only asks, where --timeout does not.
const callTimeout = 40 * time.Second

// Invocation is one start of the program.
type Invocation struct {
	Streams output.Streams
	// Getenv reads the environment.
	Getenv func(string) string
	// Version is the program's, Self its path.
	Version, Self string
	Now           func() time.Time
	Location      *time.Location // of times that are shown

	// The global flags, valid once the command runs.
	Name     string // of the platform
	StateDir string
	Output   output.Format
	NoColor  bool
	Timeout  time.Duration // 0: each command's own
}

// Constructor makes a noun's command.
type Constructor func(*Invocation) *cobra.Command

// DefaultStateDir is where platforms keep their state when nothing else is
// said: $LOCKSTEP_STATE_DIR, $XDG_STATE_HOME/lockstep, ~/.local/state/lockstep.
func DefaultStateDir(getenv func(string) string) string {
	if dir := getenv("LOCKSTEP_STATE_DIR"); dir != "" {
		return dir
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lockstep")
	}
	home := getenv("HOME")
	if home == "" {
		home = "/root" // a service without a home runs as root
	}
	return filepath.Join(home, ".local", "state", "lockstep")
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// Check says what is wrong with the global flags, and completes them.
func (i *Invocation) Check() error {
	if !validName.MatchString(i.Name) {
		return &output.Error{What: fmt.Sprintf("%q cannot be the name of a platform", i.Name), Try: "1 to 20 lower-case letters, digits or '-', no '-' at the ends"}
	}
	if i.Timeout < 0 {
		return &output.Error{What: "--timeout is negative", Try: "--timeout 5m"}
	}
	dir, err := filepath.Abs(i.StateDir)
	if err != nil {
		return err
	}
	i.StateDir = dir
	return nil
}

// Dir is the platform's folder.
func (i *Invocation) Dir() string { return filepath.Join(i.StateDir, i.Name) }

// Socket is the path of the platform's control socket.
func (i *Invocation) Socket() string { return filepath.Join(i.Dir(), "lockstep.sock") }

// Client returns a client of the platform. The caller closes it.
func (i *Invocation) Client() *client.Client { return client.New(i.Socket(), i.Name) }

// Bound ends ctx after --timeout, or after fallback when it was not given; a
// fallback of 0 does not end it.
func (i *Invocation) Bound(ctx context.Context, fallback time.Duration) (context.Context, context.CancelFunc) {
	limit := i.Timeout
	if limit == 0 {
		limit = fallback
	}
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// Ask runs f with a client and a deadline fit for one question.
func (i *Invocation) Ask(ctx context.Context, f func(context.Context, *client.Client) error) error {
	ctx, cancel := i.Bound(ctx, callTimeout)
	defer cancel()
	c := i.Client()
	defer c.Close()
	return f(ctx, c)
}

// Color reports whether standard output gets colours.
func (i *Invocation) Color() output.Paint { return output.Paint(i.Streams.OutTTY && i.colors()) }

// ErrColor reports whether standard error gets colours.
func (i *Invocation) ErrColor() output.Paint { return output.Paint(i.Streams.ErrTTY && i.colors()) }

func (i *Invocation) colors() bool {
	return !i.NoColor && i.Getenv("NO_COLOR") == "" && i.Getenv("TERM") != "dumb"
}

// Print writes a value to standard output in the format of --output.
func (i *Invocation) Print(value any, names []string, table func(io.Writer) error) error {
	return output.Write(i.Streams.Out, i.Output, value, names, table)
}

// Table returns an empty table for standard output.
func (i *Invocation) Table(head ...string) *output.Table {
	return &output.Table{Head: head, Width: i.Streams.Width, Paint: i.Color()}
}

// Say writes a line of progress to standard error.
func (i *Invocation) Say(format string, args ...any) {
	_, _ = fmt.Fprintf(i.Streams.Err, format+"\n", args...)
}

// Complete makes a shell completion of what list returns. It never fails and
// never holds up a shell.
func (i *Invocation) Complete(list func(context.Context, *client.Client) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 || i.Check() != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		c := i.Client()
		defer c.Close()
		return list(ctx, c), cobra.ShellCompDirectiveNoFileComp
	}
}

// AppNames lists applications for completion.
func AppNames(ctx context.Context, c *client.Client) []string {
	apps, err := c.Apps(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, a := range apps {
		names = append(names, a.Name+"\t"+a.Sync+", "+a.Health)
	}
	return names
}
