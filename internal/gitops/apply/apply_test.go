package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// scene is one sync against the server in memory.
type scene struct {
	t       *testing.T
	server  *server
	live    map[plan.Key]*unstructured.Unstructured
	desired []manifest.Object
	req     Request
	results []Result
	waits   []string
	mu      sync.Mutex
}

func newScene(t *testing.T, objects ...*unstructured.Unstructured) *scene {
	s := &scene{t: t, server: newServer(), live: map[plan.Key]*unstructured.Unstructured{}}
	for i, o := range objects {
		s.desired = append(s.desired, manifest.Object{Unstructured: o, File: "a.yaml", Line: i + 1})
	}
	s.req.Options, _ = plan.ParseOptions(nil)
	s.req.Report = func(r Result) { s.mu.Lock(); defer s.mu.Unlock(); s.results = append(s.results, r) }
	s.req.Waiting = func(w string) { s.mu.Lock(); defer s.mu.Unlock(); s.waits = append(s.waits, w) }
	return s
}

func (s *scene) exists(o *unstructured.Unstructured) {
	if o.GetUID() == "" {
		o.SetUID("old")
		o.SetResourceVersion("1")
		o.SetGeneration(1)
	}
	s.server.objects[plan.KeyOf(o)] = o
	s.live[plan.KeyOf(o)] = o
}

func (s *scene) run(ctx context.Context) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer s.server.ticker.Wait()
	defer cancel()
	if s.req.Plan == nil {
		s.req.Plan = plan.Make(plan.Input{Instance: "app", Manager: "argocd-controller", Desired: s.desired, Live: s.live, Options: s.req.Options})
	}
	s.req.Changed = s.server.run(ctx)
	return Run(ctx, s.server.writer(s.t, newMapper(s.t), 4), s.server, s.req)
}

func (s *scene) log() string {
	var out []string
	for _, w := range s.server.log {
		out = append(out, w.String())
	}
	return strings.Join(out, ", ")
}

// records are the results as the status has them, one line each.
func (s *scene) records() string {
	last := map[string]string{}
	var order []string
	for _, r := range s.results {
		key := r.Key.String() + string(r.Phase)
		if _, has := last[key]; !has {
			order = append(order, key)
		}
		x := r.Record()
		last[key] = fmt.Sprintf("%s %s %s %q %s %s\n", x.SyncPhase, x.Status, x.HookType, x.Message, x.HookPhase, strings.Join(x.Images, " "))
	}
	out := ""
	for _, k := range order {
		out += last[k]
	}
	return out
}

func object(kind, name string, annotations ...string) *unstructured.Unstructured {
	group := ""
	for _, r := range resources {
		if r.kind == kind {
			group = r.group
		}
	}
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion(group), "kind": kind, "metadata": map[string]any{"name": name, "namespace": "ns"}, "data": map[string]any{"v": "1"}}}
	a := map[string]string{v1alpha1.AnnotationTrackingID: fmt.Sprintf("app:%s/%s:ns/%s", group, kind, name)}
	for i := 0; i < len(annotations); i += 2 {
		a[annotations[i]] = annotations[i+1]
	}
	o.SetAnnotations(a)
	return o
}

