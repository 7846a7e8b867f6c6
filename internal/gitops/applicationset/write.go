package applicationset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// change is one Application to create or patch.
type change struct {
	want  *unstructured.Unstructured
	live  *unstructured.Unstructured // nil to create
	patch []byte
	kind  types.PatchType
	spec  bool // the spec changes
}

// changes compares the Applications with what is wanted: those of names, or
// each, and those that are not there.
func (p *pass) changes(d *desired, names map[string]bool, each bool) []change {
	ignore, err := rulesOf(p.set.Spec.IgnoreApplicationDifferences)
	if err != nil {
		p.problem = &problem{reasonUpdate, err.Error(), true}
		return nil
	}
	updates := p.policy().updates
	var out []change
	for _, want := range d.apps {
		name := want.GetName()
		live := p.current[name]
		if live == nil {
			live = p.orphan(name) // of nobody: it is taken over, as in Argo CD
		}
		switch {
		case live == nil:
			out = append(out, change{want: want})
			continue
		case live.GetDeletionTimestamp() != nil:
			continue // made anew when it is gone
		case p.current[name] != nil && (!updates || !each && !names[name]):
			continue
		}
		ch, err := p.difference(want, live, ignore)
		if err != nil {
			p.problem = &problem{reasonUpdate, fmt.Sprintf("Application %s: %v", name, err), true}
			continue
		}
		if ch.patch != nil {
			out = append(out, ch)
		}
	}
	return out
}

func (p *pass) orphan(name string) *unstructured.Unstructured {
	obj, ok, err := p.apps.GetStore().GetByKey(p.set.Namespace + "/" + name)
	if err != nil || !ok {
		return nil
	}
	if o := obj.(*unstructured.Unstructured); controllerOf(o) == nil && !p.pruned[name] {
		return o
	}
	return nil
}

// alwaysPreserved are annotations by which others work with Applications.
var alwaysPreserved = []string{"notified.notifications.argoproj.io", v1alpha1.AnnotationRefresh, v1alpha1.AnnotationHydrate, v1alpha1.AnnotationDeletionOK,
	v1alpha1.AnnotationRollback, v1alpha1.AnnotationPause}

// difference makes the patch from an Application to what is wanted.
func (p *pass) difference(want, live *unstructured.Unstructured, ignore rules) (change, error) {
	wanted, have := p.decided(want, live), decidedOf(live)
	if err := ignore.apply(want.GetName(), wanted, have); err != nil {
		return change{}, err
	}
	if reflect.DeepEqual(wanted, have) {
		return change{}, nil
	}
	ch := change{want: want, live: live, kind: types.MergePatchType, spec: !reflect.DeepEqual(wanted["spec"], have["spec"])}
	if hasNull(wanted["spec"]) { // a merge patch would take null for a deletion
		return p.replacement(ch, wanted, have)
	}
	from, err := json.Marshal(have)
	if err != nil {
		return change{}, fmt.Errorf("encode: %w", err)
	}
	to, err := json.Marshal(wanted)
	if err != nil {
		return change{}, fmt.Errorf("encode: %w", err)
	}
	ch.patch, err = jsonpatch.CreateMergePatch(from, to)
	if err != nil {
		return change{}, fmt.Errorf("compare: %w", err)
	}
	return ch, nil
}

// replacement replaces the parts that differ in full.
func (p *pass) replacement(ch change, wanted, have map[string]any) (change, error) {
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	ops := []op{{"test", "/metadata/uid", string(ch.live.GetUID())}}
	if ch.spec {
		ops = append(ops, op{"replace", "/spec", wanted["spec"]})
	}
	wm, hm := wanted["metadata"].(map[string]any), have["metadata"].(map[string]any)
	for _, k := range decidedMetadata {
		switch {
		case reflect.DeepEqual(wm[k], hm[k]):
		case wm[k] == nil:
			ops = append(ops, op{Op: "remove", Path: "/metadata/" + k})
		default:
			ops = append(ops, op{"add", "/metadata/" + k, wm[k]})
		}
	}
	data, err := json.Marshal(ops)
	if err != nil {
		return change{}, fmt.Errorf("encode: %w", err)
	}
	ch.patch, ch.kind = data, types.JSONPatchType
	return ch, nil
}

