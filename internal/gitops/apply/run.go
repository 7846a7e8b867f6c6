package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// Live is what a run needs to know of the live state while it waits.
type Live interface {
	Health(o *unstructured.Unstructured) (health.Status, bool)
	Get(ctx context.Context, desired *unstructured.Unstructured) (*unstructured.Unstructured, error)
	Wrote(o *unstructured.Unstructured)
	Deleted(live *unstructured.Unstructured)
}

// Request is one sync.
type Request struct {
	Plan      *plan.Plan
	Options   plan.Options
	Prune     bool
	Namespace *unstructured.Unstructured // made first, when CreateNamespace=true; nil for none
	Selected  func(plan.Key) bool        // nil for all; a selective sync runs no hooks
	NoHooks   bool
	// Changed receives when a live object of the application may have changed.
	Changed <-chan struct{}
	// Report is called after each object, and Waiting when a wave has to wait,
	// with what for; both from the goroutine of Run or its children.
	Report  func(Result)
	Waiting func(reason string)
	Kinds   func() // the cluster may have new kinds
}

// Result is what happened to one object.
type Result struct {
	plan.Key
	Version  string
	Action   plan.Action
	Phase    plan.Phase
	Hook     bool
	Place    string
	Message  string // for people
	Err      error
	Complete bool // false while a hook runs
	Skipped  bool // a prune that was not wanted
}

// Error is a failed sync: the objects that failed.
type Error struct{ Failed []Result }

func (e *Error) Error() string {
	first := e.Failed[0]
	at := ""
	if first.Place != "" {
		at = " (" + first.Place + ")"
	}
	msg := fmt.Sprintf("%s%s: %v", first.Key, at, first.Err)
	if n := len(e.Failed) - 1; n > 0 {
		msg += fmt.Sprintf(" (and %d more objects)", n)
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Failed[0].Err }

// Run carries the plan out. It returns when everything is written and every
// wave but the last is healthy, or with an *Error, or with the cause of ctx.
func Run(ctx context.Context, w *Writer, live Live, req Request) error {
	r := &run{Writer: w, live: live, Request: req}
	err := r.sync(ctx)
	var failed *Error
	if errors.As(err, &failed) && ctx.Err() == nil {
		if hookErr := r.hooks(ctx, plan.SyncFail, nil); hookErr != nil {
			return errors.Join(err, hookErr)
		}
	}
	return err
}

type run struct {
	*Writer
	live Live
	Request
	mu      sync.Mutex
	results []Result
}

func (r *run) sync(ctx context.Context) error {
	if err := r.refused(); err != nil {
		return err
	}
	if r.Namespace != nil {
		if err := r.namespace(ctx); err != nil {
			return err
		}
	}
	if err := r.hooks(ctx, plan.PreSync, nil); err != nil {
		return err
	}
	waves := r.waves()
	post := r.hasHooks(plan.PostSync)
	for i, wave := range waves {
		if err := r.wave(ctx, wave, i < len(waves)-1 || post); err != nil {
			return err
		}
	}
	return r.hooks(ctx, plan.PostSync, nil)
}

// refused fails the sync before anything is written.
func (r *run) refused() error {
	var failed []Result
	for _, c := range r.Plan.Changes {
		if !r.selected(c.Key) || c.Action == plan.None {
			continue
		}
		res := r.result(c)
		switch {
		case c.Refused != nil:
			res.Err = c.Refused
		case r.Options.FailOnSharedResource && c.SharedWith != "":
			res.Err = fmt.Errorf("it is part of application %s too (FailOnSharedResource=true)", c.SharedWith)
		default:
			continue
		}
		r.report(res)
		failed = append(failed, res)
	}
	if failed != nil {
		return &Error{failed}
	}
	return nil
}

func (r *run) selected(k plan.Key) bool { return r.Selected == nil || r.Selected(k) }

func (r *run) result(c plan.Change) Result {
	return Result{Key: c.Key, Version: c.Version, Action: c.Action, Phase: plan.Sync, Place: c.Place, Complete: true}
}

func (r *run) report(res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, res)
	if r.Report != nil {
		r.Report(res)
	}
}

func (r *run) namespace(ctx context.Context) error {
	res := Result{Key: plan.KeyOf(r.Namespace), Version: "v1", Action: plan.Create, Phase: plan.PreSync, Complete: true}
	o, err := r.patch(ctx, r.Namespace, plan.ObjectOptions{}, nil)
	if err != nil {
		res.Err = err
		r.report(res)
		return &Error{[]Result{res}}
	}
	r.live.Wrote(o)
	return nil
}

