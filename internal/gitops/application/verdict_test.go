package application

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// liveCluster is a cluster whose cache is filled by Wrote alone.
func liveCluster(t testing.TB) *Cluster {
	life, cancel := context.WithCancel(context.Background())
	cluster := fakeCluster()
	ready := make(chan string, 10)
	cluster.Live = observe.New(observe.Deps{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Mapper: cluster.Mapper, Now: time.Now, Life: life, Changed: func(instance string) { ready <- instance },
		Client: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{{Version: "v1", Resource: "configmaps"}: "ConfigMapList"}),
	})
	t.Cleanup(func() { cancel(); cluster.Live.Wait() })
	for {
		ok, _, err := cluster.Live.Ensure("app", []schema.GroupVersionKind{{Version: "v1", Kind: "ConfigMap"}})
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return cluster
		}
		<-ready
	}
}

func configMapOf(name, instance string, data map[string]any, annotations map[string]any) *unstructured.Unstructured {
	if annotations == nil {
		annotations = map[string]any{}
	}
	if instance != "" {
		annotations["argocd.argoproj.io/tracking-id"] = instance + ":/ConfigMap:default/" + name
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": data,
		"metadata": map[string]any{"name": name, "namespace": "default", "annotations": annotations}}}
}

// told is what a plan says, without the objects that a kept verdict has not.
func told(t *rapid.T, pl *plan.Plan) string {
	var b strings.Builder
	for _, c := range pl.Changes {
		c.Desired, c.Live, c.Predicted = nil, nil, nil
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n", data)
	}
	fmt.Fprintf(&b, "%v in sync: %v", pl.Warnings, pl.InSync())
	return b.String()
}

// TestVerdictModel changes what is to be, what is, and the rules, and compares
// after each step: with the verdicts of before, and from nothing.
func TestVerdictModel(t *testing.T) {
	names := []string{"a", "b", "c"}
	version := 100
	cluster := liveCluster(t)
	rapid.Check(t, func(t *rapid.T) {
		version += 1000
		prefix := fmt.Sprintf("r%d-", version) // objects of earlier rounds stay in the cache under other names
		instance := prefix + "app"
		c := bare(nil)
		defer c.queue.ShutDown()
		st := newState()
		app := appOf(instance)
		app.Spec.SyncPolicy = &v1alpha1.SyncPolicy{Automated: &v1alpha1.Automated{}}
		want := map[string]*unstructured.Unstructured{}
		var options plan.Options
		compare := func(st *state) *plan.Plan {
			r := &rendered{}
			for _, name := range names {
				if o := want[name]; o != nil {
					d, err := pack(manifest.Object{Unstructured: o, File: name + ".yaml", Line: 1})
					if err != nil {
						t.Fatal(err)
					}
					r.objects = append(r.objects, d)
				}
			}
			p := &pass{Controller: c, key: "argocd/" + instance, st: st, app: *app, set: c.set, cluster: cluster, options: options}
			pl, err := (&comparison{pass: p, want: r, instance: instance, current: true}).plan(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return pl
		}
		data := rapid.Custom(func(t *rapid.T) map[string]any {
			return map[string]any{"v": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "v")}
		})
		name := rapid.SampledFrom(names)
		t.Repeat(map[string]func(*rapid.T){
			"want": func(t *rapid.T) {
				n := name.Draw(t, "name")
				annotations := map[string]any{}
				for _, a := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"argocd.argoproj.io/sync-wave=x", "argocd.argoproj.io/sync-wave=2", "argocd.argoproj.io/sync-options=Magic=true"}), 0, 1, rapid.ID).Draw(t, "annotations") {
					k, v, _ := strings.Cut(a, "=")
					annotations[k] = v
				}
				want[n] = configMapOf(prefix+n, instance, data.Draw(t, "data"), annotations)
			},
			"want no longer": func(t *rapid.T) { delete(want, name.Draw(t, "name")) },
			"live": func(t *rapid.T) {
				n := name.Draw(t, "name")
				o := configMapOf(prefix+n, rapid.SampledFrom([]string{"", instance, "other"}).Draw(t, "instance"), data.Draw(t, "data"), nil)
				if w := want[n]; w != nil && rapid.Bool().Draw(t, "as wanted") {
					o = w.DeepCopy()
				}
				version++
				o.SetUID("1")
				o.SetResourceVersion(fmt.Sprint(version))
				cluster.Live.Wrote(o)
			},
			"going": func(t *rapid.T) {
				if o := cluster.Live.Lookup(plan.Key{Kind: "ConfigMap", Namespace: "default", Name: prefix + name.Draw(t, "name")}); o != nil {
					live := configMapOf(o.Key.Name, "", nil, nil)
					live.SetUID("1")
					cluster.Live.Deleted(live)
				}
			},
			"ignore": func(t *rapid.T) {
				app.Spec.IgnoreDifferences = nil
				if rapid.Bool().Draw(t, "ignore") {
					app.Spec.IgnoreDifferences = []v1alpha1.IgnoreDifferences{{Kind: "ConfigMap", JSONPointers: []string{rapid.SampledFrom([]string{"/data/v", "/data/other"}).Draw(t, "pointer")}}}
				}
			},
			"options": func(t *rapid.T) {
				options, _ = plan.ParseOptions(rapid.SampledFrom([][]string{nil, {"Prune=false"}, {"PruneLast=true"}, {"RespectIgnoreDifferences=true"}}).Draw(t, "options"))
			},
			"": func(t *rapid.T) {
				kept, anew := told(t, compare(st)), told(t, compare(newState()))
				if kept != anew {
					t.Fatalf("with the verdicts of before:\n%s\nfrom nothing:\n%s", kept, anew)
				}
			},
		})
	})
}
