package apply

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// TestModel lets random plans run against the server in memory, and compares
// what was written, and when, with the specification in [model].
func TestModel(t *testing.T) {
	mapper := newMapper(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		m := w.model()
		err := w.run(rt, mapper)
		if trouble := m.compare(w, err); trouble != "" {
			rt.Fatalf("%s\n%s\nlog:\n%s\nerror: %v\nresults:\n%s", trouble, w, lines(w.server.log), err, lines(slices.Collect(maps.Values(w.results))))
		}
	})
}

func lines[T any](list []T) string {
	var b strings.Builder
	for _, x := range list {
		fmt.Fprintf(&b, "  %v\n", x)
	}
	return b.String()
}

// item is one object of the source or a left-over one.
type item struct {
	key     plan.Key
	wave    int
	phases  []plan.Phase // of a hook
	policy  []string
	old     bool // exists before
	same    bool // as desired
	prune   bool // exists, and is not desired
	refused bool // by the server
	script  script
}

func (i item) hook() bool { return i.phases != nil }

func (i item) object() *unstructured.Unstructured {
	annotations := map[string]any{"argocd.argoproj.io/sync-wave": fmt.Sprint(i.wave), "argocd.argoproj.io/tracking-id": fmt.Sprintf("app:%s/%s:%s/%s", i.key.Group, i.key.Kind, i.key.Namespace, i.key.Name)}
	if i.hook() {
		var names []string
		for _, p := range i.phases {
			names = append(names, string(p))
		}
		annotations[v1alpha1.AnnotationHook] = strings.Join(names, ",")
		if i.policy != nil {
			annotations[v1alpha1.AnnotationHookDelete] = strings.Join(i.policy, ", ")
		}
	}
	metadata := map[string]any{"name": i.key.Name, "annotations": annotations}
	if i.key.Namespace != "" {
		metadata["namespace"] = i.key.Namespace
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion(i.key.Group), "kind": i.key.Kind, "metadata": metadata, "data": map[string]any{"v": "1"}}}
}

type world struct {
	items   []item
	prune   bool
	last    bool
	server  *server
	results map[string]Result
}

func (w *world) String() string {
	return fmt.Sprintf("prune %v, last %v\n%s", w.prune, w.last, lines(w.items))
}

func drawWorld(t *rapid.T) *world {
	w := &world{prune: rapid.Bool().Draw(t, "prune"), last: rapid.IntRange(0, 3).Draw(t, "last") == 0, server: newServer(), results: map[string]Result{}}
	phases := []plan.Phase{plan.PreSync, plan.Sync, plan.PostSync, plan.SyncFail}
	for n := range rapid.IntRange(1, 9).Draw(t, "objects") {
		r := rapid.SampledFrom(resources).Draw(t, "kind")
		i := item{key: plan.Key{Group: r.group, Kind: r.kind, Namespace: "ns", Name: fmt.Sprintf("o%d", n)}, wave: rapid.IntRange(-1, 2).Draw(t, "wave")}
		if r.cluster {
			i.key.Namespace = ""
		}
		if r.kind == "Namespace" && !slices.ContainsFunc(w.items, func(i item) bool { return i.key.Name == "ns" }) {
			i.key.Name = "ns"
		}
		i.script = script{rapid.IntRange(0, 3).Draw(t, "ticks"), rapid.IntRange(0, 11).Draw(t, "fails") == 0}
		if r.kind == "ConfigMap" || r.kind == "Secret" {
			i.script = script{}
		}
		i.old = rapid.Bool().Draw(t, "old")
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			i.phases = rapid.SliceOfNDistinct(rapid.SampledFrom(phases), 1, 2, rapid.ID[plan.Phase]).Draw(t, "phases")
			i.policy = rapid.SampledFrom([][]string{nil, {"HookSucceeded"}, {"HookFailed"}, {"BeforeHookCreation", "HookSucceeded"}, {"Never"}}).Draw(t, "policy")
			if r.kind == "Pod" { // its own end decides, which the server does not play
				i.key.Group, i.key.Kind = "batch", "Job"
			}
		case 1:
			i.prune, i.old, i.script.fails = true, true, false
		default:
			i.same = i.old && rapid.Bool().Draw(t, "same")
		}
		i.refused = !i.prune && !i.same && rapid.IntRange(0, 14).Draw(t, "refused") == 0
		w.items = append(w.items, i)
	}
	return w
}

