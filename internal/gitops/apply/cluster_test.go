//go:build linux

package apply_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// bench is a cluster with a counted and disturbed connection to it.
type bench struct {
	*testing.T
	client  dynamic.Interface
	mapper  *observe.Mapper
	writer  *apply.Writer
	config  *rest.Config
	writes  atomic.Int64
	mu      sync.Mutex
	disturb func(*http.Request) (*http.Response, error) // nil, nil for not
}

type wire struct {
	b    *bench
	next http.RoundTripper
}

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		w.b.writes.Add(1)
		w.b.mu.Lock()
		f := w.b.disturb
		w.b.mu.Unlock()
		if f != nil {
			if res, err := f(r); res != nil || err != nil {
				return res, err
			}
		}
	}
	return w.next.RoundTrip(r)
}

func (b *bench) set(f func(*http.Request) (*http.Response, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disturb = f
}

func newBench(t *testing.T) *bench {
	c := plane.StartCluster(t)
	b := &bench{T: t}
	b.config = rest.CopyConfig(c.Config)
	b.config.Wrap(func(next http.RoundTripper) http.RoundTripper { return wire{b, next} })
	b.connect(b.config)
	return b
}

func (b *bench) connect(config *rest.Config) {
	b.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	b.client, b.mapper = client, observe.NewMapper(d, time.Now)
	b.writer = apply.NewWriter(client, b.mapper, "argocd-controller", 8)
}

// Get, Health, Wrote and Deleted: the server itself is the live state.

func (b *bench) Get(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	r, known, err := b.mapper.Resource(o.GroupVersionKind())
	if err != nil || !known {
		return nil, err
	}
	var client dynamic.ResourceInterface = b.client.Resource(r.GroupVersionResource)
	if r.Namespaced {
		client = b.client.Resource(r.GroupVersionResource).Namespace(o.GetNamespace())
	}
	got, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return got, err
}
func (b *bench) Health(o *unstructured.Unstructured) (health.Status, bool) { return health.Of(o) }
func (b *bench) Wrote(*unstructured.Unstructured)                          {}
func (b *bench) Deleted(*unstructured.Unstructured)                        {}

func (b *bench) parse(source string) []*unstructured.Unstructured {
	b.Helper()
	objects, _, err := manifest.Parse("app.yaml", []byte(source))
	if err != nil {
		b.Fatal(err)
	}
	var out []*unstructured.Unstructured
	for _, o := range objects {
		out = append(out, o.Unstructured)
	}
	return out
}

// sync plans and applies the source, and returns what was reported.
func (b *bench) sync(source string, change func(*apply.Request)) (string, error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	desired, _, err := manifest.Parse("app.yaml", []byte(source))
	if err != nil {
		b.Fatal(err)
	}
	in := plan.Input{Instance: "app", Manager: "argocd-controller", Desired: desired, Live: map[plan.Key]*unstructured.Unstructured{}}
	in.Options, _ = plan.ParseOptions(nil)
	for _, o := range desired {
		live, err := b.Get(ctx, o.Unstructured)
		if err != nil {
			b.Fatal(err)
		}
		if live != nil && o.GetName() != "" {
			in.Live[plan.KeyOf(o.Unstructured)] = live
		}
	}
	changed := make(chan struct{})
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				select {
				case changed <- struct{}{}:
				default:
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	var mu sync.Mutex
	report := ""
	req := apply.Request{Plan: plan.Make(in), Options: in.Options, Changed: changed, Report: func(r apply.Result) {
		mu.Lock()
		defer mu.Unlock()
		x := r.Record()
		report += fmt.Sprintf("%s %s\n", x.Status, x.Message)
	}}
	if change != nil {
		change(&req)
	}
	b.writes.Store(0)
	err = apply.Run(ctx, b.writer, b, req)
	mu.Lock()
	defer mu.Unlock()
	return report, err
}

func (b *bench) live(kind, apiVersion, namespace, name string) *unstructured.Unstructured {
	b.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name, "namespace": namespace}}}
	got, err := b.Get(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	return got
}

func (b *bench) namespace(name string) {
	b.Helper()
	if _, err := b.sync("apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+"}\n", nil); err != nil {
		b.Fatal(err)
	}
}

func TestServer(t *testing.T) {
	b := newBench(t)
	for _, s := range []struct {
		name string
		run  func(*bench)
	}{
		{"one request each", oneRequest},
		{"immutable fields, Replace and Force", immutable},
		{"a role of a binding", binding},
		{"what could not be made anew is put back", putBack},
		{"managed namespace", managedNamespace},
		{"a namespace that is being deleted", terminating},
		{"trouble with the server", trouble},
		{"refusals", refusals},
		{"client-side apply is taken over", takeOver},
		{"hooks", hooks},
		{"no rights", forbidden},
	} {
		t.Run(s.name, func(t *testing.T) {
			outer := b.T
			b.T = t
			defer func() { b.T = outer; b.set(nil) }()
			s.run(b)
		})
	}
}

func deployment(namespace, selector, more string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %s%s}
spec:
  replicas: 0
  selector: {matchLabels: {app: %s}}
  template: {metadata: {labels: {app: %[3]s}}, spec: {containers: [{name: web, image: "web:1"}]}}
`, namespace, more, selector)
}

const force = `, annotations: {argocd.argoproj.io/sync-options: "Force=true"}`
