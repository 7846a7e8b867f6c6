//go:build linux

package application_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

var (
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

// operations is a world with the steps that the stories below are told in.
type operations struct {
	*gitopstest.World
	t *testing.T
}

func (w operations) apps() *application.Controller { return w.Engine.Applications() }

func configMap(name, value string, more ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n%sdata: {v: %q}\n", name, strings.Join(more, ""), value)
}

// value is the content of a ConfigMap, "" when there is none.
func (w operations) value(namespace, name string) string {
	o := w.Get(configMaps, namespace, name)
	if o == nil {
		return ""
	}
	data, _ := o.Object["data"].(map[string]any)
	v, _ := data["v"].(string)
	return v
}

func (w operations) has(namespace, name, value string) {
	w.t.Helper()
	w.Eventually(fmt.Sprintf("%s/%s to be %q", namespace, name, value), func() bool { return w.value(namespace, name) == value })
}

// deployed pushes the values of a ConfigMap one after another, waits for each,
// and returns the commits.
func (w operations) deployed(app string, r *gitopstest.Repo, values ...string) (commits []string) {
	w.t.Helper()
	for i, v := range values {
		commits = append(commits, r.Push(map[string]string{app + "/a.yaml": configMap("a", v)}))
		if i == 0 {
			w.Application(app, r, app, "")
		}
		w.Wait(app, "commit "+v, gitopstest.Synced(commits[i]))
	}
	return commits
}

func (w operations) patch(app, patch string) {
	w.t.Helper()
	if _, err := w.Client.Resource(v1alpha1.ApplicationResource).Namespace("argocd").Patch(context.Background(), app, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// held waits until a rollback holds the application and it is in sync there.
func (w operations) held(app, commit string) application.View {
	w.t.Helper()
	return w.Wait(app, "the rollback", func(v application.View) bool {
		s := v.Application.Status
		return v.Held != nil && !v.Syncing && s.Sync.Status == v1alpha1.SyncSynced && s.Sync.Revision == commit
	})
}

func (w operations) free(app, commit string) application.View {
	w.t.Helper()
	return w.Wait(app, "the end of the rollback", func(v application.View) bool { return v.Held == nil && gitopstest.Synced(commit)(v) })
}

func (w operations) rollback(app string, id int64) application.RolledBack {
	w.t.Helper()
	got, err := w.apps().Rollback(w.t.Context(), "argocd", app, id, application.RollbackOptions{Actor: "ada"})
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

func (w operations) refused(err error, want string) {
	w.t.Helper()
	var r *application.Refusal
	if !errors.As(err, &r) || !strings.Contains(r.Message, want) {
		w.t.Errorf("%v; want a refusal with %q", err, want)
	}
}

func TestOperations(t *testing.T) {
	world := gitopstest.NewWorld(t)
	for _, s := range []struct {
		name string
		run  func(operations)
	}{
		{"a rollback holds until the source brings something else", rollbackHolds},
		{"a rollback of a commit that fails, and further back", rollbackFurther},
		{"a rollback survives a restart", rollbackRestart},
		{"a rollback of several sources", rollbackSources},
		{"a rollback without automated sync", rollbackManual},
		{"a rollback that somebody annotates", rollbackByHand},
		{"what ends a rollback, and what does not", rollbackEnds},
		{"terminate", terminate},
		{"pause", pause},
		{"confirm a deletion", confirm},
		{"actions", actions},
		{"plan and manifests", planned},
		{"names that do not exist", unknown},
	} {
		t.Run(s.name, func(t *testing.T) {
			outer := world.T
			world.T = t
			defer func() { world.T = outer }()
			s.run(operations{world, t})
			if t.Failed() {
				t.Logf("journal:\n%s", world.Trace())
			}
		})
	}
}

func rollbackHolds(w operations) {
	r := w.NewRepo("contoso/holds")
	commits := w.deployed("holds", r, "1", "2")
	before, err := w.apps().Rollback(w.t.Context(), "argocd", "holds", application.Previous, application.RollbackOptions{DryRun: true})
	if err != nil || len(before.Changes) != 1 || !strings.Contains(before.Changes[0].Text, `-  v: "2"`) || before.Entry.Revisions[0] != commits[0] || before.Skipped[0] != commits[1] {
		w.t.Fatalf("dry run: %+v %v", before, err)
	}
	if w.value("holds", "a") != "2" {
		w.t.Fatal("a dry run wrote")
	}
	w.rollback("holds", application.Previous)
	w.has("holds", "a", "1")
	v := w.held("holds", commits[0])
	if c := v.Application.Status.Conditions; len(c) != 1 || c[0].Type != application.ConditionHeld || !strings.Contains(c[0].Message, commits[1][:7]) {
		w.t.Errorf("conditions: %v", c)
	}
	history, err := w.apps().History(w.t.Context(), "argocd", "holds")
	if err != nil || len(history) != 3 || !history[0].Current || history[0].Actor != "ada" || history[0].Subject != "test" || history[0].Author == "" || history[2].Current {
		w.t.Errorf("history: %+v %v", history, err)
	}
	// A commit for others does not end it.
	other := r.Push(map[string]string{"other/b.yaml": configMap("b", "1")})
	w.Wait("holds", "the hold to skip the new commit", func(v application.View) bool {
		return strings.Contains(v.Application.Annotations[application.AnnotationRollback], other)
	})
	if got := w.value("holds", "a"); got != "1" {
		w.t.Fatalf("a commit for others ended the rollback: %s", got)
	}
	// Drift is healed to the state that is held.
	if _, err := w.Client.Resource(configMaps).Namespace("holds").Patch(w.t.Context(), "a", types.MergePatchType, []byte(`{"data":{"v":"by hand"}}`), metav1.PatchOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.has("holds", "a", "1")
	third := r.Push(map[string]string{"holds/a.yaml": configMap("a", "3")})
	w.has("holds", "a", "3")
	v = w.free("holds", third)
	if len(v.Application.Status.Conditions) != 0 {
		w.t.Errorf("conditions stay: %v", v.Application.Status.Conditions)
	}
}

func rollbackFurther(w operations) {
	r := w.NewRepo("contoso/further")
	commits := w.deployed("further", r, "1", "2")
	bad := r.Push(map[string]string{"further/a.yaml": configMap("a", "3"), "further/bad.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: -1}\n"})
	w.Wait("further", "the failure", func(v application.View) bool {
		s := v.Application.Status.OperationState
		return s != nil && s.Phase == v1alpha1.PhaseFailed && v.Commit == bad
	})
	// The bad commit is not in the history: "previous" is what was before it.
	if got := w.rollback("further", application.Previous); got.Entry.Revisions[0] != commits[1] {
		w.t.Fatalf("back to %+v; want %s", got, commits[1])
	}
	w.held("further", commits[1])
	if got := w.rollback("further", application.Previous); got.Entry.Revisions[0] != commits[0] {
		w.t.Fatalf("back to %+v; want %s", got, commits[0])
	}
	w.has("further", "a", "1")
	w.held("further", commits[0])
	_, err := w.apps().Rollback(w.t.Context(), "argocd", "further", application.Previous, application.RollbackOptions{})
	w.refused(err, "no earlier state")
	_, err = w.apps().Rollback(w.t.Context(), "argocd", "further", 77, application.RollbackOptions{})
	w.refused(err, "no history 77")
	// A rollback of the rollback, to an entry, and the end of it.
	w.rollback("further", 1)
	w.has("further", "a", "2")
	w.held("further", commits[1])
	if err := w.apps().Unhold(w.t.Context(), "argocd", "further"); err != nil {
		w.t.Fatal(err)
	}
	w.Wait("further", "the bad commit to be tried again", func(v application.View) bool {
		s := v.Application.Status
		return v.Held == nil && s.Sync.Revision == bad && s.OperationState.Phase == v1alpha1.PhaseFailed
	})
	w.refused(w.apps().Unhold(w.t.Context(), "argocd", "further"), "not held")
}

func rollbackRestart(w operations) {
	r := w.NewRepo("contoso/restarted")
	commits := w.deployed("restarted", r, "1", "2")
	w.rollback("restarted", application.Previous)
	w.held("restarted", commits[0])
	w.StopEngine()
	w.StartEngine()
	w.held("restarted", commits[0])
	if got := w.value("restarted", "a"); got != "1" {
		w.t.Fatalf("after a restart it is %s", got)
	}
	w.StopEngine()
	third := r.Push(map[string]string{"restarted/a.yaml": configMap("a", "3")})
	w.StartEngine()
	w.has("restarted", "a", "3")
	w.free("restarted", third)
}

func rollbackSources(w operations) {
	one, two := w.NewRepo("contoso/one"), w.NewRepo("contoso/two")
	one1 := one.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	two1 := two.Push(map[string]string{"k8s/b.yaml": configMap("b", "1")})
	w.Create(v1alpha1.ApplicationResource, fmt.Sprintf(`apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: several, namespace: argocd}
spec:
  project: default
  sources: [{repoURL: %s, targetRevision: main, path: k8s}, {repoURL: %s, targetRevision: main, path: k8s}]
  destination: {server: https://kubernetes.default.svc, namespace: several}
  syncPolicy: {automated: {prune: true}, syncOptions: [CreateNamespace=true]}
`, one.URL(), two.URL()))
	at := func(what string, held bool, revisions ...string) {
		w.t.Helper()
		w.Wait("several", what, func(v application.View) bool {
			s := v.Application.Status
			return !v.Syncing && s.Sync.Status == v1alpha1.SyncSynced && strings.Join(s.Sync.Revisions, " ") == strings.Join(revisions, " ") && (v.Held != nil) == held
		})
	}
	at("the first sync", false, one1, two1)
	two2 := two.Push(map[string]string{"k8s/b.yaml": configMap("b", "2")})
	at("the second", false, one1, two2)
	w.rollback("several", application.Previous)
	w.has("several", "b", "1")
	at("the rollback", true, one1, two1)
	// The other source moves: that is something else for this application.
	one2 := one.Push(map[string]string{"k8s/a.yaml": configMap("a", "2")})
	at("the end", false, one2, two2)
	// Back to an entry of another number of sources and another repository.
	w.patch("several", fmt.Sprintf(`{"spec":{"sources":[{"repoURL":%q,"targetRevision":"main","path":"k8s"}]}}`, two.URL()))
	at("one source", false, two2)
	history, err := w.apps().History(w.t.Context(), "argocd", "several")
	if err != nil {
		w.t.Fatal(err)
	}
	w.rollback("several", history[len(history)-1].ID)
	at("two sources", true, one1, two1)
	w.has("several", "a", "1")
}

func rollbackManual(w operations) {
	r := w.NewRepo("contoso/byhand")
	commits := w.deployed("byhand", r, "1", "2")
	w.patch("byhand", `{"spec":{"syncPolicy":{"automated":null}}}`)
	w.Wait("byhand", "the policy", func(v application.View) bool { return v.Application.Spec.SyncPolicy.Automated == nil })
	if got := w.rollback("byhand", application.Previous); got.Skipped != nil {
		w.t.Errorf("%+v", got)
	}
	w.has("byhand", "a", "1")
	v := w.Wait("byhand", "the end", func(v application.View) bool {
		s := v.Application.Status.OperationState
		return s.Phase == v1alpha1.PhaseSucceeded && s.SyncResult.Revision == commits[0]
	})
	if v.Held != nil || v.Application.Status.Sync.Status != v1alpha1.SyncOutOfSync || v.Application.Status.Sync.Revision != commits[1] {
		w.t.Errorf("%+v %v", v.Application.Status.Sync, v.Held)
	}
	if op := v.Application.Status.OperationState.Operation; op.Sync.Source == nil || op.Sync.SyncStrategy.Apply == nil || op.InitiatedBy.Username != "ada" {
		w.t.Errorf("operation: %+v", op)
	}
}

// rollbackByHand writes the annotation alone: automated sync applies the state.
func rollbackByHand(w operations) {
	r := w.NewRepo("contoso/annotated")
	commits := w.deployed("annotated", r, "1", "2")
	w.patch("annotated", fmt.Sprintf(`{"metadata":{"annotations":{"lockstep.dev/rollback":"{\"skip\":[\"%s\"],\"to\":[\"%s\"],\"id\":0}"}}}`, commits[1], commits[0]))
	w.has("annotated", "a", "1")
	v := w.held("annotated", commits[0])
	if !v.Application.Status.OperationState.Operation.InitiatedBy.Automated {
		w.t.Errorf("operation: %+v", v.Application.Status.OperationState.Operation)
	}
	// One of another repository is held against the project.
	w.Create(v1alpha1.AppProjectResource, "apiVersion: argoproj.io/v1alpha1\nkind: AppProject\nmetadata: {name: narrow, namespace: argocd}\nspec: {sourceRepos: ['https://github.com/contoso/annotated'], destinations: [{server: '*', namespace: '*'}]}\n")
	w.patch("annotated", `{"spec":{"project":"narrow"}}`)
	elsewhere := w.NewRepo("contoso/elsewhere")
	commit := elsewhere.Push(map[string]string{"k8s/a.yaml": configMap("a", "stolen")})
	w.patch("annotated", fmt.Sprintf(`{"metadata":{"annotations":{"lockstep.dev/rollback":"{\"skip\":[\"%s\"],\"to\":[\"%s\"],\"id\":0,\"sources\":[{\"repoURL\":\"%s\",\"path\":\"k8s\"}]}"}}}`, commits[1], commit, elsewhere.URL()))
	w.Wait("annotated", "the refusal", func(v application.View) bool {
		for _, c := range v.Application.Status.Conditions {
			if c.Type == v1alpha1.ConditionInvalidSpecError && strings.Contains(c.Message, "sourceRepos") {
				return true
			}
		}
		return false
	})
	if got := w.value("annotated", "a"); got != "1" {
		w.t.Errorf("it became %s", got)
	}
	// One that cannot be read is none.
	w.patch("annotated", `{"metadata":{"annotations":{"lockstep.dev/rollback":"x"}}}`)
	w.has("annotated", "a", "2")
}

func rollbackEnds(w operations) {
	r := w.NewRepo("contoso/ends")
	commits := w.deployed("ends", r, "1", "2")
	w.rollback("ends", application.Previous)
	w.held("ends", commits[0])
	// Other settings, not other sources: the hold stays.
	w.patch("ends", `{"spec":{"revisionHistoryLimit":5}}`)
	if err := w.apps().Refresh(w.t.Context(), "argocd", "ends", true); err != nil {
		w.t.Fatal(err)
	}
	w.Wait("ends", "the refresh", func(v application.View) bool { return v.Application.Annotations[v1alpha1.AnnotationRefresh] == "" })
	w.held("ends", commits[0])
	// Another source in the spec is a new wish.
	w.patch("ends", `{"spec":{"source":{"directory":{"recurse":true}}}}`)
	w.free("ends", commits[1])
	w.has("ends", "a", "2")
	// A paused application is rolled back all the same.
	if err := w.apps().Pause(w.t.Context(), "argocd", "ends", "incident 7"); err != nil {
		w.t.Fatal(err)
	}
	w.rollback("ends", 0)
	w.has("ends", "a", "1")
}

func terminate(w operations) {
	r := w.NewRepo("contoso/endless")
	files := map[string]string{
		"k8s/web.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}\n",
		"k8s/z.yaml":   configMap("z", "1", "  annotations: {argocd.argoproj.io/sync-wave: \"1\"}\n"),
	}
	first := r.Push(files)
	w.refused(func() error {
		w.Application("endless", r, "k8s", "")
		w.Wait("endless", "the wave", func(v application.View) bool { return v.Syncing && strings.Contains(v.Waiting, "web") })
		if err := w.apps().Terminate(w.t.Context(), "argocd", "endless"); err != nil {
			w.t.Fatal(err)
		}
		w.Wait("endless", "the end", func(v application.View) bool {
			s := v.Application.Status.OperationState
			return !v.Syncing && s != nil && s.Phase == v1alpha1.PhaseFailed && strings.Contains(s.Message, "ended by hand")
		})
		return w.apps().Terminate(w.t.Context(), "argocd", "endless")
	}(), "no sync is under way")
	// It is not tried again, not even after a restart, until something is new.
	w.StopEngine()
	w.StartEngine()
	v := w.Wait("endless", "the comparison", func(v application.View) bool { return v.Commit == first && !v.Syncing })
	if !v.RetryAt.IsZero() {
		w.t.Errorf("it is tried again at %s", v.RetryAt)
	}
	if err := w.apps().Sync(w.t.Context(), "argocd", "endless", application.SyncOptions{Actor: "ada"}); err != nil {
		w.t.Fatal(err)
	}
	w.Wait("endless", "the sync by hand", func(v application.View) bool { return v.Syncing })
	err := w.apps().Sync(w.t.Context(), "argocd", "endless", application.SyncOptions{Actor: "bob"})
	w.refused(err, "ada")
	_, err = w.apps().Rollback(w.t.Context(), "argocd", "endless", application.Previous, application.RollbackOptions{})
	w.refused(err, "no history")
	if err := w.apps().Terminate(w.t.Context(), "argocd", "endless"); err != nil {
		w.t.Fatal(err)
	}
	w.Wait("endless", "the second end", func(v application.View) bool { return !v.Syncing })
	r.Push(map[string]string{"k8s/z.yaml": configMap("z", "2", "  annotations: {argocd.argoproj.io/sync-wave: \"0\"}\n")})
	w.has("endless", "z", "2")
}

func pause(w operations) {
	r := w.NewRepo("contoso/paused")
	w.deployed("paused", r, "1")
	w.refused(w.apps().Pause(w.t.Context(), "argocd", "paused", ""), "needs a reason")
	w.refused(w.apps().Resume(w.t.Context(), "argocd", "paused"), "not paused")
	if err := w.apps().Pause(w.t.Context(), "argocd", "paused", "incident 7"); err != nil {
		w.t.Fatal(err)
	}
	second := r.Push(map[string]string{"paused/a.yaml": configMap("a", "2")})
	v := w.Wait("paused", "the condition", func(v application.View) bool {
		return v.Application.Status.Sync.Revision == second && len(v.Application.Status.Conditions) == 1
	})
	if c := v.Application.Status.Conditions[0]; c.Type != application.ConditionPaused || !strings.Contains(c.Message, "incident 7") || v.Paused != "incident 7" {
		w.t.Errorf("%+v", c)
	}
	if got := w.value("paused", "a"); got != "1" {
		w.t.Errorf("paused, and synced: %s", got)
	}
	if err := w.apps().Resume(w.t.Context(), "argocd", "paused"); err != nil {
		w.t.Fatal(err)
	}
	w.free("paused", second)
}

func confirm(w operations) {
	r := w.NewRepo("contoso/confirmed")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/b.yaml": configMap("b", "1", "  annotations: {argocd.argoproj.io/sync-options: Prune=confirm}\n")})
	w.Application("confirmed", r, "k8s", "")
	w.Wait("confirmed", "the first sync", gitopstest.Synced(first))
	second := r.Push(map[string]string{"k8s/b.yaml": ""})
	if err := w.apps().Sync(w.t.Context(), "argocd", "confirmed", application.SyncOptions{Prune: true, Actor: "ada"}); err != nil {
		w.t.Fatal(err)
	}
	w.Wait("confirmed", "the question", func(v application.View) bool { return strings.Contains(v.Waiting, "confirmation") })
	start := time.Now()
	if err := w.apps().ConfirmDeletion(w.t.Context(), "argocd", "confirmed"); err != nil {
		w.t.Fatal(err)
	}
	w.Eventually("the prune", func() bool { return w.Get(configMaps, "confirmed", "b") == nil })
	if took := time.Since(start); took > 2*time.Second {
		w.t.Errorf("the sync noticed only after %s", took)
	}
	w.free("confirmed", second)
}

func actions(w operations) {
	r := w.NewRepo("contoso/acted")
	r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"),
		"k8s/web.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}\n",
		"k8s/job.yaml": "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: nightly}\nspec:\n  schedule: '0 0 * * *'\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}\n"})
	w.Application("acted", r, "k8s", "")
	w.Eventually("the deployment", func() bool { return w.Get(deployments, "acted", "web") != nil })
	ctx := w.t.Context()
	var list []application.ObjectActions
	w.Eventually("the cache", func() bool {
		var err error
		if list, err = w.apps().Actions(ctx, "argocd", "acted", plan.Key{}); err != nil {
			w.t.Fatal(err)
		}
		return len(list) == 2
	})
	if list[0].Kind != "CronJob" || list[1].Kind != "Deployment" || list[1].Actions[1].Name != "restart" {
		w.t.Errorf("%+v", list)
	}
	web := plan.Key{Kind: "deployment", Name: "web"}
	if err := w.apps().RunAction(ctx, "argocd", "acted", web, "restart", nil); err != nil {
		w.t.Fatal(err)
	}
	if at := w.Get(deployments, "acted", "web"); !strings.Contains(fmt.Sprint(at.Object), "kubectl.kubernetes.io/restartedAt") {
		w.t.Errorf("it was not restarted: %v", at.Object)
	}
	if err := w.apps().RunAction(ctx, "argocd", "acted", plan.Key{Kind: "CronJob", Name: "nightly"}, "create-job", nil); err != nil {
		w.t.Fatal(err)
	}
	jobs, err := w.Client.Resource(schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}).Namespace("acted").List(ctx, metav1.ListOptions{})
	if err != nil || len(jobs.Items) != 1 {
		w.t.Errorf("jobs: %v %v", jobs, err)
	}
	w.refused(w.apps().RunAction(ctx, "argocd", "acted", web, "explode", nil), "no such action")
	w.refused(w.apps().RunAction(ctx, "argocd", "acted", plan.Key{Kind: "Deployment", Name: "db"}, "restart", nil), "no live object")
	w.refused(w.apps().RunAction(ctx, "argocd", "acted", plan.Key{Kind: "Deployment"}, "restart", nil), "name the kind")
	w.refused(w.apps().RunAction(ctx, "argocd", "acted", web, "scale", map[string]string{"replicas": "-1"}), "replicas")
	// The project's rules count: a kind that it denies cannot be changed.
	w.Create(v1alpha1.AppProjectResource, "apiVersion: argoproj.io/v1alpha1\nkind: AppProject\nmetadata: {name: nodeploy, namespace: argocd}\nspec: {sourceRepos: ['*'], destinations: [{server: '*', namespace: '*'}], namespaceResourceBlacklist: [{group: apps, kind: Deployment}]}\n")
	w.patch("acted", `{"spec":{"project":"nodeploy"}}`)
	w.Wait("acted", "the project", func(v application.View) bool { return v.Application.Spec.Project == "nodeploy" })
	w.refused(w.apps().RunAction(ctx, "argocd", "acted", web, "restart", nil), "nodeploy")
	w.refused(w.apps().DeleteResource(ctx, "argocd", "acted", web, ""), "nodeploy")
	w.refused(w.apps().DeleteResource(ctx, "argocd", "acted", web, "quickly"), "propagation")
	uid := w.Get(configMaps, "acted", "a").GetUID()
	if err := w.apps().DeleteResource(ctx, "argocd", "acted", plan.Key{Kind: "ConfigMap", Name: "a"}, "background"); err != nil {
		w.t.Fatal(err)
	}
	w.Eventually("the deletion", func() bool { o := w.Get(configMaps, "acted", "a"); return o == nil || o.GetUID() != uid })
}

func planned(w operations) {
	r := w.NewRepo("contoso/planned")
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: geheim}\n"
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/s.yaml": secret})
	w.Application("planned", r, "k8s", "")
	w.Wait("planned", "the first sync", gitopstest.Synced(first))
	second := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "2"), "k8s/b.yaml": configMap("b", "1")})
	w.Wait("planned", "the second sync", gitopstest.Synced(second))
	ctx := w.t.Context()
	now, err := w.apps().Plan(ctx, "argocd", "planned", application.At{})
	if err != nil || len(now) != 0 {
		w.t.Errorf("in sync: %+v %v", now, err)
	}
	back, err := w.apps().Plan(ctx, "argocd", "planned", application.At{Revision: first})
	if err != nil || len(back) != 2 || back[0].Action != plan.Prune || back[1].Action != plan.Update {
		w.t.Errorf("back: %+v %v", actionsOf(back), err)
	}
	manifests, err := w.apps().Manifests(ctx, "argocd", "planned", application.At{})
	text, _ := json.Marshal(manifests)
	if err != nil || len(manifests) != 3 || strings.Contains(string(text), "Z2VoZWlt") || !strings.Contains(string(text), `"password":"(hidden)"`) || manifests[0].Place == "" {
		w.t.Errorf("manifests: %+v %v", manifests, err)
	}
	manifests, err = w.apps().Manifests(ctx, "argocd", "planned", application.At{Revision: first})
	if err != nil || len(manifests) != 2 {
		w.t.Errorf("manifests: %+v %v", manifests, err)
	}
	if _, err := w.apps().Plan(ctx, "argocd", "planned", application.At{Revision: "no-such-branch"}); err == nil || !strings.Contains(err.Error(), "no-such-branch") {
		w.t.Errorf("%v", err)
	}
	// A plan that would need the cluster's view of a kind nobody uses yet.
	third := r.Push(map[string]string{"k8s/quota.yaml": "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l}\nspec: {limits: []}\n"})
	w.Wait("planned", "the third", gitopstest.Synced(third))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.apps().Plan(cancelled, "argocd", "planned", application.At{Revision: first}); err == nil {
		w.t.Error("a plan with a context that ended")
	}
}

