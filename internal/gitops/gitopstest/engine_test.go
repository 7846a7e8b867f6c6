//go:build linux

package gitopstest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

var (
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	jobs        = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}
)

func configMap(name, value string, more ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n%sdata:\n  v: %q\n", name, strings.Join(more, ""), value)
}

func deployment(name, image string, more ...string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %s
%sspec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers:
      - name: web
        image: %[3]s
        resources: {limits: {cpu: 1000m, memory: 1024Mi}}
        ports: [{containerPort: 8080}]
`, name, strings.Join(more, ""), image)
}

func TestEngine(t *testing.T) {
	w := NewWorld(t)
	for _, s := range []struct {
		name string
		run  func(*testing.T, *World)
	}{
		{"create, change, prune", lifecycle},
		{"a commit that does not render leaves live objects alone", badCommit},
		{"an object that the server refuses stops the sync before it writes", refused},
		{"self heal and drift", heal},
		{"manual sync", manual},
		{"waves wait for health, a newer commit pre-empts", waves},
		{"hooks", hooks},
		{"an unaffected commit costs a skipped event", unaffected},
		{"deletion cascades", cascade},
		{"defaulting is no drift", noPhantom},
		{"the reason of a pod is the reason of the application", podReason},
		{"kinds and objects in one source", definitionsFirst},
		{"objects of kubectl apply are taken over", takeOver},
		{"restart", restart},
		{"projects", projects},
		{"a rolling sync", rolling},
	} {
		t.Run(s.name, func(t *testing.T) {
			outer := w.T
			w.T = t
			defer func() { w.T = outer }()
			s.run(t, w)
			if t.Failed() {
				t.Logf("journal:\n%s", w.Trace())
			}
		})
	}
}

func lifecycle(t *testing.T, w *World) {
	r := w.NewRepo("contoso/life")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/b.yaml": configMap("b", "1"), "README.md": "x"})
	w.Application("life", r, "k8s", "")
	v := w.Wait("life", "the first sync", Synced(first))
	if w.Get(configMaps, "life", "a") == nil {
		t.Fatal("configmap a was not made")
	}
	if v.Application.Status.Health.Status != v1alpha1.HealthHealthy || len(v.Application.Status.Resources) != 2 {
		t.Errorf("status: %+v", v.Application.Status)
	}
	untouched := w.Get(configMaps, "life", "b").GetResourceVersion()
	start := time.Now()
	second := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "2")})
	w.Eventually("the change", func() bool {
		v, _, _ := unstructuredString(w, "life", "a")
		return v == "2"
	})
	t.Logf("push to applied: %s", time.Since(start).Round(time.Millisecond))
	w.Wait("life", "the second sync", Synced(second))
	if got := w.Get(configMaps, "life", "b").GetResourceVersion(); got != untouched {
		t.Errorf("configmap b was written though it did not change")
	}
	third := r.Push(map[string]string{"k8s/b.yaml": ""})
	w.Wait("life", "the prune", Synced(third))
	w.Eventually("configmap b to go", func() bool { return w.Get(configMaps, "life", "b") == nil })
	v = w.Wait("life", "the history", func(v application.View) bool { return len(v.Application.Status.History) == 3 })
	for _, stage := range []journal.Stage{journal.StageRender, journal.StagePlan, journal.StageApply, journal.StageReady} {
		events := w.Events(third, stage, "argocd/life")
		if len(events) == 0 || events[len(events)-1].Status != journal.StatusSucceeded {
			t.Errorf("lane %s of the prune: %+v", stage, events)
		}
	}
	if e := w.Events(third, journal.StagePlan, "argocd/life"); len(e) > 0 && e[0].Message != "1 of 2 objects changes: 1 to prune" {
		t.Errorf("plan message: %q", e[0].Message)
	}
}

func unstructuredString(w *World, namespace, name string) (string, bool, error) {
	o := w.Get(configMaps, namespace, name)
	if o == nil {
		return "", false, nil
	}
	data, _ := o.Object["data"].(map[string]any)
	v, ok := data["v"].(string)
	return v, ok, nil
}

func badCommit(t *testing.T, w *World) {
	r := w.NewRepo("contoso/bad")
	first := r.Push(map[string]string{"k8s/kustomization.yaml": "resources: [a.yaml]\n", "k8s/a.yaml": configMap("a", "1")})
	w.Application("bad", r, "k8s", "")
	w.Wait("bad", "the first sync", Synced(first))
	rv := w.Get(configMaps, "bad", "a").GetResourceVersion()
	second := r.Push(map[string]string{"k8s/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n   oops: 1\n"})
	v := w.Wait("bad", "the error", func(v application.View) bool {
		return v.Application.Status.Sync.Status == v1alpha1.SyncUnknown && len(v.Application.Status.Conditions) > 0
	})
	c := v.Application.Status.Conditions[0]
	if c.Type != v1alpha1.ConditionComparisonError || !strings.Contains(c.Message, "k8s/a.yaml:5") {
		t.Errorf("condition: %+v", c)
	}
	events := w.Events(second, journal.StageRender, "argocd/bad")
	if last := events[len(events)-1]; last.Status != journal.StatusFailed || last.File != "k8s/a.yaml" || last.Line != 5 || last.Hint == "" {
		t.Errorf("render event: %+v", last)
	}
	if got := w.Get(configMaps, "bad", "a"); got == nil || got.GetResourceVersion() != rv {
		t.Error("the live object was touched")
	}
	third := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	v = w.Wait("bad", "the revert", func(v application.View) bool {
		return v.Commit == third && v.Application.Status.Sync.Status == v1alpha1.SyncSynced
	})
	if len(v.Application.Status.Conditions) != 0 {
		t.Errorf("conditions stay: %v", v.Application.Status.Conditions)
	}
	if e := w.Events(third, journal.StageApply, "argocd/bad"); len(e) != 1 || e[0].Status != journal.StatusSkipped {
		t.Errorf("apply lane of the revert: %+v", e)
	}
}

func refused(t *testing.T, w *World) {
	r := w.NewRepo("contoso/refused")
	commit := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/d.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: -1}\n"})
	w.Application("refused", r, "k8s", `syncPolicy: {automated: {}, syncOptions: [CreateNamespace=true], retry: {limit: 0}}`)
	// The first dry run cannot see validation behind the missing namespace.
	w.Create(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "apiVersion: v1\nkind: Namespace\nmetadata: {name: refused-2}\n")
	v := w.Wait("refused", "the failure", func(v application.View) bool {
		s := v.Application.Status.OperationState
		return s != nil && s.Phase == v1alpha1.PhaseFailed
	})
	if msg := v.Application.Status.OperationState.Message; !strings.Contains(msg, "k8s/d.yaml:1") {
		t.Errorf("message: %s", msg)
	}
	events := w.Events(commit, journal.StageApply, "argocd/refused")
	if last := events[len(events)-1]; last.Status != journal.StatusFailed || last.File != "k8s/d.yaml" {
		t.Errorf("apply event: %+v", last)
	}
}

func heal(t *testing.T, w *World) {
	r := w.NewRepo("contoso/heal")
	commit := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Application("heal", r, "k8s", "")
	w.Wait("heal", "the first sync", Synced(commit))
	patch(t, w, configMaps, "heal", "a", `{"data":{"v":"changed by hand"}}`)
	w.Eventually("the drift to be healed", func() bool { v, _, _ := unstructuredString(w, "heal", "a"); return v == "1" })
	w.Eventually("the event", func() bool {
		for _, e := range w.Events(commit, journal.StageApply, "argocd/heal") {
			if strings.Contains(e.Message, "healed drift: ConfigMap heal/a: data.v set by kubectl-edit") {
				return true
			}
		}
		return false
	})
	if err := w.in(configMaps, "heal").Delete(context.Background(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the object to come back", func() bool { v, _, _ := unstructuredString(w, "heal", "a"); return v == "1" })
}

func patch(t *testing.T, w *World, resource schema.GroupVersionResource, namespace, name, body string, sub ...string) {
	t.Helper()
	if _, err := w.in(resource, namespace).Patch(context.Background(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: "kubectl-edit"}, sub...); err != nil {
		t.Fatal(err)
	}
}

func manual(t *testing.T, w *World) {
	r := w.NewRepo("contoso/manual")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: geheim}\n"})
	w.Application("manual", r, "k8s", "syncPolicy: {syncOptions: [CreateNamespace=true, Magic=true]}")
	v := w.Wait("manual", "the comparison", func(v application.View) bool { return v.Application.Status.Sync.Status == v1alpha1.SyncOutOfSync })
	if len(v.Application.Status.Conditions) != 1 || !strings.Contains(v.Application.Status.Conditions[0].Message, "Magic=true") {
		t.Errorf("conditions: %v", v.Application.Status.Conditions)
	}
	if v.Application.Status.Health.Status != v1alpha1.HealthMissing {
		t.Errorf("health: %+v", v.Application.Status.Health)
	}
	apps := w.Engine.Applications()
	if err := apps.Sync(t.Context(), "argocd", "manual", application.SyncOptions{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	w.Wait("manual", "the dry run", func(v application.View) bool {
		s := v.Application.Status.OperationState
		return s != nil && s.Phase == v1alpha1.PhaseSucceeded
	})
	if w.Get(configMaps, "manual", "a") != nil {
		t.Fatal("a dry run wrote")
	}
	if err := apps.Sync(t.Context(), "argocd", "manual", application.SyncOptions{Actor: "ada"}); err != nil {
		t.Fatal(err)
	}
	w.Wait("manual", "the sync", Synced(first))
	second := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "2"), "k8s/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: anders}\n"})
	w.Wait("manual", "the difference", func(v application.View) bool {
		return v.Commit == second && v.Application.Status.Sync.Status == v1alpha1.SyncOutOfSync
	})
	diffs, err := apps.Diff(t.Context(), "argocd", "manual")
	if err != nil || len(diffs) != 2 {
		t.Fatalf("diff: %v %v", diffs, err)
	}
	text := fmt.Sprint(diffs)
	if strings.Contains(text, "Z2VoZWlt") || strings.Contains(text, "YW5kZXJz") || strings.Contains(text, "anders") {
		t.Errorf("the diff shows a secret: %s", text)
	}
	for _, d := range diffs {
		if d.Kind == "ConfigMap" && (d.Differences[0].Path != "data.v" || d.Differences[0].Want != "2" || !strings.Contains(d.Text, "-  v: \"1\"\n+  v: \"2\"")) {
			t.Errorf("diff: %+v", d)
		}
	}
	if err := apps.Sync(t.Context(), "argocd", "manual", application.SyncOptions{Revision: second}); err != nil {
		t.Fatal(err)
	}
	w.Wait("manual", "the second sync", Synced(second))
	if err := apps.Sync(t.Context(), "argocd", "manual", application.SyncOptions{Revision: first}); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the rollback", func() bool { v, _, _ := unstructuredString(w, "manual", "a"); return v == "1" })
}

func wave(n int) string {
	return fmt.Sprintf("  annotations: {argocd.argoproj.io/sync-wave: %q}\n", fmt.Sprint(n))
}

// rollout makes a deployment look as its controller would report it.
func rollout(t *testing.T, w *World, namespace, name string) {
	t.Helper()
	g := w.Get(deployments, namespace, name).GetGeneration()
	patch(t, w, deployments, namespace, name, fmt.Sprintf(
		`{"status":{"observedGeneration":%d,"replicas":1,"updatedReplicas":1,"readyReplicas":1,"availableReplicas":1}}`, g), "status")
}

func waves(t *testing.T, w *World) {
	r := w.NewRepo("contoso/waves")
	first := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:1", wave(-1)), "k8s/z.yaml": configMap("z", "1", wave(5))})
	w.Application("waves", r, "k8s", "")
	w.Eventually("the first wave", func() bool { return w.Get(deployments, "waves", "d") != nil })
	w.Wait("waves", "the wait", func(v application.View) bool {
		return v.Syncing && strings.Contains(v.Waiting, "wave -1 waits for Deployment waves/d")
	})
	if w.Get(configMaps, "waves", "z") != nil {
		t.Fatal("the second wave did not wait")
	}
	rollout(t, w, "waves", "d")
	w.Wait("waves", "the second wave", Synced(first))
	ready := w.Wait("waves", "health", func(v application.View) bool { return v.Application.Status.Health.Status == v1alpha1.HealthHealthy })
	if images := ready.Application.Status.Summary.Images; len(images) != 1 || images[0] != "web:1" {
		t.Errorf("images: %v", images)
	}
	second := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:broken", wave(-1)), "k8s/z.yaml": configMap("z", "2", wave(5))})
	w.Wait("waves", "the broken image to be waited for", func(v application.View) bool { return v.Syncing && v.Commit == second })
	w.Eventually("the write", func() bool {
		return strings.Contains(fmt.Sprint(w.Get(deployments, "waves", "d").Object), "web:broken")
	})
	third := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:3", wave(-1))})
	w.Eventually("the fix to pre-empt", func() bool { return strings.Contains(fmt.Sprint(w.Get(deployments, "waves", "d").Object), "web:3") })
	rollout(t, w, "waves", "d")
	w.Wait("waves", "the fix", Synced(third))
	events := w.Events(second, journal.StageApply, "argocd/waves")
	if last := events[len(events)-1]; last.Status != journal.StatusCancelled {
		t.Errorf("the broken commit's apply lane ends with %+v", last)
	}
}

func hooks(t *testing.T, w *World) {
	r := w.NewRepo("contoso/hooks")
	job := "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: migrate\n  annotations: {argocd.argoproj.io/hook: PreSync}\nspec:\n  template:\n    spec: {restartPolicy: Never, containers: [{name: m, image: m}]}\n"
	first := r.Push(map[string]string{"k8s/job.yaml": job, "k8s/a.yaml": configMap("a", "1")})
	w.Application("hooks", r, "k8s", "")
	w.Eventually("the hook", func() bool { return w.Get(jobs, "hooks", "migrate") != nil })
	w.Wait("hooks", "the wait", func(v application.View) bool {
		return strings.Contains(v.Waiting, "PreSync waits for Job hooks/migrate")
	})
	if w.Get(configMaps, "hooks", "a") != nil {
		t.Fatal("the sync did not wait for the hook")
	}
	complete(t, w, "hooks", "migrate")
	w.Wait("hooks", "the sync", Synced(first))
	old := w.Get(jobs, "hooks", "migrate").GetUID()
	second := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "2")})
	w.Eventually("the hook to be made anew", func() bool {
		j := w.Get(jobs, "hooks", "migrate")
		return j != nil && j.GetUID() != old
	})
	complete(t, w, "hooks", "migrate")
	w.Wait("hooks", "the second sync", Synced(second))
}

func complete(t *testing.T, w *World, namespace, name string) {
	t.Helper()
	patch(t, w, jobs, namespace, name, `{"status":{"startTime":"2026-01-01T00:00:00Z","completionTime":"2026-01-01T00:00:01Z","succeeded":1,"conditions":[
		{"type":"SuccessCriteriaMet","status":"True"},{"type":"Complete","status":"True"}]}}`, "status")
}

func unaffected(t *testing.T, w *World) {
	r := w.NewRepo("contoso/mono")
	first := r.Push(map[string]string{"one/a.yaml": configMap("a", "1"), "two/a.yaml": configMap("a", "1")})
	w.Application("one", r, "one", "")
	w.Application("two", r, "two", "")
	w.Wait("one", "the first sync", Synced(first))
	w.Wait("two", "the first sync", Synced(first))
	before := w.Get(v1alpha1.ApplicationResource, "argocd", "one").GetResourceVersion()
	second := r.Push(map[string]string{"two/a.yaml": configMap("a", "2")})
	w.Wait("two", "the change", Synced(second))
	w.Wait("one", "the commit to be noted", func(v application.View) bool { return v.Commit == second })
	w.Eventually("the skipped event", func() bool { return len(w.Events(second, journal.StageRender, "other applications")) > 0 })
	if e := w.Events(second, journal.StageRender, "other applications"); len(e) != 1 || e[0].Status != journal.StatusSkipped || !strings.Contains(e[0].Message, "1 application that follows the branch and reads none of 1 changed file") {
		t.Errorf("render lane: %+v", e)
	}
	if e := w.Events(second, journal.StageRender, "argocd/one"); len(e) != 0 {
		t.Errorf("the unaffected application was told of: %+v", e)
	}
	if got := w.Get(v1alpha1.ApplicationResource, "argocd", "one").GetResourceVersion(); got != before {
		t.Error("the unaffected application was written")
	}
	third := r.Push(map[string]string{"one/a.yaml": configMap("a", "3")})
	w.Wait("one", "its own change", Synced(third))
}

func cascade(t *testing.T, w *World) {
	r := w.NewRepo("contoso/gone")
	commit := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/keep.yaml": configMap("keep", "1", "  annotations: {argocd.argoproj.io/sync-options: Delete=false}\n")})
	w.Application("gone", r, "k8s", "")
	w.Wait("gone", "the first sync", Synced(commit))
	if err := w.in(v1alpha1.ApplicationResource, "argocd").Delete(context.Background(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the application to go", func() bool { return w.Get(v1alpha1.ApplicationResource, "argocd", "gone") == nil })
	if w.Get(configMaps, "gone", "a") != nil {
		t.Error("its object is still there")
	}
	if w.Get(configMaps, "gone", "keep") == nil {
		t.Error("Delete=false was not honoured")
	}
}

func noPhantom(t *testing.T, w *World) {
	r := w.NewRepo("contoso/quiet")
	commit := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:1"), "k8s/svc.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: d}, ports: [{port: 80, targetPort: 8080}]}\n"})
	w.Application("quiet", r, "k8s", "")
	w.Wait("quiet", "the sync", Synced(commit))
	generation := w.Get(deployments, "quiet", "d").GetGeneration()
	rollout(t, w, "quiet", "d")
	w.Wait("quiet", "health", func(v application.View) bool { return v.Application.Status.Health.Status == v1alpha1.HealthHealthy })
	if err := w.Engine.Applications().Refresh(t.Context(), "argocd", "quiet", true); err != nil {
		t.Fatal(err)
	}
	v := w.Wait("quiet", "the refresh", func(v application.View) bool {
		_, asked := v.Application.Annotations[v1alpha1.AnnotationRefresh]
		return !asked
	})
	if v.Application.Status.Sync.Status != v1alpha1.SyncSynced {
		t.Errorf("drift: %+v", v.Application.Status.Resources)
	}
	if got := w.Get(deployments, "quiet", "d").GetGeneration(); got != generation {
		t.Errorf("the deployment was written again: generation %d, then %d", generation, got)
	}
	// A field that the source drops goes from the live object as well.
	second := r.Push(map[string]string{"k8s/d.yaml": strings.Replace(deployment("d", "web:1"), "        ports: [{containerPort: 8080}]\n", "", 1)})
	w.Wait("quiet", "the removal", Synced(second))
	data, err := json.Marshal(w.Get(deployments, "quiet", "d").Object["spec"])
	if err != nil || strings.Contains(string(data), "containerPort") {
		t.Errorf("the port is still there: %s %v", data, err)
	}
}

func restart(t *testing.T, w *World) {
	r := w.NewRepo("contoso/again")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Application("again", r, "k8s", "")
	w.Wait("again", "the first sync", Synced(first))
	w.StopEngine()
	events := len(w.Events(first, journal.StageRender, "argocd/again"))
	r.Push(map[string]string{"k8s/other.txt": "x"})
	third := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "3")})
	w.StartEngine()
	w.Wait("again", "what was pushed meanwhile", Synced(third))
	if got := len(w.Events(first, journal.StageRender, "argocd/again")); got != events {
		t.Errorf("the old commit was told again")
	}
}

func projects(t *testing.T, w *World) {
	r := w.NewRepo("contoso/strict")
	r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Create(v1alpha1.AppProjectResource, "apiVersion: argoproj.io/v1alpha1\nkind: AppProject\nmetadata: {name: team, namespace: argocd}\nspec: {sourceRepos: ['https://github.com/contoso/other'], destinations: [{server: '*', namespace: '*'}]}\n")
	w.Create(v1alpha1.ApplicationResource, `apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: strict, namespace: argocd}
