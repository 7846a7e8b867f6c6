package builtin

import (
	"bytes"
	"context"
	_ "embed" // the prelude and its routes
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

//go:embed script/prelude.cjs
var scriptPrelude []byte

//go:embed script/routes.json
var scriptRoutes []byte

func githubScript() Action {
	return Action{
		Name: "actions/github-script",
		Inputs: map[string]string{"script": "", "github-token": "", "debug": "false", "user-agent": "", "previews": "", "result-encoding": "json",
			"retries": "0", "retry-exempt-status-codes": "400,401,403,404,422", "base-url": ""},
		Run: runGithubScript,
	}
}

// scriptReport is one line that the prelude tells.
type scriptReport struct {
	Output, Env, Path, Value string
	Summary                  *string
	Overwrite                bool
}

// maxReport bounds what a script may set, in bytes.
const maxReport = 64 << 20

func runGithubScript(ctx context.Context, c *Call) error {
	if strings.TrimSpace(c.With["script"]) == "" {
		return c.errorf("", "input script is required")
	}
	if e := c.With["result-encoding"]; e != "json" && e != "string" {
		return c.errorf(`write "string" or "json"`, "input result-encoding: %q", e)
	}
	have, err := node.pick(ctx, c, "node", ">=18")
	if err != nil {
		return err
	}
	retries, err := strconv.Atoi(c.With["retries"])
	if err != nil || retries < 0 || retries > 10 {
		return c.errorf("write a number up to 10", "input retries: %q", c.With["retries"])
	}
	exempt := []int{}
	for _, code := range c.list("retry-exempt-status-codes", true) {
		n, err := strconv.Atoi(code)
		if err != nil {
			return c.errorf("", "input retry-exempt-status-codes: %q is no number", code)
		}
		exempt = append(exempt, n)
	}
	token, api := orElse(c.With["github-token"], c.Job.Token), orElse(c.With["base-url"], c.env("GITHUB_API_URL"))
	input, err := json.Marshal(map[string]any{"script": c.With["script"], "token": token, "apiURL": api, "graphqlURL": orElse(c.env("GITHUB_GRAPHQL_URL"), api+"/graphql"),
		"retries": retries, "exempt": exempt, "encoding": c.With["result-encoding"]})
	if err != nil {
		return err
	}
	dir := "_lockstep/script-" + strconv.Itoa(c.Line)
	if err := c.Job.Temp.RemoveAll(dir); err != nil {
		return err
	}
	if err := c.Job.Temp.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() { _ = c.Job.Temp.RemoveAll(dir) }()
	for name, data := range map[string][]byte{"prelude.cjs": scriptPrelude, "routes.json": scriptRoutes, "input.json": input} {
		if err := c.Job.Temp.WriteFile(path.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	inside := path.Join(c.Job.TempPath, dir)
	code, err := c.Job.Exec(ctx, c.Job.Workspace, c.withEnv("INPUT_GITHUB-TOKEN="+token), []string{have.path, "--no-warnings", path.Join(inside, "prelude.cjs"), inside}, c.Out)
	if err != nil {
		return err
	}
	if err := c.takeReport(path.Join(dir, "report.jsonl")); err != nil {
		return err
	}
	if code != 0 {
		return c.errorf("", "the script failed with exit code %d", code)
	}
	return nil
}

// takeReport acts on what a script set.
func (c *Call) takeReport(name string) error {
	data, err := readFile(c.Job.Temp, name, maxReport)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	summary := ""
	for line := range bytes.Lines(data) {
		var r scriptReport
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("read what the script set: %w", err)
		}
		switch {
		case r.Output != "":
			c.SetOutput(r.Output, r.Value)
		case r.Env != "":
			c.SetEnv(r.Env, r.Value)
		case r.Path != "":
			c.AddPath(r.Path)
		case r.Summary != nil && r.Overwrite:
			summary = *r.Summary
		case r.Summary != nil:
			summary += *r.Summary
		}
	}
	if summary != "" && c.Summary != nil {
		c.Summary(summary)
	}
	return nil
}
