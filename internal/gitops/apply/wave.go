package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// task is a step under way.
type task struct {
	plan.Step
	object *unstructured.Unstructured // as the server returned it
	since  time.Time                  // when it was written
	res    Result                     // the last one reported
	over   bool                       // a hook that has ended
}

func newTasks(steps []plan.Step) []*task {
	out := make([]*task, len(steps))
	for i, s := range steps {
		out[i] = &task{Step: s}
	}
	return out
}

func (r *run) result(s plan.Step) Result {
	if h := s.Hook; h != nil {
		return Result{Key: h.Key, Version: h.Object.GroupVersionKind().Version, Action: plan.Create, Phase: s.Phase, Hook: true, Place: h.Place, Images: images(h.Object)}
	}
	c := s.Change
	return Result{Key: c.Key, Version: c.Version, Action: c.Action, Phase: s.Phase, Place: c.Place, Complete: true, Images: images(c.Desired)}
}

// wave writes the objects of one wave: it deletes, makes room for hooks, and
// then writes stage by stage. As with Argo CD one refusal does not keep the
// rest of the wave from being written.
func (r *run) wave(ctx context.Context, tasks []*task) error {
	n := slices.IndexFunc(tasks, func(t *task) bool { return !t.Prunes() })
	if n < 0 {
		n = len(tasks)
	}
	prunes, writes := tasks[:n], tasks[n:]
	if err := r.confirm(ctx, prunes); err != nil {
		return err
	}
	if failed := r.each(prunes, func(t *task) Result { return r.prune(ctx, t) }); failed != nil {
		return r.failed(ctx, failed)
	}
	if failed := r.each(writes, func(t *task) Result { return r.clear(ctx, t) }); failed != nil || ctx.Err() != nil {
		return r.failed(ctx, failed)
	}
	var failed []Result
	for _, stage := range stages(writes) {
		failed = append(failed, r.each(stage, func(t *task) Result { return r.write(ctx, t) })...)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.established(ctx, stage); err != nil {
			return err
		}
	}
	return r.failed(ctx, failed)
}

func (r *run) failed(ctx context.Context, failed []Result) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failed == nil {
		return nil
	}
	return failure(failed)
}

// stays says why a left-over object is not deleted, "" when it is.
func (r *run) stays(c *plan.Change) string {
	switch {
	case !r.Prune:
		return "ignored (requires pruning)"
	case c.Options.Prune == "false":
		return "ignored (no prune): Prune=false is set"
	case c.Options.Prune == "confirm" && r.Approved == nil:
		return "ignored (no prune): Prune=confirm is set, and nothing confirms it"
	case c.Kept != "" && c.Options.Prune != "confirm" && c.Live.GetDeletionTimestamp() == nil:
		return "ignored (no prune): " + c.Kept
	}
	return ""
}

// confirm waits until somebody approves the deletion of objects that ask for
// it.
func (r *run) confirm(ctx context.Context, prunes []*task) error {
	var ask []string
	for _, t := range prunes {
		if t.Change.Options.Prune == "confirm" && t.Change.Live.GetDeletionTimestamp() == nil && r.stays(t.Change) == "" {
			ask = append(ask, t.Change.Key.String())
		}
	}
	if ask == nil {
		return nil
	}
	text := fmt.Sprintf("waiting for the confirmation to prune %s (since %s): set the annotation %s on the application to the time of now, such as %s",
		list(ask), clock(r.Now()), v1alpha1.AnnotationDeletionOK, r.Now().UTC().Format(time.RFC3339))
	return r.await(ctx, func(context.Context) (string, error) {
		if r.Approved() {
			return "", nil
		}
		return text, nil
	})
}

func list(names []string) string {
	if n := len(names) - 1; n > 0 {
		return fmt.Sprintf("%s and %d more", names[0], n)
	}
	return names[0]
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05Z") }

func (r *run) prune(ctx context.Context, t *task) Result {
	res := r.result(t.Step)
	res.HookPhase = v1alpha1.PhaseSucceeded
	switch stays := r.stays(t.Change); {
	case stays != "":
		res.Skipped, res.Message = true, stays
	default:
		res.Message = "pruned"
		t.object = t.Change.Live
		if t.object.GetDeletionTimestamp() != nil {
			break
		}
		if res.Err = r.Delete(ctx, t.object, r.Options.PrunePropagation); res.Err == nil {
			r.live.Deleted(t.object)
		} else {
			res.HookPhase = v1alpha1.PhaseFailed
		}
	}
	t.since = r.Now()
	t.res = res
	r.report(res)
	return res
}

// write writes one object or starts one hook.
func (r *run) write(ctx context.Context, t *task) Result {
	t.since = r.Now()
	if t.Hook != nil {
		return r.start(ctx, t)
	}
	res := r.result(t.Step)
	res.HookPhase = v1alpha1.PhaseRunning
	if t.Change.Action == plan.None {
		t.object = t.Change.Live
		res.Message = kubectlName(res.Key) + " " + word(t.Change.Options, "unchanged")
		t.res = res
		if !r.Options.OnlyOutOfSync {
			r.report(res)
		}
		return res
	}
	var o *unstructured.Unstructured
	how := ""
	err := r.inNamespace(ctx, t.Change.Namespace, func() (err error) {
		o, how, err = r.Writer.write(ctx, t.Change, r.Options, r.Force)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		res.Err, res.HookPhase = err, v1alpha1.PhaseFailed
	} else {
		t.object = o
		r.live.Wrote(o)
		res.Message = kubectlName(res.Key) + " " + how
	}
	t.res = res
	r.report(res)
	return res
}

// inNamespace calls f, which writes an object; when the namespace is just
// being deleted, it waits for that to end, makes the namespace anew if that is
// this sync's to do, and calls f again.
func (r *run) inNamespace(ctx context.Context, namespace string, f func() error) error {
	err := f()
	if !namespaceEnds(err) {
		return err
	}
	if nerr := r.renewNamespace(ctx, namespace); nerr != nil {
		return fmt.Errorf("%w; %w", err, nerr)
	}
	return f()
}

// same reports whether now is the object that was written, at its generation
// or a later one.
func same(now, written *unstructured.Unstructured) bool {
	return now.GetUID() == written.GetUID() && now.GetGeneration() >= written.GetGeneration()
}

// established waits, for a while, until the kinds of definitions that were
// just written can be used.
func (r *run) established(ctx context.Context, stage []*task) error {
	var definitions []*task
	for _, t := range stage {
		if t.Change != nil && t.Change.Kind == "CustomResourceDefinition" && t.Change.Action != plan.None && t.object != nil {
			definitions = append(definitions, t)
		}
	}
	if definitions == nil {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := r.await(wait, func(ctx context.Context) (string, error) {
		return r.look(ctx, label(definitions[0].Step), definitions)
	})
	r.Kinds()
	if wait.Err() != nil && ctx.Err() == nil {
		return nil // as Argo CD: what needs the kind says so
	}
	return err
}

// uidOf is "" for nil.
func uidOf(o *unstructured.Unstructured) types.UID {
	if o == nil {
		return ""
	}
	return o.GetUID()
}

func label(s plan.Step) string {
	if s.Phase == plan.Sync {
		return fmt.Sprintf("wave %d", s.Wave)
	}
	if s.Wave != 0 {
		return fmt.Sprintf("%s wave %d", s.Phase, s.Wave)
	}
	return string(s.Phase)
}

func sentence(s string) string { return strings.TrimRight(strings.TrimSpace(s), ".") }
