package forge

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// workTree clones a repository with a first commit on main, pushed.
func (h *house) workTree(full string) string {
	h.t.Helper()
	dir := h.t.TempDir()
	h.git(dir, "init", "-q", "-b", "main", ".")
	h.git(dir, "remote", "add", "origin", h.url(full, h.token))
	h.commit(dir, "README.md", "hello\n", "First")
	h.git(dir, "push", "-q", "origin", "main")
	return dir
}

// wantRefused fails unless git was refused with all the texts.
func wantRefused(t *testing.T, out string, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("was not refused:\n%s", out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%q is missing in:\n%s", text, out)
		}
	}
}

func TestPushSecrets(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	secret := "gh" + "p_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3"
	h.commit(dir, "deploy/values.yaml", "image: x\ntoken: "+secret+"\n", "Add values")
	out, err := h.tryGit(dir, "push", "origin", "main")
	wantRefused(t, out, err, "GH013", "deploy/values.yaml:2: GitHub token", "git push -o lockstep.allow-secrets", "pre-receive hook declined")
	if strings.Contains(out, secret) {
		t.Errorf("the secret is shown:\n%s", out)
	}
	if refs := h.git(dir, "ls-remote", "origin", "main"); strings.HasPrefix(refs, h.git(dir, "rev-parse", "HEAD")) {
		t.Error("the branch has moved")
	}
	if repo, err := h.Repository(t.Context(), "contoso/shop"); err != nil {
		t.Error(err)
	} else if _, err := repo.Commit(t.Context(), h.git(dir, "rev-parse", "HEAD")); err == nil {
		t.Error("the objects of a refused push are in the repository")
	}
	h.git(dir, "push", "-q", "-o", "lockstep.allow-secrets", "origin", "main")
}

func TestPushLargeFilesAndNames(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *Deps) { c.MaxFileBytes = 1 << 20 })
	dir := h.workTree("contoso/shop")
	h.commit(dir, "data/big.bin", strings.Repeat("0123456789abcdef", 1<<16)+"!", "Add data")
	out, err := h.tryGit(dir, "push", "origin", "main")
	wantRefused(t, out, err, "GH001", "File data/big.bin has 1.00 MiB", "1 MiB", "git lfs track")
	h.git(dir, "reset", "-q", "--hard", "HEAD~1")
	id := h.git(dir, "rev-parse", "HEAD")
	for ref, want := range map[string]string{
		"refs/heads/" + id:               "named like a commit",
		"refs/heads/refs/heads/main":     "full ref name",
		"refs/tags/-f":                   "take it for something else",
		"refs/heads/a\u202eb":            "hide others",
		"refs/heads/\u2066main\u2069":    "hide others",
		"refs/pull/1/head":               "only branches and tags",
		"refs/heads/ok..no":              "",
		"refs/heads/" + "x/" + ".hidden": "",
	} {
		out, err := h.tryGit(dir, "push", "origin", "HEAD:"+ref)
		wantRefused(t, out, err, want)
	}
}

