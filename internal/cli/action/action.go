// Package action is `lockstep action`: the actions that workflows of this
// machine can use. Input: a repository, a folder or an archive. Output: a
// repository on the forge with it. Start reading at [New].
package action

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

// Imported is what `lockstep action import` did.
type Imported struct {
	Name   string   `json:"name"`   // owner/repository
	Commit string   `json:"commit"` // of the version that was asked for, or the newest
	Refs   []string `json:"refs"`   // tags and branches that were pushed
	Paths  []string `json:"paths"`  // folders with an action; "." is the top
}

// Action is one action that workflows can use.
type Action struct {
	Name     string   `json:"name"`
	Source   string   `json:"source"` // "built in" or "forge"
	Versions []string `json:"versions,omitempty"`
	About    string   `json:"about,omitempty"`
}

// New makes the command and its verbs.
func New(inv *invocation.Invocation) *cobra.Command {
	cmd := &cobra.Command{Use: "action", Short: "Actions that workflows can use: import, list", Aliases: []string{"actions"},
		Example: "  lockstep action import actions/labeler@v5\n  lockstep action list"}
	cmd.AddCommand(importCommand(inv), listCommand(inv))
	return cmd
}

func importCommand(inv *invocation.Invocation) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use: "import OWNER/REPOSITORY[@VERSION]", Short: "Put an action into the forge of this machine", Args: cobra.ExactArgs(1),
		Long: `Puts the repository of an action into the forge of this machine, so that workflows
find it under the name that they use on GitHub, also offline.

Without --from it comes from github.com. --from names a folder (with or without Git),
a file .tar.gz, .tgz or .tar as GitHub offers it for download, or the URL of one of
them or of a Git repository. With a version only this tag, branch or commit is taken;
a folder without Git and an archive become this tag.

Workflows of the imported repository itself do not run.`,
		Example: `  lockstep action import actions/labeler@v5
  lockstep action import acme/deploy@v1 --from ../deploy-action
  lockstep action import acme/deploy@v1 --from deploy-1.0.tar.gz`,
		RunE: func(cmd *cobra.Command, args []string) error { return runImport(cmd.Context(), inv, args[0], from) },
	}
	cmd.Flags().StringVar(&from, "from", "", "folder, .tar.gz file or URL (default https://github.com/OWNER/REPOSITORY)")
	return cmd
}

func listCommand(inv *invocation.Invocation) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the actions on the forge and the built-in ones", Args: cobra.NoArgs, Aliases: []string{"ls"},
		Example: "  lockstep action list\n  lockstep action list --all",
		RunE:    func(cmd *cobra.Command, _ []string) error { return runList(cmd.Context(), inv, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "all versions of each action")
	return cmd
}

// open returns the forge of the running platform.
func open(inv *invocation.Invocation) (forge, error) {
	sheet, err := environment.Read(inv.Dir())
	if err != nil {
		return forge{}, &output.Error{What: "the forge cannot be found", Why: err.Error(), Try: "lockstep up", Err: err}
	}
	client, err := sheet.Client()
	if err != nil {
		return forge{}, err
	}
	return forge{sheet: sheet, http: client}, nil
}

func runImport(ctx context.Context, inv *invocation.Invocation, name, from string) error {
	ctx, cancel := inv.Bound(ctx, importTimeout)
	defer cancel()
	f, err := open(inv)
	if err != nil {
		return err
	}
	defer f.http.CloseIdleConnections()
	done, warnings, err := importAction(ctx, f, name, from)
	for _, w := range warnings {
		inv.Say("%s", w)
	}
	if err != nil {
		return err
	}
	return inv.Print(done, []string{done.Name}, func(w io.Writer) error {
		for _, ref := range done.Refs {
			if _, err := fmt.Fprintf(w, "%s@%s\n", done.Name, ref); err != nil {
				return err
			}
		}
		return nil
	})
}
