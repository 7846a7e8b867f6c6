//go:build linux

package saved_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/saved"
)

// counting counts what an engine asks a store for.
type counting struct {
	*saved.Store
	hits, saves atomic.Int64
}

func (c *counting) Load(key string) (application.SavedRender, bool) {
	r, ok := c.Store.Load(key)
	if ok {
		c.hits.Add(1)
	}
	return r, ok
}

func (c *counting) Save(key string, r application.SavedRender) {
	c.saves.Add(1)
	c.Store.Save(key, r)
}

// TestEngine restarts an engine on the same store: what did not change is not
// rendered anew, what did change is.
func TestEngine(t *testing.T) {
	w := gitopstest.NewWorld(t)
	w.StopEngine()
	path := filepath.Join(t.TempDir(), "saved.db")
	r := w.NewRepo("contoso/kept")
	file := func(v int) map[string]string {
		return map[string]string{"k8s/a.yaml": fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {v: '%d'}\n", v)}
	}
	first := r.Push(file(1))
	c, stop := engine(t, w, path)
	w.Application("kept", r, "k8s", "")
	w.Wait("kept", "the first sync", gitopstest.Synced(first))
	stop()
	if c.hits.Load() != 0 || c.saves.Load() == 0 {
		t.Errorf("at first: %d hits, %d saves", c.hits.Load(), c.saves.Load())
	}
	unread := r.Push(map[string]string{"README.md": "x"})
	c, stop = engine(t, w, path)
	w.Wait("kept", "a look", func(v application.View) bool { return v.Commit == unread && !v.Syncing })
	if c.hits.Load() != 1 || c.saves.Load() != 0 {
		t.Errorf("after a restart: %d hits, %d saves", c.hits.Load(), c.saves.Load())
	}
	second := r.Push(file(2))
	w.Wait("kept", "the second sync", gitopstest.Synced(second))
	stop()
	if c.saves.Load() == 0 {
		t.Error("the change was not saved")
	}
}

// engine starts an engine with a store.
func engine(t *testing.T, w *gitopstest.World, path string) (*counting, func()) {
	t.Helper()
	store, err := saved.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{Store: store}
	e, err := gitops.New(gitops.Config{}, gitops.Deps{Log: slog.New(slog.DiscardHandler), Journal: w.Journal, Rest: w.Config, Repositories: w, Saved: c})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	storeCtx, stopStore := context.WithCancel(context.Background())
	stored := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	go func() { stored <- store.Run(storeCtx) }()
	<-e.Ready()
	w.Engine = e
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		stopStore()
		if err := <-stored; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}
