package execute

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

func TestSeedCopiesOnceAndNeverLendsTheOriginal(t *testing.T) {
	original := t.TempDir()
	entry := filepath.Join(original, "ab", "entry-d")
	if err := os.MkdirAll(filepath.Dir(entry), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(entry, []byte("compiled"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := layout{cache: t.TempDir()}
	var wg sync.WaitGroup
	for range 4 { // jobs of one repository that start together
		wg.Go(func() {
			if err := l.seed(original); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	copied := filepath.Join(l.cache, "go-build", "ab", "entry-d")
	if got, err := os.ReadFile(copied); err != nil || string(got) != "compiled" {
		t.Fatalf("copy holds %q, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(l.cache, ".go-build-*")); len(left) > 0 {
		t.Errorf("partial copies are left: %v", left)
	}

	// What a job writes stays its own, and a later job keeps it.
	if err := os.WriteFile(copied, []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.seed(original); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(copied); string(got) != "changed" {
		t.Errorf("the second seed replaced the cache: %q", got)
	}
	if got, _ := os.ReadFile(entry); string(got) != "compiled" {
		t.Errorf("a job changed the original: %q", got)
	}
}

func TestSeedWithoutCacheLeavesNothing(t *testing.T) {
	l := layout{cache: t.TempDir()}
	if err := l.seed(""); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(l.cache); len(entries) > 0 {
		t.Errorf("the cache holds %v", entries)
	}
}

func TestOnlyJobsThatMayCompileGoGetTheCache(t *testing.T) {
	for run, want := range map[string]bool{
		"echo hi": false, "go test ./...": true, "cd x && go build .": true, "make": true, "./scripts/build.sh": true, "docker push a/go-app": false,
		"kustomize edit set image a=b": false, "echo gopher": false, "\n  go vet\n": true,
	} {
		if got := mayCompileGo(&syntax.Job{Steps: []*syntax.Step{{Run: syntax.Text{Value: run, Line: 1}}}}); got != want {
			t.Errorf("%q: %v", run, got)
		}
	}
	for uses, want := range map[string]bool{"actions/setup-go@v5": true, "actions/checkout@v4": false, "./.github/actions/x": true} {
		if got := mayCompileGo(&syntax.Job{Steps: []*syntax.Step{{Uses: syntax.Text{Value: uses, Line: 1}}}}); got != want {
			t.Errorf("%s: %v", uses, got)
		}
	}
}

func TestStrangersLeaveNothingInTheRepositorysCache(t *testing.T) {
	r := &Runner{Config: Config{JobsDir: "/jobs", CacheDir: "/cache"}}
	own, strange := r.layout(&Plan{ID: 1, Repo: "o/r"}), r.layout(&Plan{ID: 2, Repo: "o/r", Untrusted: true})
	if own.cache != "/cache/o__r/cache" || own.gopath != "/cache/o__r/go" {
		t.Errorf("trusted: %s, %s", own.cache, own.gopath)
	}
	if !strings.HasPrefix(strange.cache, strange.base+"/") || !strings.HasPrefix(strange.gopath, strange.base+"/") {
		t.Errorf("untrusted: %s, %s", strange.cache, strange.gopath)
	}
}
