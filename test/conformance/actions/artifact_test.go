package actions_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/service"
	"github.com/lockstep-gitops/lockstep/internal/actions/service/archive"
)

type uploaded struct {
	ID     int64  `json:"id"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
}

func TestArtifacts(t *testing.T) {
	w := newWorld(t, nil)
	build := w.job(t, service.Scope{Run: 7, Attempt: 1, Job: 1})
	one, two := build.write("out/one.txt", "first\n"), build.write("out/deep/two.txt", "second\n")
	var up uploaded
	build.ok(&up, "upload", obj{"name": "dist", "files": []string{one, two}, "root": filepath.Join(build.workspace, "out"), "options": obj{"retentionDays": 3}})

	a, content, err := w.service.OpenArtifact(t.Context(), "acme/app", up.ID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(content)
	if err != nil || content.Close() != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if a.Digest != "sha256:"+up.Digest || up.Digest != hex.EncodeToString(sum[:]) || a.Size != up.Size || int64(len(data)) != up.Size {
		t.Errorf("recorded %+v, the client says %+v, the file has %d bytes", a, up, len(data))
	}
	if days := a.Expires.Sub(a.Created).Hours() / 24; days < 2.9 || days > 3.1 {
		t.Errorf("kept for %.1f days, want 3", days)
	}

	deploy := w.job(t, service.Scope{Run: 7, Attempt: 1, Job: 2})
	var list struct{ Artifacts []uploaded }
	deploy.ok(&list, "list", obj{})
	if len(list.Artifacts) != 1 || list.Artifacts[0].ID != up.ID || list.Artifacts[0].Digest != "sha256:"+up.Digest {
		t.Errorf("list %+v", list)
	}
	deploy.ok(nil, "get", obj{"name": "dist"})
	var down struct{ DigestMismatch bool }
	deploy.ok(&down, "download", obj{"id": up.ID, "options": obj{"path": filepath.Join(deploy.workspace, "in"), "expectedHash": "sha256:" + up.Digest}})
	if down.DigestMismatch || read(t, filepath.Join(deploy.workspace, "in/deep/two.txt")) != "second\n" {
		t.Error("the download is not what was uploaded")
	}

	if r := deploy.call("upload", obj{"name": "dist", "files": []string{deploy.write("x", "x")}, "root": deploy.workspace}); !strings.Contains(r.Error, "exists on this workflow run") {
		t.Errorf("second artifact of a name: %+v", r)
	}
	other := w.job(t, service.Scope{Run: 8, Attempt: 1, Job: 3})
	if r := other.call("get", obj{"name": "dist"}); !strings.Contains(r.Error, "not found") {
		t.Errorf("artifact of another run: %+v", r)
	}
	deploy.ok(nil, "delete", obj{"name": "dist"})
	if n, size, err := w.service.ArtifactUsage(t.Context(), "acme/app"); n != 0 || size != 0 || err != nil {
		t.Errorf("after delete: %d artifacts, %d bytes, %v", n, size, err)
	}
}

// TestArtifactOfAnotherRun reads through the REST API, as download-artifact
// does with a github-token.
func TestArtifactOfAnotherRun(t *testing.T) {
	w := newWorld(t, nil)
	build := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1})
	var up uploaded
	build.ok(&up, "upload", obj{"name": "täst ü", "files": []string{build.write("a.txt", "a")}, "root": build.workspace})
	from := obj{"findBy": obj{"token": "t", "workflowRunId": 1, "repositoryOwner": "acme", "repositoryName": "app"}, "path": filepath.Join(build.workspace, "in")}
	later := w.job(t, service.Scope{Run: 2, Attempt: 1, Job: 1})
	later.ok(nil, "get", obj{"name": "täst ü", "options": from})
	var list struct{ Artifacts []uploaded }
	later.ok(&list, "list", obj{"options": from})
	if len(list.Artifacts) != 1 || list.Artifacts[0].ID != up.ID {
		t.Errorf("list %+v", list)
	}
	later.ok(nil, "download", obj{"id": up.ID, "options": from})
	if read(t, filepath.Join(build.workspace, "in/a.txt")) != "a" {
		t.Error("wrong content")
	}
	var repo struct {
		Artifacts []struct {
			Name string
			Run  struct{ ID int64 } `json:"workflow_run"`
		}
	}
	later.ok(&repo, "rest", obj{"token": "t", "route": "GET /repos/{owner}/{repo}/actions/artifacts", "parameters": obj{"owner": "acme", "repo": "app"}})
	if len(repo.Artifacts) != 1 || repo.Artifacts[0].Name != "täst ü" || repo.Artifacts[0].Run.ID != 1 {
		t.Errorf("%+v", repo)
	}
	later.ok(nil, "delete", obj{"name": "täst ü", "options": from})
}

func TestLargeArtifactInBlocks(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1})
	file := filepath.Join(j.workspace, "large.bin")
	j.ok(nil, "random", obj{"file": file, "mib": 40})
	var up uploaded
	j.ok(&up, "upload", obj{"name": "large", "files": []string{file}, "root": j.workspace, "options": obj{"compressionLevel": 0}})
	j.ok(nil, "download", obj{"id": up.ID, "options": obj{"path": filepath.Join(j.workspace, "in")}})
	if read(t, filepath.Join(j.workspace, "in/large.bin")) != read(t, file) {
		t.Error("40 MiB came back changed")
	}
}

func TestRawArtifact(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1})
	var up uploaded
	j.ok(&up, "upload", obj{"name": "ignored", "files": []string{j.write("report.html", "<p>hi")}, "root": j.workspace, "options": obj{"skipArchive": true}})
	j.ok(nil, "download", obj{"id": up.ID, "options": obj{"path": filepath.Join(j.workspace, "in")}})
	if got := read(t, filepath.Join(j.workspace, "in/report.html")); got != "<p>hi" {
		t.Errorf("raw artifact %q", got)
	}
}

func TestArtifactQuota(t *testing.T) {
	w := newWorld(t, func(c *service.Config) { c.ArtifactQuota = 1 << 20 })
	j := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1})
	file := filepath.Join(j.workspace, "large.bin")
	j.ok(nil, "random", obj{"file": file, "mib": 3})
	r := j.call("upload", obj{"name": "large", "files": []string{file}, "root": j.workspace})
	if !strings.Contains(r.Error, "does not fit") {
		t.Errorf("beyond the quota: %+v", r)
	}
	j.ok(nil, "upload", obj{"name": "small", "files": []string{j.write("s", "s")}, "root": j.workspace})
}

// TestSharedArtifacts: what the built-in action writes the client reads, and
// the other way round.
func TestSharedArtifacts(t *testing.T) {
	w := newWorld(t, nil)
	scope := service.Scope{Repo: "acme/app", Run: 1, Attempt: 1, Job: 1}
	j := w.job(t, scope)
	root, err := os.OpenRoot(j.workspace)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	tree := archive.Tree{{Path: "/work", Root: root}}
	j.write("out/a.txt", strings.Repeat("a", 100_000))
	a, err := w.service.SaveArtifact(t.Context(), scope, service.ArtifactSpec{Name: "ours"}, func(out io.Writer) error {
		return archive.WriteZip(out, tree, []archive.Entry{{Name: "a.txt", Path: "/work/out/a.txt"}}, 6)
	})
	if err != nil {
		t.Fatal(err)
	}
	j.ok(nil, "download", obj{"id": a.ID, "options": obj{"path": filepath.Join(j.workspace, "in")}})
	if read(t, filepath.Join(j.workspace, "in/a.txt")) != read(t, filepath.Join(j.workspace, "out/a.txt")) {
		t.Error("the client reads something else")
	}
	var up uploaded
	j.ok(&up, "upload", obj{"name": "theirs", "files": []string{j.write("b/c.txt", "c")}, "root": j.workspace})
	_, content, err := w.service.OpenArtifact(t.Context(), "acme/app", up.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	if n, err := archive.ReadZip(content, up.Size, tree, "/work/back", archive.Limit{}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if read(t, filepath.Join(j.workspace, "back/b/c.txt")) != "c" {
		t.Error("we read something else")
	}
}