func actionsOf(ds []application.ObjectDiff) (out []string) {
	for _, d := range ds {
		out = append(out, string(d.Action)+" "+d.Key.String())
	}
	return out
}

func unknown(w operations) {
	ctx, apps := w.t.Context(), w.apps()
	_, rollback := apps.Rollback(ctx, "argocd", "nobody", 1, application.RollbackOptions{})
	_, history := apps.History(ctx, "argocd", "nobody")
	_, planned := apps.Plan(ctx, "argocd", "nobody", application.At{})
	_, manifests := apps.Manifests(ctx, "argocd", "nobody", application.At{})
	_, list := apps.Actions(ctx, "argocd", "nobody", plan.Key{})
	for i, err := range []error{rollback, history, planned, manifests, list, apps.Terminate(ctx, "argocd", "nobody"), apps.Pause(ctx, "argocd", "nobody", "x"),
		apps.Resume(ctx, "argocd", "nobody"), apps.Unhold(ctx, "argocd", "nobody"), apps.ConfirmDeletion(ctx, "argocd", "nobody"),
		apps.RunAction(ctx, "argocd", "nobody", plan.Key{}, "x", nil), apps.DeleteResource(ctx, "argocd", "nobody", plan.Key{}, "")} {
		if !errors.Is(err, application.ErrNotFound) {
			w.t.Errorf("%d: %v", i, err)
		}
	}
}
