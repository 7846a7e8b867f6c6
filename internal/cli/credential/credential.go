// Package credential is `lockstep credential`: the program that git asks for
// the password of the forge (gitcredentials(7)). Input: git's key=value lines on
// standard input. Output: the user and token of the platform, for its own forge
// only. Start reading at [New].
package credential

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
)

// New is the command's constructor.
func New(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use:     "credential get|store|erase",
		Short:   "Answer git's question for the forge's password",
		Hidden:  true,
		Example: `  git config credential.http://github.localhost.helper '!lockstep credential'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != "get" {
				return nil // there is nothing to store: the platform has it
			}
			return answer(inv)
		},
	}
}

func answer(inv *invocation.Invocation) error {
	asked := parse(io.LimitReader(inv.Streams.In, 64<<10))
	sheet, err := environment.Read(inv.Dir())
	if err != nil {
		return err
	}
	forge, err := url.Parse(sheet.Forge)
	if err != nil {
		return fmt.Errorf("address of the forge: %w", err)
	}
	// With the port: another platform's forge has the same name.
	if asked["protocol"] != forge.Scheme || strings.TrimSuffix(asked["host"], ":80") != forge.Host {
		return nil // not ours; git asks the next helper
	}
	_, err = fmt.Fprintf(inv.Streams.Out, "username=%s\npassword=%s\n", sheet.ForgeUser, sheet.ForgeToken)
	return err
}

// parse reads key=value lines up to an empty one.
func parse(r io.Reader) map[string]string {
	values := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			break
		}
		values[key] = value
	}
	return values
}
