package chart

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// registry is a real registry in memory, which asks for a password when there
// is one.
func registry(t *testing.T, password string) (host string, push func(repo, tag, media string, layers ...[]byte) string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cfg := &configuration.Configuration{Storage: configuration.Storage{"inmemory": {}, "maintenance": {"uploadpurging": map[any]any{"enabled": false}}}}
	cfg.Log.Level, cfg.Log.AccessLog.Disabled = "panic", true
	cfg.HTTP.Secret = "x"
	logrus.SetOutput(io.Discard) // distribution has one logger per process
	app := handlers.NewApp(ctx, cfg)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); password != "" && p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		app.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { server.Close(); cancel() })
	host = strings.TrimPrefix(server.URL, "http://")
	return host, func(name, tag, media string, layers ...[]byte) string {
		t.Helper()
		repo, err := remote.NewRepository(host + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		repo.PlainHTTP = true
		repo.Client = &auth.Client{Credential: auth.StaticCredential(host, auth.Credential{Username: "u", Password: password})}
		put := func(media string, data []byte) ocispec.Descriptor {
			d := ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(data), Size: int64(len(data))}
			if err := repo.Push(ctx, d, strings.NewReader(string(data))); err != nil {
				t.Fatal(err)
			}
			return d
		}
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: put("application/vnd.oci.empty.v1+json", []byte("{}"))}
		for _, l := range layers {
			m.Layers = append(m.Layers, put(media, l))
		}
		m.Layers = append(m.Layers, put("application/vnd.in-toto+json", []byte(`{"attestation": true}`)))
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := repo.PushReference(ctx, d, strings.NewReader(string(data)), tag); err != nil {
			t.Fatal(err)
		}
		return d.Digest.String()
	}
}

func TestOCIChart(t *testing.T) {
	host, push := registry(t, "hunter2")
	for _, v := range []string{"1.0.0", "1.1.0", "1.1.0_build.5", "2.0.0-rc.1"} {
		push("charts/web", v, mediaChart, packed(t, "web", v))
	}
	for _, url := range []string{"oci://" + host + "/charts", host + "/charts"} {
		s := newStore(t, Config{}, repoSecret("url", host+"/charts", "type", "helm", "enableOCI", "true", "insecureOCIForceHttp", "true", "username", "u", "password", "hunter2"))
		for _, c := range [][2]string{{"1.0.0", "1.0.0"}, {"^1.0.0", "1.1.0"}, {"", "1.1.0"}, {"1.1.0+build.5", "1.1.0+build.5"}, {">=2.0.0-0", "2.0.0-rc.1"}} {
			data, v, err := s.Archive(t.Context(), Ref{RepoURL: url, Chart: "web", Constraint: c[0]})
			if err != nil || v.Version != c[1] && v.Version != c[1]+"+build.5" || len(data) == 0 {
				t.Errorf("%q = %v, %v", c[0], v, err)
			}
		}
		r := Ref{RepoURL: url, Chart: "web", Constraint: "1.0.0"}
		v, err := s.Resolve(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := s.Tree(t.Context(), r, v)
		if err != nil || tree.Commit() != "1.0.0" {
			t.Fatal(err)
		}
		if _, err := tree.ReadFile(t.Context(), "Chart.yaml"); err != nil {
			t.Error(err)
		}
		for _, constraint := range []string{"9.*", "9.0.0", "not a version"} {
			if _, err := s.Resolve(t.Context(), Ref{RepoURL: url, Chart: "web", Constraint: constraint}); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", constraint, err)
			}
		}
		if _, err := s.Resolve(t.Context(), Ref{RepoURL: url, Chart: "none", Constraint: "*"}); !errors.Is(err, ErrNotFound) {
			t.Errorf("no such chart: %v", err)
		}
	}
	for _, user := range []string{"", "u"} {
		wrong := newStore(t, Config{}, repoSecret("url", host+"/charts", "type", "helm", "insecureOCIForceHttp", "true", "username", user, "password", "hunter3"))
		if _, err := wrong.Resolve(t.Context(), Ref{RepoURL: host + "/charts", Chart: "web", Constraint: "1.0.0"}); !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "hunter") ||
			strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte(":hunter3"))) {
			t.Errorf("wrong password of %q: %v", user, err)
		}
	}
}

func TestOCIArtifact(t *testing.T) {
	host, push := registry(t, "")
	d1 := push("deploy/web", "1.0.0", ocispec.MediaTypeImageLayerGzip, packed(t, "web", "1.0.0"))
	d2 := push("deploy/web", "1.2.0", ocispec.MediaTypeImageLayerGzip, packed(t, "web", "1.2.0"))
	push("deploy/web", "latest", ocispec.MediaTypeImageLayerGzip, packed(t, "web", "1.0.0"))
	url := "oci://" + host + "/deploy/web"
	secret := repoSecret("url", url, "type", "oci", "insecureOCIForceHttp", "true")
	s := newStore(t, Config{}, secret)
	for constraint, want := range map[string]string{"1.0.0": d1, "latest": d1, "^1.0.0": d2, d1: d1} {
		r := Ref{RepoURL: url, Constraint: constraint}
		v, err := s.Resolve(t.Context(), r)
		if err != nil || v.Digest != want || r.Revision(v) != want {
			t.Errorf("%s = %v, %v", constraint, v, err)
			continue
		}
		tree, err := s.Tree(t.Context(), r, v)
		if err != nil || tree.Commit() != want {
			t.Errorf("%s: %v", constraint, err)
			continue
		}
		if _, err := tree.ReadFile(t.Context(), "web/Chart.yaml"); err != nil {
			t.Errorf("%s: %v", constraint, err)
		}
	}
	push("deploy/chart", "1.0.0", mediaChart, packed(t, "web", "1.0.0"))
	push("deploy/two", "1.0.0", ocispec.MediaTypeImageLayerGzip, packed(t, "a", "1"), packed(t, "b", "1"))
	push("deploy/none", "1.0.0", "text/plain", []byte("x"))
	push("deploy/junk", "1.0.0", ocispec.MediaTypeImageLayerGzip, []byte("junk"))
	for name, ok := range map[string]bool{"chart": true, "two": false, "none": false, "junk": false} {
		url := "oci://" + host + "/deploy/" + name
		s := newStore(t, Config{}, repoSecret("url", url, "type", "oci", "insecureOCIForceHttp", "true"))
		r := Ref{RepoURL: url, Constraint: "1.0.0"}
		v, err := s.Resolve(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := s.Tree(t.Context(), r, v)
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		if ok {
			if _, err := tree.ReadFile(t.Context(), "Chart.yaml"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := s.Resolve(t.Context(), Ref{RepoURL: url + ":tag", Constraint: "1.0.0"}); err == nil {
		t.Error("a URL with a tag was read")
	}
	// What was read once needs the registry no more.
	again := New(Config{Dir: s.cfg.Dir}, s.deps)
	if _, err := again.Tree(t.Context(), Ref{RepoURL: "oci://127.0.0.1:1/deploy/web"}, Version{Digest: d1}); err != nil {
		t.Errorf("from disk: %v", err)
	}
	if files, err := filepath.Glob(filepath.Join(s.cfg.Dir, "blobs", "new-*")); err != nil || len(files) != 0 {
		t.Errorf("left over: %v", files)
	}
}
