// Package env is `lockstep env`: exports for a shell in which unmodified
// clients use the platform. Start reading at [New].
package env

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/gateway"
)

// New is the command's constructor.
func New(inv *invocation.Invocation) *cobra.Command {
	var unset, force bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print exports that point git, gh, terraform, az and the Azure SDKs here",
		Long: `Print the environment in which unmodified clients use this platform: names such as
management.azure.com, *.vault.azure.net, *.azurecr.io and github.localhost answer
locally, everything else as usual. Only this shell is affected.

The output holds credentials of the platform.`,
		Example: `  eval "$(lockstep env)"
  eval "$(lockstep env --unset)"      back to the real services
  lockstep env -o json                for programs`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if unset {
				// The names are the same for every platform, also for one that is gone.
				list := names(environment.Sheet{}.Exports())
				return inv.Print(list, list, func(w io.Writer) error { return unsetAll(w, list) })
			}
			// Exports of a platform that is down would cut the shell off from every network.
			if err := inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				_, err := c.Status(ctx)
				return err
			}); err != nil {
				return err
			}
			sheet, err := environment.Read(inv.Dir())
			if err != nil {
				return &output.Error{What: "there is no platform to point to", Why: err.Error(), Try: "lockstep up --wait", Err: err}
			}
			vars := sheet.Exports()
			if found := foreign(inv, vars); len(found) > 0 && !force {
				return &output.Error{
					What: "this shell holds credentials of a real Azure: " + strings.Join(found, ", "),
					Why:  "with these exports a program could send them here, or reach the real Azure after the exports are gone",
					Try:  "unset " + strings.Join(found, " ") + ", or lockstep env --force",
				}
			}
			return inv.Print(vars, names(vars), func(w io.Writer) error { return export(w, vars) })
		},
	}
	cmd.Flags().BoolVar(&unset, "unset", false, "print the commands that take the exports back")
	cmd.Flags().BoolVar(&force, "force", false, "replace credentials of a real Azure in this shell")
	return cmd
}

// foreign names the variables with Azure credentials that are not ours.
func foreign(inv *invocation.Invocation, ours map[string]string) []string {
	var environ []string
	for name, value := range ours {
		if now := inv.Getenv(name); now != "" && now != value {
			environ = append(environ, name+"="+now)
		}
	}
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if _, known := ours[name]; !known {
			environ = append(environ, entry)
		}
	}
	return gateway.RealAzureCredentials(environ)
}

func names(vars map[string]string) []string { return slices.Sorted(maps.Keys(vars)) }

// export prints the exports for a POSIX shell.
func export(w io.Writer, vars map[string]string) error {
	for _, name := range names(vars) {
		if _, err := fmt.Fprintf(w, "export %s='%s'\n", name, strings.ReplaceAll(vars[name], "'", `'\''`)); err != nil {
			return err
		}
	}
	return nil
}

// unsetAll prints the commands that take exports back.
func unsetAll(w io.Writer, names []string) error {
	for _, name := range names {
		if _, err := fmt.Fprintln(w, "unset "+name); err != nil {
			return err
		}
	}
	return nil
}
