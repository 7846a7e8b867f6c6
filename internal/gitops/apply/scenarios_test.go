//go:build linux

package apply_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

func oneRequest(b *bench) {
	b.namespace("one")
	source := deployment("one", "a", "") + `---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: one}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: one}, stringData: {a: b}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: one}, data: {a: b}}
`
	report, err := b.sync(source, nil)
	if err != nil || b.writes.Load() != 4 || !strings.Contains(report, "Synced deployment.apps/web created") {
		b.Errorf("%d requests, %v\n%s", b.writes.Load(), err, report)
	}
	report, err = b.sync(source, nil)
	if err != nil || b.writes.Load() != 0 || strings.Count(report, "unchanged") != 4 {
		b.Errorf("again: %d requests, %v\n%s", b.writes.Load(), err, report)
	}
	if _, err = b.sync(strings.Replace(source, "a: b", "a: c", 1), nil); err != nil || b.writes.Load() != 1 {
		b.Errorf("one change: %d requests, %v", b.writes.Load(), err)
	}
}

func immutable(b *bench) {
	b.namespace("immutable")
	if _, err := b.sync(deployment("immutable", "a", ""), nil); err != nil {
		b.Fatal(err)
	}
	before := b.live("Deployment", "apps/v1", "immutable", "web")
	_, err := b.sync(deployment("immutable", "b", ""), nil)
	if err == nil || !strings.Contains(err.Error(), "Deployment immutable/web (app.yaml:1): spec.selector is immutable") || !strings.Contains(err.Error(), "Force=true") {
		b.Errorf("%v", err)
	}
	if now := b.live("Deployment", "apps/v1", "immutable", "web"); now.GetUID() != before.GetUID() {
		b.Error("it was made anew unasked")
	}
	report, err := b.sync(deployment("immutable", "b", force), nil)
	if now := b.live("Deployment", "apps/v1", "immutable", "web"); err != nil || now.GetUID() == before.GetUID() || !strings.Contains(report, "deleted and created") {
		b.Errorf("Force=true: %v %s", err, report)
	}
	if _, err := b.sync(deployment("immutable", "c", ""), func(r *apply.Request) { r.Force = true }); err != nil {
		b.Errorf("force of the sync: %v", err)
	}
	before = b.live("Deployment", "apps/v1", "immutable", "web")
	// What others set goes with Replace=true, and stays without.
	if _, err := b.client.Resource(deployments).Namespace("immutable").Patch(b.Context(), "web", "application/merge-patch+json", []byte(`{"spec":{"minReadySeconds":7}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"}); err != nil {
		b.Fatal(err)
	}
	replace := `, labels: {by: git}, annotations: {argocd.argoproj.io/sync-options: "Replace=true"}`
	report, err = b.sync(deployment("immutable", "c", replace), nil)
	now := b.live("Deployment", "apps/v1", "immutable", "web")
	if _, has, _ := unstructured.NestedFieldNoCopy(now.Object, "spec", "minReadySeconds"); err != nil || has || now.GetUID() != before.GetUID() || !strings.Contains(report, "replaced") {
		b.Errorf("Replace=true: %v %v %s", err, now.Object["spec"], report)
	}
	both := strings.Replace(strings.Replace(replace, "by: git", "by: git2", 1), "Replace=true", "Replace=true,Force=true", 1)
	if _, err = b.sync(deployment("immutable", "c", both), nil); err != nil || b.live("Deployment", "apps/v1", "immutable", "web").GetUID() == before.GetUID() {
		b.Errorf("Replace=true,Force=true: %v", err)
	}
}

func binding(b *bench) {
	source := "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: b}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: []}\n"
	if _, err := b.sync(source, nil); err != nil {
		b.Fatal(err)
	}
	if report, err := b.sync(strings.Replace(source, "view", "edit", 1), nil); err != nil || !strings.Contains(report, "deleted and created") {
		b.Errorf("%v %s", err, report)
	}
}

func putBack(b *bench) {
	b.namespace("back")
	if _, err := b.sync(deployment("back", "a", ""), nil); err != nil {
		b.Fatal(err)
	}
	bad := strings.Replace(deployment("back", "b", force), "labels: {app: b}", "labels: {app: other}", 1)
	_, err := b.sync(bad, nil)
	if err == nil || !strings.Contains(err.Error(), "the old object was put back") {
		b.Errorf("%v", err)
	}
	now := b.live("Deployment", "apps/v1", "back", "web")
	if now == nil {
		b.Fatal("it is gone")
	}
	if app, _, _ := unstructured.NestedString(now.Object, "spec", "selector", "matchLabels", "app"); app != "a" {
		b.Errorf("selector %q", app)
	}
}

func managedNamespace(b *bench) {
	source := "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: managed}, data: {a: b}}\n"
	ns := func(labels string) *unstructured.Unstructured {
		return b.parse("{apiVersion: v1, kind: Namespace, metadata: {name: managed" + labels + "}}\n")[0]
	}
	step := func(source, labels string, managed bool) map[string]string {
		b.Helper()
		if _, err := b.sync(source, func(r *apply.Request) { r.Namespace, r.ManageNamespace = ns(labels), managed }); err != nil {
			b.Fatal(err)
		}
		got := b.live("Namespace", "v1", "", "managed").GetLabels()
		delete(got, "kubernetes.io/metadata.name")
		return got
	}
	if got := step(source, "", false); len(got) != 0 {
		b.Errorf("made with %v", got)
	}
	if _, err := b.client.Resource(namespaces).Patch(b.Context(), "managed", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"by":"hand"}}}`), metav1.PatchOptions{FieldManager: "kubectl-label"}); err != nil {
		b.Fatal(err)
	}
	if got := step(source, ", labels: {a: one, b: two}", true); len(got) != 3 || got["a"] != "one" || got["by"] != "hand" {
		b.Errorf("managed: %v", got)
	}
	if got := step(source, ", labels: {a: three}", true); len(got) != 2 || got["a"] != "three" {
		b.Errorf("changed: %v", got)
	}
	if got := step(strings.Replace(source, "name: c", "name: d", 1), "", false); len(got) != 2 {
		b.Errorf("another application, that does not manage it: %v", got)
	}
	if got := step(source, "", true); len(got) != 1 {
		b.Errorf("emptied: %v", got)
	}
}

