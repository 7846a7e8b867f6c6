//go:build linux

// Package gitopstest runs the engine against a real API server without a node.
//
// Input: what [plane] needs. Output: [Repo], a bare repository whose commits
// are announced in the journal as the forge would; [World], a control plane
// with an engine.
//
// Start reading at [NewWorld].
package gitopstest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// World is a cluster with an engine and repositories.
type World struct {
	*plane.Cluster
	T       testing.TB // of the running test; failures go here
	base    testing.TB // of the whole world; directories live as long
	state   string     // of the engine
	Journal *journal.Journal
	Engine  *gitops.Engine
	// Wrap stands between the engine and the API server, nil for nothing. It
	// counts from the next StartEngine on.
	Wrap func(http.RoundTripper) http.RoundTripper

	mu    sync.Mutex
	repos map[string]*Repo
	stop  func()
	told  func(r *Repo, before string) // takes pushes instead of the journal, nil for none
}

// Timeout bounds each wait of a test.
const Timeout = 30 * time.Second

// NewWorld starts everything; it ends with the test.
func NewWorld(t testing.TB) *World {
	t.Helper()
	w := &World{Cluster: plane.StartCluster(t), T: t, base: t, state: t.TempDir(), repos: map[string]*Repo{}}
	j, err := journal.Open(t.Context(), filepath.Join(t.TempDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	w.Journal = j
	w.StartEngine()
	t.Cleanup(func() { w.StopEngine() })
	return w
}

// StartEngine starts an engine and waits until it is ready.
func (w *World) StartEngine() {
	w.T.Helper()
	config := rest.CopyConfig(w.Config)
	config.WrapTransport = w.Wrap
	engine, err := gitops.New(gitops.Config{}, gitops.Deps{
		Log: slog.New(slog.NewTextHandler(logWriter{w.base}, nil)), Journal: w.Journal, Rest: config, Repositories: w, StateDir: w.state,
	})
	if err != nil {
		w.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	select {
	case <-engine.Ready():
	case err := <-done:
		w.T.Fatalf("the engine ended: %v", err)
	case <-time.After(Timeout):
		w.T.Fatal("the engine is not ready")
	}
	w.Engine = engine
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.T.Errorf("the engine ended: %v", err)
		}
	}
}

// StopEngine ends the engine and waits for it.
func (w *World) StopEngine() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

type logWriter struct{ t testing.TB }

func (l logWriter) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// Open implements gitops.Repositories: "https://github.com/owner/name".
func (w *World) Open(_ context.Context, repoURL string) (*git.Repository, string, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(repoURL, "https://github.com/"), ".git")
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.repos[name]
	if !ok {
		return nil, "", fmt.Errorf("no repository %s", name)
	}
	return r.git, name, nil
}

// Repo is a repository with one branch, main.
type Repo struct {
	w     *World
	Name  string
	git   *git.Repository
	files map[string]string // "-> target" is a symbolic link
	head  string
}

// linkMark begins the content of a file that is a symbolic link.
const linkMark = "-> "

// NewRepo makes an empty repository "owner/name".
func (w *World) NewRepo(name string) *Repo {
	w.T.Helper()
	repo, err := git.Init(w.base.Context(), filepath.Join(w.base.TempDir(), "repo.git"), "main")
	if err != nil {
		w.T.Fatal(err)
	}
	w.base.Cleanup(repo.Close)
	r := &Repo{w: w, Name: name, git: repo, files: map[string]string{}, head: git.ZeroID}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.repos[name] = r
	return r
}

// URL is the address by which Applications name the repository.
func (r *Repo) URL() string { return "https://github.com/" + r.Name }

// Push commits the files over those of the last commit ("" deletes one, "->
// target" makes a symbolic link) and tells the journal. It returns the commit.
func (r *Repo) Push(files map[string]string) string {
	r.w.T.Helper()
	return r.push(files, r.head)
}

// ForcePush is Push of a commit that has no parent.
func (r *Repo) ForcePush(files map[string]string) string {
	r.w.T.Helper()
	return r.push(files, git.ZeroID)
}

func (r *Repo) push(files map[string]string, parent string) string {
	r.w.T.Helper()
	for name, content := range files {
		if content == "" {
			delete(r.files, name)
			continue
		}
		r.files[name] = content
	}
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Ada <ada@contoso.com> %d +0000\ndata 4\ntest\n", time.Now().Unix())
	if parent != git.ZeroID {
		fmt.Fprintf(&in, "from %s\n", parent)
	}
	in.WriteString("deleteall\n")
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		mode, content := "100644", r.files[name]
		if target, ok := strings.CutPrefix(content, linkMark); ok {
			mode, content = "120000", target
		}
		fmt.Fprintf(&in, "M %s inline %s\ndata %d\n%s\n", mode, name, len(content), content)
	}
	ctx := context.Background()
	if _, err := r.git.RunInput(ctx, []byte(in.String()), "fast-import", "--quiet", "--force"); err != nil {
		r.w.T.Fatal(err)
	}
	commit, err := r.git.Resolve(ctx, "refs/heads/main")
	if err != nil {
		r.w.T.Fatal(err)
	}
	before := r.head
	r.head = commit
	r.tell(before)
	return commit
}

