//go:build linux

package applicationset

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// world is an API server with a controller.
type world struct {
	t      testing.TB
	client dynamic.Interface
	ctrl   *Controller
	repo   *repository
	stop   func()
}

// repository is a bare repository with one branch; it answers to each address.
type repository struct {
	t     testing.TB
	git   *git.Repository
	files map[string]string
	head  string
	mu    sync.Mutex
	fail  error
	trees int
}

func newRepository(t testing.TB) *repository {
	t.Helper()
	repo, err := git.Init(t.Context(), filepath.Join(t.TempDir(), "repo.git"), "main")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(repo.Close)
	return &repository{t: t, git: repo, files: map[string]string{}, head: git.ZeroID}
}

func (r *repository) Tree(ctx context.Context, _, _, revision string) (*source.Tree, error) {
	r.mu.Lock()
	r.trees++
	err := r.fail
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	commit, err := source.Resolve(ctx, r.git, revision)
	if err != nil {
		return nil, err
	}
	return source.NewTree(r.git, commit), nil
}

func (r *repository) Name(string) string { return "o/r" }

// push commits files over those of the last commit ("" deletes one).
func (r *repository) push(files map[string]string) Move {
	r.t.Helper()
	for name, content := range files {
		if r.files[name] = content; content == "" {
			delete(r.files, name)
		}
	}
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Ada <ada@contoso.com> %d +0000\ndata 4\ntest\n", time.Now().Unix())
	if r.head != git.ZeroID {
		fmt.Fprintf(&in, "from %s\n", r.head)
	}
	in.WriteString("deleteall\n")
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", name, len(r.files[name]), r.files[name])
	}
	if _, err := r.git.RunInput(context.Background(), []byte(in.String()), "fast-import", "--quiet", "--force"); err != nil {
		r.t.Fatal(err)
	}
	commit, err := r.git.Resolve(context.Background(), "refs/heads/main")
	if err != nil {
		r.t.Fatal(err)
	}
	m := Move{Repo: "o/r", Ref: "refs/heads/main", Head: "refs/heads/main", Before: r.head, After: commit, Changed: slices.Sorted(maps.Keys(files))}
	r.head = commit
	return m
}

type logs struct{ t testing.TB }

func (l logs) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

var (
	crds       = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

func newWorld(t *testing.T) *world {
	t.Helper()
	cluster := plane.StartCluster(t)
	w := &world{t: t, client: cluster.Client, repo: newRepository(t)}
	all, err := v1alpha1.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range all {
		w.create(crds, crd)
	}
	for _, crd := range all {
		w.eventually("the kind "+crd.GetName(), func() bool {
			o, err := w.client.Resource(crds).Get(context.Background(), crd.GetName(), metav1.GetOptions{})
			if err != nil {
				return false
			}
			list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
			return slices.ContainsFunc(list, func(c any) bool {
				m := c.(map[string]any)
				return m["type"] == "Established" && m["status"] == "True"
			})
		})
	}
	w.yaml(namespaces, "{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}")
	w.eventually("the default project", func() bool {
		_, err := w.client.Resource(v1alpha1.AppProjectResource).Namespace("argocd").Create(context.Background(), decode(t,
			"{apiVersion: argoproj.io/v1alpha1, kind: AppProject, metadata: {name: default, namespace: argocd}, spec: {sourceRepos: ['*'], destinations: [{server: '*', namespace: '*'}]}}"), metav1.CreateOptions{})
		return err == nil
	})
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	ctrl, err := New(Config{}, Deps{Log: slog.New(slog.NewTextHandler(logs{w.t}, nil)), Client: w.client, Repositories: w.repo})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ctrl.Run(ctx) }()
	select {
	case <-ctrl.Ready():
	case <-time.After(patience):
		w.t.Fatal("the controller is not ready")
	}
	w.ctrl = ctrl
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = func() {}
	}
}

