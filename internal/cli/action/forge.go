package action

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"io/fs"
)

// forge is the forge of the running platform, by its REST API and by git.
type forge struct {
	sheet environment.Sheet
	http  *http.Client
}

const (
	maxAnswer = 8 << 20
	maxRepos  = 1000
)

func (f forge) url(repo string) string { return f.sheet.Forge + "/" + repo + ".git" }

// inside is git's environment for the forge: with the user's token, and no
// proxy in between.
func (f forge) inside() []string {
	return []string{
		"GIT_CONFIG_COUNT=3", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=http.extraHeader", "GIT_CONFIG_VALUE_1=Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+f.sheet.ForgeToken)),
		"GIT_CONFIG_KEY_2=http.proxy", "GIT_CONFIG_VALUE_2=",
	}
}

// outside is git's environment for the rest of the world: through the
// platform's front door, which passes on what it does not stand for.
func (f forge) outside() []string {
	return []string{"HTTPS_PROXY=" + f.sheet.Proxy, "HTTP_PROXY=" + f.sheet.Proxy, "GIT_SSL_CAINFO=" + f.sheet.CABundle}
}

func (f forge) git(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, append(git.Env(), env...), &stdout, &stderr, time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		text := strings.TrimSpace(stderr.String())
		if text == "" {
			text = err.Error()
		}
		return "", errors.New(strings.ReplaceAll(text, f.sheet.ForgeToken, "***"))
	}
	return stdout.String(), nil
}

// ensureRepository creates the repository unless it is there, and keeps its own
// workflows from running. note says when that could not be done.
func (f forge) ensureRepository(ctx context.Context, repo string) (note string, err error) {
	owner, name, _ := strings.Cut(repo, "/")
	status, body, err := f.do(ctx, http.MethodGet, "/repos/"+repo, nil)
	if err != nil || status == http.StatusOK {
		return "", err
	}
	if status == http.StatusNotFound {
		status, body, err = f.do(ctx, http.MethodPost, "/orgs/"+owner+"/repos", map[string]any{"name": name, "description": "Imported action"})
		if err != nil {
			return "", err
		}
	}
	if status != http.StatusCreated {
		return "", &output.Error{What: "the repository " + repo + " cannot be made on the forge", Why: explain(status, body)}
	}
	status, _, err = f.do(ctx, http.MethodPut, "/repos/"+repo+"/actions/permissions", map[string]any{"enabled": false})
	if err == nil && status/100 != 2 {
		note = "workflows of " + repo + " itself cannot be switched off: they may run"
	}
	return note, err
}

func (f forge) do(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.sheet.ForgeAPI+path, content)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+f.sheet.ForgeToken)
	req.Header.Set("Accept", "application/vnd.github+json")
	resp, err := f.http.Do(req)
	if err != nil {
		return 0, nil, &output.Error{What: "the forge does not answer", Why: err.Error(), Try: "lockstep status", Err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, data, err
}

// explain turns an error answer into one line.
func explain(status int, body []byte) string {
	var answer struct{ Message string }
	if json.Unmarshal(body, &answer) == nil && answer.Message != "" {
		return fmt.Sprintf("%d: %s", status, answer.Message)
	}
	return fmt.Sprintf("the forge answers %d", status)
}

// runList lists what `uses` can name.
func runList(ctx context.Context, inv *invocation.Invocation, all bool) error {
	ctx, cancel := inv.Bound(ctx, time.Minute)
	defer cancel()
	f, err := open(inv)
	if err != nil {
		return err
	}
	defer f.http.CloseIdleConnections()
	list, err := f.actions(ctx)
	if err != nil {
		return err
	}
	for _, name := range builtin.Names() {
		list = append(list, Action{Name: name, Source: "built in"})
	}
	names := make([]string, len(list))
	t := inv.Table("NAME", "SOURCE", "VERSIONS", "ABOUT")
	for i, a := range list {
		names[i] = a.Name
		versions := a.Versions
		if len(versions) > 4 && !all {
			versions = append(slices.Clone(versions[:4]), "…")
		}
		shown := strings.Join(versions, " ")
		if a.Source == "built in" {
			shown = "any"
		}
		t.Row(output.Text(a.Name), output.Text(a.Source), output.Text(shown), output.Text(a.About))
	}
	return inv.Print(list, names, t.Write)
}

// actions are the repositories of the forge with an action at their top.
func (f forge) actions(ctx context.Context) ([]Action, error) {
	out := []Action{}
	for page := 1; len(out) < maxRepos; page++ {
		var repos []struct {
			FullName    string `json:"full_name"`
			Description string `json:"description"`
		}
		if err := f.get(ctx, fmt.Sprintf("/user/repos?per_page=100&page=%d", page), &repos); err != nil {
			return nil, err
		}
		for _, r := range repos {
			a, ok, err := f.describe(ctx, r.FullName)
			if err != nil {
				return nil, err
			}
			if ok {
				a.About = r.Description
				out = append(out, a)
			}
		}
		if len(repos) < 100 {
			break
		}
	}
	return out, nil
}

func (f forge) describe(ctx context.Context, repo string) (Action, bool, error) {
	var entries []struct{ Name string }
	if err := f.get(ctx, "/repos/"+repo+"/contents", &entries); err != nil {
		if errors.Is(err, fs.ErrNotExist) { // empty
			return Action{}, false, nil
		}
		return Action{}, false, err
	}
	if !slices.ContainsFunc(entries, func(e struct{ Name string }) bool { return e.Name == "action.yml" || e.Name == "action.yaml" }) {
		return Action{}, false, nil
	}
	a := Action{Name: repo, Source: "forge"}
	for _, kind := range []string{"tags", "branches"} {
		var refs []struct{ Name string }
		if err := f.get(ctx, "/repos/"+repo+"/"+kind+"?per_page=100", &refs); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Action{}, false, err
		}
		for _, r := range refs {
			a.Versions = append(a.Versions, r.Name)
		}
	}
	return a, true, nil
}

func (f forge) get(ctx context.Context, path string, out any) error {
	status, body, err := f.do(ctx, http.MethodGet, path, nil)
	switch {
	case err != nil:
		return err
	case status == http.StatusNotFound:
		return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	case status != http.StatusOK:
		return &output.Error{What: "the forge cannot list its repositories", Why: explain(status, body)}
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("answer of the forge to %s: %w", path, err)
	}
	return nil
}
