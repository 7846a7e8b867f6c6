// Package servertest is a platform for tests and demonstrations: a real server
// and a real journal around parts that only hold data.
//
// Input: the fields of [Platform], which a test changes as it likes. Output:
// [Platform.Deps] for server.New, and in Calls what the server asked the parts
// to do. Start reading at [New].
package servertest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// The commits of the story that [Platform.Play] tells.
const (
	Source    = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
	WriteBack = "5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80"
	Broken    = "9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c"
)

// Start is when the story begins.
var Start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// Platform holds what the parts answer.
type Platform struct {
	Journal   *journal.Journal
	Now       func() time.Time
	Info      server.Platform
	Apps      []server.App
	Changes   []server.Change
	History   []server.HistoryEntry
	Manifests []server.Manifest
	Nodes     []server.Node
	Actions   []server.ObjectActions
	// Refusal is what every change of an application fails with, where set.
	Refusal    error
	Runs       []server.Run
	Components []server.Component
	Secrets    []server.Secret
	Images     []server.Image
	// ImportError is what every import fails with, where it is set.
	ImportError error
	// RunLog and ComponentLog are the text of every log. A followed log goes
	// on until its reader is closed.
	RunLog, ComponentLog string

	mu    sync.Mutex
	calls []string
}

// New describes a small platform that stands well, 10 minutes after Start.
func New(j *journal.Journal) *Platform {
	at := func(seconds float64) time.Time { return Start.Add(time.Duration(seconds * float64(time.Second))) }
	return &Platform{
		Journal: j,
		Now:     func() time.Time { return at(600) },
		Info: server.Platform{Name: "lockstep", Version: "v0.1.0", State: "ready", Started: at(-3600), KubeContext: "lockstep",
			URLs: map[string]string{"page": "http://localhost:8080", "forge": "http://github.localhost:8080"},
			Steps: []server.Step{{Name: "forge", Started: at(-3600), Ended: at(-3599.8)},
				{Name: "node Ready", Started: at(-3599), Ended: at(-3580.6)}}},
		Apps: []server.App{
			{Namespace: "argocd", Name: "storefront", Project: "default", RepoURL: "https://github.com/contoso/storefront",
				Path: "deploy/overlays/local", Revision: "main", Sync: "Synced", Health: "Healthy", Commit: WriteBack, Wanted: WriteBack,
				URLs: []string{"http://10.40.64.1"}, Images: []string{"storefront.azurecr.io/storefront@sha256:4f53cda1"}, Changed: at(21.4),
				Resources: []server.Resource{{Group: "apps", Kind: "Deployment", Namespace: "storefront", Name: "web", Sync: "Synced", Health: "Healthy"},
					{Kind: "Service", Namespace: "storefront", Name: "web", Sync: "Synced", Health: "Healthy"}}},
			{Namespace: "argocd", Name: "ledger", Project: "default", RepoURL: "https://github.com/contoso/ledger", Path: "deploy", Revision: "main",
				Sync: "OutOfSync", Health: "Degraded", Commit: Source, Wanted: Broken, Changed: at(300),
				Message: "deploy/kustomization.yaml:7: no such file ../base", Hint: "add the file, or take it out of resources"},
		},
		Changes: []server.Change{{Action: "update", Group: "apps", Kind: "Deployment", Namespace: "storefront", Name: "web",
			Diff: "--- live\n+++ wanted\n@@ spec @@\n-  replicas: 1\n+  replicas: 2\n", Why: "field owned by lockstep"}},
		History: []server.HistoryEntry{
			{ID: 1, Revisions: []string{WriteBack}, Deployed: at(17.1), Seconds: 0.5, Automated: true, Subject: "Pin storefront to sha256:4f53cda1", Author: "github-actions[bot]", Current: true},
			{ID: 0, Revisions: []string{Source}, Deployed: at(-3000), Seconds: 2, Actor: "alice", Subject: "First version", Author: "Alice"},
		},
		Manifests: []server.Manifest{{Place: "deploy/base/service.yaml:1",
			Object: map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "web", "namespace": "storefront"}}}},
		Nodes: []server.Node{{Resource: server.Resource{Group: "apps", Kind: "Deployment", Namespace: "storefront", Name: "web", Health: "Healthy"}, Created: at(-600),
			Children: []server.Node{{Resource: server.Resource{Group: "apps", Kind: "ReplicaSet", Namespace: "storefront", Name: "web-5d6e", Health: "Healthy"}, Created: at(17),
				Children: []server.Node{{Resource: server.Resource{Kind: "Pod", Namespace: "storefront", Name: "web-5d6e-x", Health: "Healthy"}, Created: at(18)}}}}}},
		Actions: []server.ObjectActions{{ObjectRef: server.ObjectRef{Group: "apps", Kind: "Deployment", Namespace: "storefront", Name: "web"},
			Actions: []server.Action{{Name: "resume", Disabled: true}, {Name: "restart"}, {Name: "scale", Params: []server.ActionParam{{Name: "replicas", Default: "2"}}}}}},
		Runs: []server.Run{
			{ID: 2, Number: 2, Repo: "contoso/storefront", Workflow: "ci.yaml", Name: "ci", Title: "Break the test", Event: "push", Ref: "refs/heads/main", Commit: Broken,
				Actor: "alice", Status: "completed", Conclusion: "failure", Created: at(300), Started: at(300.4), Ended: at(304.2),
				Message: "go test ./... ended with exit code 1", File: ".github/workflows/ci.yaml", Line: 14, Hint: "run go test ./... in your checkout"},
			{ID: 1, Number: 1, Repo: "contoso/storefront", Workflow: "ci.yaml", Name: "ci", Title: "Say hello in the banner", Event: "push", Ref: "refs/heads/main",
				Commit: Source, Actor: "alice", Status: "completed", Conclusion: "success", Created: at(0.2), Started: at(0.4), Ended: at(16.1),
				Jobs: []server.Job{{ID: "build", Name: "build", Status: "completed", Conclusion: "success", Started: at(0.5), Ended: at(16),
					Steps: []server.JobStep{{Number: 1, Name: "Check out", Status: "completed", Conclusion: "success", Started: at(0.6), Ended: at(0.9)},
						{Number: 2, Name: "Build the image", Status: "completed", Conclusion: "success", Started: at(0.9), Ended: at(15.2)}}}}},
		},
		Components: []server.Component{
			{Name: "kubelet", State: "running", PID: 4242, Since: at(-3590)},
			{Name: "buildkitd", State: "restarting", Restarts: 2, Since: at(590), Reason: "exit status 1: snapshotter overlayfs is not supported", Hint: "its log: lockstep logs buildkitd"},
		},
		Secrets: []server.Secret{{Vault: "storefront-kv", Name: "db-password", Version: "0d1f", Versions: 3, Updated: at(-60), Enabled: true},
			{Repo: "contoso/storefront", Name: "DEPLOY_KEY", Updated: at(-90), Enabled: true}},
		Images: []server.Image{{Host: "docker.io", Repository: "library/golang", Tags: []string{"1", "1.26"}},
			{Host: "storefront.azurecr.io", Repository: "storefront", Tags: []string{"1a2b3c4", "2b3c4d5", "3c4d5e6", "4d5e6f7", "5d6e7f8"}}},
		RunLog:       "build  Check out\nbuild  Build the image\n",
		ComponentLog: "I1123 12:00:00 kubelet.go:1] started\n",
	}
}

