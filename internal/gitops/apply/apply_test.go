package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

func status(code int, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: int32(code), Reason: reason, Message: message, Details: &metav1.StatusDetails{Causes: causes}}}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		name string
		kind string
		err  error
		want []string
		not  string
	}{
		{"webhook", "ConfigMap", status(400, "", `admission webhook "policy.contoso.com" denied the request: label team is missing`), []string{"admission webhook policy.contoso.com refuses the object: label team is missing"}, ""},
		{"webhook and Secret", "Secret", status(403, metav1.StatusReasonForbidden, `admission webhook "policy.contoso.com" denied the request: password hunter2 is weak`), []string{"policy.contoso.com refuses"}, "hunter2"},
		{"dead webhook", "ConfigMap", status(500, metav1.StatusReasonInternalError, `Internal error occurred: failed calling webhook "v.contoso.com": failed to call webhook: connection refused`), []string{"v.contoso.com could not be asked", "earlier sync wave"}, ""},
		{"policy", "ConfigMap", status(422, metav1.StatusReasonInvalid, `configmaps "a" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'all' denied request: failed expression: x < 5`), []string{"ValidatingAdmissionPolicy replicas refuses", "x < 5"}, ""},
		{"immutable", "Deployment", status(422, metav1.StatusReasonInvalid, `Deployment.apps "a" is invalid: spec.selector: Invalid value: {}: field is immutable`, metav1.StatusCause{Field: "spec.selector", Message: "Invalid value: {}: field is immutable"}), []string{"spec.selector is immutable", "Force=true on the Deployment", "rename"}, ""},
		{"immutable Secret", "Secret", status(422, metav1.StatusReasonInvalid, `Secret "a" is invalid: data: Forbidden: field is immutable when hunter2`, metav1.StatusCause{Field: "data", Message: "Forbidden: field is immutable when `immutable` is set"}), []string{"data is immutable"}, "hunter2"},
		{"stateful set", "StatefulSet", status(422, metav1.StatusReasonInvalid, `x`, metav1.StatusCause{Field: "spec", Message: "Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden"}), []string{"spec is immutable"}, ""},
		{"invalid", "Deployment", status(422, metav1.StatusReasonInvalid, `spec.replicas: Invalid value: -1`), []string{"spec.replicas: Invalid value: -1"}, "immutable"},
		{"forbidden", "ConfigMap", status(403, metav1.StatusReasonForbidden, `configmaps "a" is forbidden: User "system:serviceaccount:argocd:c" cannot patch resource "configmaps" in API group "" in the namespace "ns"`), []string{"system:serviceaccount:argocd:c may not patch configmaps in namespace ns", "verb patch"}, ""},
		{"quota", "ConfigMap", status(403, metav1.StatusReasonForbidden, `configmaps "a" is forbidden: exceeded quota: q`), []string{"exceeded quota: q"}, ""},
		{"too large for etcd", "ConfigMap", status(500, metav1.StatusReasonUnknown, `etcdserver: request is too large`), []string{"too large", "1.5 MiB"}, ""},
		{"too many bytes", "ConfigMap", status(413, metav1.StatusReasonRequestEntityTooLarge, `Request entity too large: limit is 3145728`), []string{"too large"}, ""},
		{"long name", "ConfigMap", status(422, metav1.StatusReasonInvalid, `metadata.name: Too long: may not be more than 63 bytes`), []string{"63 bytes"}, "1.5 MiB"},
		{"namespace", "ConfigMap", status(403, metav1.StatusReasonForbidden, `configmaps "a" is forbidden: unable to create new content in namespace ns because it is being terminated`, metav1.StatusCause{Type: "NamespaceTerminating"}), []string{"namespace ns is being deleted", "finalizers"}, ""},
		{"overload", "ConfigMap", status(429, metav1.StatusReasonTooManyRequests, `too many`), []string{"overloaded", "patch"}, ""},
		{"duplicates", "Deployment", status(500, metav1.StatusReasonInternalError, `failed to create typed patch object: .spec.template.spec.containers[name="a"].env: duplicate entries for key [name="X"]`), []string{"two entries with one name", `name="X"`}, ""},
		{"no answer", "ConfigMap", fmt.Errorf("Patch: %w", syscall.ECONNREFUSED), []string{"did not answer"}, ""},
	} {
		got := explain("patch", object(c.kind, "a"), c.err).Error()
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q does not say %q", c.name, got, want)
			}
		}
		if c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s: %q says %q", c.name, got, c.not)
		}
	}
}

