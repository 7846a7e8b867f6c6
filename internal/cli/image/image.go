// Package image is `lockstep image`: container images in the registries of this
// machine: put there from files, listed, and where one comes from. Start reading
// at [New].
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// maxTags is how many tags of a repository a table shows.
const maxTags = 4

// New makes the command and its verbs.
func New(inv *invocation.Invocation) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Images in the registries: import, list, show", Aliases: []string{"images"},
		Example: "  lockstep image import redis.tar docker.io/library/redis:7\n  lockstep image list\n  lockstep image show storefront.azurecr.io/storefront:latest"}
	cmd.AddCommand(importCommand(inv), listCommand(inv), showCommand(inv))
	return cmd
}

func importCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE REFERENCE", Short: "Put an image from a file into a registry of this machine", Args: cobra.ExactArgs(2),
		Long: `Puts an image from a file into the registry that the reference names: a public one,
such as docker.io, of which this machine holds a mirror, or one that Azure has here.
Builds and pods then find it under this name. The output is the image's digest.

The file is what docker save writes, a folder in OCI image layout, or a tar file of
such a folder; not compressed. Where it holds several images, the one with the name
of the reference is taken. A reference without a host means docker.io, and without a
tag :latest.`,
		Example: `  docker save redis:7 -o redis.tar     # on a machine with internet
  lockstep image import redis.tar docker.io/library/redis:7
  lockstep image import ./layout storefront.azurecr.io/base:v7 -o json`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveDefault // files
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return importFile(cmd.Context(), inv, args[0], args[1]) },
	}
}

func importFile(ctx context.Context, inv *invocation.Invocation, file, reference string) error {
	if err := check(file, reference); err != nil {
		return err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return &output.Error{What: fmt.Sprintf("%q cannot be found", file), Why: err.Error(), Err: err}
	}
	ctx, cancel := inv.Bound(ctx, 0) // the platform bounds it
	defer cancel()
	c := inv.Client()
	defer c.Close()
	made, err := c.ImportImage(ctx, path, reference)
	if err != nil {
		return err
	}
	inv.Say("%s is here now", reference)
	return inv.Print(made, []string{made.Reference}, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, made.Digest)
		return err
	})
}

// check finds what needs no platform to be wrong.
func check(file, reference string) error {
	if reference == "" {
		return &output.Error{What: "the reference is empty", Try: "a name like docker.io/library/redis:7"}
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, swapped := os.Stat(reference)
		e := &output.Error{What: fmt.Sprintf("there is no file %q", file), Try: "`docker save IMAGE -o FILE` writes one", Err: err}
		if swapped == nil {
			e.Try = fmt.Sprintf("lockstep image import %s %s", reference, file)
		}
		return e
	case err != nil:
		return &output.Error{What: fmt.Sprintf("%q cannot be read", file), Why: err.Error(), Err: err}
	case !info.Mode().IsRegular() && !info.IsDir():
		return &output.Error{What: fmt.Sprintf("%q is neither a file nor a folder", file), Why: "the platform opens it by its path, and more than once",
			Try: "write the image to a file first: docker save IMAGE -o FILE"}
	}
	return nil
}

func listCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Repositories and their tags, of every registry here", Args: cobra.NoArgs,
		Example: "  lockstep image list\n  lockstep image list -o name     # one line for each tag",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error { return list(ctx, inv, c) })
		},
	}
}

func list(ctx context.Context, inv *invocation.Invocation, c *client.Client) error {
	images, err := c.Images(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, i := range images {
		for _, tag := range i.Tags {
			names = append(names, i.Host+"/"+i.Repository+":"+tag)
		}
	}
	return inv.Print(images, names, func(w io.Writer) error {
		if len(images) == 0 {
			_, err := fmt.Fprintln(w, "There are no images. Put one here with `lockstep image import FILE REFERENCE`, or push one.")
			return err
		}
		t := inv.Table("IMAGE", "TAGS")
		for _, i := range images {
			t.Row(output.Text(i.Host+"/"+i.Repository), output.Text(tags(i)))
		}
		return t.Write(w)
	})
}

// tags names some tags of a repository and counts the others.
func tags(i server.Image) string {
	text := strings.Join(i.Tags[:min(maxTags, len(i.Tags))], ", ")
	if more := len(i.Tags) - maxTags; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