func decode(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = o.UnmarshalJSON(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (w *world) in(r schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return w.client.Resource(r)
	}
	return w.client.Resource(r).Namespace(namespace)
}

func (w *world) create(r schema.GroupVersionResource, o *unstructured.Unstructured) {
	w.t.Helper()
	if _, err := w.in(r, o.GetNamespace()).Create(context.Background(), o, metav1.CreateOptions{FieldManager: "kubectl"}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) yaml(r schema.GroupVersionResource, text string) {
	w.t.Helper()
	w.create(r, decode(w.t, text))
}

// make creates an ApplicationSet from its spec.
func (w *world) make(name, spec string) {
	w.t.Helper()
	w.yaml(v1alpha1.ApplicationSetResource, fmt.Sprintf("apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nmetadata: {name: %s, namespace: argocd}\nspec:\n%s", name, indent(spec)))
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") + "\n"
}

func (w *world) patch(r schema.GroupVersionResource, name, patch string) {
	w.t.Helper()
	data, err := yaml.YAMLToJSON([]byte(patch))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.in(r, "argocd").Patch(context.Background(), name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: "kubectl"}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) apps() map[string]*unstructured.Unstructured {
	w.t.Helper()
	list, err := w.in(v1alpha1.ApplicationResource, "argocd").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		out[list.Items[i].GetName()] = &list.Items[i]
	}
	return out
}

func (w *world) names() []string { return slices.Sorted(maps.Keys(w.apps())) }

func (w *world) set(name string) *v1alpha1.ApplicationSet {
	w.t.Helper()
	o, err := w.in(v1alpha1.ApplicationSetResource, "argocd").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	var s v1alpha1.ApplicationSet
	if err := v1alpha1.Decode(o, &s); err != nil {
		w.t.Fatal(err)
	}
	return &s
}

func (w *world) condition(name, kind string) v1alpha1.ApplicationSetCondition {
	w.t.Helper()
	if s := w.set(name); s != nil {
		for _, c := range s.Status.Conditions {
			if c.Type == kind {
				return c
			}
		}
	}
	return v1alpha1.ApplicationSetCondition{}
}

func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			detail := ""
			if sets, err := w.in(v1alpha1.ApplicationSetResource, "argocd").List(context.Background(), metav1.ListOptions{}); err == nil {
				for _, s := range sets.Items {
					unstructured.RemoveNestedField(s.Object, "status", "resources")
					data, _ := json.Marshal(s.Object["status"])
					detail += fmt.Sprintf("\n%s: %s", s.GetName(), data)
				}
			}
			w.t.Fatalf("waiting for %s; Applications %v%s", what, w.names(), detail)
		}
	}
}

// settled waits until the controller has nothing to do.
func (w *world) settled() {
	w.t.Helper()
	w.eventually("rest", func() bool { return w.ctrl.queue.Len() == 0 })
	time.Sleep(200 * time.Millisecond)
}

// versions are the resource versions of all Applications and sets: equal ones
// mean that nothing was written.
func (w *world) versions() string {
	w.t.Helper()
	var out []string
	for _, r := range []schema.GroupVersionResource{v1alpha1.ApplicationResource, v1alpha1.ApplicationSetResource} {
		list, err := w.in(r, "argocd").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, o := range list.Items {
			out = append(out, o.GetName()+"@"+o.GetResourceVersion())
		}
	}
	return strings.Join(out, " ")
}

const filesSet = `goTemplate: true
goTemplateOptions: [missingkey=error]
generators:
- git:
    repoURL: https://github.com/o/r
    revision: main
    files: [{path: 'apps/*.yaml'}]
template:
  metadata: {name: 'app-{{.name}}'}
  spec:
    project: default
    source: {repoURL: https://github.com/o/r, targetRevision: main, path: '{{.name}}', helm: {valuesObject: {image: '{{.image}}'}}}
    destination: {server: https://kubernetes.default.svc, namespace: '{{.name}}'}
`

func file(name, image string) string { return fmt.Sprintf("name: %s\nimage: %s\n", name, image) }

