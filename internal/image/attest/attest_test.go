package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
)

func key(t testing.TB) *Key {
	t.Helper()
	k, err := OpenKey(filepath.Join(t.TempDir(), "signing.key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// repository is an empty one with an image in it.
func repository(t testing.TB, referrers bool) (*remote.Repository, ocispec.Descriptor) {
	t.Helper()
	server := httptest.NewServer(ggcr.New(ggcr.WithReferrersSupport(referrers)))
	t.Cleanup(server.Close)
	repo, err := remote.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/shop/web")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	image, err := oras.PackManifest(t.Context(), repo, oras.PackManifestVersion1_1, "application/vnd.test", oras.PackManifestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return repo, image
}

func TestWhatWasAttachedIsReadAndVerified(t *testing.T) {
	for name, referrers := range map[string]bool{"referrers API": true, "tag schema": false} {
		t.Run(name, func(t *testing.T) {
			repo, image := repository(t, referrers)
			k := key(t)
			for _, predicate := range []string{"https://spdx.dev/Document", ProvenanceType} {
				s := NewStatement("shop/web", image.Digest, predicate, []byte(`{"a":1}`))
				if _, err := Attach(t.Context(), repo, image, s, k); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Read(t.Context(), repo, image, k)
			if err != nil || len(got) != 2 {
				t.Fatalf("%v: %+v", err, got)
			}
			for i, want := range []string{ProvenanceType, "https://spdx.dev/Document"} {
				if a := got[i]; a.Unverified != nil || a.PredicateType != want || string(a.Predicate) != `{"a":1}` {
					t.Errorf("%d: %+v", i, a)
				}
			}
			id, _ := k.KeyID()
			if got[0].KeyID != id {
				t.Errorf("key %q, want %q", got[0].KeyID, id)
			}
			other, err := Read(t.Context(), repo, image, key(t))
			if err != nil || other[0].Unverified == nil {
				t.Errorf("another key verifies it: %v, %+v", err, other)
			}
		})
	}
}

func TestAStatementAboutAnotherImageIsNotTrusted(t *testing.T) {
	k := key(t)
	sealed, err := seal(t.Context(), NewStatement("shop/web", digest.FromString("this"), ProvenanceType, []byte(`{}`)), k)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(t.Context(), sealed, digest.FromString("this"), k); err != nil {
		t.Error(err)
	}
	if _, _, err := open(t.Context(), sealed, digest.FromString("that"), k); err == nil || !strings.Contains(err.Error(), "another image") {
		t.Errorf("about another image: %v", err)
	}
	forged := bytes.Replace(sealed, []byte(`"payload":"e`), []byte(`"payload":"E`), 1)
	if bytes.Equal(forged, sealed) {
		t.Fatal("nothing was forged")
	}
	if _, _, err := open(t.Context(), forged, digest.FromString("this"), k); err == nil {
		t.Error("a changed payload verifies")
	}
}

func TestABrokenReferrerIsShownAsUnverified(t *testing.T) {
	repo, image := repository(t, true)
	blob := content.NewDescriptorFromBytes(BundleType, []byte("no bundle"))
	if err := repo.Push(t.Context(), blob, strings.NewReader("no bundle")); err != nil {
		t.Fatal(err)
	}
	if _, err := oras.PackManifest(t.Context(), repo, oras.PackManifestVersion1_1, BundleType, oras.PackManifestOptions{
		Subject: &image, Layers: []ocispec.Descriptor{blob}, ManifestAnnotations: map[string]string{annotationPredicate: "x"},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := Read(t.Context(), repo, image, key(t))
	if err != nil || len(got) != 1 || got[0].Unverified == nil || got[0].PredicateType != "x" {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestTheKeyStays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "signing.key")
	a, err := OpenKey(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if a.id != b.id {
		t.Error("the second opening made another key")
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	signature, err := a.Sign(t.Context(), []byte("text"))
	if err != nil || b.Verify(t.Context(), []byte("text"), signature) != nil || b.Verify(t.Context(), []byte("other"), signature) == nil {
		t.Error("signatures are not checked")
	}
	if err := os.WriteFile(file, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(file); err == nil || !strings.Contains(err.Error(), "not PEM") {
		t.Errorf("a broken key file: %v", err)
	}
}

func TestProvenanceNamesItsSource(t *testing.T) {
	text, err := Build{
		Builder: "http://github.localhost/runner", Type: BuildType, Repository: "git+http://github.localhost/contoso/shop", Ref: "refs/heads/main", Commit: "abc",
		Invocation: "http://github.localhost/contoso/shop/actions/runs/7", Workflow: ".github/workflows/ci.yaml",
		Materials: []Material{{URI: "pkg:docker/golang@1.26", Digest: map[string]string{"sha256": "00"}}}, Started: time.Unix(0, 0), Finished: time.Unix(5, 0),
	}.Provenance()
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		BuildDefinition struct {
			BuildType            string
			ResolvedDependencies []resource
		}
		RunDetails struct {
			Builder  struct{ ID string }
			Metadata map[string]string
		}
	}
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	d := p.BuildDefinition.ResolvedDependencies
	if len(d) != 2 || d[0].Digest["gitCommit"] != "abc" || d[0].URI != "git+http://github.localhost/contoso/shop@refs/heads/main" || d[1].URI != "pkg:docker/golang@1.26" {
		t.Errorf("dependencies %+v", d)
	}
	if p.RunDetails.Metadata["finishedOn"] != "1970-01-01T00:00:05Z" || p.RunDetails.Builder.ID == "" || p.BuildDefinition.BuildType != BuildType {
		t.Errorf("%s", text)
	}
}

func FuzzOpen(f *testing.F) {
	k := key(f)
	sealed, err := seal(f.Context(), NewStatement("a", digest.FromString("a"), "t", []byte(`{}`)), k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte(`{"dsseEnvelope":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, _, err := open(context.Background(), data, digest.FromString("a"), k)
		if err == nil && !s.about(digest.FromString("a")) {
			t.Errorf("verified, but about %+v", s.Subject)
		}
		if errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