func terminating(b *bench) {
	b.namespace("ending")
	held := "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, namespace: ending, finalizers: [example.com/slow]}}\n"
	if _, err := b.sync(held, nil); err != nil {
		b.Fatal(err)
	}
	if err := b.client.Resource(namespaces).Delete(b.Context(), "ending", metav1.DeleteOptions{}); err != nil {
		b.Fatal(err)
	}
	source := "{apiVersion: v1, kind: ConfigMap, metadata: {name: new, namespace: ending}}\n"
	_, err := b.sync(source, nil)
	if err == nil || !strings.Contains(err.Error(), "namespace ending is being deleted") || !strings.Contains(err.Error(), "CreateNamespace=true") {
		b.Errorf("not ours: %v", err)
	}
	waited := ""
	_, err = b.sync(source+"---\n"+strings.Replace(source, "name: new", "name: new2", 1), func(r *apply.Request) {
		r.Namespace = b.parse("{apiVersion: v1, kind: Namespace, metadata: {name: ending}}\n")[0]
		r.Waiting = func(why string) {
			waited = why
			if _, err := b.client.Resource(configMaps).Namespace("ending").Patch(b.Context(), "held", "application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
				b.Error(err)
			}
		}
	})
	if err != nil || b.live("ConfigMap", "v1", "ending", "new") == nil || !strings.Contains(waited, "namespace ending is being deleted (since ") {
		b.Errorf("ours: %v, waited %q", err, waited)
	}
}

func trouble(b *bench) {
	b.namespace("trouble")
	source := "{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: trouble}}\n"
	answer := func(code int, reason metav1.StatusReason) func(*http.Request) (*http.Response, error) {
		n := 0
		var mu sync.Mutex
		return func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > 2 {
				return nil, nil
			}
			body := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code)
			return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		}
	}
	for name, f := range map[string]func(*http.Request) (*http.Response, error){
		"many": answer(429, metav1.StatusReasonTooManyRequests), "busy": answer(503, metav1.StatusReasonServiceUnavailable),
		"slow": answer(504, metav1.StatusReasonTimeout), "broken": answer(500, metav1.StatusReasonInternalError),
	} {
		b.set(f)
		if _, err := b.sync(fmt.Sprintf(source, name), nil); err != nil || b.writes.Load() != 3 {
			b.Errorf("%s: %v after %d requests", name, err, b.writes.Load())
		}
	}
	n := 0
	b.set(func(*http.Request) (*http.Response, error) {
		if n++; n > 2 {
			return nil, nil
		}
		return nil, syscall.ECONNREFUSED
	})
	if _, err := b.sync(fmt.Sprintf(source, "down"), nil); err != nil {
		b.Errorf("connection refused: %v", err)
	}
}

