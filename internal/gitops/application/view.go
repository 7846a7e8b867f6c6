package application

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// ErrNotFound says that there is no such Application.
var ErrNotFound = errors.New("no such application")

// View is an Application as it is now.
type View struct {
	Application v1alpha1.Application
	Repo        string    // "owner/name", "" while not known
	Commit      string    // that the source names now; the status may name an older one with the same objects
	Syncing     bool      // a sync is under way
	Waiting     string    // what the sync says it does or waits for
	RetryAt     time.Time // of the next automated attempt, zero when none is planned
	Paused      string    // why automated syncs are paused, "" when they are not
	Held        *int64    // the entry of the history that a rollback holds it at, nil for none
}

// Node is a live object and what it owns.
type Node struct {
	plan.Key
	Version  string
	UID      string
	Health   v1alpha1.HealthCode // "" for kinds that have none
	Message  string
	Created  time.Time
	Children []Node
}

// List returns all Applications, sorted by namespace and name.
func (c *Controller) List() []View {
	var out []View
	for _, key := range c.apps.GetStore().ListKeys() {
		if v, err := c.view(key); err == nil {
			out = append(out, v)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i].Application, out[j].Application
		return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
	})
	return out
}

// Get returns one Application, or ErrNotFound.
func (c *Controller) Get(_ context.Context, namespace, name string) (View, error) {
	return c.view(namespace + "/" + name)
}

func (c *Controller) view(key string) (View, error) {
	app, st := c.application(key)
	if app == nil {
		return View{}, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	v := View{Application: *app, Paused: app.Annotations[AnnotationPause]}
	if h := holdOf(app); h != nil {
		v.Held = &h.ID
	}
	if st != nil {
		v.Repo, v.Commit = st.repo(), st.commit()
		st.mu.Lock()
		v.RetryAt = st.retryAt
		if op := st.op; op != nil {
			v.Syncing = true
			op.mu.Lock()
			v.Waiting = op.message
			op.mu.Unlock()
		}
		st.mu.Unlock()
	}
	return v, nil
}

// Tree returns the live objects of an Application with what they own.
func (c *Controller) Tree(_ context.Context, namespace, name string) ([]Node, error) {
	v, err := c.view(namespace + "/" + name)
	if err != nil {
		return nil, err
	}
	cluster, err := c.Clusters.Find(v.Application.Spec.Destination)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", namespace, name, err)
	}
	var out []Node
	for _, o := range cluster.Live.Objects(c.instance(namespace, name)) {
		out = append(out, node(cluster.Live, o, 0))
	}
	sortNodes(out)
	return out, nil
}

// maxDepth bounds how far owners are followed.
const maxDepth = 5

func node(live *observe.Cache, o *observe.Object, depth int) Node {
	n := Node{Key: o.Key, Version: o.Version, UID: string(o.UID), Created: o.Created}
	if s, ok := live.HealthOf(o); ok {
		n.Health, n.Message = s.Code, s.Message
	}
	if depth < maxDepth {
		for _, child := range live.Children(o.UID) {
			n.Children = append(n.Children, node(live, child, depth+1))
		}
		sortNodes(n.Children)
	}
	return n
}

func sortNodes(ns []Node) {
	sort.Slice(ns, func(i, j int) bool { return ns[i].Key.String() < ns[j].Key.String() })
}

// ObjectDiff is one object of a diff.
type ObjectDiff struct {
	plan.Key
	Action      plan.Action
	Place       string // "file:line" of the manifest
	Differences []plan.Difference
	Ignored     []plan.Difference
	Kept        string // why a prune does not happen
	Refused     string // why the API server does not take the object
	Text        string // unified diff, live to source
}

// Diff returns how the live objects differ from the source, as of the last
// comparison. It is empty when they do not.
func (c *Controller) Diff(_ context.Context, namespace, name string) ([]ObjectDiff, error) {
	key := namespace + "/" + name
	v, err := c.view(key)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	var pl *plan.Plan
	if st != nil {
		st.mu.Lock()
		pl = st.plan
		st.mu.Unlock()
	}
	if pl == nil {
		for _, cond := range v.Application.Status.Conditions {
			if cond.Type == v1alpha1.ConditionComparisonError || cond.Type == v1alpha1.ConditionInvalidSpecError {
				return nil, fmt.Errorf("%s cannot be compared: %s", key, cond.Message)
			}
		}
		return nil, fmt.Errorf("%s was not compared yet; try again in a moment", key)
	}
	return diffsOf(pl)
}