// run plans and applies.
func (w *world) run(t *rapid.T, mapper *observe.Mapper) error {
	in := plan.Input{Instance: "app", Manager: "argocd-controller", Live: map[plan.Key]*unstructured.Unstructured{}, Predicted: map[plan.Key]plan.Prediction{}}
	in.Options, _ = plan.ParseOptions(nil)
	in.Options.PruneLast = w.last
	refused := map[string]bool{}
	for n, i := range w.items {
		o := i.object()
		if i.old {
			live := o.DeepCopy()
			if !i.same && !i.prune {
				live.Object["data"] = map[string]any{"v": "0"}
			}
			live.SetUID(types.UID(fmt.Sprintf("old-%d", n)))
			live.SetGeneration(1)
			live.SetResourceVersion("1")
			if i.prune && i.script.ticks > 0 {
				live.SetFinalizers([]string{slowFinalizer})
			}
			w.server.objects[i.key] = live
			if !i.hook() {
				in.Live[i.key] = live
			}
		}
		if !i.prune {
			in.Desired = append(in.Desired, manifest.Object{Unstructured: o, File: "a.yaml", Line: n + 1})
		}
		w.server.scripts[i.key] = i.script
		refused[i.key.Name] = i.refused
	}
	foreign := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "foreign", "namespace": "ns"}}}
	w.server.objects[plan.KeyOf(foreign)] = foreign
	w.server.fault = func(r *http.Request, body []byte) *http.Response {
		if r.Method != http.MethodPatch && r.Method != http.MethodPost || r.Header.Get("Content-Type") == string(types.MergePatchType) {
			return nil
		}
		if name := decode(body).GetName(); refused[name] {
			return refuse(r, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "data.v: Invalid value")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer w.server.ticker.Wait()
	defer cancel()
	var mu sync.Mutex
	return Run(ctx, w.server.writer(t, mapper, 4), w.server, Request{
		Plan: plan.Make(in), Options: in.Options, Prune: w.prune, Changed: w.server.run(ctx),
		Report: func(r Result) {
			mu.Lock()
			defer mu.Unlock()
			w.results[r.Key.String()+" "+string(r.Phase)] = r
		},
	})
}

// model is what a sync has to do, as people read it in the documentation: a
// list of waves, each a set of writes, until one fails.
type model struct {
	waves  []modelWave
	fails  bool
	failed []plan.Key // SyncFail hooks
}

type modelWave struct {
	place  string
	prunes []item
	writes []item
	hooks  []item
	fails  bool // something in it is refused, or breaks and is waited for
}

type place struct {
	phase plan.Phase
	wave  int
}

func (w *world) model() model {
	at := map[place]*modelWave{}
	get := func(phase plan.Phase, wave int) *modelWave {
		p := place{phase, wave}
		if at[p] == nil {
			at[p] = &modelWave{place: fmt.Sprint(phase, wave)}
		}
		return at[p]
	}
	needed := w.needed()
	var m model
	for _, i := range w.items {
		for _, phase := range i.phases {
			if phase == plan.SyncFail {
				m.failed = append(m.failed, i.key)
				continue
			}
			x := get(phase, i.wave)
			x.hooks = append(x.hooks, i)
		}
		if i.hook() {
			continue
		}
		p := place{plan.Sync, i.wave}
		if i.prune {
			p.wave = w.pruneWave(i)
			x := get(p.phase, p.wave)
			x.prunes = append(x.prunes, i)
			continue
		}
		if first, ok := needed[i.key.Name]; ok && i.key.Kind == "Namespace" && before(first, p) {
			p = first
		}
		x := get(p.phase, p.wave)
		x.writes = append(x.writes, i)
	}
	places := slices.SortedFunc(maps.Keys(at), func(a, b place) int {
		if before(a, b) {
			return -1
		}
		return 1
	})
	several := len(places) > 1 || m.failed != nil
	for n, p := range places {
		x := at[p]
		last := n == len(places)-1
		for _, i := range x.hooks {
			x.fails = x.fails || i.refused || i.script.fails
		}
		for _, i := range x.writes {
			waited := several && !(last && len(x.hooks) == 0)
			x.fails = x.fails || i.refused || i.script.fails && waited
		}
		m.waves = append(m.waves, *x)
		if x.fails {
			m.fails = true
			break
		}
	}
	return m
}

func before(a, b place) bool {
	order := map[plan.Phase]int{plan.PreSync: 0, plan.Sync: 1, plan.PostSync: 2}
	return cmp.Or(cmp.Compare(order[a.phase], order[b.phase]), cmp.Compare(a.wave, b.wave)) < 0
}

// needed is the first place at which a namespace is used.
func (w *world) needed() map[string]place {
	out := map[string]place{}
	add := func(ns string, p place) {
		if first, ok := out[ns]; ns != "" && (!ok || before(p, first)) {
			out[ns] = p
		}
	}
	for _, i := range w.items {
		for _, phase := range i.phases {
			if phase != plan.SyncFail {
				add(i.key.Namespace, place{phase, i.wave})
			}
		}
		if !i.hook() && !i.prune {
			add(i.key.Namespace, place{plan.Sync, i.wave})
		}
	}
	return out
}

// pruneWave reverses the waves of pruned objects, or puts them after the rest.
func (w *world) pruneWave(of item) int {
	var waves []int
	last := 0
	for _, i := range w.items {
		if i.prune && !slices.Contains(waves, i.wave) {
			waves = append(waves, i.wave)
		}
		if i.prune || !i.hook() || slices.Contains(i.phases, plan.Sync) {
			last = max(last, i.wave)
		}
	}
	if w.last {
		return last + 1
	}
	slices.Sort(waves)
	return waves[len(waves)-1-slices.Index(waves, of.wave)]
}
