package plan

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// walk compares what desired sets with a live object, beside what this engine
// applied before (managedFields) and what the server answered (accepted). It
// stops at the first difference, or collects all of them.
type walk struct {
	collect bool
	answers bool // live is the answer to an apply of desired: whole atomic values are compared, nothing is lost
	full    bool // accepted is a whole object: what it lacks, the server dropped
	builtin bool // a kind of Kubernetes itself
	secret  bool
	status  bool // the status counts
	known   []KnownType
	atomic  int                        // depth of lists and maps with one owner
	object  *unstructured.Unstructured // live
	manager string
	path    []segment
	out     []Difference
	trees   []fields // of all managers; read when needed
	read    bool
}

// noAnswer is in the place of an accepted value that is not known, or is what
// desired says.
type noAnswer struct{}

const maxDifferences = 500 // of one object

// reset makes the walk ready for another object.
func (w *walk) reset(desired, live *unstructured.Unstructured, manager string, policy *Policy) {
	key := KeyOf(desired)
	if w.path == nil {
		w.path = make([]segment, 0, 20)
	}
	*w = walk{
		builtin: builtinGroup(key.Group), secret: isSecret(key), status: policy.statusCounts(key),
		known: policy.knownTypes(key), object: live, manager: manager, path: w.path[:0],
	}
}

// objects compares two objects of one key.
func (w *walk) objects(desired, live, accepted map[string]any, own fields) bool {
	var acc any = noAnswer{}
	if accepted != nil {
		acc = accepted
		_, w.full = accepted["apiVersion"]
	}
	same := true
	for k, dv := range desired {
		lv, of := live[k], below(own, k)
		switch k {
		case "apiVersion", "kind":
			continue
		case "status":
			if !w.status {
				continue
			}
		case "rules":
			if aggregated(desired) {
				continue
			}
		case "stringData":
			if w.secret && secretData(desired) != nil {
				continue
			}
		case "data":
			if merged := secretData(desired); w.secret && merged != nil {
				dv = merged
			}
		case "spec":
			if crd, ok := dv.(map[string]any); ok && w.object.GetKind() == "CustomResourceDefinition" {
				if crd["preserveUnknownFields"] == false {
					crd = without(crd, "preserveUnknownFields")
				}
				dv = crd
			}
		}
		if !w.step(k, dv, lv, w.child(acc, k), of) {
			same = false
			if !w.collect {
				return false
			}
		}
	}
	if _, both := desired["data"]; w.secret && !both && secretData(desired) != nil {
		if !w.step("data", secretData(desired), live["data"], w.child(acc, "data"), below(own, "data")) {
			same = false
		}
	}
	return (same || w.collect) && w.lostFields(desired, live, own) && same
}

func (w *walk) step(k string, dv, lv, acc any, own fields) bool {
	w.path = append(w.path, segment{field: k})
	same := w.value(dv, lv, acc, own)
	w.path = w.path[:len(w.path)-1]
	return same
}

func (w *walk) child(acc any, k string) any {
	switch a := acc.(type) {
	case map[string]any:
		if v, ok := a[k]; ok {
			return v
		}
		if w.full {
			return nil
		}
	}
	return noAnswer{}
}

func (w *walk) value(desired, live, acc any, own fields) bool {
	switch d := desired.(type) {
	case map[string]any:
		if l, ok := live.(map[string]any); ok {
			return w.maps(d, l, acc, own)
		}
		if live == nil && len(d) == 0 && (!w.builtin || looseMap(w.here())) {
			return true
		}
	case []any:
		if l, ok := live.([]any); ok {
			return w.lists(d, l, acc, own)
		}
		if live == nil && len(d) == 0 {
			return true
		}
	case nil:
		return true // says nothing
	default:
		if sameScalar(d, live) || w.alike(d, live) {
			return true
		}
		if w.builtin && empty(d) && !looseMap(w.parent()) && (live == nil || w.here() == "clusterIP") {
			return true // dropped, or given by the server
		}
	}
	if _, unknown := acc.(noAnswer); !unknown && equal(acc, live) {
		return true
	}
	return w.add(live, desired)
}

func (w *walk) here() string { return w.back(1) }

func (w *walk) parent() string { return w.back(2) }