spec: {project: team, source: {repoURL: https://github.com/contoso/strict, path: k8s}, destination: {server: https://kubernetes.default.svc, namespace: default}, syncPolicy: {automated: {}}}
`)
	v := w.Wait("strict", "the refusal", func(v application.View) bool { return len(v.Application.Status.Conditions) > 0 })
	if c := v.Application.Status.Conditions[0]; c.Type != v1alpha1.ConditionInvalidSpecError || !strings.Contains(c.Message, "sourceRepos") {
		t.Errorf("condition: %+v", c)
	}
	patch(t, w, v1alpha1.AppProjectResource, "argocd", "team", `{"spec":{"sourceRepos":["https://github.com/contoso/*"]}}`)
	w.Eventually("the sync once permitted", func() bool { return w.Get(configMaps, "default", "a") != nil })
}

// podReason plays the deployment controller and the kubelet: a pod of the new
// version cannot mount its secret.
func podReason(t *testing.T, w *World) {
	r := w.NewRepo("contoso/mount")
	commit := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:1")})
	w.Application("mount", r, "k8s", "")
	w.Wait("mount", "the sync", Synced(commit))
	d := w.Get(deployments, "mount", "d")
	set := w.Create(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}, fmt.Sprintf(`apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: d-1, namespace: mount, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: d, uid: %s, controller: true}]}
