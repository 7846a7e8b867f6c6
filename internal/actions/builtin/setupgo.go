package builtin

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
)

func setupGo() Action {
	return Action{
		Name:   "actions/setup-go",
		Inputs: map[string]string{"go-version": "", "go-version-file": "", "check-latest": "false", "architecture": ""},
		NoEffect: map[string]string{"cache": "modules and build results are always kept between runs", "cache-dependency-path": "modules and build results are always kept between runs",
			"token": "nothing is downloaded", "go-download-base-url": "nothing is downloaded"},
		Run: runSetupGo,
	}
}

var (
	goVersion   = regexp.MustCompile(`go(\d+(?:\.\d+){0,2}(?:(?:rc|beta)\d+)?)`)
	goDirective = regexp.MustCompile(`(?m)^(go|toolchain)\s+(?:go)?(\d+(?:\.\d+){0,2})`)
	toolVersion = regexp.MustCompile(`(?m)^(?:golang|go)\s+(\d+(?:\.\d+){0,2})`)
)

// wanted is a version as the workflow asks for it.
type wanted struct {
	text string
	// minimum says that newer ones do as well: a go.mod, ">=1.22", "stable".
	minimum bool
}

func runSetupGo(ctx context.Context, c *Call) error {
	want, err := wantedGo(c)
	if err != nil {
		return err
	}
	program, have, err := machineGo(ctx, c)
	if err != nil {
		return err
	}
	order, ok := compareVersions(have, want.text)
	switch {
	case !ok || order == 0 || want.minimum && order > 0:
	case order < 0:
		return c.errorf("install Go "+want.text+" on this machine, or ask for a version that it has",
			"Go %s is asked for, but this machine has %s and nothing is downloaded", want.text, have)
	default:
		c.Annotate(command.Annotation{Level: "warning", File: c.File, Line: c.Line, FromWorkflow: true,
			Message: fmt.Sprintf("Go %s is asked for; this machine's newer Go %s is used, for nothing is downloaded", want.text, have)})
	}
	c.Logf("Using Go %s of this machine (%s)", have, program)
	c.AddPath(path.Join(c.Job.HomePath, "go/bin"))
	c.AddPath(path.Dir(program))
	c.SetOutput("go-version", have)
	c.SetOutput("cache-hit", "true")
	return nil
}

// wantedGo reads go-version or go-version-file.
func wantedGo(c *Call) (wanted, error) {
	if v := strings.TrimSpace(c.With["go-version"]); v != "" {
		if v == "stable" || v == "oldstable" || v == "latest" {
			return wanted{text: "1", minimum: true}, nil
		}
		number := strings.TrimLeft(v, "^~>= v")
		number = strings.TrimSuffix(strings.TrimSuffix(number, ".x"), ".*")
		if _, ok := parseVersion(number); !ok {
			return wanted{}, c.errorf("write a version such as 1.22, 1.22.x or stable", "input go-version %q is not a version", v)
		}
		return wanted{text: number, minimum: v[0] == '^' || v[0] == '>'}, nil
	}
	file := c.With["go-version-file"]
	if file == "" {
		return wanted{text: "1", minimum: true}, nil
	}
	inside, err := within(c, file)
	if err != nil {
		return wanted{}, err
	}
	data, err := readFile(c.Job.Files, inside, 1<<20)
	if err != nil {
		return wanted{}, c.errorf("check the repository out before, and check the input", "read go-version-file: %w", err)
	}
	text := string(data)
	switch path.Base(inside) {
	case "go.mod", "go.work":
		version := ""
		for _, m := range goDirective.FindAllStringSubmatch(text, -1) {
			version = m[2] // toolchain stands after go and counts more
		}
		text = version
	case ".tool-versions":
		text = ""
		if m := toolVersion.FindStringSubmatch(string(data)); m != nil {
			text = m[1]
		}
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), "go")
	if _, ok := parseVersion(text); !ok {
		return wanted{}, c.errorf("", "%s names no Go version", file)
	}
	return wanted{text: text, minimum: true}, nil
}

// machineGo finds a Go in the sandbox.
func machineGo(ctx context.Context, c *Call) (program, version string, err error) {
	for _, candidate := range append([]string{"go"}, c.Job.GoCandidates...) {
		out, err := c.capture(ctx, c.Job.Workspace, "sh", "-c", `p=$(command -v "$1") && echo "$p" && GOTOOLCHAIN=local "$p" version`, "sh", candidate)
		if ctx.Err() != nil {
			return "", "", context.Cause(ctx)
		}
		program, rest, _ := strings.Cut(out, "\n")
		if m := goVersion.FindStringSubmatch(rest); err == nil && m != nil {
			return program, m[1], nil
		}
	}
	return "", "", c.errorf("install Go on this machine, in /usr/local/go or on the PATH", "this machine has no Go")
}

// compareVersions compares as far as both say: 1.22.3 and 1.22 are equal.
func compareVersions(a, b string) (int, bool) {
	x, ok1 := parseVersion(a)
	y, ok2 := parseVersion(b)
	if !ok1 || !ok2 {
		return 0, false
	}
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			if x[i] < y[i] {
				return -1, true
			}
			return 1, true
		}
	}
	return 0, true
}

func parseVersion(s string) ([]int, bool) {
	s, _, _ = strings.Cut(s, "rc")
	s, _, _ = strings.Cut(s, "beta")
	var out []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
}
