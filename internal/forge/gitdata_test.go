package forge

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v92/github"
)

func TestAPIGitData(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	ctx, c := t.Context(), h.client(h.token)
	blob, _, err := c.Git.CreateBlob(ctx, "contoso", "shop", github.Blob{Content: new("aGVsbG8K"), Encoding: new("base64")})
	if err != nil || blob.GetSHA() != "ce013625030ba8dba906f756967f9e9ca394464a" {
		t.Fatalf("blob: %v %v", blob, err)
	}
	head := h.git(dir, "rev-parse", "HEAD")
	tree, _, err := c.Git.CreateTree(ctx, "contoso", "shop", head, []*github.TreeEntry{
		{Path: new("deploy/a/x.txt"), Mode: new("100755"), Type: new("blob"), SHA: blob.SHA},
		{Path: new("notes.md"), Mode: new("100644"), Type: new("blob"), Content: new("# Notes\n")},
		{Path: new("README.md"), Mode: new("100644"), Type: new("blob")},
	})
	if err != nil || len(tree.Entries) != 2 {
		t.Fatalf("tree: %v %v", tree, err)
	}
	for _, path := range []string{"../x", "/x", ".git/config", "a/.GIT/x", "a//b", "x/", "git~1/x"} {
		_, _, err := c.Git.CreateTree(ctx, "contoso", "shop", head, []*github.TreeEntry{{Path: new(path), Mode: new("100644"), Type: new("blob"), SHA: blob.SHA}})
		wantAPIError(t, err, 422, "Validation Failed")
	}
	commit, _, err := c.Git.CreateCommit(ctx, "contoso", "shop", github.Commit{
		Message: new("By the API"), Tree: tree, Parents: []*github.Commit{{SHA: &head}}, Author: &github.CommitAuthor{Name: new("Ada"), Email: new("ada@example.com")},
	}, nil)
	if err != nil || commit.GetAuthor().GetName() != "Ada" {
		t.Fatalf("commit: %v %v", commit, err)
	}
	ref, _, err := c.Git.CreateRef(ctx, "contoso", "shop", github.CreateRef{Ref: "refs/heads/api", SHA: commit.GetSHA()})
	if err != nil || ref.GetObject().GetSHA() != commit.GetSHA() {
		t.Fatalf("ref: %v %v", ref, err)
	}
	_, _, err = c.Git.CreateRef(ctx, "contoso", "shop", github.CreateRef{Ref: "refs/heads/api", SHA: commit.GetSHA()})
	wantAPIError(t, err, 422, "Reference already exists")
	_, _, err = c.Git.CreateRef(ctx, "contoso", "shop", github.CreateRef{Ref: "refs/heads/a b", SHA: commit.GetSHA()})
	wantAPIError(t, err, 422, "not a valid ref name")
	_, _, err = c.Git.CreateRef(ctx, "contoso", "shop", github.CreateRef{Ref: "refs/heads/x", SHA: blob.GetSHA()})
	wantAPIError(t, err, 422, "a branch names a commit")
	_, _, err = c.Git.UpdateRef(ctx, "contoso", "shop", "refs/heads/api", github.UpdateRef{SHA: head})
	wantAPIError(t, err, 422, "Update is not a fast forward")
	if _, _, err := c.Git.UpdateRef(ctx, "contoso", "shop", "refs/heads/api", github.UpdateRef{SHA: head, Force: new(true)}); err != nil {
		t.Error(err)
	}
	tag, _, err := c.Git.CreateTag(ctx, "contoso", "shop", github.CreateTag{Tag: "v1.0.0", Message: "One", Object: head, Type: "commit"})
	if err != nil || tag.GetObject().GetSHA() != head {
		t.Fatalf("tag: %v %v", tag, err)
	}
	if _, _, err := c.Git.CreateRef(ctx, "contoso", "shop", github.CreateRef{Ref: "refs/tags/v1.0.0", SHA: tag.GetSHA()}); err != nil {
		t.Error(err)
	}
	if tags, _, err := c.Repositories.ListTags(ctx, "contoso", "shop", nil); err != nil || len(tags) != 1 || tags[0].GetCommit().GetSHA() != head {
		t.Errorf("tags: %v %v", tags, err)
	}
	if _, err := c.Git.DeleteRef(ctx, "contoso", "shop", "heads/api"); err != nil {
		t.Error(err)
	}
	_, err = c.Git.DeleteRef(ctx, "contoso", "shop", "heads/main")
	wantAPIError(t, err, 422, "default branch")
	h.git(dir, "fetch", "-q", "--tags", "origin")
	if got := h.git(dir, "cat-file", "-t", "v1.0.0"); got != "tag" {
		t.Errorf("the tag is a %s", got)
	}
	var told []string
	for _, e := range h.pushes("contoso/shop") {
		told = append(told, e.Subject)
	}
	if want := "refs/heads/main refs/heads/api refs/heads/api refs/tags/v1.0.0 refs/heads/api"; strings.Join(told, " ") != want {
		t.Errorf("told %v", told)
	}
}

