//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/saved"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// access is how a child reaches the API server.
type access struct{ Host, Token string }

func (a access) config() *rest.Config {
	return &rest.Config{Host: a.Host, BearerToken: a.Token, QPS: -1, WarningHandler: rest.NoWarnings{}, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// engineOptions are what the child process "engine" is started with.
type engineOptions struct {
	Access     access
	Repository string // directory
	Journal    string // file
	Parallel   int
	Profile    string // CPU profile of the time until the first "profile", "" for none
	Verbose    bool
}

// command is what the parent asks for, one JSON object per line.
type command struct {
	Do     string         // push, stats, touched, settled, profile, heap
	Event  *journal.Event `json:",omitempty"`
	Commit string         `json:",omitempty"`
	Path   string         `json:",omitempty"` // of a profile; "" ends one
	Reset  bool           `json:",omitempty"`
}

// answer is what the child answers, one line for each command.
type answer struct {
	Error        string
	CPU          float64 // seconds, with git
	Requests     requests
	Touched      map[string]int // events by application
	RenderEvents int            // in the journal since the start
	Renders      *int64         // nil where the engine does not count
	Goroutines   int
	HeapMiB      float64
}

// engineChild is the engine in a process of its own, driven over its standard
// input. It ends when that ends.
type engineChild struct {
	engine  *gitops.Engine
	journal *journal.Journal
	counter counter
	first   int64 // event before the start
	profile *os.File
}

// repository implements gitops.Repositories with the one there is.
type repository struct{ repo *git.Repository }

func (r repository) Open(_ context.Context, url string) (*git.Repository, string, error) {
	if url != repoURL {
		return nil, "", fmt.Errorf("no repository %s", url)
	}
	return r.repo, repoName, nil
}

func runEngine(ctx context.Context, o engineOptions, in io.Reader, out io.Writer) (err error) {
	c := &engineChild{}
	if err := c.profileTo(o.Profile); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.profileTo("")) }()
	repo, err := git.Open(o.Repository)
	if err != nil {
		return err
	}
	defer repo.Close()
	if c.journal, err = journal.Open(ctx, o.Journal); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.journal.Close()) }()
	if c.first, err = c.journal.Last(ctx); err != nil {
		return err
	}
	level := slog.LevelError
	if o.Verbose {
		level = slog.LevelDebug
	}
	config := o.Access.config()
	c.counter = counter{mu: &sync.Mutex{}, sum: &requests{Apps: map[string]int{}}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return counter{next, c.counter.mu, c.counter.sum}
	})
	renders, err := saved.Open(ctx, filepath.Join(filepath.Dir(o.Journal), "renders.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, renders.Close()) }()
	go func() { _ = renders.Run(ctx) }()
	c.engine, err = gitops.New(gitops.Config{MaxParallel: o.Parallel}, gitops.Deps{
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), Journal: c.journal, Rest: config, Repositories: repository{repo}, Saved: renders,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- c.engine.Run(ctx)
	}()
	err = c.serve(ctx, in, out)
	cancel()
	return errors.Join(err, <-done)
}

// serve answers commands until in or ctx ends.
func (c *engineChild) serve(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- append([]byte(nil), s.Bytes()...):
			case <-ctx.Done():
				return
			}
		}
	}()
	enc := json.NewEncoder(out)
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			var cmd command
			var a answer
			err := json.Unmarshal(line, &cmd)
			if err == nil {
				a, err = c.do(ctx, cmd)
			}
			if err != nil {
				a.Error = err.Error()
			}
			if err := enc.Encode(a); err != nil {
				return err
			}
		}
	}
}

func (c *engineChild) do(ctx context.Context, cmd command) (a answer, err error) {
	switch cmd.Do {
	case "push":
		_, err = c.journal.Append(ctx, *cmd.Event)
		return a, err
	case "stats":
		return c.stats(ctx, cmd.Reset)
	case "touched":
		a.Touched, err = c.touched(ctx, cmd.Commit)
		return a, err
	case "settled":
		return a, c.settled(ctx, cmd.Commit)
	case "profile":
		return a, c.profileTo(cmd.Path)
	case "heap":
		return a, heapTo(cmd.Path)
	}
	return a, fmt.Errorf("unknown command %q", cmd.Do)
}

func (c *engineChild) stats(ctx context.Context, reset bool) (answer, error) {
	a := answer{CPU: usedCPU() + childrenCPU(), Requests: c.counter.take(reset), Goroutines: runtime.NumGoroutine()}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	a.HeapMiB = float64(m.HeapAlloc) / (1 << 20)
	if counts, ok := any(c.engine).(interface{ Renders() int64 }); ok {
		n := counts.Renders()
		a.Renders = &n
	}
	events, err := c.journal.Events(ctx, journal.Query{After: c.first, Stages: []journal.Stage{journal.StageRender}, Statuses: []journal.Status{journal.StatusSucceeded, journal.StatusFailed}, Limit: 10_000})
	a.RenderEvents = len(events)
	return a, err
}

// touched counts the events of a commit by application, without the push.
func (c *engineChild) touched(ctx context.Context, commit string) (map[string]int, error) {
	out := map[string]int{}
	q := journal.Query{After: c.first, Commit: commit, Limit: 10_000}
	for {
		events, err := c.journal.Events(ctx, q)
		if err != nil || len(events) == 0 {
			return out, err
		}
		for _, e := range events {
			if e.Stage != journal.StagePush {
				out[e.Subject]++
			}
		}
		q.After = events[len(events)-1].ID
	}
}

// settled returns when this process compared every application at the commit
// and found it in sync.
func (c *engineChild) settled(ctx context.Context, commit string) error {
	select {
	case <-c.engine.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	apps := c.engine.Applications()
	for _, v := range apps.List() {
		name := v.Application.Name
		if _, err := apps.Wait(ctx, home, name, func(v application.View) bool {
			if v.Commit != commit || v.Application.Status.Sync.Status != v1alpha1.SyncSynced {
				return false
			}
			_, err := apps.Diff(ctx, home, name) // an error until it was compared
			return err == nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// profileTo ends the CPU profile and starts one in a file, unless path is "".
func (c *engineChild) profileTo(path string) error {
	if c.profile != nil {
		pprof.StopCPUProfile()
		err := c.profile.Close()
		c.profile = nil
		if err != nil {
			return err
		}
	}
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	c.profile = f
	return pprof.StartCPUProfile(f)
}

// heapTo writes a profile of the heap after a collection.
func heapTo(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	runtime.GC()
	return pprof.Lookup("heap").WriteTo(f, 0)
}

// child is the parent's end of an engineChild.
type child struct {
	process
	mu  sync.Mutex
	out *bufio.Reader
}

// ask sends a command and returns the answer.
func (c *child) ask(cmd command) (answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var a answer
	if err := json.NewEncoder(c.stdin).Encode(cmd); err != nil {
		return a, fmt.Errorf("the engine ended: %w", err)
	}
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("the engine ended: %w", err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, fmt.Errorf("engine: %s: %s", cmd.Do, a.Error)
	}
	return a, nil
}

// quiet returns when the engine made no request for half a second and uses
// next to no CPU, or after a limit.
func (c *child) quiet(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last, err := c.ask(command{Do: "stats"})
	for err == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var now answer
		now, err = c.ask(command{Do: "stats"})
		if now.Requests.Total == last.Requests.Total && now.CPU-last.CPU < 0.03 {
			return nil
		}
		last = now
	}
	return err
}