// Play appends the story: a change that arrives, and one whose test fails.
func (p *Platform) Play(ctx context.Context) error {
	for _, e := range Story() {
		if _, err := p.Journal.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// Story is the events of the two changes.
func Story() []journal.Event {
	event := func(seconds float64, commit string, stage journal.Stage, status journal.Status, subject, message string, data ...string) journal.Event {
		e := journal.Event{Time: Start.Add(time.Duration(seconds * float64(time.Second))), Repo: "contoso/storefront", Commit: commit,
			Stage: stage, Status: status, Subject: subject, Message: message, Data: map[string]string{}}
		for pair := range slices.Chunk(data, 2) {
			e.Data[pair[0]] = pair[1]
		}
		return e
	}
	const (
		started, succeeded, failed = journal.StatusStarted, journal.StatusSucceeded, journal.StatusFailed
		app, image                 = "argocd/storefront", "storefront.azurecr.io/storefront"
	)
	broken := event(304, Broken, journal.StageRun, failed, "ci.yaml/test", `go test ./... ended with exit code 1: FAIL: TestBanner: got "Helo", want "Hello"`, "run", "2")
	broken.File, broken.Line, broken.Hint = ".github/workflows/ci.yaml", 14, "run go test ./... in your checkout"
	return []journal.Event{
		event(0, Source, journal.StagePush, succeeded, "refs/heads/main", "Say hello in the banner", "actor", "alice", "ref", "refs/heads/main"),
		event(0.4, Source, journal.StageRun, started, "ci.yaml", "", "run", "1"),
		event(0.5, Source, journal.StageRun, started, "ci.yaml/build", "", "run", "1"),
		event(1, Source, journal.StageImage, started, image, ""),
		event(15.2, Source, journal.StageImage, succeeded, image, "", "digest", "sha256:4f53cda1"),
		event(15.9, WriteBack, journal.StagePush, succeeded, "refs/heads/main", "Pin storefront to sha256:4f53cda1", "actor", "github-actions[bot]", "ref", "refs/heads/main", "cause", Source),
		event(16, Source, journal.StageRun, succeeded, "ci.yaml/build", "", "run", "1"),
		event(16.1, Source, journal.StageRun, succeeded, "ci.yaml", "", "run", "1"),
		event(16.2, WriteBack, journal.StageRender, started, app, ""),
		event(16.5, WriteBack, journal.StageRender, succeeded, app, ""),
		event(16.5, WriteBack, journal.StagePlan, started, app, ""),
		event(16.6, WriteBack, journal.StagePlan, succeeded, app, "1 to change"),
		event(16.6, WriteBack, journal.StageApply, started, app, ""),
		event(17.1, WriteBack, journal.StageApply, succeeded, app, ""),
		event(17.1, WriteBack, journal.StageReady, started, app, ""),
		event(21.4, WriteBack, journal.StageReady, succeeded, app, ""),
		event(300, Broken, journal.StagePush, succeeded, "refs/heads/main", "Break the test", "actor", "alice", "ref", "refs/heads/main"),
		event(300.4, Broken, journal.StageRun, started, "ci.yaml", "", "run", "2"),
		event(300.5, Broken, journal.StageRun, started, "ci.yaml/test", "", "run", "2"),
		broken,
		event(304.2, Broken, journal.StageRun, failed, "ci.yaml", "job test failed", "run", "2"),
	}
}

// Deps are the parts for server.New.
func (p *Platform) Deps() server.Deps {
	return server.Deps{
		Log: slog.New(slog.DiscardHandler), Journal: p.Journal, Now: p.Now,
		Platform: func() server.Platform { return p.Info },
		Apps:     apps{p}, Runs: runs{p}, Components: components{p}, Secrets: secrets{p}, Images: images{p},
		Shutdown: func() { p.called("shutdown") },
	}
}

// Calls are the changes that were asked for, in order.
func (p *Platform) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *Platform) called(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprintf(format, args...))
}