func TestReport(t *testing.T) {
	deployment := object("Deployment", "web", v1alpha1.AnnotationSyncWave, "-1")
	deployment.Object["spec"] = map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"image": "web:1"}}}}}
	s := newScene(t, deployment, object("ConfigMap", "same"), object("ConfigMap", "other"), object("Secret", "new", v1alpha1.AnnotationSyncOptions, "ServerSideApply=true"),
		object("Job", "hook", v1alpha1.AnnotationHook, "PostSync"))
	s.exists(object("ConfigMap", "same"))
	changed := object("ConfigMap", "other")
	changed.Object["data"] = map[string]any{"v": "0"}
	s.exists(changed)
	s.exists(object("ConfigMap", "gone"))
	s.exists(object("ConfigMap", "kept", v1alpha1.AnnotationSyncOptions, "Prune=false"))
	s.req.Prune = true
	s.server.scripts[plan.KeyOf(deployment)] = script{ticks: 2}
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for l := range strings.Lines(s.records()) {
		got[l] = true
	}
	for _, want := range []string{
		`Sync Synced  "deployment.apps/web created" Succeeded web:1`,
		`Sync Synced  "configmap/same unchanged" Succeeded `,
		`Sync Synced  "configmap/other configured" Succeeded `,
		`Sync Synced  "secret/new serverside-applied" Succeeded `,
		`Sync Pruned  "pruned" Succeeded `,
		`Sync PruneSkipped  "ignored (no prune): Prune=false is set" Succeeded `,
		`PostSync Synced PostSync "job.batch/hook created" Succeeded `,
	} {
		if !got[want+"\n"] {
			t.Errorf("no result %s in\n%s", want, s.records())
		}
	}
	if !strings.Contains(strings.Join(s.waits, "\n"), "wave -1 waits for Deployment ns/web: 2 to go (since ") || !strings.Contains(s.waits[0], "goes on when it is healthy") {
		t.Errorf("waits: %q", s.waits)
	}
}

func TestOnlyOutOfSync(t *testing.T) {
	s := newScene(t, object("ConfigMap", "same"), object("ConfigMap", "new"))
	s.exists(object("ConfigMap", "same"))
	s.req.Options.OnlyOutOfSync = true
	if err := s.run(t.Context()); err != nil || strings.Contains(s.records(), "same") || s.log() != "patch ConfigMap ns/new" {
		t.Errorf("%v\n%s%s", err, s.records(), s.log())
	}
}

func TestNothingIsWritten(t *testing.T) {
	t.Run("dry run", func(t *testing.T) {
		s := newScene(t, object("ConfigMap", "new"), object("Job", "hook", v1alpha1.AnnotationHook, "PreSync"))
		s.exists(object("ConfigMap", "gone"))
		s.req.DryRun, s.req.Prune = true, true
		if err := s.run(t.Context()); err != nil || s.log() != "" || !strings.Contains(s.records(), "configmap/new created (dry run)") || !strings.Contains(s.records(), "pruned (dry run)") {
			t.Errorf("%v\n%s%s", err, s.records(), s.log())
		}
	})
	t.Run("an object that the local check refuses", func(t *testing.T) {
		s := newScene(t, object("ConfigMap", "a"), object("ConfigMap", "bad"), object("Job", "hook", v1alpha1.AnnotationHook, "SyncFail"))
		s.req.Validate = func(c plan.Change) error {
			if c.Name == "bad" {
				return errors.New("data: unknown field")
			}
			return nil
		}
		err := s.run(t.Context())
		if err == nil || err.Error() != "ConfigMap ns/bad (a.yaml:2): data: unknown field" || s.log() != "" {
			t.Errorf("%v\n%s", err, s.log())
		}
	})
	t.Run("a hook that the local check refuses", func(t *testing.T) {
		s := newScene(t, object("ConfigMap", "a"), object("Job", "bad", v1alpha1.AnnotationHook, "PostSync"))
		s.req.Validate = func(c plan.Change) error {
			if c.Name == "bad" {
				return errors.New("spec: unknown field")
			}
			return nil
		}
		if err := s.run(t.Context()); err == nil || !strings.Contains(err.Error(), "Job ns/bad (a.yaml:2): spec: unknown field") || s.log() != "" {
			t.Errorf("%v\n%s", err, s.log())
		}
	})
	t.Run("a shared object", func(t *testing.T) {
		shared := object("ConfigMap", "a", v1alpha1.AnnotationTrackingID, "other:/ConfigMap:ns/a")
		s := newScene(t, object("ConfigMap", "a"), object("ConfigMap", "b"))
		s.exists(shared)
		s.req.Options.FailOnSharedResource = true
		if err := s.run(t.Context()); err == nil || !strings.Contains(err.Error(), "it is part of application other too") || s.log() != "" {
			t.Errorf("%v\n%s", err, s.log())
		}
	})
}

