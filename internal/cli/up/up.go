// Package up is `lockstep up`: it starts a platform in the background, shows
// the start step by step, and runs an example through the loop when asked.
//
// Input: flags. Output: progress on standard error; on standard output what to
// open next. With --foreground the same process is the platform.
//
// Start reading at [New].
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/cli/progress"
	"github.com/lockstep-gitops/lockstep/internal/cli/storefront"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// Settings are what a platform is started with.
type Settings struct {
	Name, StateDir, Self, Version string
	// Port of the front door; 0 leaves the choice to the platform.
	Port int
	// Kubeconfig names an existing cluster; "" runs one.
	Kubeconfig string
	// UserKubeconfig is the file that gets the context.
	UserKubeconfig string
}

// Platform is how the program runs a platform in this process.
type Platform interface {
	// Run runs until ctx ends. ready is called once everything is up.
	Run(ctx context.Context, s Settings, log io.Writer, ready func()) error
}

// Limits of waiting, where --timeout says nothing.
const (
	startLimit   = 5 * time.Minute
	exampleLimit = 10 * time.Minute
	waitLimit    = 5 * time.Minute
)

type options struct {
	*invocation.Invocation
	platform   Platform
	port       int
	kubeconfig string
	foreground bool
	wait       bool
	example    string
	exampleDir string
}

// Result is what `up -o json` prints.
type Result struct {
	Name        string             `json:"name"`
	URLs        map[string]string  `json:"urls"`
	KubeContext string             `json:"kubeContext"`
	PIDFile     string             `json:"pidFile"`
	LogFile     string             `json:"logFile"`
	Seconds     float64            `json:"seconds"` // from the command to ready
	Example     *storefront.Result `json:"example,omitempty"`
}

