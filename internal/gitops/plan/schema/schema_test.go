package schema

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/openapi/openapitest"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// embedded serves the documents that client-go carries for tests, and those of
// a folder.
type embedded struct {
	fetched atomic.Int32
	hash    atomic.Int32
	fail    atomic.Bool
}

func (e *embedded) Fetch(ctx context.Context, path string) ([]byte, error) {
	if e.fail.Load() {
		return nil, errors.New("no server")
	}
	path, _, _ = strings.Cut(path, "?")
	if path == "/openapi/v3" {
		h := e.hash.Load()
		return fmt.Appendf(nil, `{"paths":{"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1?hash=0"},
			"apis/apps/v1":{"serverRelativeURL":"/openapi/v3/apis/apps/v1?hash=%d"},
			"apis/example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/example.com/v1?hash=%d"}}}`, h, h), nil
	}
	e.fetched.Add(1)
	name := strings.TrimPrefix(path, "/openapi/v3/")
	if name == "apis/example.com/v1" {
		return os.ReadFile("testdata/widgets.json")
	}
	paths, err := openapitest.NewEmbeddedFileClient().Paths()
	if err != nil {
		return nil, err
	}
	return paths[name].Schema("application/json")
}

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	objects, _, err := manifest.Parse("x.yaml", []byte(text))
	if err != nil || len(objects) != 1 {
		t.Fatal(err, len(objects))
	}
	return objects[0].Unstructured
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, labels: {a: b}, creationTimestamp: null}
spec:
  replicas: 2
  selector: {matchLabels: {app: d}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 25%}}
  template:
    metadata: {labels: {app: d}}
    spec:
      containers:
      - name: c
        image: i
        env: [{name: A, value: "1"}, {name: B, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        ports: [{containerPort: 80}]
        resources: {limits: {cpu: 1, memory: 1Gi, ephemeral-storage: 0.5}}
        livenessProbe: {httpGet: {path: /, port: http}}
        readinessProbe: {httpGet: {path: /, port: 80}}
      volumes: [{name: v, emptyDir: {}}]
`

func TestValidate(t *testing.T) {
	store := NewStore(&embedded{})
	for _, c := range []struct{ name, text, want string }{
		{"good", deployment, ""},
		{"unknown field, plural", strings.Replace(deployment, "replicas:", "replica:", 1), `spec.replica: unknown field "replica"; did you mean replicas?`},
		{"unknown field, case", strings.Replace(deployment, "containerPort", "containerport", 1),
			`spec.template.spec.containers[0].ports[0].containerPort: required field "containerPort" is missing
spec.template.spec.containers[0].ports[0].containerport: unknown field "containerport"; did you mean containerPort?`},
		{"unknown field, nothing close", strings.Replace(deployment, "emptyDir", "somethingElse", 1), `spec.template.spec.volumes[0].somethingElse: unknown field "somethingElse"`},
		{"number for string", strings.Replace(deployment, `value: "1"`, "value: 1", 1), `spec.template.spec.containers[0].env[0].value: is a number, but has to be a string; did you mean the value in quotes?`},
		{"string for number", strings.Replace(deployment, "replicas: 2", `replicas: "2"`, 1), `spec.replicas: is a string, but has to be an integer; did you mean the value without quotes?`},
		{"fraction for integer", strings.Replace(deployment, "replicas: 2", `replicas: 2.5`, 1), `spec.replicas: is a number, but has to be an integer`},
		{"boolean label", strings.Replace(deployment, "metadata: {labels: {app: d}}", "metadata: {labels: {app: true}}", 1), `spec.template.metadata.labels.app: is a boolean, but has to be a string; did you mean the value in quotes?`},
		{"object for list", strings.Replace(deployment, "[{containerPort: 80}]", "{containerPort: 80}", 1), `spec.template.spec.containers[0].ports: is an object, but has to be a list`},
		{"missing", strings.Replace(deployment, "selector: {matchLabels: {app: d}}", "", 1), `spec.selector: required field "selector" is missing`},
		{"empty spec", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {}\n", `spec.selector: required field "selector" is missing`},
		{"secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: 12345}\nstringdata: {b: c}\n",
			"data.a: is a number, but has to be a string; did you mean the value in quotes?\nstringdata: unknown field \"stringdata\"; did you mean stringData?"},
		{"custom, good", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 1, port: a, free: {x: [1]}, template: {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}}, items: [{id: a}]}\n", ""},
		{"custom, default stands in for required", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {}\n", ""},
		{"custom, bad", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, label: {}}\nspec: {size: a, sizes: 1, items: [{v: 1}], empty: {a: 1}}\n",
			`metadata.label: unknown field "label"; did you mean labels?
spec.empty.a: unknown field "a"
spec.items[0].id: required field "id" is missing
spec.size: is a string, but has to be an integer
spec.sizes: unknown field "sizes"; did you mean size?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems, err := store.Validate(t.Context(), object(t, c.text))
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, p := range problems {
				lines = append(lines, p.String())
			}
			if got := strings.Join(lines, "\n"); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestStore(t *testing.T) {
	from := &embedded{}
	store := NewStore(from)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := store.Validate(t.Context(), object(t, deployment)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := from.fetched.Load(); n != 1 {
		t.Errorf("fetched %d documents for one kind", n)
	}
	if _, err := store.Validate(t.Context(), object(t, "apiVersion: apps/v1\nkind: Nothing\nmetadata: {name: one}")); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("an unknown kind: %v", err)
	}
	if _, err := store.Validate(t.Context(), object(t, "apiVersion: nowhere/v1\nkind: Nothing\nmetadata: {name: one}")); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("an unknown group: %v", err)
	}
	store.Reset()
	if _, err := store.Validate(t.Context(), object(t, deployment)); err != nil || from.fetched.Load() != 1 {
		t.Errorf("a document that did not change was fetched again: %d, %v", from.fetched.Load(), err)
	}
	from.hash.Add(1)
	store.Reset()
	if _, err := store.Validate(t.Context(), object(t, deployment)); err != nil || from.fetched.Load() != 2 {
		t.Errorf("a document that changed was not fetched again: %d, %v", from.fetched.Load(), err)
	}
	from.fail.Store(true)
	if _, err := store.Validate(t.Context(), object(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: one}")); err == nil || errors.Is(err, ErrUnknownKind) {
		t.Errorf("without a server: %v", err)
	}
	from.fail.Store(false)
	if _, err := store.Validate(t.Context(), object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}")); err != nil {
		t.Errorf("an error was kept: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Validate(ctx, object(t, deployment)); err != nil {
		t.Errorf("what is known needs no context: %v", err)
	}
}

func TestNodesAreShared(t *testing.T) {
	store := NewStore(&embedded{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, text := range []string{"apiVersion: v1\nkind: Pod\nmetadata: {name: one}", deployment} {
		if _, err := store.Validate(t.Context(), object(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d nodes, %d KiB for api/v1 and apps/v1", len(store.compiler.nodes), used>>10)
	if used > 2<<20 {
		t.Errorf("two documents take %d KiB", used>>10)
	}
	if got := store.groups["apis/apps/v1"]; got == nil {
		t.Fatal("not kept")
	}
	runtime.KeepAlive(store)
}

func FuzzDocument(f *testing.F) {
	data, err := os.ReadFile("testdata/widgets.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"components":{"schemas":{"a":{"$ref":"#/components/schemas/a","x-kubernetes-group-version-kind":[{"kind":"A"}]}}}}`))
	f.Add([]byte(`{"components":{"schemas":{"a":{"properties":{"b":null,"c":{"allOf":[null]}},"x-kubernetes-group-version-kind":[{"kind":"A"}]},"n":null}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		schemas, err := newCompiler().document(data)
		if err != nil {
			return
		}
		o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"a": []any{int64(1)}}, "metadata": map[string]any{}}}
		for _, s := range schemas {
			s.Validate(o)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	o := object(b, deployment)
	s, err := NewStore(&embedded{}).Schema(b.Context(), o.GroupVersionKind())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if s.Validate(o) != nil {
			b.Fatal("not valid")
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	data, err := (&embedded{}).Fetch(b.Context(), "/openapi/v3/api/v1")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := newCompiler().document(data); err != nil {
			b.Fatal(err)
		}
	}
}