func (w *walk) back(n int) string {
	if len(w.path) < n {
		return ""
	}
	return w.path[len(w.path)-n].field
}

// add notes a difference at the current path. It returns false: not the same.
func (w *walk) add(live, want any) bool {
	if w.collect && len(w.out) < maxDifferences {
		w.out = append(w.out, Difference{Path: pretty(w.path), Pointer: pointer(w.path), Live: live, Want: want, fields: slices.Clone(w.path)})
	}
	return false
}

func (w *walk) maps(d, l map[string]any, acc any, own fields) bool {
	same, common := true, 0
	oneOwner := w.atomic > 0 || len(d) > 0 && own != nil && len(own) == 0
	if oneOwner && w.answers {
		return w.whole(d, l)
	}
	if oneOwner {
		w.atomic++
		defer func() { w.atomic-- }()
	}
	metadata := len(w.path) == 1 && w.path[0].field == "metadata"
	for k, dv := range d {
		if metadata && (serverField(k) || k == "namespace") {
			continue
		}
		lv, in := l[k]
		if in {
			common++
		}
		if !w.step(k, dv, lv, w.child(acc, k), below(own, k)) {
			if same = false; !w.collect {
				return false
			}
		}
	}
	if len(own) > 0 {
		return w.lostFields(d, l, own) && same
	}
	if common < len(l) && len(d) > 0 && !metadata && singleOwner(w.here(), d) && (oneOwner || w.leafElsewhere()) {
		return w.extras(d, l, acc) && same
	}
	return same
}

// extras are what others put into a value that has one owner.
func (w *walk) extras(d, l map[string]any, acc any) bool {
	if _, unknown := acc.(noAnswer); !unknown && equal(acc, l) {
		return true
	}
	same := true
	for k, lv := range l {
		if _, wanted := d[k]; wanted {
			continue
		}
		w.path = append(w.path, segment{field: k})
		same = w.add(lv, nil)
		w.path = w.path[:len(w.path)-1]
	}
	return same
}

// singleOwner names the maps of free keys that are replaced as a whole.
func singleOwner(field string, d map[string]any) bool {
	switch field {
	case "matchLabels", "nodeSelector":
		return true
	case "selector":
		for _, v := range d {
			if _, ok := v.(string); !ok {
				return false
			}
		}
		return true
	}
	return false
}

// leafElsewhere reports whether another manager owns the value as one.
func (w *walk) leafElsewhere() bool {
	leaf := false
	for _, f := range w.managers() {
		node, owned := follow(f, w.path)
		if owned && len(node) > 0 {
			return false
		}
		leaf = leaf || owned
	}
	return leaf
}

// managers are the trees of everybody who wrote to the live object.
func (w *walk) managers() []fields {
	if !w.read {
		w.read = true
		for _, e := range managedFields(w.object.Object) {
			if f, ok := e["fieldsV1"].(map[string]any); ok && text(e, "subresource") == "" {
				w.trees = append(w.trees, f)
			}
		}
	}
	return w.trees
}

// whole compares values that are written as one.
func (w *walk) whole(d, l any) bool {
	if w.builtin {
		d, _ = withoutNulls(d)
	}
	if equal(d, l) {
		return true
	}
	return w.add(l, d)
}

func serverField(name string) bool {
	switch name {
	case "managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds":
		return true
	}
	return false
}

func builtinGroup(group string) bool {
	switch group {
	case "", "apps", "batch", "autoscaling", "policy", "extensions", "networking.k8s.io", "rbac.authorization.k8s.io", "storage.k8s.io",
		"apiextensions.k8s.io", "admissionregistration.k8s.io", "apiregistration.k8s.io", "certificates.k8s.io", "coordination.k8s.io",
		"discovery.k8s.io", "events.k8s.io", "flowcontrol.apiserver.k8s.io", "node.k8s.io", "scheduling.k8s.io", "resource.k8s.io":
		return true
	}
	return false
}

// aggregated reports whether the cluster fills in the rules of a ClusterRole.
func aggregated(o map[string]any) bool {
	if o["kind"] != "ClusterRole" {
		return false
	}
	rule, ok := o["aggregationRule"].(map[string]any)
	return ok && len(rule) > 0
}

func without(m map[string]any, key string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}
