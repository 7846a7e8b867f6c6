package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/csaupgrade"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Write makes the object of a change what it is to be.
func (w *Writer) Write(ctx context.Context, c plan.Change) (*unstructured.Unstructured, error) {
	got, _, err := w.write(ctx, &c, plan.Options{}, false)
	return got, err
}

// write also returns what it did, in one word as kubectl has it.
func (w *Writer) write(ctx context.Context, c *plan.Change, app plan.Options, force bool) (*unstructured.Unstructured, string, error) {
	options, live := c.Options, c.Live
	if live != nil { // the live object may ask for it too
		now := plan.OptionsOf(live, plan.Options{})
		options.Replace = options.Replace || now.Replace
		force = force || options.Force || now.Force
	}
	switch {
	case live == nil:
		got, note, err := w.patch(ctx, c.Desired, options, nil)
		return got, word(options, "created") + note, err
	case options.Replace && force && mayRecreate(c.Desired):
		got, err := w.recreate(ctx, c.Desired, live, options)
		return got, "replaced", err
	case options.Replace:
		got, err := w.replace(ctx, c.Desired, live, options)
		return got, "replaced", err
	}
	if err := w.adopt(ctx, live, app); err != nil {
		return nil, "", err
	}
	got, note, err := w.patch(ctx, c.Desired, options, nil)
	if isImmutable(err) && (force || isBinding(c.Key)) && mayRecreate(c.Desired) {
		got, err = w.recreate(ctx, c.Desired, live, options)
		return got, "deleted and created", err
	}
	if err == nil && got.GetResourceVersion() == live.GetResourceVersion() {
		return got, word(options, "unchanged") + note, nil
	}
	return got, word(options, "configured") + note, err
}

func word(options plan.ObjectOptions, otherwise string) string {
	if options.ServerSideApply {
		return "serverside-applied"
	}
	return otherwise
}

// mayRecreate is false for objects whose deletion takes all that hangs on them
// along.
func mayRecreate(o *unstructured.Unstructured) bool {
	return o.GetKind() != "Namespace" && o.GetKind() != "CustomResourceDefinition"
}

// isBinding names the kinds whose roleRef cannot change and which are always
// made anew for it, as `kubectl auth reconcile` does.
func isBinding(k plan.Key) bool {
	return k.Group == "rbac.authorization.k8s.io" && (k.Kind == "RoleBinding" || k.Kind == "ClusterRoleBinding")
}

// replace sets the whole object, also what others have set.
func (w *Writer) replace(ctx context.Context, desired, live *unstructured.Unstructured, options plan.ObjectOptions) (*unstructured.Unstructured, error) {
	o := withVersion(desired, live.GetResourceVersion())
	var got *unstructured.Unstructured
	err := w.do(ctx, "update", o, func(ctx context.Context, client dynamic.ResourceInterface) error {
		made, err := client.Update(ctx, o, metav1.UpdateOptions{FieldManager: w.manager, FieldValidation: validation(options)})
		if apierrors.IsConflict(err) { // the next attempt takes the version of now
			if now, gerr := client.Get(ctx, o.GetName(), metav1.GetOptions{}); gerr == nil {
				o = withVersion(desired, now.GetResourceVersion())
			}
		}
		got = made
		return err
	})
	return got, err
}

// withVersion is a shallow copy of an object with another resourceVersion.
func withVersion(o *unstructured.Unstructured, version string) *unstructured.Unstructured {
	out := shallow(o)
	out.SetResourceVersion(version)
	return out
}

// shallow copies an object so that its metadata can be set; the rest is shared.
func shallow(o *unstructured.Unstructured) *unstructured.Unstructured {
	top := make(map[string]any, len(o.Object))
	for k, v := range o.Object {
		top[k] = v
	}
	metadata, _ := top["metadata"].(map[string]any)
	own := make(map[string]any, len(metadata)+1)
	for k, v := range metadata {
		own[k] = v
	}
	top["metadata"] = own
	return &unstructured.Unstructured{Object: top}
}

// recreate deletes an object and makes it anew. When that fails the old one is
// put back.
func (w *Writer) recreate(ctx context.Context, desired, live *unstructured.Unstructured, options plan.ObjectOptions) (*unstructured.Unstructured, error) {
	if err := w.Delete(ctx, live, "background"); err != nil {
		return nil, err
	}
	if err := w.awaitGone(ctx, live); err != nil {
		return nil, fmt.Errorf("delete to make it anew: %w", err)
	}
	got, _, err := w.patch(ctx, desired, options, nil)
	if err == nil {
		return got, nil
	}
	old := shallow(live)
	delete(old.Object, "status")
	metadata := old.Object["metadata"].(map[string]any)
	for _, f := range []string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		delete(metadata, f)
	}
	if _, back := w.Create(context.WithoutCancel(ctx), old); back != nil {
		return nil, errors.Join(fmt.Errorf("deleted, but not made anew: %w", err), fmt.Errorf("put the old object back: %w", back))
	}
	return nil, fmt.Errorf("deleted, but not made anew, so the old object was put back: %w", err)
}

// ours are the managers of Argo CD's own client-side apply, whose fields must
// become those of the server-side apply so that the ones that the source drops
// go. Kubectl's are taken over unless ClientSideApplyMigration=false.
var ours = []string{"argocd-controller", "argocd-application-controller", "before-first-apply"}

const kubectlManager = "kubectl-client-side-apply"

func (w *Writer) adopt(ctx context.Context, live *unstructured.Unstructured, app plan.Options) error {
	if live.GetAnnotations()[lastApplied] == "" {
		return nil
	}
	from := sets.New(ours...)
	if !app.KeepClientSide {
		from.Insert(kubectlManager)
		if app.MigrationManager != "" {
			from.Insert(app.MigrationManager)
		}
	}
	for range attemptsRefused {
		patch, err := csaupgrade.UpgradeManagedFieldsPatch(live, from, w.manager)
		if err != nil || len(patch) == 0 {
			return err
		}
		stale := false
		err = w.do(ctx, "patch", live, func(ctx context.Context, client dynamic.ResourceInterface) error {
			_, err := client.Patch(ctx, live.GetName(), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: w.manager})
			if stale = apierrors.IsConflict(err); stale {
				return nil
			}
			return err
		})
		if err != nil && !isGone(err) {
			return fmt.Errorf("take over the fields of client-side apply: %w", err)
		}
		if !stale {
			return nil
		}
		if live, err = w.get(ctx, live); err != nil || live == nil {
			return err
		}
	}
	return nil
}
