package platform

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// apps shows the GitOps engine's applications.
type apps struct{ s *system }

// engine is the engine's door, or why there is none yet.
func (a apps) engine() (*application.Controller, error) {
	engine := a.s.node.gitops()
	if engine == nil {
		return nil, &server.Problem{Status: 503, Title: "the GitOps engine is still starting", Hint: "lockstep status"}
	}
	return engine.Applications(), nil
}

// images are those that each application uses; nothing while the engine starts.
func (a apps) images() map[string][]string {
	engine := a.s.node.gitops()
	if engine == nil {
		return nil
	}
	out := map[string][]string{}
	for _, v := range engine.Applications().List() {
		out[v.Application.Namespace+"/"+v.Application.Name] = v.Application.Status.Summary.Images
	}
	return out
}

// List implements server.Apps.
func (a apps) List(context.Context) ([]server.App, error) {
	engine, err := a.engine()
	if err != nil {
		return nil, err
	}
	var list []server.App
	for _, v := range engine.List() {
		app := appOf(v)
		app.Resources = nil
		list = append(list, app)
	}
	return list, nil
}

// Get implements server.Apps.
func (a apps) Get(ctx context.Context, namespace, name string) (server.App, error) {
	engine, err := a.engine()
	if err != nil {
		return server.App{}, err
	}
	v, err := engine.Get(ctx, namespace, name)
	if err != nil {
		return server.App{}, notFound(err)
	}
	return appOf(v), nil
}

// Diff implements server.Apps.
func (a apps) Diff(ctx context.Context, namespace, name string) ([]server.Change, error) {
	engine, err := a.engine()
	if err != nil {
		return nil, err
	}
	objects, err := engine.Diff(ctx, namespace, name)
	if err != nil {
		return nil, notFound(err)
	}
	return changesOf(objects), nil
}

func changesOf(objects []application.ObjectDiff) []server.Change {
	var changes []server.Change
	for _, o := range objects {
		if o.Action == plan.None {
			continue // only differences that do not count
		}
		action := string(o.Action)
		if o.Action == plan.Prune {
			action = "delete"
		}
		changes = append(changes, server.Change{Action: action, Group: o.Group, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name,
			Diff: o.Text, Why: why(o)})
	}
	return changes
}

// why says in one line what an object's differences are about.
func why(o application.ObjectDiff) string {
	switch {
	case o.Refused != "":
		return "the API server does not take it: " + o.Refused
	case o.Kept != "":
		return o.Kept
	case len(o.Differences) == 0:
		return o.Place
	}
	var lines []string
	for _, d := range o.Differences {
		line := d.Path + ": " + d.Why
		if d.Manager != "" {
			line += " (live value by " + d.Manager + ")"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// Sync implements server.Apps.
func (a apps) Sync(ctx context.Context, namespace, name string, o server.SyncOptions) error {
	engine, err := a.engine()
	if err != nil {
		return err
	}
	options := application.SyncOptions{Revision: o.Revision, Prune: o.Prune, Actor: forgeUser, Force: o.Force, NoHooks: o.NoHooks}
	for _, r := range o.Resources {
		options.Resources = append(options.Resources, v1alpha1.SyncResource{Group: r.Group, Kind: r.Kind, Name: r.Name, Namespace: r.Namespace})
	}
	return notFound(engine.Sync(ctx, namespace, name, options))
}

// Refresh implements server.Apps.
func (a apps) Refresh(ctx context.Context, namespace, name string, hard bool) error {
	engine, err := a.engine()
	if err != nil {
		return err
	}
	return notFound(engine.Refresh(ctx, namespace, name, hard))
}

// notFound gives the engine's errors the server's words.
func notFound(err error) error {
	var refusal *application.Refusal
	if errors.As(err, &refusal) {
		status := http.StatusUnprocessableEntity
		if refusal.Busy {
			status = http.StatusConflict
		}
		return &server.Problem{Status: status, Title: refusal.Message, Hint: refusal.Hint}
	}
	if errors.Is(err, application.ErrNotFound) {
		return fmt.Errorf("%w: %w", server.ErrNotFound, err)
	}
	return err
}

// appOf turns the engine's view into the server's.
func appOf(v application.View) server.App {
	a := v.Application
	source := a.Spec.Source
	if source == nil && len(a.Spec.Sources) > 0 {
		source = a.Spec.Sources[0]
	}
	out := server.App{
		Namespace: a.Namespace, Name: a.Name, Project: a.Spec.Project,
		Sync: orUnknown(string(a.Status.Sync.Status)), Health: orUnknown(string(a.Status.Health.Status)),
		Wanted: v.Commit, Syncing: v.Syncing || a.Operation != nil, Paused: v.Paused, Held: v.Held, RetryAt: v.RetryAt, Images: a.Status.Summary.Images, URLs: a.Status.Summary.ExternalURLs,
	}
	if source != nil {
		out.RepoURL, out.Path, out.Revision = source.RepoURL, source.Path, source.TargetRevision
	}
	if op := a.Status.OperationState; op != nil && op.SyncResult != nil && op.Phase == v1alpha1.PhaseSucceeded {
		out.Commit = op.SyncResult.Revision
	}
	if out.Sync == string(v1alpha1.SyncSynced) {
		out.Commit = a.Status.Sync.Revision
	}
	out.Message = message(v)
	if t := a.Status.Health.LastTransitionTime; t != nil {
		out.Changed = t.Time
	}
	for _, r := range a.Status.Resources {
		item := server.Resource{Group: r.Group, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Sync: string(r.Status)}
		if r.Health != nil {
			item.Health, item.Message = string(r.Health.Status), r.Health.Message
		}
		out.Resources = append(out.Resources, item)
	}
	return out
}

// message is the first of: a condition, what a sync waits for, how the last
// one failed, what makes the health bad.
func message(v application.View) string {
	status := v.Application.Status
	for _, c := range status.Conditions {
		return c.Message
	}
	if v.Syncing && v.Waiting != "" {
		return v.Waiting
	}
	if op := status.OperationState; op != nil && op.Phase != v1alpha1.PhaseSucceeded && op.Message != "" {
		return op.Message
	}
	if status.Health.Message != "" {
		return status.Health.Message
	}
	for _, r := range status.Resources {
		if r.Health != nil && r.Health.Status != v1alpha1.HealthHealthy && r.Health.Message != "" {
			return r.Kind + " " + r.Name + ": " + r.Health.Message
		}
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "Unknown"
	}
	return s
}