func refusals(b *bench) {
	b.namespace("refused")
	large := strings.Repeat("x", 1100000)
	for _, c := range []struct{ name, source, want string }{
		{"too large", "{apiVersion: v1, kind: ConfigMap, metadata: {name: big, namespace: refused}, data: {a: " + large + "}}\n", "too large"},
		{"duplicates", strings.Replace(deployment("refused", "a", `, annotations: {argocd.argoproj.io/sync-options: "ServerSideApply=true"}`), `image: "web:1"`, `image: "web:1", env: [{name: A, value: "1"}, {name: A, value: "2"}]`, 1), "two entries with one name"},
		{"unknown field", strings.Replace(deployment("refused", "a", ""), "replicas: 0", "replicass: 0", 1), `.spec.replicass: field not declared in schema`},
		{"unknown kind", "{apiVersion: example.com/v1, kind: Nothing, metadata: {name: nothing, namespace: refused}}\n", "the cluster does not have this kind"},
		{"no namespace", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: nowhere}}\n", `namespaces "nowhere" not found`},
	} {
		if _, err := b.sync(c.source, nil); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "(app.yaml:1)") {
			b.Errorf("%s: %.600v", c.name, err)
		}
	}
	lax := strings.Replace(deployment("refused", "a", `, annotations: {argocd.argoproj.io/sync-options: "Validate=false"}`), "replicas: 0", "replicass: 0", 1)
	if report, err := b.sync(lax, nil); err != nil || !strings.Contains(report, "created; .spec.replicass is left out") {
		b.Errorf("Validate=false: %v %s", err, report)
	}
	twice := strings.Replace(deployment("refused", "a", ""), `image: "web:1"`, `image: "web:1", env: [{name: A, value: "1"}, {name: B, value: "x"}, {name: A, value: "2"}]`, 1)
	if report, err := b.sync(twice, nil); err != nil || !strings.Contains(report, `env has several entries [name="A"]: the last one is used`) {
		b.Errorf("two entries: %v %s", err, report)
	}
	secret := "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: refused}, immutable: true, stringData: {password: %s}}\n"
	if _, err := b.sync(fmt.Sprintf(secret, "hunter1"), nil); err != nil {
		b.Fatal(err)
	}
	if _, err := b.sync(fmt.Sprintf(secret, "hunter2"), nil); err == nil || !strings.Contains(err.Error(), "data is immutable") || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "aHVudGVy") {
		b.Errorf("immutable Secret: %v", err)
	}
}

func takeOver(b *bench) {
	b.namespace("adopt")
	for _, migrate := range []bool{true, false} {
		name := fmt.Sprintf("c-%v", migrate)
		old := b.parse(fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: adopt, annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}}, data: {gone: x, v: "1"}}`, name))[0]
		if _, err := b.client.Resource(configMaps).Namespace("adopt").Create(b.Context(), old, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"}); err != nil {
			b.Fatal(err)
		}
		_, err := b.sync(fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: adopt}, data: {v: \"2\"}}\n", name), func(r *apply.Request) { r.Options.KeepClientSide = !migrate })
		_, has, _ := unstructured.NestedString(b.live("ConfigMap", "v1", "adopt", name).Object, "data", "gone")
		if err != nil || has == migrate {
			b.Errorf("migration %v: %v, the field is there: %v", migrate, err, has)
		}
	}
}

func hooks(b *bench) {
	b.namespace("hooked")
	hook := func(name, phase, policy string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: hooked, annotations: {argocd.argoproj.io/hook: %s, argocd.argoproj.io/hook-delete-policy: %q}}}\n---\n", name, phase, policy)
	}
	source := hook("kept", "PreSync", "") + hook("gone", "PostSync", "HookSucceeded") + hook("never", "SyncFail", "") + "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: hooked}}\n"
	for n := range 2 {
		before := b.live("ConfigMap", "v1", "hooked", "kept")
		if _, err := b.sync(source, nil); err != nil {
			b.Fatal(err)
		}
		kept := b.live("ConfigMap", "v1", "hooked", "kept")
		if kept == nil || len(kept.GetFinalizers()) > 0 || n > 0 && kept.GetUID() == before.GetUID() {
			b.Errorf("the hook was not made anew, or is held: %v", kept)
		}
		if b.live("ConfigMap", "v1", "hooked", "gone") != nil || b.live("ConfigMap", "v1", "hooked", "never") != nil {
			b.Error("HookSucceeded or SyncFail is not honoured")
		}
	}
	// A job runs until it is given up; its object goes.
	job := "{apiVersion: batch/v1, kind: Job, metadata: {name: j, namespace: hooked, annotations: {argocd.argoproj.io/hook: PreSync}}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: j, image: j}]}}}}\n"
	ctx, cancel := context.WithCancelCause(b.Context())
	defer cancel(nil)
	desired, _, _ := manifest.Parse("app.yaml", []byte(job))
	p := plan.Make(plan.Input{Instance: "app", Desired: desired})
	options, _ := plan.ParseOptions(nil)
	options.PrunePropagation = "background"
	err := apply.Run(ctx, b.writer, b, apply.Request{Plan: p, Options: options, Waiting: func(string) { cancel(apply.ErrTerminated) }})
	if !errors.Is(err, apply.ErrTerminated) || b.live("Job", "batch/v1", "hooked", "j") != nil {
		b.Errorf("%v; the job is there: %v", err, b.live("Job", "batch/v1", "hooked", "j") != nil)
	}
}

func forbidden(b *bench) {
	config := rest.CopyConfig(b.config)
	config.Impersonate.UserName = "ada"
	config.Impersonate.Groups = []string{"system:authenticated"}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	w := apply.NewWriter(client, b.mapper, "argocd-controller", 1)
	o := b.parse("{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: default}}\n")[0]
	if _, err := w.Predict(b.Context(), o, plan.ObjectOptions{}); err == nil || !strings.HasPrefix(err.Error(), "ada may not patch configmaps in namespace default; give it the verb patch") {
		b.Errorf("%v", err)
	}
}

var (
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)
