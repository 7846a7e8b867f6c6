// Package secret is `lockstep secret`: writing Key Vault secrets and Actions
// secrets, and listing what there is. No command shows a value. Start reading
// at [New].
package secret

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

// maxValue is more than any secret may have, so that the service can say so.
const maxValue = 40 << 10

// New makes the command and its verbs.
func New(inv *invocation.Invocation) *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Key Vault and Actions secrets: set, list", Aliases: []string{"secrets"},
		Example: "  lockstep secret set storefront-kv/db-password\n  lockstep secret list"}
	cmd.AddCommand(setCommand(inv), listCommand(inv))
	return cmd
}

type setOptions struct {
	name, value string // value: empty to ask, "-" for standard input
	given       bool   // a value stands on the command line
	repo, file  string
}

func setCommand(inv *invocation.Invocation) *cobra.Command {
	var o setOptions
	cmd := &cobra.Command{
		Use: "set <vault>/<name> [value|-]", Short: "Write a new version of a secret", Args: cobra.RangeArgs(1, 2),
		Long: `Writes a new version of a Key Vault secret, or with --repo an Actions secret of a
repository. The value comes from a prompt that does not show it, from standard input
("-", or whenever that is no terminal), or from a file; as an argument it would stay
in the shell's history. One line break at the end is taken off, unless from a file.`,
		Example: `  lockstep secret set storefront-kv/db-password
  openssl rand -base64 24 | lockstep secret set storefront-kv/db-password -
  lockstep secret set storefront-kv/tls --from-file cert.pem
  lockstep secret set --repo contoso/storefront DEPLOY_KEY < key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.name = args[0]; len(args) > 1 {
				o.value, o.given = args[1], true
			}
			return set(cmd.Context(), inv, o)
		},
	}
	cmd.Flags().StringVar(&o.repo, "repo", "", "an Actions secret of this repository, owner/name")
	cmd.Flags().StringVar(&o.file, "from-file", "", "read the value from this file, every byte of it")
	return cmd
}

func set(ctx context.Context, inv *invocation.Invocation, o setOptions) error {
	vault, name, qualified := strings.Cut(o.name, "/")
	owner, repo, ok := strings.Cut(o.repo, "/")
	switch {
	case o.repo != "" && (!ok || owner == "" || repo == "" || strings.Contains(repo, "/")):
		return &output.Error{What: fmt.Sprintf("%q is no repository", o.repo), Try: "--repo owner/name"}
	case o.repo != "" && qualified:
		return &output.Error{What: fmt.Sprintf("%q cannot be the name of an Actions secret", o.name), Try: "lockstep secret set --repo " + o.repo + " NAME"}
	case o.repo == "" && (!qualified || vault == "" || name == ""):
		return &output.Error{What: fmt.Sprintf("%q names no secret of a vault", o.name), Try: "lockstep secret set <vault>/<name>, or --repo owner/name for an Actions secret"}
	case o.given && o.file != "":
		return &output.Error{What: "the value is given twice", Try: "either the argument or --from-file"}
	}
	value, err := read(inv, o)
	if err != nil {
		return err
	}
	return inv.Ask(ctx, func(ctx context.Context, c *client.Client) error {
		if o.repo != "" {
			if err := c.SetRepoSecret(ctx, o.repo, o.name, value); err != nil {
				return err
			}
			inv.Say("%s: secret %s is set", o.repo, o.name)
			return nil
		}
		version, err := c.SetSecret(ctx, vault, name, value)
		if err != nil {
			return err
		}
		inv.Say("%s: a new version is set", o.name)
		_, err = fmt.Fprintln(inv.Streams.Out, version)
		return err
	})
}

// read takes the value from where the options say.
func read(inv *invocation.Invocation, o setOptions) ([]byte, error) {
	switch {
	case o.file != "":
		f, err := os.Open(o.file)
		if err != nil {
			return nil, &output.Error{What: "the file cannot be read", Why: err.Error(), Err: err}
		}
		defer func() { _ = f.Close() }()
		return bounded(f)
	case o.given && o.value != "-":
		inv.Say("The value is in your shell's history now; without the argument you are asked for it.")
		return []byte(o.value), nil
	case !o.given && inv.Streams.InTTY && inv.Streams.ReadSecret != nil:
		_, _ = fmt.Fprintf(inv.Streams.Err, "Value of %s: ", o.name)
		value, err := inv.Streams.ReadSecret()
		inv.Say("")
		if err == nil && len(value) == 0 {
			return nil, &output.Error{What: "the value is empty", Try: "again, or --from-file", Code: output.ExitCancelled}
		}
		return value, err
	}
	value, err := bounded(inv.Streams.In)
	return bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r")), err
}

func bounded(r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, maxValue+1))
	if err == nil && len(value) > maxValue {
		return nil, &output.Error{What: fmt.Sprintf("the value is larger than %d bytes", maxValue), Try: "keep large data in a file or a blob, and only its key as a secret"}
	}
	return value, err
}

func listCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Secrets by name, never by value", Args: cobra.NoArgs,
		Example: "  lockstep secret list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error { return list(ctx, inv, c) })
		},
	}
}

func list(ctx context.Context, inv *invocation.Invocation, c *client.Client) error {
	secrets, err := c.Secrets(ctx)
	if err != nil {
		return err
	}
	names := make([]string, len(secrets))
	for i, s := range secrets {
		names[i] = s.Vault + s.Repo + "/" + s.Name
	}
	return inv.Print(secrets, names, func(w io.Writer) error {
		if len(secrets) == 0 {
			_, err := fmt.Fprintln(w, "There are no secrets. Write one with `lockstep secret set <vault>/<name>`.")
			return err
		}
		t := inv.Table("SECRET", "KIND", "VERSIONS", "CURRENT", "UPDATED")
		for i, s := range secrets {
			kind, versions, updated := "Key Vault", fmt.Sprint(s.Versions), ""
			if s.Repo != "" {
				kind, versions = "Actions", ""
			}
			if !s.Enabled {
				kind += ", disabled"
			}
			if !s.Updated.IsZero() {
				updated = s.Updated.In(inv.Location).Format(time.DateTime)
			}
			t.Row(output.Text(names[i]), output.Text(kind), output.Text(versions), output.Text(s.Version), output.Text(updated))
		}
		return t.Write(w)
	})
}