// TestController runs everything against one API server.
func TestController(t *testing.T) {
	w := newWorld(t)
	run := func(name string, f func(*testing.T, *world)) {
		t.Run(name, func(t *testing.T) {
			sub := *w
			sub.t = t
			defer sub.clear()
			f(t, &sub)
			w.ctrl, w.stop = sub.ctrl, sub.stop // perhaps restarted
		})
	}
	run("files", testFiles)
	run("failures change nothing", testFailures)
	run("drift and preserved fields", testDrift)
	run("policies", testPolicies)
	run("validation", testValidation)
	run("nulls", testNulls)
	run("clusters", testClusters)
	run("deletion", testDeletion)
	run("rolling sync", testRolling)
	run("reverse deletion", testReverse)
	run("pull requests", testPulls)
	run("thousand", testThousand)
}

// clear takes away what a test left.
func (w *world) clear() {
	w.t.Helper()
	ctx := context.Background()
	w.eventually("an empty namespace", func() bool {
		left := 0
		for _, r := range []schema.GroupVersionResource{v1alpha1.ApplicationSetResource, v1alpha1.ApplicationResource} {
			list, err := w.in(r, "argocd").List(ctx, metav1.ListOptions{})
			if err != nil {
				return false
			}
			for _, o := range list.Items {
				left++
				if o.GetDeletionTimestamp() == nil {
					_ = w.in(r, "argocd").Delete(ctx, o.GetName(), metav1.DeleteOptions{})
				}
				if len(o.GetFinalizers()) == 0 {
					continue
				}
				_, _ = w.in(r, "argocd").Patch(ctx, o.GetName(), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			}
		}
		return left == 0
	})
}

func testFiles(t *testing.T, w *world) {
	w.repo.push(map[string]string{"apps/a.yaml": file("a", "one"), "apps/b.yaml": file("b", "one"), "other/x": "1"})
	w.make("files", filesSet)
	w.eventually("two Applications", func() bool { return slices.Equal(w.names(), []string{"app-a", "app-b"}) })
	w.eventually("the status", func() bool {
		return w.condition("files", v1alpha1.ConditionResourcesUpToDate).Status == "True" && len(w.set("files").Status.Resources) == 2
	})
	a := w.apps()["app-a"]
	if refs := a.GetOwnerReferences(); len(refs) != 1 || refs[0].Kind != "ApplicationSet" || refs[0].Controller == nil || !*refs[0].Controller {
		t.Errorf("owner: %+v", refs)
	}
	if f := a.GetFinalizers(); !slices.Equal(f, []string{v1alpha1.FinalizerResources}) {
		t.Errorf("finalizers: %v", f)
	}
	w.settled()
	before := w.versions()
	trees := w.repo.trees
	w.ctrl.Moved(w.repo.push(map[string]string{"other/x": "2"}))
	w.settled()
	if after := w.versions(); after != before || w.repo.trees != trees {
		t.Errorf("a push of what nobody reads: %d trees opened, writes:\n%s\n%s", w.repo.trees-trees, before, after)
	}
	w.ctrl.Moved(w.repo.push(map[string]string{"apps/sub/readme.txt": "x"}))
	w.settled()
	if after := w.versions(); after != before {
		t.Errorf("a push without effect wrote:\n%s\n%s", before, after)
	}
	b := w.apps()["app-b"].GetResourceVersion()
	w.ctrl.Moved(w.repo.push(map[string]string{"apps/a.yaml": file("a", "two"), "apps/c.yaml": file("c", "one")}))
	w.eventually("the change of a, and c", func() bool {
		apps := w.apps()
		image, _, _ := unstructured.NestedString(apps["app-a"].Object, "spec", "source", "helm", "valuesObject", "image")
		return image == "two" && apps["app-c"] != nil
	})
	if got := w.apps()["app-b"].GetResourceVersion(); got != b {
		t.Error("b was written")
	}
	w.ctrl.Wake("o/r", w.repo.push(map[string]string{"apps/a.yaml": ""}).Ref)
	w.eventually("a to be deleted", func() bool { a := w.apps()["app-a"]; return a == nil || a.GetDeletionTimestamp() != nil })
}

func testFailures(t *testing.T, w *world) {
	w.repo.push(map[string]string{"apps/a.yaml": file("a", "one"), "apps/b.yaml": file("b", "one"), "apps/c.yaml": ""})
	w.make("files", filesSet)
	w.eventually("two Applications", func() bool { return slices.Equal(w.names(), []string{"app-a", "app-b"}) })
	w.settled()
	before := fmt.Sprint(w.apps()["app-a"].GetResourceVersion(), w.apps()["app-b"].GetResourceVersion())
	for _, c := range []struct{ name, content, want string }{
		{"a template that fails for one", "name: b\n", `spec.generators[0] (git), set 2 (name b): spec.template.spec.source.helm.valuesObject.image: template "{{.image}}"`},
		{"a file that cannot be read", "name: [", "spec.generators[0] (git): file apps/b.yaml: is neither YAML nor JSON"},
	} {
		w.ctrl.Moved(w.repo.push(map[string]string{"apps/b.yaml": c.content, "apps/a.yaml": file("a", "changed")}))
		w.eventually(c.name, func() bool {
			return strings.Contains(w.condition("files", v1alpha1.ConditionErrorOccurred).Message, c.want)
		})
		if got := w.condition("files", v1alpha1.ConditionResourcesUpToDate).Status; got != "False" {
			t.Errorf("%s: ResourcesUpToDate is %s", c.name, got)
		}
	}
	w.repo.mu.Lock()
	w.repo.fail = fmt.Errorf("no route to host")
	w.repo.mu.Unlock()
	w.patch(v1alpha1.ApplicationSetResource, "files", "metadata: {annotations: {argocd.argoproj.io/application-set-refresh: 'true'}}")
	w.eventually("the failing repository", func() bool {
		c := w.condition("files", v1alpha1.ConditionParametersGenerated)
		return c.Status == "False" && strings.Contains(c.Message, "no route to host")
	})
	w.settled()
	if after := fmt.Sprint(w.apps()["app-a"].GetResourceVersion(), w.apps()["app-b"].GetResourceVersion()); after != before {
		t.Error("a failure changed Applications")
	}
	if _, there := w.set("files").Annotations[v1alpha1.AnnotationApplicationSetRefresh]; there {
		t.Error("the refresh annotation is still there")
	}
	w.repo.mu.Lock()
	w.repo.fail = nil
	w.repo.mu.Unlock()
	w.ctrl.Moved(w.repo.push(map[string]string{"apps/b.yaml": file("b", "good")}))
	w.eventually("the repair", func() bool {
		image, _, _ := unstructured.NestedString(w.apps()["app-a"].Object, "spec", "source", "helm", "valuesObject", "image")
		return image == "changed" && w.condition("files", v1alpha1.ConditionErrorOccurred).Status == "False"
	})
}

func testPulls(t *testing.T, w *world) {
	var mu sync.Mutex
	pulls := `[{"number": 1, "head": {"ref": "a", "sha": "abc"}, "base": {"ref": "main"}, "user": {"login": "ada"}}]`
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if pulls == "" {
			http.Error(rw, "down", http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(rw, pulls)
	}))
	defer s.Close()
	defer w.ctrl.HTTP.CloseIdleConnections()
	answer := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		pulls = text
	}
	w.make("pulls", strings.NewReplacer("list: {elements: [{name: a}, {name: b}]}", "pullRequest: {github: {api: '"+s.URL+"', owner: o, repo: r}}", "'{{name}}'", "'pr-{{number}}'").Replace(listSet))
	w.eventually("the preview", func() bool { return slices.Equal(w.names(), []string{"pr-1"}) })
	answer("")
	w.ctrl.PullRequestsChanged("o/r")
	w.eventually("the failure", func() bool {
		return strings.Contains(w.condition("pulls", v1alpha1.ConditionErrorOccurred).Message, "status 502")
	})
	if a := w.apps()["pr-1"]; a == nil || a.GetDeletionTimestamp() != nil {
		t.Error("an API that is down deleted the preview")
	}
	answer(`[{"number": 2, "head": {"ref": "b", "sha": "def"}, "base": {"ref": "main"}, "user": {"login": "ada"}}]`)
	w.ctrl.Wake("o/r", "refs/heads/b")
	w.eventually("the other preview", func() bool {
		a := w.apps()
		return a["pr-2"] != nil && (a["pr-1"] == nil || a["pr-1"].GetDeletionTimestamp() != nil)
	})
}

