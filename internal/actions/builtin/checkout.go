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
			"persist-credentials": "true", "clean": "true", "submodules": "false", "filter": "", "set-safe-directory": "true",
			"sparse-checkout": "", "sparse-checkout-cone-mode": "true", "lfs": "false", "ssh-key": "", "show-progress": "true",
			"allow-unsafe-pr-checkout": "false",
		},
		NoEffect: map[string]string{
			"github-server-url": "the local forge is used", "ssh-strict": "SSH is not used",
			"ssh-known-hosts": "SSH is not used", "ssh-user": "SSH is not used",
		},
		Run: runCheckout, Post: postCheckout,
	}
}

// checkoutPlan is what to fetch and where to.
type checkoutPlan struct {
	repo, dir, url string
	depth          int
	refspecs       []string
	local          []string // arguments of git checkout; nil: short is a branch or a tag
	short          string
	ref            string // as the output says it
	tags           bool
	progress       bool
}

var (
	fullCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	repoName   = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$`)
)

// planCheckout reads the inputs.
func planCheckout(c *Call) (checkoutPlan, error) {
	p := checkoutPlan{repo: c.With["repository"], depth: 1}
	if c.With["ssh-key"] != "" {
		return p, c.errorf("use token", "checkout over SSH is not supported")
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
	depth, err := strconv.Atoi(strings.TrimSpace(c.With["fetch-depth"]))
	if err != nil || depth < 0 {
		return p, c.errorf("", "input fetch-depth must be a number, not %q", c.With["fetch-depth"])
	}
	p.depth = depth
	for name, to := range map[string]*bool{"fetch-tags": &p.tags, "show-progress": &p.progress} {
		if *to, err = c.flag(name); err != nil {
			return p, err
		}
	}
	switch strings.ToLower(c.With["submodules"]) {
	case "", "true", "false", "recursive":
	default:
		return p, c.errorf("write true, false or recursive", "input submodules: %q", c.With["submodules"])
	}
	ref, commit := c.With["ref"], ""
	if strings.HasPrefix(ref, "-") || strings.ContainsAny(ref, " \t\n:*?[\\^~") {
		return p, c.errorf("", "input ref %q is not a branch, tag or commit", ref)
	}
	p.ref = ref
	switch {
	case ref == "" && own:
		ref, commit = c.Job.Ref, c.Job.Commit
		p.ref = ref
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
	pull, isPull := strings.CutPrefix(ref, "refs/pull/")
	switch {
	case isBranch:
		p.refspecs = []string{source(ref) + ":refs/remotes/origin/" + branch}
		p.local = []string{"-B", branch, "refs/remotes/origin/" + branch}
	case isTag:
		p.refspecs = []string{source(ref) + ":refs/tags/" + tag}
		p.local = []string{"refs/tags/" + tag}
	case isPull:
		p.refspecs = []string{source(ref) + ":refs/remotes/pull/" + pull}
		p.local = []string{"refs/remotes/pull/" + pull}
	case commit != "":
		p.refspecs, p.local = []string{commit}, []string{"--detach", commit}
	case ref == "":
		p.refspecs, p.local = []string{"HEAD"}, []string{"--detach", "FETCH_HEAD"}
	case strings.HasPrefix(ref, "refs/"):
		p.refspecs, p.local = []string{"+" + ref}, []string{"--detach", "FETCH_HEAD"}
	default: // a short name: a branch, or else a tag
		p.refspecs = []string{fmt.Sprintf("+refs/heads/%s*:refs/remotes/origin/%s*", ref, ref), fmt.Sprintf("+refs/tags/%s*:refs/tags/%s*", ref, ref)}
		p.short = ref
	}
	switch {
	case p.depth == 0 && isPull:
		p.refspecs = append([]string{"+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"}, p.refspecs...)
	case p.depth == 0 && ref == "" && commit == "":
		// FETCH_HEAD is the first thing fetched.
		p.refspecs = append(p.refspecs, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
	case p.depth == 0:
		p.refspecs = append([]string{"+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"}, p.pinned(commit)...)
	case p.tags && !isTag:
		p.refspecs = append(p.refspecs, "+refs/tags/*:refs/tags/*")
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
	if err := prepareDirectory(ctx, c, p); err != nil {
		return err
	}
	header := "http." + c.Job.ServerURL + "/.extraheader"
	for _, args := range [][]string{
		{"git", "-C", p.dir, "config", "--local", "gc.auto", "0"},
		{"git", "-C", p.dir, "config", "--local", "--replace-all", header, "AUTHORIZATION: basic " + basic},
	} {
		if err := c.run(ctx, c.Job.Workspace, args...); err != nil {
			return c.errorf("", "set up %s: %w", p.dir, err)
		}
	}
	c.State["dir"], c.State["header"] = p.dir, header
	if err := fetch(ctx, c, p); err != nil {
		return err
	}
	if err := checkOut(ctx, c, p); err != nil {
		return err
	}
	if err := submodules(ctx, c, p, "AUTHORIZATION: basic "+basic); err != nil {
		return err
	}
	if lfs, err := c.flag("lfs"); err != nil {
		return err
	} else if lfs {
		if err := largeFiles(ctx, c, p, basic); err != nil {
			return err
		}
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
	c.SetOutput("ref", p.ref)
	return c.run(ctx, p.dir, "git", "log", "-1", "--format=%H %s")
}

// prepareDirectory makes p.dir a repository with p.url as its origin. One that
// is there is kept when it is of the same origin, and cleaned on request;
// anything else that is in the way is removed, as by the real action.
func prepareDirectory(ctx context.Context, c *Call, p checkoutPlan) error {
	safe, err := c.flag("set-safe-directory")
	if err != nil {
		return err
	}
	clean, err := c.flag("clean")
	if err != nil {
		return err
	}
	if safe {
		if err := c.run(ctx, c.Job.Workspace, "git", "config", "--global", "--add", "safe.directory", p.dir); err != nil {
			return c.errorf("", "mark %s as safe: %w", p.dir, err)
		}
	}
	const prepare = `set -e
dir=$1 url=$2 clean=$3
mkdir -p "$dir"
cd "$dir"
if [ -d .git ] && [ "$(git config --local --get remote.origin.url)" = "$url" ]; then
	rm -f .git/index.lock .git/shallow.lock
	git checkout --quiet --detach 2>/dev/null || true
	git for-each-ref --format='delete %(refname)' refs/heads | git update-ref --stdin
	if [ "$clean" = true ]; then git clean -ffdx --quiet && { git reset --hard --quiet HEAD 2>/dev/null || true; }; fi
	exit 0
fi
if [ -n "$(ls -A .)" ]; then
	echo "Deleting the contents of '$dir'"
	find . -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +
fi
git -c init.defaultBranch=main init --quiet .
git remote add origin "$url"`
	if err := c.script(ctx, c.Job.Workspace, prepare, p.dir, p.url, strconv.FormatBool(clean)); err != nil {
		return c.errorf("", "prepare %s: %w", p.dir, err)
	}
	return nil
}

func fetch(ctx context.Context, c *Call, p checkoutPlan) error {
	args := []string{"git", "-C", p.dir, "-c", "protocol.version=2", "fetch", "--prune", "--no-recurse-submodules", "--no-tags"}
	if p.progress && c.env("RUNNER_DEBUG") == "1" {
		args = append(args, "--progress")
	} else {
		args = append(args, "--quiet")
	}
	switch {
	case p.depth > 0:
		args = append(args, "--depth="+strconv.Itoa(p.depth))
	default:
		if out, err := c.capture(ctx, p.dir, "git", "rev-parse", "--is-shallow-repository"); err == nil && strings.TrimSpace(out) == "true" {
			args = append(args, "--unshallow")
		}
	}
	if f := c.With["filter"]; f != "" {
		args = append(args, "--filter="+f)
	} else if c.With["sparse-checkout"] != "" {
		args = append(args, "--filter=blob:none")
	}
	args = append(append(args, "origin"), p.refspecs...)
	c.Logf("Fetching %s", strings.Join(p.refspecs, " "))
	code, err := c.Job.Exec(ctx, p.dir, c.Env, args, c.Out)
	if err == nil && code == 1 && p.short != "" {
		return nil // nothing has such a name: checkOut says so
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("git failed with exit code %d", code)
	}
	if err != nil {
		return c.errorf("check that the repository and the ref exist and that the token may read them", "fetch %s: %w", p.repo, err)
	}
	return nil
}

// checkOut fills the work tree.
func checkOut(ctx context.Context, c *Call, p checkoutPlan) error {
	if sparse := c.list("sparse-checkout", false); len(sparse) > 0 {
		cone, err := c.flag("sparse-checkout-cone-mode")
		if err != nil {
			return err
		}
		mode := "--no-cone"
		if cone {
			mode = "--cone"
		}
		if err := c.run(ctx, p.dir, append([]string{"git", "sparse-checkout", "set", mode}, sparse...)...); err != nil {
			return c.errorf("", "sparse checkout: %w", err)
		}
	} else if out, _ := c.capture(ctx, p.dir, "git", "config", "--get", "core.sparseCheckout"); strings.TrimSpace(out) == "true" {
		if err := c.run(ctx, p.dir, "git", "sparse-checkout", "disable"); err != nil {
			return c.errorf("", "end the sparse checkout: %w", err)
		}
	}
	local := p.local
	if p.short != "" {
		switch {
		case c.refExists(ctx, p.dir, "refs/remotes/origin/"+p.short):
			local = []string{"-B", p.short, "refs/remotes/origin/" + p.short}
		case c.refExists(ctx, p.dir, "refs/tags/"+p.short):
			local = []string{"refs/tags/" + p.short}
		default:
			return c.errorf("check the input ref", "%s has no branch and no tag %q", p.repo, p.short)
		}
	}
	if err := c.run(ctx, p.dir, append([]string{"git", "-C", p.dir, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--progress", "--force"}, local...)...); err != nil {
		return c.errorf("", "check out %s: %w", p.repo, err)
	}
	return nil
}

func (c *Call) refExists(ctx context.Context, dir, ref string) bool {
	_, err := c.capture(ctx, dir, "git", "rev-parse", "--verify", "--quiet", ref+"^{commit}")
	return err == nil
}

// submodules fetches them with the token, which is taken away again unless
// credentials persist.
func submodules(ctx context.Context, c *Call, p checkoutPlan, header string) error {
	wanted := strings.ToLower(c.With["submodules"])
	if wanted != "true" && wanted != "recursive" {
		return nil
	}
	persist, err := c.flag("persist-credentials")
	if err != nil {
		return err
	}
	recursive := ""
	if wanted == "recursive" {
		recursive = "--recursive"
	}
	depth := ""
	if p.depth > 0 {
		depth = "--depth=" + strconv.Itoa(p.depth)
	}
	// Git does not hand the repository's own settings to its submodules, so
	// they stand in the job's global ones meanwhile.
	const update = `server=$1 key=$2 header=$3 recursive=$4 depth=$5 persist=$6
git config --global --replace-all "$key" "$header"
git config --global --replace-all "url.$server/.insteadOf" "git@github.com:"
git config --global --add "url.$server/.insteadOf" "git@${server#*://}:"
git submodule sync $recursive && git -c protocol.version=2 submodule update --init --force $depth $recursive &&
	git submodule foreach $recursive 'git config --local gc.auto 0' >/dev/null
code=$?
if [ $code = 0 ] && [ "$persist" = true ]; then
	LOCKSTEP_KEY=$key LOCKSTEP_HEADER=$header git submodule foreach $recursive 'git config --local --replace-all "$LOCKSTEP_KEY" "$LOCKSTEP_HEADER"' >/dev/null
	code=$?
fi
git config --global --unset-all "$key"
exit $code`
	if err := c.script(ctx, p.dir, update, c.Job.ServerURL, "http."+c.Job.ServerURL+"/.extraheader", header, recursive, depth, strconv.FormatBool(persist)); err != nil {
		return c.errorf("check that the submodules' addresses can be reached and that the token may read them", "fetch the submodules of %s: %w", p.repo, err)
	}
	c.State["submodules"] = wanted
	return nil
}

func forgetCredentials(ctx context.Context, c *Call) error {
	if c.State["dir"] == "" {
		return nil
	}
	if c.State["submodules"] != "" {
		if _, err := c.capture(ctx, c.State["dir"], "git", "submodule", "foreach", "--recursive", "git config --local --unset-all '"+c.State["header"]+"' || :"); err != nil {
			c.Logf("##[warning]%v", err) // a step may have removed the checkout
		}
	}
	// 5: there is no such key any more.
	code, err := c.Job.Exec(ctx, c.Job.Workspace, c.Env, []string{"git", "-C", c.State["dir"], "config", "--local", "--unset-all", c.State["header"]}, c.Out)
	if err == nil && code != 0 && code != 5 && code != 128 {
		err = fmt.Errorf("git config failed with exit code %d", code)
	}
	return err
}

func postCheckout(ctx context.Context, c *Call) error { return forgetCredentials(ctx, c) }