func TestAPIContentsWrite(t *testing.T) {
	h := newHouse(t)
	ctx, c := t.Context(), h.client(h.token)
	if _, _, err := c.Repositories.Create(ctx, "contoso", &github.Repository{Name: new("shop")}); err != nil {
		t.Fatal(err)
	}
	made, _, err := c.Repositories.CreateFile(ctx, "contoso", "shop", "deploy/app.yaml", &github.RepositoryContentFileOptions{Message: new("First"), Content: []byte("a: 1\n")})
	if err != nil || made.Content.GetPath() != "deploy/app.yaml" || made.Commit.GetMessage() != "First" {
		t.Fatalf("create: %v %v", made, err)
	}
	_, _, err = c.Repositories.UpdateFile(ctx, "contoso", "shop", "deploy/app.yaml", &github.RepositoryContentFileOptions{Message: new("x"), Content: []byte("a: 2\n")})
	wantAPIError(t, err, 422, "\"sha\" wasn't supplied")
	_, _, err = c.Repositories.UpdateFile(ctx, "contoso", "shop", "deploy/app.yaml", &github.RepositoryContentFileOptions{Message: new("x"), Content: []byte("a: 2\n"), SHA: new(strings.Repeat("1", 40))})
	wantAPIError(t, err, 409, "does not match")
	changed, _, err := c.Repositories.UpdateFile(ctx, "contoso", "shop", "deploy/app.yaml", &github.RepositoryContentFileOptions{Message: new("Two"), Content: []byte("a: 2\n"), SHA: made.Content.SHA})
	if err != nil || len(changed.Commit.Parents) != 1 {
		t.Fatalf("update: %v %v", changed, err)
	}
	secret := "gh" + "p_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3"
	_, _, err = c.Repositories.CreateFile(ctx, "contoso", "shop", "x.env", &github.RepositoryContentFileOptions{Message: new("x"), Content: []byte(secret)})
	wantAPIError(t, err, 409, "x.env:1: GitHub token")
	if _, _, err := c.Repositories.DeleteFile(ctx, "contoso", "shop", "deploy/app.yaml", &github.RepositoryContentFileOptions{Message: new("Gone"), SHA: changed.Content.SHA}); err != nil {
		t.Error(err)
	}
	commits, _, err := c.Repositories.ListCommits(ctx, "contoso", "shop", &github.CommitsListOptions{Path: "deploy", Author: "developer"})
	if err != nil || len(commits) != 3 || commits[0].GetCommit().GetMessage() != "Gone" {
		t.Errorf("commits: %v %v", commits, err)
	}
	if commits, _, err := c.Repositories.ListCommits(ctx, "contoso", "shop", &github.CommitsListOptions{Author: "nobody"}); err != nil || len(commits) != 0 {
		t.Errorf("commits of nobody: %v %v", commits, err)
	}
	if pushes := h.pushes("contoso/shop"); len(pushes) != 3 || pushes[2].Data["subject"] != "Gone" {
		t.Errorf("pushes: %v", pushes)
	}
}