type apps struct{ p *Platform }

func (a apps) List(context.Context) ([]server.App, error) {
	list := slices.Clone(a.p.Apps)
	for i := range list {
		list[i].Resources = nil
	}
	return list, nil
}

func (a apps) Get(_ context.Context, namespace, name string) (server.App, error) {
	for _, app := range a.p.Apps {
		if app.Namespace == namespace && app.Name == name {
			return app, nil
		}
	}
	return server.App{}, fmt.Errorf("application %s/%s: %w", namespace, name, server.ErrNotFound)
}

func (a apps) Diff(ctx context.Context, namespace, name string) ([]server.Change, error) {
	_, err := a.Get(ctx, namespace, name)
	return a.p.Changes, err
}

func (a apps) Sync(ctx context.Context, namespace, name string, o server.SyncOptions) error {
	text := fmt.Sprintf("sync %s/%s prune=%v revision=%s", namespace, name, o.Prune, o.Revision)
	if o.Force || o.NoHooks || len(o.Resources) > 0 {
		text += fmt.Sprintf(" force=%v noHooks=%v resources=%v", o.Force, o.NoHooks, o.Resources)
	}
	return a.change(ctx, namespace, name, text)
}

// change notes what was asked for of an application.
func (a apps) change(ctx context.Context, namespace, name, what string) error {
	a.p.called("%s", what)
	if _, err := a.Get(ctx, namespace, name); err != nil {
		return err
	}
	return a.p.Refusal
}

