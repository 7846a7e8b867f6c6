package platform

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ggcrname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lockstep-gitops/lockstep/internal/registry"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// nobody may do nothing: what the platform itself imports asks nobody.
type nobody struct{}

func (nobody) Login(context.Context, string, string, string) (registry.Principal, error) {
	return registry.Principal{}, registry.ErrBadCredentials
}

func (nobody) Allowed(context.Context, registry.Principal, string, string, string) bool { return false }

func TestImagesAreImportedAndListed(t *testing.T) {
	r, err := registry.New(registry.Config{Dir: t.TempDir()}, registry.Deps{Authorizer: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	img, err := random.Image(1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	name, err := ggcrname.NewTag("docker.io/library/redis:7")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "redis.tar")
	if err := tarball.WriteToFile(file, name, img); err != nil {
		t.Fatal(err)
	}
	door := images{registry: r}
	for _, reference := range []string{"redis:8", "redis:7", "quay.io/o/r:1"} {
		if digest, err := door.Import(t.Context(), file, reference); err != nil || !strings.HasPrefix(digest, "sha256:") {
			t.Fatalf("import as %s: %q, %v", reference, digest, err)
		}
	}
	list, err := door.List(t.Context())
	equal := func(a, b server.Image) bool {
		return a.Host == b.Host && a.Repository == b.Repository && slices.Equal(a.Tags, b.Tags)
	}
	if want := []server.Image{{Host: "docker.io", Repository: "library/redis", Tags: []string{"7", "8"}},
		{Host: "quay.io", Repository: "o/r", Tags: []string{"1"}}}; err != nil || !slices.EqualFunc(list, want, equal) {
		t.Errorf("list = %+v, %v; want %+v", list, err, want)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no image ", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, reference, why string
		status               int
	}{
		{text, "redis:7", "tar", 422},
		{text + ".gone", "redis:7", "no such file", 404},
		{file, "example.org/redis:7", "mirrors no registry example.org", 422},
		{file, "Redis:7", "lowercase", 422},
	} {
		_, err := door.Import(t.Context(), c.file, c.reference)
		var p *server.Problem
		if !errors.As(err, &p) || p.Status != c.status || !strings.Contains(p.Detail, c.why) || p.Hint == "" {
			t.Errorf("import %s as %s: %#v; want %d with %q and a hint", c.file, c.reference, err, c.status, c.why)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := door.Import(ctx, file, "redis:9"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled import: %v", err)
	}
}