func TestAPIArchiveAndBranches(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	ctx, c := t.Context(), h.client(h.token)
	h.git(dir, "push", "-q", "origin", "main:feature/one")
	link, _, err := c.Repositories.GetArchiveLink(ctx, "contoso", "shop", github.Tarball, &github.RepositoryContentGetOptions{Ref: "feature/one"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	files := func(url string) string {
		res, err := h.server.Client().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		z, err := gzip.NewReader(res.Body)
		if err != nil {
			t.Fatal(res.Status, err)
		}
		names := ""
		for archive := tar.NewReader(z); ; {
			entry, err := archive.Next()
			if errors.Is(err, io.EOF) {
				return names
			}
			if err != nil {
				t.Fatal(err)
			}
			names += " " + entry.Name
		}
	}
	if got := files(link.String()); !strings.Contains(got, "contoso-shop-"+h.git(dir, "rev-parse", "--short=7", "HEAD")+"/README.md") {
		t.Errorf("archive: %s", got)
	}
	if got := files(h.server.URL + "/contoso/shop/archive/refs/heads/feature/one.tar.gz"); !strings.Contains(got, "shop-feature-one/README.md") {
		t.Errorf("archive: %s", got)
	}
	for _, path := range []string{"/contoso/shop/archive/--output=x.tar.gz", "/contoso/shop/archive/nothing.zip", "/contoso/shop/archive/.zip"} {
		if got := h.status(http.MethodGet, path, ""); got != 404 {
			t.Errorf("%s: %d", path, got)
		}
	}
	if b, _, err := c.Repositories.RenameBranch(ctx, "contoso", "shop", "feature/one", "feature/two"); err != nil || b.GetName() != "feature/two" {
		t.Errorf("rename: %v %v", b, err)
	}
	if _, _, err := c.Repositories.RenameBranch(ctx, "contoso", "shop", "main", "trunk"); err != nil {
		t.Errorf("rename: %v", err)
	}
	if repo, _, err := c.Repositories.Get(ctx, "contoso", "shop"); err != nil || repo.GetDefaultBranch() != "trunk" {
		t.Errorf("default branch: %v %v", repo.GetDefaultBranch(), err)
	}
}

func TestAPIProtection(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	h.git(dir, "push", "-q", "origin", "main:release/1")
	ctx, c := t.Context(), h.client(h.token)
	got, _, err := c.Repositories.UpdateBranchProtection(ctx, "contoso", "shop", "release/1", &github.ProtectionRequest{
		RequiredStatusChecks:       &github.RequiredStatusChecks{Strict: true, Checks: &[]*github.RequiredStatusCheck{{Context: "build"}}},
		RequiredPullRequestReviews: &github.PullRequestReviewsEnforcementRequest{RequiredApprovingReviewCount: 2},
		EnforceAdmins:              true, Restrictions: &github.BranchRestrictionsRequest{Users: []string{"ada"}, Teams: []string{}, Apps: []string{"github-actions"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := c.Repositories.GetBranchProtection(ctx, "contoso", "shop", "release/1")
	if err != nil || github.Stringify(got) != github.Stringify(again) || !again.GetEnforceAdmins().Enabled || again.GetRequiredPullRequestReviews().RequiredApprovingReviewCount != 2 ||
		(*again.GetRequiredStatusChecks().Checks)[0].Context != "build" || again.GetRestrictions().Users[0].GetLogin() != "ada" || again.GetRestrictions().Apps[0].GetSlug() != "github-actions" {
		t.Errorf("protection: %v %v", github.Stringify(again), err)
	}
	if b, _, err := c.Repositories.GetBranch(ctx, "contoso", "shop", "release/1", 0); err != nil || !b.GetProtected() {
		t.Errorf("branch: %v %v", b, err)
	}
	h.commit(dir, "x", "x", "X")
	out, err := h.tryGit(dir, "push", "origin", "main:release/1")
	wantRefused(t, out, err, "through a pull request", `"build" is expected`)
	_, _, err = c.Repositories.RequireSignaturesOnProtectedBranch(ctx, "contoso", "shop", "release/1")
	wantAPIError(t, err, 422, "doesn't support required_signatures")
	_, _, err = c.Repositories.UpdateBranchProtection(ctx, "contoso", "shop", "nothing", &github.ProtectionRequest{})
	wantAPIError(t, err, 404, "Branch not found")
	if _, err := c.Repositories.RemoveBranchProtection(ctx, "contoso", "shop", "release/1"); err != nil {
		t.Error(err)
	}
	_, _, err = c.Repositories.GetBranchProtection(ctx, "contoso", "shop", "release/1")
	if !errors.Is(err, github.ErrBranchNotProtected) {
		t.Errorf("protection after its end: %v", err)
	}
}

func TestTokenScopes(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	if _, err := h.db.Exec(`update repository set private = 1`); err != nil {
		t.Fatal(err)
	}
	job := func(scopes map[string]string) string {
		return h.issue(TokenSpec{User: "github-actions[bot]", Repo: "contoso/shop", Scopes: scopes})
	}
	none, reader, writer := job(map[string]string{}), job(map[string]string{"contents": "read"}), job(map[string]string{"contents": "write", "statuses": "read"})
	id := h.git(dir, "rev-parse", "HEAD")
	for _, c := range []struct {
		token, method, path string
		want                int
	}{
		{none, "GET", "", 200}, {none, "GET", "/contents/README.md", 403}, {reader, "GET", "/contents/README.md", 200},
		{reader, "PUT", "/contents/x", 403}, {writer, "PUT", "/contents/x", 400}, {writer, "POST", "/statuses/" + id, 403},
		{writer, "PATCH", "", 403}, {writer, "PUT", "/branches/main/protection", 403}, {writer, "DELETE", "", 403}, {writer, "POST", "/git/refs", 400},
		{h.token, "POST", "/statuses/" + id, 400}, {"", "GET", "", 404},
	} {
		if got := h.status(c.method, "/api/v3/repos/contoso/shop"+c.path, c.token); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, got, c.want)
		}
	}
	_, _, err := h.client(reader).Repositories.CreateFile(t.Context(), "contoso", "shop", "x", &github.RepositoryContentFileOptions{Message: new("x")})
	wantAPIError(t, err, 403, "Resource not accessible by integration")
	out, err := h.tryGit(dir, "ls-remote", h.url("contoso/shop", none))
	wantRefused(t, out, err, "contents: read")
	h.git(dir, "ls-remote", h.url("contoso/shop", reader))
	out, err = h.tryGit(dir, "push", h.url("contoso/shop", reader), "main:x")
	wantRefused(t, out, err, "contents: write")
	h.git(dir, "push", "-q", h.url("contoso/shop", writer), "main:x")
}