func (a apps) verb(ctx context.Context, verb, namespace, name string, more ...any) error {
	return a.change(ctx, namespace, name, strings.TrimSpace(fmt.Sprintln(append([]any{verb, namespace + "/" + name}, more...)...)))
}

func (a apps) Refresh(ctx context.Context, namespace, name string, hard bool) error {
	return a.verb(ctx, "refresh", namespace, name, fmt.Sprintf("hard=%v", hard))
}

func (a apps) Plan(ctx context.Context, namespace, name string, at server.At) ([]server.Change, error) {
	_, err := a.Get(ctx, namespace, name)
	return a.p.Changes, err
}

func (a apps) Manifests(ctx context.Context, namespace, name string, _ server.At) ([]server.Manifest, error) {
	_, err := a.Get(ctx, namespace, name)
	return a.p.Manifests, err
}

func (a apps) Tree(ctx context.Context, namespace, name string) ([]server.Node, error) {
	_, err := a.Get(ctx, namespace, name)
	return a.p.Nodes, err
}

func (a apps) History(ctx context.Context, namespace, name string) ([]server.HistoryEntry, error) {
	_, err := a.Get(ctx, namespace, name)
	return a.p.History, err
}

func (a apps) Rollback(ctx context.Context, namespace, name string, o server.RollbackOptions) (server.RolledBack, error) {
	id := int64(0)
	if o.History != nil {
		id = *o.History
	}
	out := server.RolledBack{Skipped: []string{WriteBack}}
	for _, e := range a.p.History {
		if e.ID == id {
			out.Entry = e
		}
	}
	if o.DryRun {
		out.Changes = a.p.Changes
		_, err := a.Get(ctx, namespace, name)
		return out, err
	}
	return out, a.verb(ctx, "rollback", namespace, name, fmt.Sprintf("to=%d prune=%v", id, o.Prune))
}

func (a apps) Unhold(ctx context.Context, namespace, name string) error {
	return a.verb(ctx, "unhold", namespace, name)
}

func (a apps) Terminate(ctx context.Context, namespace, name string) error {
	return a.verb(ctx, "terminate", namespace, name)
}

func (a apps) Pause(ctx context.Context, namespace, name, reason string) error {
	return a.verb(ctx, "pause", namespace, name, reason)
}

func (a apps) Resume(ctx context.Context, namespace, name string) error {
	return a.verb(ctx, "resume", namespace, name)
}

func (a apps) Confirm(ctx context.Context, namespace, name string) error {
	return a.verb(ctx, "confirm", namespace, name)
}

func (a apps) Actions(ctx context.Context, namespace, name string, _ server.ObjectRef) ([]server.ObjectActions, error) {
	_, err := a.Get(ctx, namespace, name)
	return a.p.Actions, err
}

func (a apps) RunAction(ctx context.Context, namespace, name string, r server.RunAction) error {
	return a.verb(ctx, r.Action, namespace, name, r.Group, r.Kind, r.Namespace, r.Name, r.Params)
}

func (a apps) DeleteObject(ctx context.Context, namespace, name string, o server.ObjectRef, propagation string) error {
	return a.verb(ctx, "delete", namespace, name, o.Group, o.Kind, o.Namespace, o.Name, propagation)
}

type runs struct{ p *Platform }

func (r runs) List(_ context.Context, q server.RunQuery) ([]server.Run, error) {
	var out []server.Run
	for _, run := range r.p.Runs {
		if (q.Repo == "" || q.Repo == run.Repo) && strings.HasPrefix(run.Commit, q.Commit) && (q.Before == 0 || run.ID < q.Before) && len(out) < q.Limit {
			run.Jobs = nil
			out = append(out, run)
		}
	}
	return out, nil
}

func (r runs) Get(_ context.Context, id int64) (server.Run, error) {
	for _, run := range r.p.Runs {
		if run.ID == id {
			return run, nil
		}
	}
	return server.Run{}, fmt.Errorf("run %d: %w", id, server.ErrNotFound)
}

