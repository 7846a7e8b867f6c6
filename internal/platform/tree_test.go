package platform

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli"
	"github.com/lockstep-gitops/lockstep/internal/cli/credential"
	"github.com/lockstep-gitops/lockstep/internal/cli/doctor"
	"github.com/lockstep-gitops/lockstep/internal/cli/down"
	"github.com/lockstep-gitops/lockstep/internal/cli/env"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/cli/up"
)

func whole(out *bytes.Buffer) cli.Options {
	p := program{version: "v0", self: os.Args[0]}
	return cli.Options{Streams: output.Streams{Out: out, Err: out}, Getenv: func(string) string { return "" },
		Commands: []invocation.Constructor{up.New(p), down.New(p), doctor.New(p), env.New, credential.New}}
}

// Every command of the program says what it is for and shows how to use it.
func TestEveryCommandHasExamples(t *testing.T) {
	var found []string
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		found = append(found, cmd.CommandPath())
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: no description or no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(cli.New(whole(&bytes.Buffer{})))
	if list := strings.Join(found, "\n"); !strings.Contains(list, "lockstep up") || !strings.Contains(list, "lockstep app get") {
		t.Errorf("looked at\n%s", list)
	}
}

func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"__complete d":                            "doctor\t",
		"__complete up --":                        "--example\t",
		"__complete up --example ":                "storefront",
		"__complete down --p":                     "--purge\t",
		"__complete env -o ":                      "json",
		"__complete app get --state-dir /none/x ": ":4",
		"completion bash":                         "__start_lockstep",
		"completion zsh":                          "#compdef lockstep",
		"completion fish":                         "complete -c lockstep",
	} {
		var out bytes.Buffer
		if code := cli.Main(t.Context(), whole(&out), strings.Split(args, " ")); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit code %d, no %q in %.300s", args, code, want, &out)
		}
	}
}
