package builtin

import (
	"context"
	"encoding/base64"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

func checkout() Action {
	return Action{
		Name: "actions/checkout",
		Inputs: map[string]string{
			"repository": "", "ref": "", "token": "", "path": "", "fetch-depth": "1", "fetch-tags": "false",
			"persist-credentials": "true", "clean": "true", "submodules": "false", "filter": "",
			"sparse-checkout": "", "sparse-checkout-cone-mode": "true", "lfs": "false", "ssh-key": "",
		},
		NoEffect: map[string]string{
			"show-progress": "progress is not shown", "set-safe-directory": "the directory is always safe",
			"github-server-url": "the local forge is used", "ssh-strict": "SSH is not used",
			"ssh-known-hosts": "SSH is not used", "ssh-user": "SSH is not used",
			"allow-unsafe-pr-checkout": "pull requests do not start runs here",
		},
		Run: runCheckout, Post: postCheckout,
	}
}

// checkoutPlan is what to fetch and where to.
type checkoutPlan struct {
	repo, dir, url string
	depth          int
	refspecs       []string
	local          []string // arguments of git checkout
	tags           bool
}

var (
	fullCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)
	repoName   = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$`)
)

func runCheckout(ctx context.Context, c *Call) error {
	p, err := planCheckout(c)
	if err != nil {
		return err
	}
	token := c.With["token"]
	if token == "" {
		token = c.Job.Token
	}
	basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + token))
	c.Job.Mask(token, basic)
	c.Logf("Syncing repository: %s", p.repo)
	header := "http." + c.Job.ServerURL + "/.extraheader"
	for _, args := range [][]string{
		{"git", "config", "--global", "--add", "safe.directory", p.dir},
		{"git", "-c", "init.defaultBranch=main", "init", "--quiet", p.dir},
		{"git", "-C", p.dir, "remote", "add", "origin", p.url},
		{"git", "-C", p.dir, "config", "--local", "gc.auto", "0"},
		{"git", "-C", p.dir, "config", "--local", header, "AUTHORIZATION: basic " + basic},
	} {
		if err := c.run(ctx, c.Job.Workspace, args...); err != nil {
			return c.errorf("", "set up %s: %w", p.dir, err)
		}
	}
	c.State["dir"], c.State["header"] = p.dir, header
	if err := fetch(ctx, c, p); err != nil {
		return err
	}
	if persist, err := c.flag("persist-credentials"); err != nil {
		return err
	} else if !persist {
		if err := forgetCredentials(ctx, c); err != nil {
			return err
		}
	}
	commit, err := c.capture(ctx, p.dir, "git", "log", "-1", "--format=%H")
	if err != nil {
		return c.errorf("", "read the checked-out commit: %w", err)
	}
	c.SetOutput("commit", strings.TrimSpace(commit))
	c.SetOutput("ref", c.With["ref"])
	return c.run(ctx, p.dir, "git", "log", "-1", "--format=%H %s")
}

func fetch(ctx context.Context, c *Call, p checkoutPlan) error {
	args := []string{"git", "-C", p.dir, "-c", "protocol.version=2", "fetch", "--prune", "--no-recurse-submodules", "--quiet"}
	if !p.tags {
		args = append(args, "--no-tags")
	}
	if p.depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(p.depth))
	}
	if f := c.With["filter"]; f != "" {
		args = append(args, "--filter="+f)
	}
	args = append(append(args, "origin"), p.refspecs...)
	c.Logf("Fetching %s", strings.Join(p.refspecs, " "))
	if err := c.run(ctx, p.dir, args...); err != nil {
		return c.errorf("check that the repository and the ref exist and that the token may read them", "fetch %s: %w", p.repo, err)
	}
	if sparse := c.list("sparse-checkout", false); len(sparse) > 0 {
		cone := "--cone"
		if c.With["sparse-checkout-cone-mode"] == "false" {
			cone = "--no-cone"
		}
		if err := c.run(ctx, p.dir, append([]string{"git", "sparse-checkout", "set", cone}, sparse...)...); err != nil {
			return c.errorf("", "sparse checkout: %w", err)
		}
	}
	if err := c.run(ctx, p.dir, append([]string{"git", "-C", p.dir, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--force"}, p.local...)...); err != nil {
		return c.errorf("", "check out %s: %w", p.repo, err)
	}
	switch c.With["submodules"] {
	case "true":
		return c.run(ctx, p.dir, "git", "submodule", "update", "--init", "--force")
	case "recursive":
		return c.run(ctx, p.dir, "git", "submodule", "update", "--init", "--force", "--recursive")
	}
	return nil
}

// planCheckout reads the inputs.
func planCheckout(c *Call) (checkoutPlan, error) {
	p := checkoutPlan{repo: c.With["repository"], depth: 1}
	if c.With["ssh-key"] != "" {
		return p, c.errorf("use token", "checkout over SSH is not supported")
	}
	if lfs, err := c.flag("lfs"); err != nil || lfs {
		if err == nil {
			err = c.errorf("remove lfs: true", "Git LFS is not supported")
		}
		return p, err
	}
	own := p.repo == "" || strings.EqualFold(p.repo, c.Job.Repo)
	if p.repo == "" {
		p.repo = c.Job.Repo
	}
	if !repoName.MatchString(p.repo) {
		return p, c.errorf("", "input repository %q is not owner/name", p.repo)
	}
	p.url = c.Job.ServerURL + "/" + p.repo
	dir := path.Join(c.Job.Workspace, c.With["path"])
	if dir != c.Job.Workspace && !strings.HasPrefix(dir, c.Job.Workspace+"/") {
		return p, c.errorf("", "input path %q leads out of the workspace", c.With["path"])
	}
	p.dir = dir
	depth, err := strconv.Atoi(c.With["fetch-depth"])
	if err != nil || depth < 0 {
		return p, c.errorf("", "input fetch-depth must be a number, not %q", c.With["fetch-depth"])
	}
	p.depth = depth
	if p.tags, err = c.flag("fetch-tags"); err != nil {
		return p, err
	}
	ref, commit := c.With["ref"], ""
	if strings.HasPrefix(ref, "-") {
		return p, c.errorf("", "input ref %q is not a branch, tag or commit", ref)
	}
	switch {
	case ref == "" && own:
		ref, commit = c.Job.Ref, c.Job.Commit
	case fullCommit.MatchString(ref):
		ref, commit = "", ref
	}
	p.choose(ref, commit)
	return p, nil
}

// choose fills in what to fetch and to check out for a ref, a commit, or both.
func (p *checkoutPlan) choose(ref, commit string) {
	source := func(name string) string {
		if commit != "" {
			return "+" + commit
		}
		return "+" + name
	}
	branch, isBranch := strings.CutPrefix(ref, "refs/heads/")
	tag, isTag := strings.CutPrefix(ref, "refs/tags/")
	switch {
	case isBranch:
		p.refspecs = []string{source(ref) + ":refs/remotes/origin/" + branch}
		p.local = []string{"-B", branch, "refs/remotes/origin/" + branch}
	case isTag:
		p.refspecs = []string{source(ref) + ":refs/tags/" + tag}
		p.local = []string{"refs/tags/" + tag}
	case commit != "":
		p.refspecs, p.local = []string{commit}, []string{"--detach", commit}
	case ref == "":
		p.refspecs, p.local = []string{"HEAD"}, []string{"--detach", "FETCH_HEAD"}
	default: // a short name: a branch, or else a tag
		p.refspecs = []string{fmt.Sprintf("+refs/heads/%s*:refs/remotes/origin/%s*", ref, ref), fmt.Sprintf("+refs/tags/%s*:refs/tags/%s*", ref, ref)}
		p.local = []string{ref}
	}
	if p.depth == 0 {
		p.refspecs = append([]string{"+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"}, p.pinned(commit)...)
	}
}

// pinned keeps the run's own commit among what a full fetch brings: its branch
// may have moved on.
func (p *checkoutPlan) pinned(commit string) []string {
	if commit == "" {
		return nil
	}
	if len(p.local) == 3 { // -B branch remote: start the branch at the commit itself
		p.local[2] = commit
	}
	return []string{commit}
}

func forgetCredentials(ctx context.Context, c *Call) error {
	if c.State["dir"] == "" {
		return nil
	}
	// 5: there is no such key any more.
	code, err := c.Job.Exec(ctx, c.Job.Workspace, c.Env, []string{"git", "-C", c.State["dir"], "config", "--local", "--unset-all", c.State["header"]}, c.Out)
	if err == nil && code != 0 && code != 5 && code != 128 {
		err = fmt.Errorf("git config failed with exit code %d", code)
	}
	return err
}

func postCheckout(ctx context.Context, c *Call) error { return forgetCredentials(ctx, c) }
