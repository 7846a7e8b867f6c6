package forge

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// lfs asks the LFS API of a repository.
func (h *house) lfs(method, path, token, body string) (int, map[string]any) {
	h.t.Helper()
	return h.api("github.localhost", method, "/contoso/shop.git/info/lfs/"+path, token, body)
}

func TestLFS(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *Deps) { c.MaxLFSBytes = 100 })
	h.workTree("contoso/shop")
	content := "large content"
	sum := sha256.Sum256([]byte(content))
	oid := hex.EncodeToString(sum[:])
	batch := func(operation string) string {
		return `{"operation":"` + operation + `","objects":[{"oid":"` + oid + `","size":13}]}`
	}
	first := func(answer map[string]any) map[string]any { return answer["objects"].([]any)[0].(map[string]any) }
	if status, got := h.lfs("POST", "objects/batch", h.token, batch("download")); status != 200 || first(got)["error"].(map[string]any)["code"] != 404.0 {
		t.Errorf("download of nothing: %d %v", status, got)
	}
	if status, _ := h.lfs("POST", "objects/batch", "", batch("upload")); status != 401 {
		t.Errorf("upload without a token: %d", status)
	}
	if status, got := h.lfs("POST", "objects/batch", h.token, batch("upload")); status != 200 || first(got)["actions"].(map[string]any)["verify"] == nil {
		t.Errorf("upload: %d %v", status, got)
	}
	put := func(oid, body string) int {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, h.server.URL+"/contoso/shop.git/info/lfs/objects/"+oid, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+h.token)
		res, err := h.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, c := range []struct {
		oid, body string
		want      int
	}{{oid, "other content", 422}, {oid, strings.Repeat("x", 101), 507}, {"../../x", "", 404}, {strings.Repeat("A", 64), "", 404}, {oid, content, 200}} {
		if got := put(c.oid, c.body); got != c.want {
			t.Errorf("put %s %.20q: %d, want %d", c.oid, c.body, got, c.want)
		}
	}
	if status, _ := h.lfs("POST", "objects/verify", h.token, `{"oid":"`+oid+`","size":13}`); status != 200 {
		t.Errorf("verify: %d", status)
	}
	if got := h.status(http.MethodGet, "/contoso/shop.git/info/lfs/objects/"+oid, ""); got != 200 {
		t.Errorf("get: %d", got)
	}
	other := `{"operation":"upload","objects":[{"oid":"` + strings.Repeat("a", 64) + `","size":90}]}`
	if _, got := h.lfs("POST", "objects/batch", h.token, other); first(got)["error"].(map[string]any)["code"] != 507.0 {
		t.Errorf("over the quota: %v", got)
	}
	status, got := h.lfs("POST", "locks", h.token, `{"path":"a/b.bin"}`)
	if status != 201 {
		t.Fatalf("lock: %d %v", status, got)
	}
	lock := got["lock"].(map[string]any)["id"].(string)
	ada := h.issue(TokenSpec{User: "ada", Write: true})
	if status, _ := h.lfs("POST", "locks", ada, `{"path":"a/b.bin"}`); status != 409 {
		t.Errorf("lock twice: %d", status)
	}
	if _, got := h.lfs("POST", "locks/verify", ada, `{}`); len(got["theirs"].([]any)) != 1 || len(got["ours"].([]any)) != 0 {
		t.Errorf("verify locks: %v", got)
	}
	if status, _ := h.lfs("POST", "locks/"+lock+"/unlock", ada, `{}`); status != 403 {
		t.Errorf("unlock another's: %d", status)
	}
	if status, _ := h.lfs("POST", "locks/"+lock+"/unlock", ada, `{"force":true}`); status != 200 {
		t.Errorf("unlock by force: %d", status)
	}
}

// TestLFSClient pushes and clones with git-lfs.
func TestLFSClient(t *testing.T) {
	if _, err := exec.LookPath("git-lfs"); err != nil {
		t.Skip("git-lfs is not installed (apt-get install git-lfs)")
	}
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	h.git(dir, "lfs", "install", "--local")
	h.git(dir, "lfs", "track", "*.bin")
	content := strings.Repeat("large ", 100_000)
	h.commit(dir, "x.bin", content, "Add a large file")
	h.git(dir, "push", "-q", "origin", "main")
	clone := t.TempDir() + "/clone"
	h.git(dir, "-c", "filter.lfs.process=git-lfs filter-process", "-c", "filter.lfs.smudge=git-lfs smudge -- %f", "-c", "filter.lfs.required=true",
		"clone", "-q", h.url("contoso/shop", h.token), clone)
	if got, err := os.ReadFile(clone + "/x.bin"); err != nil || string(got) != content {
		t.Errorf("the clone has %d bytes, want %d: %v", len(got), len(content), err)
	}
	if got := h.git(dir, "lfs", "lock", "x.bin"); !strings.Contains(got, "Locked") {
		t.Errorf("lock: %s", got)
	}
	h.git(dir, "lfs", "unlock", "x.bin")
}

func FuzzLFSRequest(f *testing.F) {
	f.Add([]byte(`{"operation":"upload","transfers":["basic"],"objects":[{"oid":"x","size":-1}]}`))
	f.Add([]byte(`{"operation":"download","hash_algo":"sha1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := readLFSRequest(data)
		if err == nil && (in.Operation != "upload" && in.Operation != "download" || len(in.Objects) > maxLFSObjects) {
			t.Fatalf("%+v", in)
		}
	})
}

func FuzzPaths(f *testing.F) {
	f.Add("archive/refs/heads/main.tar.gz")
	f.Add("a/../.git/config")
	f.Fuzz(func(t *testing.T, text string) {
		if ref, format, ok := parseArchive(text); ok && (ref == "" || ref[0] == '-' || text != "archive/"+ref+"."+format) {
			t.Fatalf("%q: %q %q", text, ref, format)
		}
		if hostilePath(text) == "" {
			for part := range strings.SplitSeq(text, "/") {
				if part == "" || part == "." || part == ".." || strings.EqualFold(part, ".git") {
					t.Fatalf("%q passed", text)
				}
			}
		}
	})
}
