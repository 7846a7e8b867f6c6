//go:build linux

package applicationset

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

const rollingSet = `generators:
- list: {elements: [{name: dev, env: dev}, {name: prod-1, env: prod}, {name: prod-2, env: prod}, {name: prod-3, env: prod}]}
strategy:
  type: RollingSync
  deletionOrder: Reverse
  rollingSync:
    steps:
    - matchExpressions: [{key: env, operator: In, values: [dev]}]
    - matchExpressions: [{key: env, operator: In, values: [prod]}]
      maxUpdate: 2
template:
  metadata: {name: '{{name}}', labels: {env: '{{env}}'}}
  spec:
    project: default
    source: {repoURL: https://github.com/o/r, targetRevision: main, path: x}
    destination: {server: https://kubernetes.default.svc, namespace: x}
    syncPolicy: {automated: {prune: true}, syncOptions: [CreateNamespace=true]}
`

// appController does what the controller of Applications does, without objects:
// it compares with the head, takes operations up, and is healthy after them.
type appController struct {
	w    *world
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	head   string
	broken map[string]bool // "app@revision" does not get healthy
	syncs  []string        // "app@revision" in order
	most   int             // syncs at a time
	busy   map[string]bool
}

func startAppController(w *world, head string) *appController {
	ctx, cancel := context.WithCancel(context.Background())
	c := &appController{w: w, stop: cancel, done: make(chan struct{}), head: head, broken: map[string]bool{}, busy: map[string]bool{}}
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			list, err := w.in(v1alpha1.ApplicationResource, "argocd").List(ctx, metav1.ListOptions{})
			if err == nil {
				for i := range list.Items {
					c.look(ctx, &list.Items[i])
				}
			}
			select {
			case <-time.After(30 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return c
}

func (c *appController) end() { c.stop(); <-c.done }

func (c *appController) push(head string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = head
}

func (c *appController) look(ctx context.Context, o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := o.GetName()
	status, _, _ := unstructured.NestedMap(o.Object, "status")
	if status == nil {
		status = map[string]any{}
	}
	before, _ := json.Marshal(status)
	spec := o.Object["spec"].(map[string]any)
	source, _, _ := unstructured.NestedString(spec, "source", "path")
	wish, _, _ := unstructured.NestedMap(o.Object, "operation")
	live, _, _ := unstructured.NestedString(status, "summary", "live")
	now := time.Now().UTC().Format(time.RFC3339)
	patch := map[string]any{}
	phase, _, _ := unstructured.NestedString(status, "operationState", "phase")
	switch {
	case phase == "Running":
		_ = unstructured.SetNestedField(status, "Succeeded", "operationState", "phase")
		live = c.head + source
		delete(c.busy, name)
	case wish != nil:
		status["operationState"] = map[string]any{"phase": "Running", "startedAt": now, "operation": wish}
		patch["operation"] = nil
		c.syncs = append(c.syncs, name+"@"+c.head)
		c.busy[name] = true
		c.most = max(c.most, len(c.busy))
	}
	sync := "OutOfSync"
	if live == c.head+source {
		sync = "Synced"
	}
	health := "Healthy"
	if live == "" {
		health = "Missing"
	} else if c.broken[name+"@"+strings.TrimSuffix(live, source)] {
		health = "Degraded"
	}
	status["summary"] = map[string]any{"live": live}
	status["sync"] = map[string]any{"status": sync, "revision": c.head, "comparedTo": map[string]any{"source": spec["source"], "destination": spec["destination"]}}
	status["health"] = map[string]any{"status": health}
	after, _ := json.Marshal(status)
	if o.GetAnnotations()[v1alpha1.AnnotationRefresh] != "" {
		patch["metadata"] = map[string]any{"annotations": map[string]any{v1alpha1.AnnotationRefresh: nil}}
	}
	if string(before) != string(after) {
		status["reconciledAt"] = now
		patch["status"] = status
	}
	if len(patch) == 0 {
		return
	}
	data, _ := json.Marshal(patch)
	_, _ = c.w.in(v1alpha1.ApplicationResource, "argocd").Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
}

func (c *appController) synced() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.syncs)
}

func complete(w *world, head string) func() bool {
	return func() bool {
		s := w.set("rolling").Status
		return len(s.ApplicationStatus) == 4 && !slices.ContainsFunc(s.ApplicationStatus, func(a v1alpha1.RolloutStatus) bool {
			return a.Status != "Healthy" || !slices.Equal(a.TargetRevisions, []string{head})
		}) && w.condition("rolling", v1alpha1.ConditionRolloutProgressing).Status == "False"
	}
}