func TestConfirm(t *testing.T) {
	s := newScene(t, object("ConfigMap", "a"))
	s.exists(object("Secret", "gone", v1alpha1.AnnotationSyncOptions, "Prune=confirm"))
	s.req.Prune = true
	asked := 0
	s.req.Approved = func() bool { asked++; return asked > 3 }
	if err := s.run(t.Context()); err != nil || s.log() != "delete Secret ns/gone, patch ConfigMap ns/a" {
		t.Errorf("%v %s", err, s.log())
	}
	if len(s.waits) != 1 || !strings.Contains(s.waits[0], "waiting for the confirmation to prune Secret ns/gone") || !strings.Contains(s.waits[0], v1alpha1.AnnotationDeletionOK) {
		t.Errorf("%q", s.waits)
	}
	s = newScene(t, object("ConfigMap", "a"))
	s.exists(object("Secret", "gone", v1alpha1.AnnotationSyncOptions, "Prune=confirm"))
	s.req.Prune = true
	if err := s.run(t.Context()); err != nil || s.log() != "patch ConfigMap ns/a" {
		t.Errorf("without anybody to ask: %v %s", err, s.log())
	}
}

// TestTermination: a sync that is given up takes its hooks along; one whose
// process ends leaves them.
func TestTermination(t *testing.T) {
	for _, terminated := range []bool{true, false} {
		s := newScene(t, object("Job", "hook", v1alpha1.AnnotationHook, "PreSync"), object("ConfigMap", "a"))
		s.server.scripts[plan.Key{Group: "batch", Kind: "Job", Namespace: "ns", Name: "hook"}] = script{ticks: 1 << 40}
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("the process ends")
		if terminated {
			cause = fmt.Errorf("for a newer commit: %w", ErrTerminated)
		}
		s.req.Waiting = func(string) { cancel(cause) }
		if err := s.run(ctx); !errors.Is(err, cause) {
			t.Errorf("ended with %v", err)
		}
		want := "create Job ns/hook"
		if terminated {
			want += ", finalizer Job ns/hook, delete Job ns/hook"
		}
		if s.log() != want {
			t.Errorf("terminated %v: %s", terminated, s.log())
		}
		if terminated && !strings.Contains(s.records(), `"terminated" Failed`) {
			t.Errorf("%s", s.records())
		}
	}
}

func TestGeneratedName(t *testing.T) {
	job := object("Job", "", v1alpha1.AnnotationHook, "PreSync,PostSync")
	unstructured.RemoveNestedField(job.Object, "metadata", "name")
	job.SetGenerateName("migrate-")
	s := newScene(t, job)
	s.req.Revision, s.req.Started = "0123456789abcdef", time.Unix(1700000000, 0)
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "create Job ns/migrate-0123456-presync-1700000000, finalizer Job ns/migrate-0123456-presync-1700000000, create Job ns/migrate-0123456-postsync-1700000000, finalizer Job ns/migrate-0123456-postsync-1700000000"; s.log() != want {
		t.Errorf("%s", s.log())
	}
}

// TestUnseenHook: the object of an earlier sync that the cache does not show
// is not taken for the hook of this one.
func TestUnseenHook(t *testing.T) {
	s := newScene(t, object("Job", "hook", v1alpha1.AnnotationHook, "PreSync"))
	old := object("Job", "hook", v1alpha1.AnnotationHook, "PreSync")
	s.exists(old)
	delete(s.live, plan.KeyOf(old))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s.req.Plan = plan.Make(plan.Input{Instance: "app", Desired: s.desired})
	s.req.Changed = s.server.run(ctx)
	if err := Run(ctx, s.server.writer(t, newMapper(t), 4), &blind{server: s.server, times: 2}, s.req); err != nil {
		t.Fatal(err)
	}
	cancel()
	s.server.ticker.Wait()
	if want := "delete Job ns/hook, create Job ns/hook, finalizer Job ns/hook"; s.log() != want {
		t.Errorf("%s", s.log())
	}
}

// blind shows nothing at first.
type blind struct {
	*server
	times int
}

func (b *blind) Get(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if b.times--; b.times >= 0 {
		return nil, nil
	}
	return b.server.Get(ctx, o)
}