func TestReview(t *testing.T) {
	hang := make(chan struct{})
	var asked Proposed
	h := newHouse(t, func(_ *Config, d *Deps) {
		d.Review = func(ctx context.Context, p Proposed) ([]string, error) {
			asked = p
			view, err := git.Open(p.GitDir)
			if err != nil {
				return nil, err
			}
			defer view.Close()
			data, err := view.ReadFile(ctx, p.After, "app.yaml")
			switch {
			case err != nil:
				return nil, err
			case string(data) == "hang\n":
				<-hang // whatever ctx says
				return nil, nil
			case string(data) == "bad\n":
				return []string{"app.yaml:1: this does not render\nbecause of \x1b[31mred"}, nil
			}
			return nil, nil
		}
	}, func(c *Config, _ *Deps) { c.PushTimeout = 3e9 })
	defer close(hang)
	dir := h.workTree("contoso/shop")
	before := h.git(dir, "rev-parse", "HEAD")
	h.commit(dir, "app.yaml", "bad\n", "Unchecked")
	h.git(dir, "push", "-q", "origin", "main")
	if asked.Repo != "" {
		t.Errorf("asked without being turned on: %+v", asked)
	}
	if err := h.SetReview(t.Context(), "contoso/shop", true); err != nil {
		t.Fatal(err)
	}
	h.git(dir, "commit", "-q", "--allow-empty", "-m", "Checked")
	out, err := h.tryGit(dir, "push", "origin", "main")
	wantRefused(t, out, err, "error: app.yaml:1: this does not render", "error: because of ?[31mred")
	if asked.Repo != "contoso/shop" || asked.Ref != "refs/heads/main" || asked.After != h.git(dir, "rev-parse", "HEAD") || asked.Before == before {
		t.Errorf("asked %+v", asked)
	}
	if left, _ := filepath.Glob(filepath.Join(h.dir, "forge", "tmp", "view-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	h.commit(dir, "app.yaml", "good\n", "Good")
	h.git(dir, "push", "-q", "origin", "main")
	h.commit(dir, "app.yaml", "hang\n", "Hang")
	out, err = h.tryGit(dir, "push", "origin", "main")
	wantRefused(t, out, err)
	h.git(dir, "fetch", "-q", "origin") // the forge goes on
}

func TestProtection(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	repo, err := h.find(t.Context(), "contoso/shop")
	if err != nil {
		t.Fatal(err)
	}
	bot, _, err := h.IssueToken(t.Context(), TokenSpec{User: "github-actions[bot]", Repo: "contoso/shop", Scopes: map[string]string{"contents": "write"}})
	if err != nil {
		t.Fatal(err)
	}
	protect := func(rules branchRules) {
		if err := h.storeRules(t.Context(), repo, "main", &rules); err != nil {
			t.Fatal(err)
		}
	}
	push := func(token string, refspec ...string) (string, error) {
		return h.tryGit(dir, append([]string{"push", h.url("contoso/shop", token)}, refspec...)...)
	}
	protect(branchRules{})
	out, err := push(h.token, ":refs/heads/main")
	wantRefused(t, out, err, "GH006", "Cannot delete")
	h.git(dir, "checkout", "-q", "--orphan", "other")
	h.commit(dir, "x", "x", "Other history")
	out, err = push(h.token, "+other:main")
	wantRefused(t, out, err, "GH006: Protected branch update failed for refs/heads/main.", "Cannot force-push")
	h.git(dir, "checkout", "-q", "main")

	h.commit(dir, "a", "a", "A")
	protect(branchRules{RequirePull: true, RequireChecks: true, Contexts: []string{"build"}})
	out, err = push(bot, "main")
	wantRefused(t, out, err, "through a pull request", `Required status check "build" is expected`)
	if out, err := push(h.token, "main"); err != nil || !strings.Contains(out, "Bypassed rule violations") {
		t.Errorf("an administrator may: %v\n%s", err, out)
	}
	protect(branchRules{RequirePull: true, EnforceAdmins: true})
	h.commit(dir, "b", "b", "B")
	out, err = push(h.token, "main")
	wantRefused(t, out, err, "through a pull request")

	protect(branchRules{RequireChecks: true, Contexts: []string{"build"}, EnforceAdmins: true})
	push(h.token, "main:refs/heads/topic")
	id := h.git(dir, "rev-parse", "HEAD")
	if err := h.SetStatus(t.Context(), "contoso/shop", id, Status{Context: "build", State: "failure"}); err != nil {
		t.Fatal(err)
	}
	out, err = push(h.token, "main")
	wantRefused(t, out, err, `"build" is failure`)
	if err := h.SetStatus(t.Context(), "contoso/shop", id, Status{Context: "build", State: "success"}); err != nil {
		t.Fatal(err)
	}
	if out, err := push(h.token, "main"); err != nil {
		t.Error(out)
	}

	protect(branchRules{LinearHistory: true, EnforceAdmins: true})
	h.git(dir, "checkout", "-q", "-b", "side", "HEAD~1")
	h.commit(dir, "c", "c", "C")
	h.git(dir, "checkout", "-q", "main")
	h.git(dir, "merge", "-q", "--no-edit", "side")
	out, err = push(h.token, "main")
	wantRefused(t, out, err, "merge commits")

	protect(branchRules{Restricted: true, Pushers: []string{"Octocat"}})
	out, err = push(bot, "main")
	wantRefused(t, out, err, "github-actions[bot] is not among those")
	if _, err := push(bot, "main:refs/heads/free"); err != nil {
		t.Error("another branch is not protected")
	}
}

func TestChangeRefs(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	ctx, id := t.Context(), h.git(dir, "rev-parse", "HEAD")
	repo, err := h.find(ctx, "contoso/shop")
	if err != nil {
		t.Fatal(err)
	}
	by := Identity{User: "ada", Actor: "ada", Write: true}
	if err := h.changeRefs(ctx, repo, by, refCommand{"refs/heads/topic", git.ZeroID, id}); err != nil {
		t.Fatal(err)
	}
	if err := h.changeRefs(ctx, repo, by, refCommand{"refs/heads/topic", git.ZeroID, id}); err == nil || !strings.Contains(fmt.Sprint(err), "not where it was") {
		t.Errorf("made twice: %v", err)
	}
	if err := h.changeRefs(ctx, repo, by, refCommand{"refs/heads/" + id, git.ZeroID, id}); err == nil {
		t.Error("a hostile name is taken")
	}
	if err := h.changeRefs(ctx, repo, by, refCommand{"refs/heads/topic", id, git.ZeroID}); err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range h.pushes("contoso/shop") {
		if e.Subject == "refs/heads/topic" {
			told = append(told, e.Data["actor"]+" "+e.Data["after"][:7])
		}
	}
	if len(told) != 2 || told[0] != "ada "+id[:7] || told[1] != "ada 0000000" {
		t.Errorf("the journal was told %v", told)
	}
}
