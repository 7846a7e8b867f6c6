package image

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

func showCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "show REFERENCE", Aliases: []string{"get"}, Short: "Where an image comes from, what is in it, and who uses it", Args: cobra.ExactArgs(1),
		Long: `Shows one image by tag or digest: which commit and workflow run made it, what is
signed about it (SBOM and provenance, checked with this platform's key), and which
applications use it.`,
		Example: `  lockstep image show storefront.azurecr.io/storefront:latest
  lockstep image show storefront.azurecr.io/storefront@sha256:... -o json`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return complete(cmd.Context(), inv), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				d, err := c.Image(ctx, args[0])
				if err != nil {
					return err
				}
				return inv.Print(d, []string{d.Host + "/" + d.Repository + "@" + d.Digest}, func(w io.Writer) error { return describe(w, d) })
			})
		},
	}
}

// complete names the images that there are; nothing when the platform is away.
func complete(ctx context.Context, inv *invocation.Invocation) (names []string) {
	_ = inv.Ask(ctx, func(ctx context.Context, c *client.Client) error {
		images, err := c.Images(ctx)
		for _, i := range images {
			for _, tag := range i.Tags {
				names = append(names, i.Host+"/"+i.Repository+":"+tag)
			}
		}
		return err
	})
	return names
}

// describe writes an image for people.
func describe(w io.Writer, d server.ImageDetail) error {
	line := func(key, value string) string { return fmt.Sprintf("%-14s%s\n", key, value) }
	var b strings.Builder
	b.WriteString(line("Image", output.Clean(d.Host+"/"+d.Repository)))
	b.WriteString(line("Digest", d.Digest))
	b.WriteString(line("Tags", output.Clean(orDash(strings.Join(d.Tags, ", ")))))
	b.WriteString(line("Platforms", output.Clean(orDash(strings.Join(d.Platforms, ", ")))))
	if d.Size > 0 {
		b.WriteString(line("Size", fmt.Sprintf("%.1f MB compressed", float64(d.Size)/1e6)))
	}
	if !d.Created.IsZero() {
		b.WriteString(line("Created", stamp(d.Created)))
	}
	for i, made := range d.Builds {
		key := ""
		if i == 0 {
			key = "Built from"
		}
		text := fmt.Sprintf("%s %.12s at %s", made.Repo, made.Commit, stamp(made.Time))
		if made.Run != "" {
			text += ", " + made.Run
		}
		b.WriteString(line(key, output.Clean(text)))
	}
	if len(d.Builds) == 0 {
		b.WriteString(line("Built from", "nothing here: it was imported or pushed from elsewhere"))
	}
	b.WriteString(line("Used by", output.Clean(orDash(strings.Join(d.Applications, ", ")))))
	for i, a := range d.Attestations {
		key := ""
		if i == 0 {
			key = "Attested"
		}
		text := predicateName(a.Type)
		if strings.Contains(a.Type, "spdx") && d.Packages > 0 {
			text += fmt.Sprintf(" of %d packages", d.Packages)
		}
		if a.Verified {
			text += ", signature verified"
		} else {
			text += ", NOT verified: " + a.Why
		}
		b.WriteString(line(key, output.Clean(text)))
	}
	if len(d.Attestations) == 0 {
		b.WriteString(line("Attested", "nothing"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func predicateName(predicate string) string {
	switch predicate {
	case "https://spdx.dev/Document":
		return "SBOM (SPDX)"
	case "https://slsa.dev/provenance/v1":
		return "provenance (SLSA)"
	}
	return predicate
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