spec: {selector: {matchLabels: {app: d}}, template: {metadata: {labels: {app: d}}, spec: {containers: [{name: web, image: web}]}}}
`, d.GetUID()))
	pod := w.Create(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: d-1-x, namespace: mount, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: d-1, uid: %s, controller: true}]}
spec: {containers: [{name: web, image: web}]}
`, set.GetUID()))
	w.Create(schema.GroupVersionResource{Version: "v1", Resource: "events"}, fmt.Sprintf(`apiVersion: v1
kind: Event
metadata: {name: d-1-x.1, namespace: mount}
involvedObject: {apiVersion: v1, kind: Pod, name: d-1-x, namespace: mount, uid: %s}
type: Warning
reason: FailedMount
message: "MountVolume.SetUp failed: secret greeting not found in vault storefront-kv"
lastTimestamp: "2026-01-01T00:00:00Z"
`, pod.GetUID()))
	w.Wait("mount", "the reason", func(v application.View) bool {
		return strings.Contains(v.Application.Status.Health.Message, "pod d-1-x: FailedMount: MountVolume.SetUp failed: secret greeting not found")
	})
	w.Eventually("the event", func() bool {
		for _, e := range w.Events(commit, journal.StageReady, "argocd/mount") {
			if e.Status == journal.StatusWaiting && strings.Contains(e.Message, "FailedMount") {
				return true
			}
		}
		return false
	})
	tree, err := w.Engine.Applications().Tree(t.Context(), "argocd", "mount")
	if err != nil || len(tree) != 1 || len(tree[0].Children) != 1 || len(tree[0].Children[0].Children) != 1 || tree[0].Children[0].Children[0].Name != "d-1-x" {
		t.Errorf("tree: %+v %v", tree, err)
	}
	patch(t, w, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "mount", "d-1-x", `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, "status")
	rollout(t, w, "mount", "d")
	w.Wait("mount", "health", func(v application.View) bool { return v.Application.Status.Health.Status == v1alpha1.HealthHealthy })
	w.Eventually("the end of the ready lane", func() bool {
		events := w.Events(commit, journal.StageReady, "argocd/mount")
		return events[len(events)-1].Status == journal.StatusSucceeded
	})
}

func definitionsFirst(t *testing.T, w *World) {
	r := w.NewRepo("contoso/crd")
	commit := r.Push(map[string]string{
		"k8s/a-widget.yaml": "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n",
		"k8s/z-crd.yaml": `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`})
	// In the foreground the garbage collector takes up to 30 s to learn of a new kind.
	w.Application("crd", r, "k8s", "syncPolicy: {automated: {prune: true}, syncOptions: [CreateNamespace=true, PrunePropagationPolicy=background]}")
	w.Wait("crd", "the sync", Synced(commit))
	widgets := schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
	if w.Get(widgets, "crd", "w") == nil {
		t.Error("the widget was not made")
	}
	second := r.Push(map[string]string{"k8s/a-widget.yaml": ""})
	w.Wait("crd", "the prune", Synced(second))
	w.Eventually("the widget to go", func() bool { return w.Get(widgets, "crd", "w") == nil })
}

func takeOver(t *testing.T, w *World) {
	r := w.NewRepo("contoso/adopt")
	w.Create(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "apiVersion: v1\nkind: Namespace\nmetadata: {name: adopt}\n")
	o := configMap("a", "1")
	last := `{"apiVersion":"v1","data":{"gone":"x","v":"1"},"kind":"ConfigMap","metadata":{"name":"a","namespace":"adopt"}}`
	have := strings.Replace(o, "data:\n", "data:\n  gone: x\n", 1)
	have = strings.Replace(have, "  name: a\n", "  name: a\n  namespace: adopt\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: '"+last+"'\n", 1)
	w.CreateAs("kubectl-client-side-apply", configMaps, have)
	commit := r.Push(map[string]string{"k8s/a.yaml": o})
	w.Application("adopt", r, "k8s", "")
	w.Wait("adopt", "the sync", Synced(commit))
	w.Eventually("the field that the source does not have to go", func() bool {
		data, _ := w.Get(configMaps, "adopt", "a").Object["data"].(map[string]any)
		_, has := data["gone"]
		return !has && data["v"] == "1"
	})
}
