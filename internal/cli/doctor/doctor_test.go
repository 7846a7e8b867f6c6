package doctor_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/internal/cli"
	"github.com/lockstep-gitops/lockstep/internal/cli/doctor"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

// machine has these findings.
type machine []doctor.Finding

func (m machine) Examine(string, string) []doctor.Finding { return m }

func TestDoctor(t *testing.T) {
	warning := doctor.Finding{What: "disk nearly full", Why: "2 GiB are free", Fix: "free some space"}
	fatal := doctor.Finding{What: "git is missing", Why: "the Git host runs it", Fix: "apt-get install git", Fatal: true}
	for name, tc := range map[string]struct {
		machine machine
		args    string
		code    int
		want    string
	}{
		"healthy": {nil, "", 0, "✓ This machine can run a platform.\n"},
		"warning": {machine{warning}, "", 0, "! disk nearly full\n  why: 2 GiB are free\n  try: free some space\n"},
		"fatal": {machine{warning, fatal}, "", 1, "! disk nearly full\n  why: 2 GiB are free\n  try: free some space\n" +
			"✗ git is missing\n  why: the Git host runs it\n  try: apt-get install git\n"},
		"names": {machine{warning, fatal}, "-o name", 1, "disk nearly full\ngit is missing\n"},
		"json": {machine{fatal}, "-o json", 1, `{
  "healthy": false,
  "findings": [
    {
      "what": "git is missing",
      "why": "the Git host runs it",
      "fix": "apt-get install git",
      "fatal": true
    }
  ]
}
`},
		"healthy json": {nil, "-o json", 0, "{\n  \"healthy\": true,\n  \"findings\": []\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := cli.Main(t.Context(), cli.Options{Streams: output.Streams{Out: &out, Err: &errs}, Getenv: func(string) string { return "" },
				Commands: []invocation.Constructor{doctor.New(tc.machine)}}, append([]string{"doctor"}, strings.Fields(tc.args)...))
			if code != tc.code || errs.Len() > 0 {
				t.Errorf("exit code %d, want %d; %s", code, tc.code, &errs)
			}
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
