// Package env is `lockstep env`: exports for a shell in which unmodified
// clients use the platform. Start reading at [New].
package env

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

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
		RunE: func(*cobra.Command, []string) error {
			sheet, err := environment.Read(inv.Dir())
			if err != nil {
				return &output.Error{What: "there is no platform to point to", Why: err.Error(), Try: "lockstep up", Err: err}
			}
			vars := sheet.Exports()
			if found := foreign(inv, vars); len(found) > 0 && !force && !unset {
				return &output.Error{
					What: "this shell holds credentials of a real Azure: " + strings.Join(found, ", "),
					Why:  "with these exports a program could send them here, or reach the real Azure after the exports are gone",
					Try:  "unset " + strings.Join(found, " ") + ", or lockstep env --force",
				}
			}
			return inv.Print(vars, names(vars), func(w io.Writer) error { return write(w, vars, unset) })
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
	return gateway.RealAzureCredentials(environ)
}

func names(vars map[string]string) []string {
	var list []string
	for name := range vars {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// write prints the exports for a POSIX shell.
func write(w io.Writer, vars map[string]string, unset bool) error {
	for _, name := range names(vars) {
		line := "unset " + name
		if !unset {
			line = "export " + name + "='" + strings.ReplaceAll(vars[name], "'", `'\''`) + "'"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