// waves returns the numbers of the waves of the Sync phase, in order.
func (r *run) waves() []int {
	var out []int
	for _, c := range r.Plan.Changes {
		out = append(out, c.Wave)
	}
	if r.Selected == nil && !r.NoHooks {
		for _, h := range r.Plan.Hooks {
			if slices.Contains(h.Phases, plan.Sync) {
				out = append(out, h.Wave)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *run) wave(ctx context.Context, wave int, wait bool) error {
	var changes []plan.Change
	for _, c := range r.Plan.Changes {
		if c.Wave == wave && r.selected(c.Key) {
			changes = append(changes, c)
		}
	}
	for _, group := range groups(changes) {
		if err := r.group(ctx, group); err != nil {
			return err
		}
	}
	if err := r.hooks(ctx, plan.Sync, &wave); err != nil {
		return err
	}
	if !wait {
		return nil
	}
	return r.await(ctx, fmt.Sprintf("wave %d", wave), func(ctx context.Context) (string, error) { return r.unhealthy(ctx, changes) })
}

// groups cuts sorted changes where the kind or the direction changes.
func groups(changes []plan.Change) [][]plan.Change {
	var out [][]plan.Change
	for i, c := range changes {
		if i == 0 || changes[i-1].Kind != c.Kind || (changes[i-1].Action == plan.Prune) != (c.Action == plan.Prune) {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], c)
	}
	return out
}

// group writes objects of one kind at the same time.
func (r *run) group(ctx context.Context, changes []plan.Change) error {
	var mu sync.Mutex
	var failed []Result
	var g errgroup.Group
	definitions := false
	for _, c := range changes {
		if c.Action == plan.None {
			continue
		}
		definitions = definitions || c.Kind == "CustomResourceDefinition"
		g.Go(func() error {
			res := r.one(ctx, c)
			r.report(res)
			if res.Err != nil {
				mu.Lock()
				failed = append(failed, res)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failed != nil {
		slices.SortFunc(failed, func(a, b Result) int { return slices.Compare([]byte(a.String()), []byte(b.String())) })
		return &Error{failed}
	}
	if definitions {
		defer r.Kinds()
		return r.await(ctx, "custom resource definitions", func(ctx context.Context) (string, error) { return r.unhealthy(ctx, changes) })
	}
	return nil
}

func (r *run) one(ctx context.Context, c plan.Change) Result {
	res := r.result(c)
	if c.Action == plan.Prune {
		switch {
		case c.Kept != "" || c.Extraneous:
			res.Skipped, res.Message = true, c.Kept
		case !r.Prune:
			res.Skipped, res.Message = true, "pruning is off"
		default:
			res.Message = "pruned"
			if res.Err = r.Delete(ctx, c.Live, r.Options.PrunePropagation); res.Err == nil {
				r.live.Deleted(c.Live)
			}
		}
		return res
	}
	o, err := r.Write(ctx, c)
	if err != nil {
		res.Err = err
		return res
	}
	r.live.Wrote(o)
	res.Message = "configured"
	if c.Action == plan.Create {
		res.Message = "created"
	}
	return res
}

// unhealthy returns what a wave waits for, "" when it is done. A degraded
// object is an error.
func (r *run) unhealthy(ctx context.Context, changes []plan.Change) (string, error) {
	waiting := ""
	for _, c := range changes {
		if c.Action == plan.Prune || c.Desired.GetAnnotations()[v1alpha1.AnnotationIgnoreHealth] == "true" {
			continue
		}
		o, err := r.live.Get(ctx, c.Desired)
		if err != nil {
			return "", err
		}
		if o == nil {
			waiting = c.Key.String() + " does not exist yet"
			continue
		}
		s, ok := r.live.Health(o)
		switch {
		case !ok || s.Code == v1alpha1.HealthHealthy || s.Code == v1alpha1.HealthSuspended:
		case s.Code == v1alpha1.HealthDegraded:
			res := r.result(c)
			res.Err = errors.New(s.Message)
			r.report(res)
			return "", &Error{[]Result{res}}
		default:
			waiting = fmt.Sprintf("%s: %s", c.Key, s.Message)
		}
	}
	return waiting, nil
}

// await calls check at every change of the live state until it has nothing to
// wait for.
func (r *run) await(ctx context.Context, what string, check func(context.Context) (string, error)) error {
	told := ""
	// The net: a change whose notice was merged with an earlier one is seen
	// at the latest with the next tick.
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		waiting, err := check(ctx)
		if err != nil || waiting == "" {
			return err
		}
		if msg := what + " waits for " + waiting; msg != told && r.Waiting != nil {
			told = msg
			r.Waiting(msg)
		}
		select {
		case <-r.Changed:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func alreadyExists(err error) bool { return apierrors.IsAlreadyExists(err) }