func (r runs) Log(ctx context.Context, id int64, o server.RunLogOptions) (io.ReadCloser, error) {
	if _, err := r.Get(ctx, id); err != nil {
		return nil, err
	}
	return io.NopCloser(strings.NewReader(r.p.RunLog)), nil
}

func (r runs) Cancel(_ context.Context, id int64) error {
	r.p.called("cancel %d", id)
	return nil
}

func (r runs) Rerun(_ context.Context, id int64, onlyFailed bool) (int64, error) {
	r.p.called("rerun %d failed=%v", id, onlyFailed)
	return id + 100, nil
}

func (r runs) ForceCancel(_ context.Context, id int64) error {
	r.p.called("cancel %d by force", id)
	return nil
}

func (r runs) Review(_ context.Context, id int64, review server.RunReview) ([]string, error) {
	if id != 2 {
		return nil, &server.Problem{Status: 409, Title: fmt.Sprintf("no job of run %d waits for an environment", id), Hint: "lockstep run view"}
	}
	r.p.called("review %d approve=%v %q", id, review.Approve, review.Comment)
	return []string{"deploy"}, nil
}

func (r runs) Dispatch(_ context.Context, d server.RunDispatch) (int64, error) {
	r.p.called("dispatch %s %s %s %v", d.Repo, d.Workflow, d.Ref, d.Inputs)
	return 103, nil
}

type components struct{ p *Platform }

func (c components) List(context.Context) ([]server.Component, error) { return c.p.Components, nil }

func (c components) Log(_ context.Context, name string, o server.LogOptions) (io.ReadCloser, error) {
	if !slices.ContainsFunc(c.p.Components, func(c server.Component) bool { return c.Name == name }) {
		return nil, fmt.Errorf("component %s: %w", name, server.ErrNotFound)
	}
	if !o.Follow {
		return io.NopCloser(strings.NewReader(c.p.ComponentLog)), nil
	}
	r, w := io.Pipe()
	go func() { _, _ = io.WriteString(w, c.p.ComponentLog) }() // ends when the reader is closed
	return r, nil
}

type secrets struct{ p *Platform }

func (s secrets) List(context.Context) ([]server.Secret, error) { return s.p.Secrets, nil }

func (s secrets) Set(_ context.Context, vault, name string, value []byte) (string, error) {
	s.p.called("set %s/%s to %d bytes", vault, name, len(value))
	return "0d20", nil
}

func (s secrets) SetRepo(_ context.Context, repo, name string, value []byte) error {
	s.p.called("set %s %s to %d bytes", repo, name, len(value))
	return nil
}

type images struct{ p *Platform }

func (i images) List(context.Context) ([]server.Image, error) { return i.p.Images, nil }

func (i images) Show(_ context.Context, reference string) (server.ImageDetail, error) {
	const name = "storefront.azurecr.io/storefront"
	if !strings.HasPrefix(reference, name) {
		return server.ImageDetail{}, &server.Problem{Status: 404, Title: "there is no image " + reference, Hint: "lockstep image list"}
	}
	return server.ImageDetail{
		Reference: reference, Host: "storefront.azurecr.io", Repository: "storefront", Digest: "sha256:" + strings.Repeat("4f", 32),
		MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 4_200_000, Created: i.p.Now(), Platforms: []string{"linux/amd64"}, Tags: []string{"v1"},
		Builds: []server.ImageBuild{{Repo: "contoso/storefront", Commit: Source, Time: i.p.Now(), Run: "http://github.localhost/contoso/storefront/actions/runs/1"}},
		Attestations: []server.ImageAttestation{
			{Type: "https://slsa.dev/provenance/v1", Key: "k", Verified: true},
			{Type: "https://spdx.dev/Document", Key: "other", Why: "not signed by key k"},
		},
		Packages: 12, Applications: []string{"argocd/storefront-dev"},
	}, nil
}

func (i images) Import(_ context.Context, file, reference string) (string, error) {
	if i.p.ImportError != nil {
		return "", i.p.ImportError
	}
	i.p.called("import %s from %s", reference, file)
	return "sha256:4f53cda1", nil
}