func testRolling(t *testing.T, w *world) {
	c := startAppController(w, "r1")
	defer c.end()
	w.make("rolling", rollingSet)
	w.eventually("the first rollout", complete(w, "r1"))
	syncs := c.synced()
	if len(syncs) != 4 || syncs[0] != "dev@r1" {
		t.Errorf("syncs: %v", syncs)
	}
	if c.most > 2 {
		t.Errorf("%d syncs at a time", c.most)
	}
	dev := w.apps()["dev"]
	if _, there, _ := unstructured.NestedMap(dev.Object, "spec", "syncPolicy", "automated"); there {
		t.Error("automated sync is on")
	}
	if prune, _, _ := unstructured.NestedBool(dev.Object, "status", "operationState", "operation", "sync", "prune"); !prune {
		t.Errorf("the operation does not prune: %v", dev.Object["status"])
	}
	w.settled()
	before := w.versions()
	time.Sleep(time.Second)
	if after := w.versions(); after != before {
		t.Errorf("at rest, something is written:\n%s\n%s", before, after)
	}

	// A revision that breaks dev stops there; the next one repairs it.
	c.mu.Lock()
	c.broken["dev@r2"] = true
	c.mu.Unlock()
	c.push("r2")
	w.eventually("dev to hang", func() bool {
		return slices.Contains(c.synced(), "dev@r2") && strings.Contains(w.condition("rolling", v1alpha1.ConditionRolloutProgressing).Message, "step 1: dev is Progressing")
	})
	time.Sleep(500 * time.Millisecond)
	if syncs := c.synced(); slices.ContainsFunc(syncs, func(s string) bool { return strings.HasPrefix(s, "prod") && strings.HasSuffix(s, "r2") }) {
		t.Errorf("prod went on: %v", syncs)
	}
	c.push("r3")
	w.eventually("the repair", complete(w, "r3"))
	seen := map[string]int{}
	for i, s := range c.synced() {
		if seen[s]++; seen[s] > 1 {
			t.Errorf("%s was synced twice", s)
		}
		if s == "dev@r3" && seen["prod-1@r3"]+seen["prod-2@r3"]+seen["prod-3@r3"] > 0 {
			t.Errorf("prod went first: %v", c.synced()[:i+1])
		}
	}

	// A change of the template is rolled out as well, also after a restart.
	n := len(c.synced())
	w.stop()
	w.patch(v1alpha1.ApplicationSetResource, "rolling", "spec: {template: {spec: {source: {path: moved}}}}")
	w.start()
	w.eventually("the new path", func() bool {
		for _, a := range w.apps() {
			live, _, _ := unstructured.NestedString(a.Object, "status", "summary", "live")
			if live != "r3moved" {
				return false
			}
		}
		return complete(w, "r3")()
	})
	if syncs := c.synced()[n:]; len(syncs) != 4 || syncs[0] != "dev@r3" {
		t.Errorf("syncs: %v", syncs)
	}
}

func testReverse(t *testing.T, w *world) {
	w.make("rolling", rollingSet)
	w.eventually("four Applications and the finalizer", func() bool {
		return len(w.apps()) == 4 && slices.Contains(w.set("rolling").Finalizers, v1alpha1.FinalizerResources)
	})
	w.settled()
	if err := w.in(v1alpha1.ApplicationSetResource, "argocd").Delete(context.Background(), "rolling", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	going := func() string {
		s := ""
		for _, name := range w.names() {
			if w.apps()[name].GetDeletionTimestamp() != nil {
				s += name + " "
			}
		}
		return s
	}
	w.eventually("prod to be deleted", func() bool { return going() == "prod-1 prod-2 prod-3 " })
	time.Sleep(300 * time.Millisecond)
	if got := going(); got != "prod-1 prod-2 prod-3 " {
		t.Errorf("deleted: %s", got)
	}
	for _, name := range []string{"prod-1", "prod-2", "prod-3"} {
		w.patch(v1alpha1.ApplicationResource, name, "metadata: {finalizers: null}")
	}
	w.eventually("dev to be deleted", func() bool { return going() == "dev " })
	if w.set("rolling") == nil {
		t.Error("the set went before its Applications")
	}
	w.patch(v1alpha1.ApplicationResource, "dev", "metadata: {finalizers: null}")
	w.eventually("the set to go", func() bool { return w.set("rolling") == nil })
}

// testThousand measures one commit that changes one of a thousand files.
func testThousand(t *testing.T, w *world) {
	files := map[string]string{"apps/a.yaml": "", "apps/b.yaml": "", "apps/c.yaml": ""}
	for i := range 1000 {
		files[fmt.Sprintf("apps/app-%04d.yaml", i)] = file(fmt.Sprintf("n%04d", i), "one")
	}
	w.repo.push(files)
	heapBefore := heapInUse()
	start := time.Now()
	w.make("files", filesSet)
	w.eventually("a thousand Applications", func() bool { s := w.set("files"); return s != nil && s.Status.ResourcesCount == 1000 })
	t.Logf("created 1000 Applications in %s", time.Since(start).Round(time.Millisecond))
	w.settled()
	time.Sleep(2 * time.Second)
	before := map[string]string{}
	for name, a := range w.apps() {
		before[name] = a.GetResourceVersion()
	}
	heap := heapInUse()
	t.Logf("%d KB of heap per Application for controller, watch and tests", (heap-heapBefore)/1000/1024)
	cpu := cpuTime(t)
	start = time.Now()
	w.ctrl.Moved(w.repo.push(map[string]string{"apps/app-0500.yaml": file("n0500", "two")}))
	for {
		o, err := w.in(v1alpha1.ApplicationResource, "argocd").Get(context.Background(), "app-n0500", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if image, _, _ := unstructured.NestedString(o.Object, "spec", "source", "helm", "valuesObject", "image"); image == "two" {
			break
		}
		if time.Since(start) > patience {
			t.Fatal("not patched")
		}
		time.Sleep(5 * time.Millisecond)
	}
	took := time.Since(start)
	w.settled()
	used := cpuTime(t) - cpu
	written := 0
	for name, a := range w.apps() {
		if a.GetResourceVersion() != before[name] {
			written++
		}
	}
	if written != 1 {
		t.Errorf("%d Applications were written", written)
	}
	t.Logf("one of 1000 files: patched after %s; %s CPU of this process, with the commit itself", took.Round(time.Millisecond), used.Round(time.Millisecond))
	if used > 2*time.Second {
		t.Errorf("%s of CPU", used)
	}
}