var decidedMetadata = []string{"labels", "annotations", "finalizers", "ownerReferences"}

// decidedOf is the part of an Application that its set decides on. It shares
// the parts.
func decidedOf(o *unstructured.Unstructured) map[string]any {
	meta := map[string]any{}
	from, _ := o.Object["metadata"].(map[string]any)
	for _, k := range decidedMetadata {
		switch v := from[k].(type) {
		case map[string]any:
			if len(v) > 0 {
				meta[k] = v
			}
		case []any:
			if len(v) > 0 {
				meta[k] = v
			}
		}
	}
	return map[string]any{"metadata": meta, "spec": o.Object["spec"]}
}

// decided is what is wanted, with what is preserved of the live Application.
func (p *pass) decided(want, live *unstructured.Unstructured) map[string]any {
	out := decidedOf(want)
	meta := out["metadata"].(map[string]any)
	preserve := func(field string, have map[string]string, names ...[]string) {
		to, _ := meta[field].(map[string]any)
		to = shallow(to)
		for _, name := range slices.Concat(names...) {
			if v, ok := have[name]; ok {
				to[name] = v
			}
		}
		if len(to) > 0 {
			meta[field] = to
		}
	}
	fields := p.set.Spec.PreservedFields
	if fields == nil {
		fields = &v1alpha1.PreservedFields{}
	}
	preserve("annotations", live.GetAnnotations(), fields.Annotations, p.PreservedAnnotations, alwaysPreserved)
	preserve("labels", live.GetLabels(), fields.Labels, p.PreservedLabels)
	finalizers, _ := meta["finalizers"].([]any)
	finalizers = slices.Clone(finalizers)
	for _, f := range live.GetFinalizers() {
		ours := strings.HasPrefix(f, "post-delete-finalizer.argocd.argoproj.io") || strings.HasPrefix(f, "pre-delete-finalizer.argocd.argoproj.io")
		if ours && !slices.ContainsFunc(finalizers, func(v any) bool { s, _ := v.(string); return s == f }) {
			finalizers = append(finalizers, f)
		}
	}
	if len(finalizers) > 0 {
		meta["finalizers"] = finalizers
	}
	liveMeta, _ := live.Object["metadata"].(map[string]any)
	refs, _ := liveMeta["ownerReferences"].([]any)
	if own, _ := meta["ownerReferences"].([]any); len(refs) > 0 {
		kept := slices.Clone(own)
		for _, r := range refs {
			if m, ok := r.(map[string]any); ok && m["uid"] != string(p.set.UID) {
				kept = append(kept, r)
			}
		}
		meta["ownerReferences"] = kept
		if len(kept) == len(refs) && sameRefs(kept, refs) {
			meta["ownerReferences"] = refs
		}
	}
	return out
}

func sameRefs(a, b []any) bool {
	return !slices.ContainsFunc(a, func(x any) bool {
		return !slices.ContainsFunc(b, func(y any) bool { return reflect.DeepEqual(x, y) })
	})
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, item := range v {
			if hasNull(item) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, hasNull)
	}
	return false
}

// write carries changes out, a few at a time, all that can be.
func (p *pass) write(ctx context.Context, todo []change) error {
	return p.each(ctx, len(todo), func(i int) error {
		ch := todo[i]
		name := ch.want.GetName()
		client := p.Client.Resource(v1alpha1.ApplicationResource).Namespace(p.set.Namespace)
		var got *unstructured.Unstructured
		var err error
		verb := "create"
		if ch.live == nil {
			got, err = client.Create(ctx, ch.want.DeepCopy(), metav1.CreateOptions{FieldManager: p.FieldManager})
		} else {
			verb = "change"
			got, err = client.Patch(ctx, name, ch.kind, ch.patch, metav1.PatchOptions{FieldManager: p.FieldManager})
		}
		if apierrors.IsNotFound(err) && ch.live != nil || apierrors.IsAlreadyExists(err) {
			p.st.check(name) // the watch is behind
			p.queue.AddAfter(p.key, statusDelay)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s the Application %s: %w", verb, name, err)
		}
		p.Log.Info(verb+" an Application", "applicationset", p.key, "application", name)
		p.wrote(got)
		return nil
	})
}

