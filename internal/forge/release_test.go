package forge

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-github/v92/github"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// told returns the names of the events so far, "name.action".
func (h *house) told() string {
	h.t.Helper()
	events, err := h.Events(h.t.Context(), 0, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range events {
		names = append(names, strings.TrimSuffix(e.Name+"."+e.Action, "."))
	}
	return strings.Join(names, " ")
}

func TestAPIReleases(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	ctx, c := t.Context(), h.client(h.token)
	made, _, err := c.Repositories.CreateRelease(ctx, "contoso", "shop", github.CreateReleaseRequest{TagName: "v1.0.0", Name: new("One"), GenerateReleaseNotes: new(true)})
	if err != nil || made.GetTagName() != "v1.0.0" || !strings.Contains(made.GetBody(), "* First (") || made.GetPublishedAt().IsZero() {
		t.Fatalf("create: %v %v", made, err)
	}
	if got := h.git(dir, "ls-remote", "--tags", "origin"); !strings.HasPrefix(got, h.git(dir, "rev-parse", "HEAD")) || !strings.Contains(got, "refs/tags/v1.0.0") {
		t.Errorf("the tag: %s", got)
	}
	if got := h.told(); got != "create create release.created release.published release.released" {
		t.Errorf("told: %s", got)
	}
	_, _, err = c.Repositories.CreateRelease(ctx, "contoso", "shop", github.CreateReleaseRequest{TagName: "v1.0.0"})
	wantAPIError(t, err, 422, "Validation Failed")
	name := filepath.Join(t.TempDir(), "shop.txt")
	if err := os.WriteFile(name, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	a, _, err := c.Repositories.UploadReleaseAsset(ctx, "contoso", "shop", made.GetID(), &github.UploadOptions{Name: "shop of contoso.txt", MediaType: "text/plain"}, file)
	if err != nil || a.GetName() != "shop.of.contoso.txt" || a.GetSize() != 6 {
		t.Fatalf("upload: %v %v", a, err)
	}
	body, _, err := c.Repositories.DownloadReleaseAsset(ctx, "contoso", "shop", a.GetID(), http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := io.ReadAll(body); string(data) != "a file" {
		t.Errorf("downloaded %q", data)
	}
	for path, want := range map[string]int{
		"/contoso/shop/releases/download/v1.0.0/shop.of.contoso.txt": 200, "/contoso/shop/releases/latest/download/shop.of.contoso.txt": 200,
		"/contoso/shop/releases/download/v1.0.0/other": 404, "/contoso/shop/releases/download/x": 404,
	} {
		if got := h.status(http.MethodGet, path, ""); got != want {
			t.Errorf("%s: %d", path, got)
		}
	}
	draft, _, err := c.Repositories.CreateRelease(ctx, "contoso", "shop", github.CreateReleaseRequest{TagName: "v2", Draft: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	if list, _, err := h.client("").Repositories.ListReleases(ctx, "contoso", "shop", nil); err != nil || len(list) != 1 {
		t.Errorf("the draft is seen: %v %v", list, err)
	}
	if l, _, err := c.Repositories.GetLatestRelease(ctx, "contoso", "shop"); err != nil || l.GetID() != made.GetID() || len(l.Assets) != 1 {
		t.Errorf("latest: %v %v", l, err)
	}
	if l, _, err := c.Repositories.UpdateRelease(ctx, "contoso", "shop", draft.GetID(), github.UpdateReleaseRequest{Draft: new(false), Prerelease: new(true)}); err != nil || l.GetDraft() {
		t.Errorf("edit: %v %v", l, err)
	}
	if _, err := c.Repositories.DeleteRelease(ctx, "contoso", "shop", made.GetID()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(h.dir, "forge", "assets", "*", "*")); len(left) > 0 {
		t.Errorf("files of deleted assets: %v", left)
	}
}

func TestAPIDeployments(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	ctx, c := t.Context(), h.client(h.token)
	id := h.git(dir, "rev-parse", "HEAD")
	_, _, err := c.Repositories.CreateDeployment(ctx, "contoso", "shop", github.DeploymentRequest{Ref: "nothing"})
	wantAPIError(t, err, 422, "No ref found")
	_, _, err = c.Repositories.CreateDeployment(ctx, "contoso", "shop", github.DeploymentRequest{Ref: "main", RequiredContexts: []string{"build"}})
	wantAPIError(t, err, 409, "Commit status checks failed")
	d, _, err := c.Repositories.CreateDeployment(ctx, "contoso", "shop", github.DeploymentRequest{Ref: "main", Environment: new("staging"), Payload: map[string]any{"a": 1}})
	if err != nil || d.GetSHA() != id || d.GetEnvironment() != "staging" {
		t.Fatalf("create: %v %v", d, err)
	}
	if _, _, err := c.Repositories.CreateDeploymentStatus(ctx, "contoso", "shop", d.GetID(), github.DeploymentStatusRequest{State: "success", EnvironmentURL: new("http://x")}); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Repositories.CreateDeploymentStatus(ctx, "contoso", "shop", d.GetID(), github.DeploymentStatusRequest{State: "great"})
	wantAPIError(t, err, 422, "state")
	next, err := h.CreateDeployment(ctx, "contoso/shop", Deployment{Ref: "main", Environment: "staging"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.SetDeploymentStatus(ctx, "contoso/shop", next, DeploymentStatus{State: "success"}); err != nil {
		t.Fatal(err)
	}
	statuses, _, err := c.Repositories.ListDeploymentStatuses(ctx, "contoso", "shop", d.GetID(), nil)
	if err != nil || len(statuses) != 2 || statuses[0].GetState() != "inactive" || statuses[1].GetEnvironmentURL() != "http://x" {
		t.Errorf("statuses: %v %v", statuses, err)
	}
	if all, _, err := c.Repositories.ListDeployments(ctx, "contoso", "shop", &github.DeploymentsListOptions{Environment: "staging", SHA: id}); err != nil || len(all) != 2 {
		t.Errorf("list: %v %v", all, err)
	}
	if err := h.SetDeploymentStatus(ctx, "contoso/shop", 77, DeploymentStatus{State: "success"}); err == nil || !strings.Contains(err.Error(), git.ErrNotFound.Error()) {
		t.Errorf("of no deployment: %v", err)
	}
	payload := json.RawMessage(`{"image":"web:1"}`)
	if _, _, err := c.Repositories.Dispatch(ctx, "contoso", "shop", github.DispatchRequestOptions{EventType: "deploy", ClientPayload: &payload}); err != nil {
		t.Error(err)
	}
	if got := h.told(); got != "create deployment.created deployment_status.created deployment.created deployment_status.created repository_dispatch.deploy" {
		t.Errorf("told: %s", got)
	}
}

func TestAPIConditional(t *testing.T) {
	h := newHouse(t)
	h.workTree("contoso/shop")
	ask := func(headers ...string) *http.Response {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+"/api/v3/repos/contoso/shop/branches", nil)
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := h.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	first := ask()
	tag := first.Header.Get("ETag")
	if !strings.HasPrefix(tag, `W/"`) || first.Header.Get("X-Github-Api-Version-Selected") != "2022-11-28" {
		t.Errorf("headers: %v", first.Header)
	}
	if got := ask("If-None-Match", tag).StatusCode; got != 304 {
		t.Errorf("the same: %d", got)
	}
	if got := ask("If-None-Match", `"x"`).StatusCode; got != 200 {
		t.Errorf("another: %d", got)
	}
	if got := ask("X-GitHub-Api-Version", "yesterday").StatusCode; got != 400 {
		t.Errorf("no version: %d", got)
	}
}