func diffsOf(pl *plan.Plan) ([]ObjectDiff, error) {
	var out []ObjectDiff
	for _, ch := range pl.Changes {
		if ch.Action == plan.None && len(ch.Ignored) == 0 {
			continue
		}
		d := ObjectDiff{Key: ch.Key, Action: ch.Action, Place: ch.Place, Differences: ch.Differences, Ignored: ch.Ignored, Kept: ch.Kept}
		if ch.Refused != nil {
			d.Refused = ch.Refused.Error()
		}
		var err error
		if d.Text, err = ch.Text(); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// SyncOptions are those of one sync that somebody asks for.
type SyncOptions struct {
	Revision string // branch, tag or SHA; "" for what the source names
	Prune    bool
	DryRun   bool
	Actor    string
	// Resources restricts the sync to some objects; hooks do not run then.
	Resources []v1alpha1.SyncResource
	Force     bool // delete and create anew what cannot be changed in place
	NoHooks   bool
}

// Sync asks for a sync. It returns when the wish is stored; use Wait for the end.
func (c *Controller) Sync(ctx context.Context, namespace, name string, o SyncOptions) error {
	key := namespace + "/" + name
	v, err := c.view(key)
	if err != nil {
		return err
	}
	const hint = "wait for it, or end it with `lockstep app terminate`"
	if op := v.Application.Operation; op != nil {
		return busy(hint, "%s: a sync that %s asked for waits to be taken up", key, nameOr(op.InitiatedBy.Username, "somebody"))
	}
	if by := c.wisher(key); by != "" {
		return busy(hint, "%s: a sync that %s asked for is under way", key, by)
	}
	wish := v1alpha1.Operation{
		Sync:        &v1alpha1.SyncOperation{Revision: o.Revision, Prune: o.Prune, DryRun: o.DryRun, Resources: o.Resources},
		InitiatedBy: v1alpha1.Initiator{Username: o.Actor},
	}
	switch {
	case o.NoHooks:
		wish.Sync.SyncStrategy = &v1alpha1.SyncStrategy{Apply: &v1alpha1.SyncStrategyApply{Force: o.Force}}
	case o.Force:
		wish.Sync.SyncStrategy = &v1alpha1.SyncStrategy{Hook: &v1alpha1.SyncStrategyApply{Force: true}}
	}
	return c.mergeApp(ctx, namespace, name, map[string]any{"operation": wish})
}

// wisher names who asked for the sync that is under way, "" for none.
func (c *Controller) wisher(key string) string {
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	if st == nil {
		return ""
	}
	st.mu.Lock()
	op := st.op
	st.mu.Unlock()
	if op == nil || op.done() || op.wish.InitiatedBy.Automated {
		return ""
	}
	return nameOr(op.wish.InitiatedBy.Username, "somebody")
}

// Refresh makes the controller look at the source again; hard renders it
// anew as well.
func (c *Controller) Refresh(ctx context.Context, namespace, name string, hard bool) error {
	if _, err := c.view(namespace + "/" + name); err != nil {
		return err
	}
	mode := "normal"
	if hard {
		mode = "hard"
	}
	return c.mergeApp(ctx, namespace, name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{v1alpha1.AnnotationRefresh: mode}}})
}

func (c *Controller) mergeApp(ctx context.Context, namespace, name string, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode the patch: %w", err)
	}
	got, err := c.Client.Resource(v1alpha1.ApplicationResource).Namespace(namespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s/%s: %w", namespace, name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("write application %s/%s: %w", namespace, name, err)
	}
	got.SetManagedFields(nil)
	app := &v1alpha1.Application{}
	if err := v1alpha1.Decode(got, app); err != nil {
		return err
	}
	// Who asked sees at once what was written, as does the sync that waits.
	st := c.state(namespace + "/" + name)
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.written == nil || st.written.UID != app.UID || older(st.written.ResourceVersion, app.ResourceVersion) {
		st.written = app
	}
	return nil
}

// Wait returns when cond holds for the Application, or with the error of ctx.
// An Application that does not exist is waited for.
func (c *Controller) Wait(ctx context.Context, namespace, name string, cond func(View) bool) (View, error) {
	key := namespace + "/" + name
	ch := make(chan struct{}, 1)
	var st *state
	defer func() { st.unwatch(ch) }()
	for {
		if now := c.state(key); now != st { // an Application that went and came back has a new one
			st.unwatch(ch)
			st = now
			st.watch(ch)
		}
		v, err := c.view(key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return v, err
		}
		if err == nil && cond(v) {
			return v, nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return v, fmt.Errorf("wait for %s: %w", key, context.Cause(ctx))
		}
	}
}
