package forge

import (
	"crypto/rand"
	"fmt"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// BenchmarkTransfer compares (CGI takes no chunked requests, hence http.postBuffer) clone, fetch and push of a repository of 100 MB with
// git's own server program over the same protocol.
func BenchmarkTransfer(b *testing.B) {
	h := newHouse(b)
	source := largeRepository(b, h, 100<<20)
	root := b.TempDir()
	plain := plainServer(b, root)
	servers := []struct{ name, url string }{{"plain", plain + "/big.git"}, {"lockstep", h.url("a/big", h.token)}}
	h.git(root, "init", "-q", "--bare", "big.git")
	h.git(root, "-C", "big.git", "config", "http.receivepack", "true")
	for _, s := range servers {
		h.git(source, "-c", "http.postBuffer=400000000", "push", "-q", s.url, "main~1:refs/heads/main")
	}
	for _, s := range servers {
		b.Run("clone/"+s.name, func(b *testing.B) {
			for b.Loop() {
				dir := filepath.Join(b.TempDir(), fmt.Sprint(time.Now().UnixNano()))
				h.git(source, "clone", "-q", "--bare", s.url, dir)
				b.StopTimer()
				_ = os.RemoveAll(dir)
				b.StartTimer()
			}
		})
	}
	for _, s := range servers {
		b.Run("fetch/"+s.name, func(b *testing.B) { // what one more commit costs
			dir := filepath.Join(b.TempDir(), "clone")
			h.git(source, "clone", "-q", "--bare", s.url, dir)
			h.git(source, "-c", "http.postBuffer=400000000", "push", "-q", s.url, "main")
			for b.Loop() {
				h.git(dir, "fetch", "-q", s.url, "main")
			}
			h.git(source, "-c", "http.postBuffer=400000000", "push", "-q", "-f", s.url, "main~1:refs/heads/main")
		})
	}
	for _, s := range servers {
		b.Run("push/"+s.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				b.StopTimer()
				n++
				name := fmt.Sprintf("push%s%d", s.name, n)
				to := h.url("a/"+name, h.token)
				if s.name == "plain" {
					to = plain + "/" + name + ".git"
					h.git(root, "init", "-q", "--bare", name+".git")
					h.git(root, "-C", name+".git", "config", "http.receivepack", "true")
				}
				b.StartTimer()
				h.git(source, "-c", "http.postBuffer=400000000", "push", "-q", to, "main")
			}
		})
	}
}

// plainServer is git http-backend behind a server.
func plainServer(b *testing.B, root string) string {
	exe, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend"), Dir: root,
		Env: append(git.Env(), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"), InheritEnv: []string{},
	})
	b.Cleanup(server.Close)
	return server.URL
}

// largeRepository has files of random bytes, and as many small ones of text, in some commits.
func largeRepository(b *testing.B, h *house, size int) string {
	dir := b.TempDir()
	h.git(dir, "init", "-q", "-b", "main")
	data := make([]byte, 512<<10)
	for n := range size / len(data) {
		_, _ = rand.Read(data)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("large%d.bin", n)), data, 0o600); err != nil {
			b.Fatal(err)
		}
		for k := range 20 {
			text := fmt.Sprintf("kind: Deployment\nname: web-%d-%d\n%s", n, k, strings.Repeat("image: storefront\n", 100))
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("small%d-%d.yaml", n, k)), []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
		}
		if n%40 == 39 {
			h.git(dir, "add", "-A")
			h.git(dir, "commit", "-q", "-m", fmt.Sprint("Part ", n))
		}
	}
	h.git(dir, "repack", "-adq")
	return dir
}