// TestTrouble: what passes by itself is tried again, a bounded number of times.
func TestTrouble(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		attempts int
	}{
		{"429", status(429, metav1.StatusReasonTooManyRequests, ""), attempts},
		{"503", status(503, metav1.StatusReasonServiceUnavailable, ""), attempts},
		{"timeout", status(504, metav1.StatusReasonTimeout, ""), attempts},
		{"refused", fmt.Errorf("dial: %w", syscall.ECONNREFUSED), attempts},
		{"cut off", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), attempts},
		{"500", status(500, metav1.StatusReasonInternalError, "oops"), attemptsRefused},
		{"conflict", status(409, metav1.StatusReasonConflict, "the object has been modified"), attemptsRefused},
		{"too large", status(500, metav1.StatusReasonInternalError, "etcdserver: request is too large"), 1},
		{"invalid", status(422, metav1.StatusReasonInvalid, ""), 1},
		{"forbidden", status(403, metav1.StatusReasonForbidden, ""), 1},
	} {
		w := newServer().writer(t, nil, 1)
		var pauses []time.Duration
		w.pause = func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil }
		n := 0
		err := w.repeat(t.Context(), func() error { n++; return c.err })
		if n != c.attempts || !errors.Is(err, c.err) {
			t.Errorf("%s: %d attempts, %v", c.name, n, err)
		}
		for i, d := range pauses {
			if d <= 0 || d > 2*longestPause || i > 0 && d > 8*pauses[i-1] {
				t.Errorf("%s: pauses %v", c.name, pauses)
			}
		}
	}
	w := newServer().writer(t, nil, 1)
	ctx, cancel := context.WithCancel(t.Context())
	w.pause = pause
	n := 0
	if err := w.repeat(ctx, func() error { n++; cancel(); return status(429, metav1.StatusReasonTooManyRequests, "") }); n != 1 || err == nil {
		t.Errorf("after the context's end: %d attempts, %v", n, err)
	}
}

func TestPartialFailure(t *testing.T) {
	s := newScene(t, object("ConfigMap", "bad"), object("Deployment", "web"), object("ConfigMap", "later", v1alpha1.AnnotationSyncWave, "1"))
	s.server.fault = func(r *http.Request, _ []byte) *http.Response {
		if strings.HasSuffix(r.URL.Path, "/bad") {
			return refuse(r, 422, metav1.StatusReasonInvalid, "data: Invalid value")
		}
		return nil
	}
	err := s.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ConfigMap ns/bad (a.yaml:1): data: Invalid value") || s.log() != "patch Deployment ns/web" {
		t.Errorf("%v %s", err, s.log())
	}
	if !strings.Contains(s.records(), `Sync SyncFailed  "data: Invalid value" Failed`) {
		t.Error(s.records())
	}
}

func BenchmarkWrite(b *testing.B) {
	s := newServer()
	w := s.writer(b, newMapper(b), 4)
	o := object("Deployment", "web")
	o.Object["spec"] = map[string]any{"replicas": int64(0), "selector": map[string]any{"matchLabels": map[string]any{"app": "web"}}, "template": map[string]any{
		"metadata": map[string]any{"labels": map[string]any{"app": "web"}},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "web", "image": "web:1", "ports": []any{map[string]any{"containerPort": int64(8080)}}, "env": []any{map[string]any{"name": "A", "value": "1"}}}}},
	}}
	c := plan.Change{Key: plan.KeyOf(o), Action: plan.Create, Desired: o}
	data, err := encode(o.Object)
	if err != nil {
		b.Fatal(err)
	}
	s.fault = func(r *http.Request, _ []byte) *http.Response {
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(data))), Request: r}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Write(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	o := object("Deployment", "web")
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = encode(o.Object)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = json.Marshal(o.Object)
		}
	})
}
