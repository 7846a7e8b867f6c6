// Package az is the `az` program that jobs find on their PATH when the machine
// has none: the part of it that pipelines of GitOps repositories call.
//
// Input: the arguments of the command line; the login that an earlier call kept
// below AZURE_CONFIG_DIR. Output: JSON, TSV, a table or YAML, as az prints it.
// It speaks Azure's own wire: Entra, Resource Manager, Key Vault, registries.
//
// Invariants: secrets are kept in one file with mode 0600; an unknown verb or
// option fails with exit code 2 and says so; what is not found exits with 3.
//
// Start reading at [Main] and commands.
package az

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// exitNotFound is az's exit code when a resource does not exist.
const exitNotFound = 3

// command is one verb.
type command struct {
	flags shim.Flags
	run   func(ctx context.Context, c *call) (any, error)
}

// call is one run of a command.
type call struct {
	*shim.Process
	shim.Parsed
	profile *profile
}

var global = shim.Flags{shim.F("--output", "-o"), shim.F("--query"), shim.B("--only-show-errors"), shim.B("--verbose"), shim.B("--debug"), shim.F("--subscription")}

// Main runs az and returns its exit code.
func Main(ctx context.Context, p *shim.Process) int {
	p.Announce("az")
	err := run(ctx, p)
	if err == nil {
		return shim.ExitOK
	}
	var status *shim.StatusError
	if errors.As(err, &status) {
		_, _ = fmt.Fprintf(p.Stderr, "ERROR: %s\n", azureText(status))
		if status.Status == 404 {
			return exitNotFound
		}
		return shim.ExitFailed
	}
	_, _ = fmt.Fprintf(p.Stderr, "ERROR: %v\n", err)
	return shim.Code(err)
}

func run(ctx context.Context, p *shim.Process) error {
	args := p.Args
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-v") {
		args = []string{"version"}
	}
	all := commands()
	for n := min(4, len(args)); n > 0; n-- {
		cmd, ok := all[strings.Join(args[:n], " ")]
		if !ok {
			continue
		}
		parsed, err := append(slices.Clone(cmd.flags), global...).Parse(args[n:], false)
		if err != nil {
			return shim.Usagef("az %s (emulated by lockstep): %v", strings.Join(args[:n], " "), err)
		}
		profile, err := readProfile(p)
		if err != nil {
			return err
		}
		c := &call{Process: p, Parsed: parsed, profile: profile}
		out, err := cmd.run(ctx, c)
		if err != nil {
			return err
		}
		return c.print(out)
	}
	return shim.Usagef("az %s: the emulated az does not know this command; it knows: %s", strings.Join(verbs(args), " "), strings.Join(known(all, args), ", "))
}

// verbs are the words before the first option.
func verbs(args []string) []string {
	for i, a := range args {
		if strings.HasPrefix(a, "-") {
			return args[:i]
		}
	}
	return args
}

// known lists the commands of the same noun, or all nouns.
func known(all map[string]command, args []string) []string {
	var same, nouns []string
	for name := range all {
		noun, _, _ := strings.Cut(name, " ")
		if len(args) > 0 && noun == args[0] {
			same = append(same, name)
		}
		if !slices.Contains(nouns, noun) {
			nouns = append(nouns, noun)
		}
	}
	if len(same) > 0 {
		nouns = same
	}
	slices.Sort(nouns)
	return nouns
}

// azureText is what Azure says in an error.
func azureText(e *shim.StatusError) string {
	var said struct {
		Error            json.RawMessage `json:"error"`
		ErrorDescription string          `json:"error_description"`
		Errors           []struct{ Code, Message string }
	}
	if json.Unmarshal(e.Body, &said) == nil {
		var inner struct{ Code, Message string }
		switch {
		case said.ErrorDescription != "":
			return said.ErrorDescription
		case json.Unmarshal(said.Error, &inner) == nil && inner.Message != "":
			return fmt.Sprintf("(%s) %s\nCode: %s\nMessage: %s", inner.Code, inner.Message, inner.Code, inner.Message)
		case len(said.Errors) > 0:
			return fmt.Sprintf("(%s) %s", said.Errors[0].Code, said.Errors[0].Message)
		}
	}
	return e.Error()
}

// need reports the options that are missing.
func (c *call) need(names ...string) error {
	var missing []string
	for _, n := range names {
		if c.Get(n) == "" {
			missing = append(missing, "--"+n)
		}
	}
	if len(missing) > 0 {
		return shim.Usagef("the following arguments are required: %s", strings.Join(missing, ", "))
	}
	return nil
}

func commands() map[string]command {
	all := map[string]command{}
	for _, part := range []map[string]command{accountCommands(), resourceCommands(), registryCommands(), vaultCommands(), clusterCommands()} {
		for name, c := range part {
			all[name] = c
		}
	}
	return all
}