// New returns the command's constructor.
func New(platform Platform) invocation.Constructor {
	return func(inv *invocation.Invocation) *cobra.Command {
		o := &options{Invocation: inv, platform: platform}
		cmd := &cobra.Command{
			Use:   "up",
			Short: "Start the platform, or bring it back",
			Long: `Start the platform in the background and wait until it is ready. What an earlier
start left is kept: repositories, images, secrets, the cluster's objects.

A second up finds the running platform and only does what is still asked for.`,
			Example: `  lockstep up
  lockstep up --example storefront     carry a small shop from push to ready
  lockstep up --name second            a second platform beside the first
  lockstep up --port 8480              choose the port of the front door
  lockstep up --wait                   also wait until every application is healthy
  lockstep up --kubeconfig ~/.kube/config   use an existing cluster, run none`,
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
		}
		flags := cmd.Flags()
		flags.IntVar(&o.port, "port", 0, "port of the front door on 127.0.0.1 (default 80 when free, else from 8080 on; then as before)")
		flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of an existing cluster to use instead of running one")
		flags.BoolVar(&o.foreground, "foreground", false, "run the platform in this process, log to standard error, end with Ctrl-C")
		flags.BoolVar(&o.wait, "wait", false, "also wait until every application is synced and healthy")
		flags.StringVar(&o.example, "example", "", "run an example through the loop: storefront")
		flags.StringVar(&o.exampleDir, "example-dir", "", "folder of the example's working copy (default ./<example>)")
		_ = cmd.RegisterFlagCompletionFunc("example", cobra.FixedCompletions([]string{"storefront"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
		return cmd
	}
}

func (o *options) run(ctx context.Context) error {
	if o.example != "" && o.example != "storefront" {
		return &output.Error{What: fmt.Sprintf("there is no example %q", o.example), Try: "lockstep up --example storefront"}
	}
	if o.foreground && (o.example != "" || o.wait) {
		return &output.Error{What: "--foreground runs nothing but the platform", Try: "lockstep up --foreground, and `lockstep up --example storefront` in a second terminal"}
	}
	settings, err := o.settings()
	if err != nil {
		return err
	}
	if o.foreground {
		return o.platform.Run(ctx, settings, o.Streams.Err, func() { o.Say("The platform is ready. Ctrl-C stops it.") })
	}

	begin := time.Now()
	c := o.Client()
	defer c.Close()
	status, err := o.start(ctx, c, settings)
	if err != nil {
		return err
	}
	result := Result{Name: o.Name, URLs: status.URLs, KubeContext: status.KubeContext,
		PIDFile: filepath.Join(o.Dir(), "lock"), LogFile: logFile(o.Dir()), Seconds: time.Since(begin).Seconds()}
	if o.example != "" {
		if result.Example, err = o.carry(ctx, c); err != nil {
			return err
		}
		result.URLs["app"] = result.Example.App
	}
	if o.wait {
		if err := o.waitForApps(ctx, c); err != nil {
			return err
		}
	}
	return o.Print(result, []string{o.Name}, func(w io.Writer) error { return o.welcome(w, result) })
}

func (o *options) settings() (Settings, error) {
	s := Settings{Name: o.Name, StateDir: o.StateDir, Self: o.Self, Version: o.Version, Port: o.port,
		UserKubeconfig: userKubeconfig(o.Getenv)}
	if o.port < 0 || o.port > 65535 {
		return s, &output.Error{What: fmt.Sprintf("there is no port %d", o.port), Try: "lockstep up --port N, with N from 1 to 65535"}
	}
	if o.kubeconfig != "" {
		path, err := filepath.Abs(o.kubeconfig)
		if err != nil {
			return s, err
		}
		if _, err := os.Stat(path); err != nil {
			return s, &output.Error{What: "the kubeconfig cannot be read", Why: err.Error(), Try: "lockstep up --kubeconfig FILE", Err: err}
		}
		s.Kubeconfig = path
	}
	return s, nil
}

// userKubeconfig is the file that kubectl would write to.
func userKubeconfig(getenv func(string) string) string {
	if list := filepath.SplitList(getenv("KUBECONFIG")); len(list) > 0 && list[0] != "" {
		return list[0]
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".kube", "config")
	}
	return ""
}

// carry runs the example and draws the trace of the commit that it carried.
func (o *options) carry(ctx context.Context, c *client.Client) (*storefront.Result, error) {
	ctx, cancel := o.Bound(ctx, exampleLimit)
	defer cancel()
	sheet, err := environment.Read(o.Dir())
	if err != nil {
		return nil, err
	}
	dir := o.exampleDir
	if dir == "" {
		dir = o.example
	}
	result, err := storefront.Run(ctx, storefront.Options{
		Sheet: sheet, Dir: dir, Helper: Helper(o.Self, o.StateDir, o.Name), Traces: traces{c}, Out: o.printer(),
	})
	if err != nil {
		e := &output.Error{What: "the example did not get through", Why: err.Error(), Err: err}
		if result.Commit != "" {
			e.Try = "lockstep trace " + trace.Short(result.Commit)
		}
		return nil, e
	}
	return &result, nil
}

// Helper is the shell command with which git asks a platform for its password.
func Helper(self, stateDir, name string) string {
	return fmt.Sprintf("%s credential --state-dir %s --name %s", quote(self), quote(stateDir), quote(name))
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

type traces struct{ *client.Client }

// waitForApps waits until every application is synced and healthy.
func (o *options) waitForApps(ctx context.Context, c *client.Client) error {
	ctx, cancel := o.Bound(ctx, waitLimit)
	defer cancel()
	err := o.printer().Step(ctx, "applications", func(ctx context.Context, note func(string)) error {
		changes := c.Changes(ctx, time.Second)
		for {
			select {
			case <-changes:
			case <-ctx.Done():
				return ctx.Err()
			}
			apps, err := c.Apps(ctx)
			if err != nil {
				continue // it may be starting
			}
			late := firstLate(apps)
			if late == nil {
				note(fmt.Sprintf("%d synced and healthy", len(apps)))
				return nil
			}
			note(fmt.Sprintf("%s is %s and %s: %s", late.Name, late.Sync, late.Health, late.Message))
		}
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &output.Error{What: "not every application became healthy in time", Try: "lockstep app list", Code: output.ExitPending, Err: err}
	}
	return err
}

func firstLate(apps []server.App) *server.App {
	for i, a := range apps {
		if a.Sync != "Synced" || a.Health != "Healthy" {
			return &apps[i]
		}
	}
	return nil
}

func (o *options) printer() *progress.Printer {
	return &progress.Printer{Writer: o.Streams.Err, Live: o.Streams.ErrTTY, Color: bool(o.ErrColor())}
}
