package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
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

// ErrTerminated is (or is wrapped by) the cause of a context's end that gives
// a sync up: hooks under way are deleted. With any other cause, such as the
// end of the process, they go on.
var ErrTerminated = errors.New("operation terminated")

// Request is one sync.
type Request struct {
	Plan    *plan.Plan
	Options plan.Options
	Prune   bool
	Force   bool // of the sync strategy: as Force=true on every object
	DryRun  bool // report what would happen, and write nothing
	// Namespace is made first, when CreateNamespace=true; nil for none. Its
	// labels and annotations are enforced when ManageNamespace is set or it
	// has any.
	Namespace       *unstructured.Unstructured
	ManageNamespace bool
	Selected        func(plan.Key) bool // nil for all; a selective sync runs no hooks
	NoHooks         bool
	// Validate checks an object without the API server before anything is
	// written; nil for no check. Hooks are given as changes.
	Validate func(plan.Change) error
	// Approved reports whether the application's annotation approves pruning
	// what has Prune=confirm; asked anew at every Changed. Without it such
	// objects stay.
	Approved func() bool
	// Revision and Started name the objects of hooks with generateName.
	Revision string
	Started  time.Time
	// Resumed says that an earlier process began this sync at Started: the
	// hooks that it started since are waited for, not made anew. Over reports
	// which of them have succeeded; nil for none.
	Resumed bool
	Over    func(k plan.Key, phase plan.Phase) bool
	// Changed receives when a live object of the application, or the
	// application, may have changed.
	Changed <-chan struct{}
	// Report is called after each object, and Waiting when a wave has to wait,
	// with what for; both from the goroutine of Run or its children.
	Report  func(Result)
	Waiting func(reason string)
	Kinds   func()           // the cluster may have new kinds
	Now     func() time.Time // for texts; nil for time.Now
}

// Run carries the plan out. It returns when everything is written and every
// wave but the last is healthy, or with an *Error, or with the cause of ctx.
func Run(ctx context.Context, w *Writer, live Live, req Request) error {
	r := newRun(w, live, req)
	if err := r.check(ctx); err != nil {
		return err
	}
	if r.DryRun {
		return r.rehearse()
	}
	return r.end(ctx, r.sync(ctx))
}

type run struct {
	*Writer
	live Live
	Request
	mu         sync.Mutex
	hooks      []*task // every hook that was started
	namespaces map[string]error
	nsMu       sync.Mutex
}

func newRun(w *Writer, live Live, req Request) *run {
	if req.Now == nil {
		req.Now = time.Now
	}
	if req.Started.IsZero() {
		req.Started = req.Now()
	}
	if req.Kinds == nil {
		req.Kinds = func() {}
	}
	return &run{Writer: w, live: live, Request: req, namespaces: map[string]error{}}
}

func (r *run) hooked() bool { return r.Selected == nil && !r.NoHooks }

func (r *run) selected(k plan.Key) bool { return r.Selected == nil || r.Selected(k) }

func (r *run) report(res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Report != nil {
		r.Report(res)
	}
}