func (p *pass) wrote(got *unstructured.Unstructured) {
	if o, err := slim(got); err == nil {
		got, _ = o.(*unstructured.Unstructured)
	}
	p.st.wrote(got)
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.current[got.GetName()] = got
}

const maxErrors = 3 // in one message

// each calls f for 0…n-1, some at a time, and joins the first errors.
func (p *pass) each(ctx context.Context, n int, f func(int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	failed := 0
	slots := make(chan struct{}, p.MaxParallel)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := f(i)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if failed++; failed <= maxErrors {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if failed > maxErrors {
		errs = append(errs, fmt.Errorf("and %d more", failed-maxErrors))
	}
	return errors.Join(errs...)
}

// prune deletes the Applications that are not generated any more.
func (p *pass) prune(ctx context.Context, d *desired) error {
	var gone []*unstructured.Unstructured
	for name, live := range p.current {
		if !d.named[name] && live.GetDeletionTimestamp() == nil {
			gone = append(gone, live)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	servers, names := p.knownDestinations(ctx)
	err := p.each(ctx, len(gone), func(i int) error {
		live := gone[i]
		if servers != nil && !reachable(live, servers, names) {
			if err := p.dropFinalizer(ctx, live); err != nil {
				return err
			}
		}
		return p.deleteApp(ctx, live)
	})
	if err != nil {
		p.problem = &problem{reasonDelete, err.Error(), true}
	}
	return err
}

func (p *pass) deleteApp(ctx context.Context, live *unstructured.Unstructured) error {
	uid := live.GetUID()
	err := p.Client.Resource(v1alpha1.ApplicationResource).Namespace(live.GetNamespace()).
		Delete(ctx, live.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the Application %s: %w", live.GetName(), err)
	}
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.pruned[live.GetName()] = true
	p.Log.Info("delete an Application", "applicationset", p.key, "application", live.GetName())
	return nil
}

// knownDestinations are the clusters; nil when they cannot be listed.
func (p *pass) knownDestinations(ctx context.Context) (servers, names map[string]bool) {
	list, err := p.Clusters.List(ctx)
	if err != nil {
		p.Log.Warn("list the clusters", "error", err)
		return nil, nil
	}
	servers, names = map[string]bool{LocalServer: true}, map[string]bool{LocalName: true}
	for _, c := range list {
		servers[c.Server], names[c.Name] = true, true
	}
	return servers, names
}

// reachable reports whether the cluster of an Application is known. The
// objects in one that is not could never be deleted.
func reachable(o *unstructured.Unstructured, servers, names map[string]bool) bool {
	d, _, _ := unstructured.NestedStringMap(o.Object, "spec", "destination")
	return d["server"] != "" && servers[d["server"]] || d["name"] != "" && names[d["name"]] || d["server"]+d["name"] == ""
}

func (p *pass) dropFinalizer(ctx context.Context, live *unstructured.Unstructured) error {
	rest := slices.DeleteFunc(live.GetFinalizers(), func(f string) bool { return f == v1alpha1.FinalizerResources })
	if len(rest) == len(live.GetFinalizers()) {
		return nil
	}
	return p.patchApp(ctx, live.GetName(), map[string]any{"metadata": map[string]any{"finalizers": rest}})
}

func (p *pass) patchApp(ctx context.Context, name string, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	got, err := p.Client.Resource(v1alpha1.ApplicationResource).Namespace(p.set.Namespace).
		Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: p.FieldManager})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("change the Application %s: %w", name, err)
	}
	p.wrote(got)
	return nil
}