// tell puts the move to the head into the journal.
func (r *Repo) tell(before string) {
	r.w.T.Helper()
	if r.w.told != nil {
		r.w.told(r, before)
		return
	}
	if _, err := r.w.Journal.Append(context.Background(), pushEvent(r.Name, before, r.head)); err != nil {
		r.w.T.Fatal(err)
	}
}

func pushEvent(repo, before, commit string) journal.Event {
	return journal.Event{
		Stage: journal.StagePush, Status: journal.StatusSucceeded, Subject: "refs/heads/main", Repo: repo, Commit: commit,
		Data: map[string]string{journal.DataActor: "ada", journal.DataRef: "refs/heads/main", journal.DataBefore: before},
	}
}

// Create puts an object from YAML into the cluster.
func (w *World) Create(resource schema.GroupVersionResource, manifest string) *unstructured.Unstructured {
	w.T.Helper()
	return w.CreateAs("kubectl", resource, manifest)
}

// CreateAs is Create under the name of another field manager.
func (w *World) CreateAs(manager string, resource schema.GroupVersionResource, manifest string) *unstructured.Unstructured {
	w.T.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		w.T.Fatal(err)
	}
	got, err := w.in(resource, o.GetNamespace()).Create(context.Background(), o, metav1.CreateOptions{FieldManager: manager})
	if err != nil {
		w.T.Fatal(err)
	}
	return got
}

func (w *World) in(resource schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return w.Client.Resource(resource)
	}
	return w.Client.Resource(resource).Namespace(namespace)
}

// Application creates an Application with automated sync, prune and selfHeal
// for a path of a repository; more is YAML put below spec.
func (w *World) Application(name string, r *Repo, path, more string) {
	w.T.Helper()
	if more == "" {
		more = "syncPolicy: {automated: {prune: true, selfHeal: true}, syncOptions: [CreateNamespace=true]}"
	}
	w.Create(v1alpha1.ApplicationResource, fmt.Sprintf(`apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: %s, namespace: argocd, finalizers: [resources-finalizer.argocd.argoproj.io]}
spec:
  project: default
  source: {repoURL: %s, targetRevision: main, path: %s}
  destination: {server: https://kubernetes.default.svc, namespace: %s}
  %s
`, name, r.URL(), path, name, strings.ReplaceAll(more, "\n", "\n  ")))
}

// Wait waits until cond holds for an application of the home namespace.
func (w *World) Wait(name, what string, cond func(application.View) bool) application.View {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	v, err := w.Engine.Applications().Wait(ctx, "argocd", name, cond)
	if err != nil {
		s := v.Application.Status
		w.T.Fatalf("waiting for %s: %v\nsync %s at %s, health %s %s, conditions %v, operation %+v\njournal:\n%s",
			what, err, s.Sync.Status, s.Sync.Revision, s.Health.Status, s.Health.Message, s.Conditions, s.OperationState, w.Trace())
	}
	return v
}

// Synced holds when the application is in sync at a commit and nothing runs.
func Synced(commit string) func(application.View) bool {
	return func(v application.View) bool {
		s := v.Application.Status
		return v.Commit == commit && s.Sync.Status == v1alpha1.SyncSynced && !v.Syncing && s.OperationState != nil && s.OperationState.Phase == v1alpha1.PhaseSucceeded
	}
}

// Get reads an object, nil when there is none.
func (w *World) Get(resource schema.GroupVersionResource, namespace, name string) *unstructured.Unstructured {
	o, err := w.in(resource, namespace).Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return o
}

// Eventually waits for a condition of the cluster.
func (w *World) Eventually(what string, cond func() bool) {
	w.T.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(Timeout)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			w.T.Fatalf("waiting for %s\njournal:\n%s", what, w.Trace())
		}
	}
}

// Events returns the events of a stage at a commit, as "status message".
func (w *World) Events(commit string, stage journal.Stage, app string) []journal.Event {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	if err := w.Engine.Applications().Flush(ctx); err != nil {
		w.T.Fatal(err)
	}
	events, err := w.Journal.Events(context.Background(), journal.Query{Commit: commit, Stages: []journal.Stage{stage}, Subject: app})
	if err != nil {
		w.T.Fatal(err)
	}
	return events
}

// Trace is the whole journal, for failures.
func (w *World) Trace() string {
	events, err := w.Journal.Events(context.Background(), journal.Query{Newest: true, Limit: 60})
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%s %.7s %-7s %-10s %s %s %s:%d\n", e.Time.Format("05.000"), e.Commit, e.Stage, e.Status, e.Subject, e.Message, e.File, e.Line)
	}
	return b.String()
}