// check fails the sync before anything is written.
func (r *run) check(ctx context.Context) error {
	var failed []Result
	fail := func(res Result, err error) {
		res.Err, res.HookPhase, res.unwritten = err, v1alpha1.PhaseFailed, true
		r.report(res)
		failed = append(failed, res)
	}
	for i := range r.Plan.Changes {
		c := &r.Plan.Changes[i]
		if !r.selected(c.Key) {
			continue
		}
		if err := r.refused(c); err != nil {
			fail(r.result(plan.Step{Phase: plan.Sync, Change: c}), err)
		}
	}
	if r.hooked() && r.Validate != nil {
		for i := range r.Plan.Hooks {
			h := &r.Plan.Hooks[i]
			if err := r.Validate(plan.Change{Key: h.Key, Action: plan.Create, Desired: h.Object, Place: h.Place, Options: plan.OptionsOf(h.Object, r.Options)}); err != nil {
				fail(r.result(plan.Step{Phase: h.Phases[0], Hook: h}), err)
			}
		}
	}
	if failed != nil {
		return failure(failed)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (r *run) refused(c *plan.Change) error {
	switch {
	case r.Options.FailOnSharedResource && c.SharedWith != "":
		return fmt.Errorf("it is part of application %s too (FailOnSharedResource=true)", c.SharedWith)
	case c.Action == plan.None, c.Action == plan.Prune:
		return nil
	case c.Refused != nil:
		return c.Refused
	case r.Validate != nil:
		return r.Validate(*c)
	}
	return nil
}

func failure(failed []Result) error {
	slices.SortFunc(failed, func(a, b Result) int { return slices.Compare([]byte(a.String()), []byte(b.String())) })
	return &Error{failed}
}

// rehearse reports what a sync would do.
func (r *run) rehearse() error {
	for _, wave := range r.Plan.Steps(r.hooked(), r.Selected) {
		for _, s := range wave {
			res := r.result(s)
			res.HookPhase = v1alpha1.PhaseSucceeded
			switch {
			case s.Prunes():
				stays := r.stays(s.Change)
				res.Skipped, res.Message = stays != "", stays
				if stays == "" {
					res.Message = "pruned (dry run)"
				}
			case s.Hook != nil, s.Change.Action == plan.Create:
				res.Message = kubectlName(res.Key) + " created (dry run)"
			case s.Change.Action == plan.Update:
				res.Message = kubectlName(res.Key) + " configured (dry run)"
			default:
				if r.Options.OnlyOutOfSync {
					continue
				}
				res.Message = kubectlName(res.Key) + " unchanged (dry run)"
			}
			r.report(res)
		}
	}
	return nil
}

func (r *run) sync(ctx context.Context) error {
	if err := r.makeNamespace(ctx); err != nil {
		return err
	}
	waves := r.Plan.Steps(r.hooked(), r.Selected)
	// With more than one step, or with hooks, a step is waited for; the last
	// one only when it has hooks.
	several := len(waves) > 1 || r.hooked() && len(r.Plan.HooksOf(plan.SyncFail)) > 0
	for i, steps := range waves {
		steps = r.left(ctx, steps)
		if len(steps) == 0 {
			continue
		}
		tasks := newTasks(steps)
		if err := r.wave(ctx, tasks); err != nil {
			return err
		}
		last := i == len(waves)-1
		if last && !slices.ContainsFunc(tasks, func(t *task) bool { return t.Hook != nil }) {
			return nil
		}
		if last && !several {
			tasks = slices.DeleteFunc(tasks, func(t *task) bool { return t.Hook == nil })
		}
		if err := r.settle(ctx, label(steps[0]), tasks); err != nil {
			return err
		}
	}
	return nil
}

// end finishes what a sync leaves: hooks to delete, hooks of a failure to run.
func (r *run) end(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); errors.Is(cause, ErrTerminated) {
			r.stopHooks(ctx)
		}
		return context.Cause(ctx)
	}
	var failed *Error
	if !errors.As(err, &failed) {
		if err == nil {
			r.cleanHooks(ctx, plan.HookSucceeded)
		}
		return err
	}
	hookErr := r.syncFail(ctx)
	if ctx.Err() != nil {
		return r.end(ctx, err)
	}
	r.cleanHooks(ctx, plan.HookFailed)
	return errors.Join(err, hookErr)
}

// each does something for each task at the same time, at most as many as may
// make requests, and returns the results that failed.
func (r *run) each(tasks []*task, do func(*task) Result) []Result {
	var mu sync.Mutex
	var failed []Result
	var g errgroup.Group
	g.SetLimit(cap(r.slots))
	for _, t := range tasks {
		g.Go(func() error {
			if res := do(t); res.Err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, res)
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	return failed
}