const listSet = `generators:
- list: {elements: [{name: a}, {name: b}]}
template:
  metadata: {name: '{{name}}', labels: {from: set}}
  spec:
    project: default
    source: {repoURL: https://github.com/o/r, targetRevision: main, path: x}
    destination: {server: https://kubernetes.default.svc, namespace: x}
    syncPolicy: {automated: {prune: true}}
`

func testDrift(t *testing.T, w *world) {
	w.make("list", listSet+`ignoreApplicationDifferences:
- jsonPointers: [/spec/source/targetRevision]
- name: a
  jqPathExpressions: [.spec.syncPolicy]
preservedFields: {annotations: [mine], labels: [mine]}
`)
	w.eventually("two Applications", func() bool { return slices.Equal(w.names(), []string{"a", "b"}) })
	w.settled()
	w.patch(v1alpha1.ApplicationResource, "a", "metadata: {annotations: {mine: x, notified.notifications.argoproj.io: z}, labels: {mine: x}}")
	w.patch(v1alpha1.ApplicationResource, "a", "spec: {source: {targetRevision: feature}, syncPolicy: null}")
	w.settled()
	a := w.apps()["a"]
	rev, _, _ := unstructured.NestedString(a.Object, "spec", "source", "targetRevision")
	_, automated, _ := unstructured.NestedMap(a.Object, "spec", "syncPolicy")
	if rev != "feature" || automated || len(a.GetAnnotations()) != 2 || a.GetLabels()["mine"] != "x" {
		t.Errorf("what is ignored or preserved was changed: %v %v %v", a.Object["spec"], a.GetAnnotations(), a.GetLabels())
	}
	w.patch(v1alpha1.ApplicationResource, "a", "metadata: {annotations: {foreign: x}, labels: {from: null}}\nspec: {source: {path: wrong}}")
	w.eventually("the repair of drift", func() bool {
		a := w.apps()["a"]
		p, _, _ := unstructured.NestedString(a.Object, "spec", "source", "path")
		return p == "x" && a.GetLabels()["from"] == "set" && a.GetAnnotations()["foreign"] == ""
	})
	rev, _, _ = unstructured.NestedString(w.apps()["a"].Object, "spec", "source", "targetRevision")
	if rev != "feature" {
		t.Error("the repair took the ignored field along")
	}
	uid := w.apps()["b"].GetUID()
	w.patch(v1alpha1.ApplicationResource, "b", "metadata: {finalizers: null}")
	if err := w.in(v1alpha1.ApplicationResource, "argocd").Delete(context.Background(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("b again", func() bool {
		b := w.apps()["b"]
		if b != nil && b.GetUID() == uid && b.GetDeletionTimestamp() != nil && len(b.GetFinalizers()) > 0 {
			w.patch(v1alpha1.ApplicationResource, "b", "metadata: {finalizers: null}")
		}
		return b != nil && b.GetUID() != uid
	})
	w.patch(v1alpha1.ApplicationResource, "a", "status: {sync: {status: Synced, comparedTo: {destination: {}}}, health: {status: Degraded, message: broken}}")
	w.eventually("the health in status.resources", func() bool {
		for _, r := range w.set("list").Status.Resources {
			if r.Name == "a" && r.Health != nil && r.Health.Status == v1alpha1.HealthDegraded && r.Status == v1alpha1.SyncSynced {
				return true
			}
		}
		return false
	})
}

func testPolicies(t *testing.T, w *world) {
	for _, policy := range []string{"create-only", "create-update", "create-delete", "sync"} {
		w.make(policy, strings.ReplaceAll(listSet, "'{{name}}'", "'"+policy+"-{{name}}'")+"syncPolicy: {applicationsSync: "+policy+"}\n")
	}
	w.eventually("eight Applications", func() bool { return len(w.apps()) == 8 })
	for _, policy := range []string{"create-only", "create-update", "create-delete", "sync"} {
		w.patch(v1alpha1.ApplicationSetResource, policy, "spec: {generators: [{list: {elements: [{name: a}, {name: c}]}}], template: {spec: {source: {path: changed}}}}")
	}
	changed := func(name string) bool {
		p, _, _ := unstructured.NestedString(w.apps()[name].Object, "spec", "source", "path")
		return p == "changed"
	}
	deleted := func(name string) bool { a := w.apps()[name]; return a == nil || a.GetDeletionTimestamp() != nil }
	w.eventually("all to be done", func() bool {
		apps := w.apps()
		return apps["create-only-c"] != nil && apps["sync-c"] != nil && apps["create-update-c"] != nil && apps["create-delete-c"] != nil &&
			changed("sync-a") && changed("create-update-a") && deleted("sync-b") && deleted("create-delete-b")
	})
	w.settled()
	if changed("create-only-a") || changed("create-delete-a") || deleted("create-only-b") || deleted("create-update-b") {
		t.Error("a policy was not kept")
	}
}

func testValidation(t *testing.T, w *world) {
	owner, err := w.in(configMapResource, "argocd").Create(context.Background(), decode(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: argocd}}"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.yaml(v1alpha1.ApplicationResource, `{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: foreign, namespace: argocd,
 ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: other, uid: `+string(owner.GetUID())+`, controller: true, blockOwnerDeletion: false}]},
 spec: {project: default, source: {repoURL: x}, destination: {namespace: x}}}`)
	w.make("bad", strings.NewReplacer("{name: a}, {name: b}", "{name: a, p: default}, {name: a, p: default}, {name: Not_Valid, p: default}, {name: c, p: none}, {name: b, p: default}",
		"project: default", "project: '{{p}}'").Replace(listSet))
	w.eventually("the valid ones", func() bool { apps := w.apps(); return apps["a"] != nil && apps["b"] != nil })
	w.eventually("the condition", func() bool {
		m := w.condition("bad", v1alpha1.ConditionErrorOccurred).Message
		return strings.Contains(m, "Application a: the name is generated twice") && strings.Contains(m, "(and 2 more)")
	})
	w.make("takes", strings.ReplaceAll(listSet, "{name: a}, {name: b}", "{name: foreign}"))
	w.eventually("the condition about the owner", func() bool {
		c := w.condition("takes", v1alpha1.ConditionErrorOccurred)
		return c.Reason == reasonValidation && strings.Contains(c.Message, "belongs to ConfigMap other")
	})
	w.make("strategy", strings.ReplaceAll(listSet, "{name: a}, {name: b}", "{name: s}")+"strategy: {type: Canary}\n")
	w.eventually("the condition about the strategy", func() bool {
		return strings.Contains(w.condition("strategy", v1alpha1.ConditionErrorOccurred).Message, `"Canary" is not known`) && w.apps()["s"] != nil
	})
	w.make("unknown", "generators: [{oci: {repoURL: x}}]\ntemplate: {metadata: {name: x}, spec: {project: default, destination: {namespace: x}}}\n")
	w.eventually("the condition about the generator", func() bool {
		return strings.Contains(w.condition("unknown", v1alpha1.ConditionErrorOccurred).Message, `the generator "oci" is not known`)
	})
	w.patch(v1alpha1.ApplicationSetResource, "unknown", "spec: {generators: [{list: {elements: [{name: repaired}]}}]}")
	w.eventually("the repair", func() bool { return w.apps()["x"] != nil })
}

func testNulls(t *testing.T, w *world) {
	w.make("nulls", strings.ReplaceAll(listSet, "path: x}", "path: x, helm: {valuesObject: {gone: null, n: 1}}}"))
	w.eventually("two Applications", func() bool { return len(w.apps()) == 2 })
	w.patch(v1alpha1.ApplicationSetResource, "nulls", "spec: {template: {spec: {source: {path: moved}}}}")
	w.eventually("the change", func() bool {
		p, _, _ := unstructured.NestedString(w.apps()["a"].Object, "spec", "source", "path")
		return p == "moved"
	})
	values, _, _ := unstructured.NestedMap(w.apps()["a"].Object, "spec", "source", "helm", "valuesObject")
	if v, there := values["gone"]; !there || v != nil {
		t.Errorf("valuesObject: %v", values)
	}
	w.settled()
	before := w.versions()
	w.patch(v1alpha1.ApplicationSetResource, "nulls", "metadata: {annotations: {x: z}}")
	w.settled()
	if after := w.versions(); strings.Count(after, "@") != strings.Count(before, "@") || after[:strings.Index(after, "nulls@")] != before[:strings.Index(before, "nulls@")] {
		t.Errorf("nulls are written again and again:\n%s\n%s", before, after)
	}
}

func testClusters(t *testing.T, w *world) {
	w.make("clusters", strings.NewReplacer("- list: {elements: [{name: a}, {name: b}]}", "- clusters: {}", "server: https://kubernetes.default.svc", "server: '{{server}}'").Replace(listSet))
	w.eventually("the engine's own", func() bool { return slices.Equal(w.names(), []string{"in-cluster"}) })
	w.yaml(secretResource, "{apiVersion: v1, kind: Secret, metadata: {name: c, namespace: argocd, labels: {argocd.argoproj.io/secret-type: cluster}}, stringData: {name: far, server: 'https://1.2.3.4', config: '{}'}}")
	w.eventually("the new cluster", func() bool { return slices.Equal(w.names(), []string{"far", "in-cluster"}) })
	for _, obj := range w.ctrl.secrets.GetStore().List() {
		if _, there := unwrap(obj).Object["data"]; there {
			t.Error("credentials are kept in memory")
		}
	}
	if err := w.in(secretResource, "argocd").Delete(context.Background(), "c", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the Application without its cluster to be gone for good", func() bool { return slices.Equal(w.names(), []string{"in-cluster"}) })
}

func testDeletion(t *testing.T, w *world) {
	w.make("keeps", listSet+"syncPolicy: {applicationsSync: create-update}\n")
	w.eventually("two Applications", func() bool { return len(w.apps()) == 2 })
	w.patch(v1alpha1.ApplicationSetResource, "keeps", "metadata: {finalizers: [resources-finalizer.argocd.argoproj.io]}")
	w.settled()
	if err := w.in(v1alpha1.ApplicationSetResource, "argocd").Delete(context.Background(), "keeps", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the set to go", func() bool { return w.set("keeps") == nil })
	for name, a := range w.apps() {
		if len(a.GetOwnerReferences()) > 0 || a.GetDeletionTimestamp() != nil {
			t.Errorf("%s: %v", name, a.Object["metadata"])
		}
	}
	w.make("adopts", listSet)
	w.eventually("the Applications to be taken over", func() bool {
		for _, a := range w.apps() {
			if controllerOf(a) == nil || controllerOf(a).Name != "adopts" {
				return false
			}
		}
		return len(w.apps()) == 2
	})
	for name := range w.apps() {
		w.patch(v1alpha1.ApplicationSetResource, "adopts", "spec: {syncPolicy: {preserveResourcesOnDeletion: true}}")
		w.eventually("no finalizer on "+name, func() bool { return len(w.apps()[name].GetFinalizers()) == 0 })
	}
	if err := w.in(v1alpha1.ApplicationSetResource, "argocd").Delete(context.Background(), "adopts", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the Applications to go with the set", func() bool { return len(w.apps()) == 0 })
}
