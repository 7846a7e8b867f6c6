package actions_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	actionscache "github.com/tonistiigi/go-actions-cache"

	"github.com/lockstep-gitops/lockstep/internal/actions/service"
)

// TestBuildKitsClient uses the client behind `cache-to: type=gha`.
func TestBuildKitsClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(service.Config{Dir: t.TempDir(), URL: "http://" + l.Addr().String()}, service.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: s.Handler()}}
	srv.Start()
	defer func() {
		srv.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	env, closing := s.Open(service.Scope{Repo: "acme/app", Run: 1, Attempt: 1, Job: 1, Ref: "refs/pull/1/merge", BaseRef: "main", DefaultBranch: "main"})
	defer closing()
	c, err := actionscache.New(env["ACTIONS_RUNTIME_TOKEN"], env["ACTIONS_RESULTS_URL"], true, actionscache.Opt{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if scopes := c.Scopes(); len(scopes) != 2 || scopes[0].Scope != "refs/pull/1/merge" || scopes[0].Permission&actionscache.PermissionWrite == 0 || scopes[1].Permission&actionscache.PermissionWrite != 0 {
		t.Errorf("scopes %+v", scopes)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if e, err := c.Load(ctx, "buildkit-blob"); e != nil || err != nil {
		t.Fatalf("before it was saved: %v %v", e, err)
	}
	want := []byte(strings.Repeat("layer ", 1<<20)) // 6 MiB
	if err := c.Save(ctx, "buildkit-blob-1", actionscache.NewBlob(want)); err != nil {
		t.Fatal(err)
	}
	e, err := c.Load(ctx, "buildkit-blob")
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	var got bytes.Buffer
	if err := e.WriteTo(ctx, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes came back, %v", got.Len(), err)
	}
}
