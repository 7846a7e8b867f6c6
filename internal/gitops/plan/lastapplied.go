package plan

import (
	"encoding/json"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// clientSide are the managers that client-side apply writes under. What they
// own is taken over at the next write, so that what the source no longer has
// goes.
func clientSide() []string {
	return []string{"kubectl-client-side-apply", "kubectl", "argocd-controller", "argocd-application-controller", "before-first-apply"}
}

func ownedByClientSide(live *unstructured.Unstructured, path []segment) bool {
	return ownedBy(live, path, clientSide()) != ""
}

// lostBefore finds the fields that a client-side apply set and desired no
// longer has: the third side of a three-way comparison.
func (w *walk) lostBefore(desired, live map[string]any) bool {
	raw, ok := annotation(w.object, lastApplied)
	if !ok {
		return true
	}
	var before map[string]any
	if json.Unmarshal([]byte(raw), &before) != nil {
		return true
	}
	if w.secret {
		before["data"], desired = secretData(before), withSecretData(desired)
		delete(before, "stringData")
	}
	return w.gone(before, desired, live)
}

// gone walks down the last applied configuration.
func (w *walk) gone(before, desired, live map[string]any) bool {
	same := true
	for k, bv := range before {
		lv, inLive := live[k]
		dv := desired[k]
		if bv == nil || !inLive || lv == nil || w.exempt(k, desired) || len(w.path) == 2 && w.path[1].field == "annotations" && k == lastApplied {
			continue
		}
		w.path = append(w.path, segment{field: k})
		same = w.goneBelow(bv, dv, lv) && same
		w.path = w.path[:len(w.path)-1]
		if !same && !w.collect {
			return false
		}
	}
	return same
}

// taken reports whether the next write takes the field over.
func (w *walk) taken() bool {
	return len(managedFields(w.object.Object)) == 0 || ownedByClientSide(w.object, w.path) && !w.shared()
}

// goneBelow compares one value of the last applied configuration. What client-
// side apply did not set inside it stays.
func (w *walk) goneBelow(before, desired, live any) bool {
	switch b := before.(type) {
	case map[string]any:
		d, wanted := desired.(map[string]any)
		if l, ok := live.(map[string]any); ok && (wanted || desired == nil && len(b) > 0) {
			return w.gone(b, d, l)
		}
	case []any:
		d, wanted := desired.([]any)
		l, ok := live.([]any)
		if kind, keys := w.listKind(b, nil); ok && (wanted || desired == nil) && kind == keyedList {
			return w.goneItems(b, d, l, keys)
		}
	}
	if desired != nil || empty(before) || !w.taken() {
		return true
	}
	return w.add(live, nil)
}

func (w *walk) goneItems(before, desired, live []any, keys keyNames) bool {
	same := true
	for _, bv := range before {
		bm, ok := bv.(map[string]any)
		if !ok {
			return true
		}
		at := keys.find(live, bm, 0)
		if at < 0 {
			continue
		}
		wanted := keys.find(desired, bm, 0)
		w.path = append(w.path, segment{list: true, live: at, want: wanted, item: live[at]})
		if wanted >= 0 {
			same = w.goneBelow(bv, desired[wanted], live[at]) && same
		} else if w.taken() {
			same = w.add(live[at], nil)
		}
		w.path = w.path[:len(w.path)-1]
	}
	return same
}

// once drops differences that two ways of looking both found, and those below
// another.
func once(ds []Difference) []Difference {
	var out []Difference
	for _, d := range ds {
		if !slices.ContainsFunc(out, func(o Difference) bool { return o.Pointer == d.Pointer }) {
			out = append(out, d)
		}
	}
	return out
}
