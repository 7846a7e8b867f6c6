package registry_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	ggcrname "github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/lockstep-gitops/lockstep/internal/registry"
)

// world is the internet: one server for every host, or no network at all.
type world struct {
	server  *httptest.Server
	offline atomic.Bool
	asked   atomic.Int64
}

func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.asked.Add(1)
	if w.offline.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("network is unreachable")}
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(w.server.URL, "http://")
	return http.DefaultTransport.RoundTrip(r)
}

type noLogin struct{}

func (noLogin) Login(context.Context, string, string, string) (registry.Principal, error) {
	return registry.Principal{}, registry.ErrBadCredentials
}

func (noLogin) Allowed(context.Context, registry.Principal, string, string, string) bool {
	return false
}

func TestAMirrorFetchesWhatItDoesNotHave(t *testing.T) {
	internet := &world{server: httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))}
	defer internet.server.Close()
	r, err := registry.New(registry.Config{Dir: t.TempDir()}, registry.Deps{Authorizer: noLogin{}, Upstream: internet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	image, err := random.Image(1024, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := ggcrname.ParseReference("ghcr.io/contoso/base:1")
	if err != nil {
		t.Fatal(err)
	}
	here := remote.WithTransport(r.Transport())
	if _, err := remote.Get(ref, here); err == nil {
		t.Fatal("it is here before anybody has it")
	}
	if err := remote.Write(ref, image, remote.WithTransport(internet)); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref, here)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := image.Digest()
	if d, _ := got.Digest(); d != want {
		t.Errorf("digest %s, want %s", d, want)
	}
	// It stays when the network is gone, and nobody is asked for it again.
	internet.offline.Store(true)
	before := internet.asked.Load()
	if _, err := remote.Image(ref, here); err != nil || internet.asked.Load() != before {
		t.Errorf("%v, %d questions", err, internet.asked.Load()-before)
	}
	// Without a network the first question finds out, and the next does not ask.
	other, err := ggcrname.ParseReference("ghcr.io/contoso/other:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Get(other, here); err == nil || !strings.Contains(err.Error(), "lockstep image import") {
		t.Errorf("offline: %v", err)
	}
	asked := internet.asked.Load()
	if _, err := remote.Get(other, here); err == nil || internet.asked.Load() != asked {
		t.Errorf("%v, %d more questions", err, internet.asked.Load()-asked)
	}
}