func TestDeleteHooks(t *testing.T) {
	s := newServer()
	early := object("Job", "early", v1alpha1.AnnotationHook, "PreDelete", v1alpha1.AnnotationSyncWave, "-1", v1alpha1.AnnotationHookDelete, "HookSucceeded")
	late := object("Job", "late", v1alpha1.AnnotationHook, "PreDelete")
	s.scripts[plan.KeyOf(early)] = script{ticks: 1}
	s.scripts[plan.KeyOf(late)] = script{ticks: 1, fails: true}
	p := plan.Make(plan.Input{Instance: "app", Desired: []manifest.Object{{Unstructured: early}, {Unstructured: late}}})
	w := s.writer(t, newMapper(t), 4)
	var told []string
	for range 6 {
		waiting, err := DeleteHooks(t.Context(), w, s, p.Hooks, plan.PreDelete)
		told = append(told, fmt.Sprintf("%s/%v", waiting, err))
		if waiting == "" && err == nil {
			break
		}
		if err != nil {
			s.scripts[plan.KeyOf(late)] = script{} // somebody repaired it
		}
		s.tick()
	}
	all := strings.Join(told, "\n")
	if len(told) != 4 || !strings.Contains(told[0], "PreDelete waits for Job ns/early") || !strings.Contains(told[1], "PreDelete waits for Job ns/late") || !strings.Contains(told[2], "broken") {
		t.Errorf("%s", all)
	}
	var log []string
	for _, x := range s.log {
		if x.verb != "finalizer" {
			log = append(log, x.String())
		}
	}
	if got := strings.Join(log, ", "); got != "create Job ns/early, create Job ns/late, delete Job ns/late, create Job ns/late, delete Job ns/early" {
		t.Errorf("%s", got)
	}
	if waiting, err := DeleteHooks(t.Context(), w, s, p.Hooks, plan.PostDelete); waiting != "" || err != nil {
		t.Errorf("nothing to do: %s %v", waiting, err)
	}
}

func TestSelect(t *testing.T) {
	key := plan.Key{Group: "apps", Kind: "Deployment", Namespace: "ns", Name: "web"}
	for _, c := range []struct {
		list []v1alpha1.SyncResource
		want bool
	}{
		{[]v1alpha1.SyncResource{{Group: "apps", Kind: "Deployment", Name: "web"}}, true},
		{[]v1alpha1.SyncResource{{Group: "apps", Kind: "Deployment", Name: "web", Namespace: "other"}}, false},
		{[]v1alpha1.SyncResource{{Kind: "Deployment", Name: "web"}}, false},
		{[]v1alpha1.SyncResource{{Group: "*", Kind: "*", Name: "w*"}}, true},
		{[]v1alpha1.SyncResource{{Group: "*", Kind: "*", Name: "*"}, {Group: "apps", Kind: "*", Name: "*", Exclude: true}}, false},
		{[]v1alpha1.SyncResource{{Kind: "Service", Name: "*", Exclude: true}}, true},
	} {
		if got := Select(c.list)(key); got != c.want {
			t.Errorf("%+v: %v", c.list, got)
		}
	}
	if Select(nil) != nil {
		t.Error("an empty list selects")
	}
}

func TestEncode(t *testing.T) {
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		leaf := []*rapid.Generator[any]{
			rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.String().AsAny(), rapid.Int64().AsAny(), rapid.Float64Range(-1e18, 1e18).AsAny(), rapid.StringMatching(`[ -~]*`).AsAny(),
		}
		if depth > 0 {
			leaf = append(leaf, rapid.MapOf(rapid.String(), value(depth-1)).AsAny(), rapid.SliceOf(value(depth-1)).AsAny())
		}
		return rapid.OneOf(leaf...)
	}
	rapid.Check(t, func(rt *rapid.T) {
		in := rapid.MapOf(rapid.String(), value(2)).Draw(rt, "object")
		got, err := encode(in)
		if err != nil {
			rt.Fatal(err)
		}
		want, err := json.Marshal(in)
		if err != nil {
			rt.Fatal(err)
		}
		var a, b any
		if json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &b) != nil || !reflect.DeepEqual(a, b) {
			rt.Fatalf("%s is not %s", got, want)
		}
	})
}
