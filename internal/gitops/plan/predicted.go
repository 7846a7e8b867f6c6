package plan

import (
	"fmt"
	"slices"
	"sort"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// diff compares the live object with the server's prediction.
func diff(live, want *unstructured.Unstructured, status bool) []Difference {
	var d differ
	d.walk(nil, comparable(live, status), comparable(want, status))
	return d.out
}

// comparable is an object without what the server keeps for itself.
func comparable(o *unstructured.Unstructured, status bool) map[string]any {
	out := make(map[string]any, len(o.Object))
	for k, v := range o.Object {
		if k != "status" || status {
			out[k] = v
		}
	}
	md, _ := out["metadata"].(map[string]any)
	kept := make(map[string]any, len(md))
	for k, v := range md {
		if !serverField(k) {
			kept[k] = v
		}
	}
	out["metadata"] = kept
	return out
}

type differ struct{ out []Difference }

func (d *differ) add(path []segment, live, want any) {
	if len(d.out) < maxDifferences {
		d.out = append(d.out, Difference{Path: pretty(path), Pointer: pointer(path), Live: live, Want: want, fields: slices.Clone(path)})
	}
}

func (d *differ) walk(path []segment, live, want any) {
	switch w := want.(type) {
	case map[string]any:
		if l, ok := live.(map[string]any); ok {
			d.walkMap(path, l, w)
			return
		}
	case []any:
		if l, ok := live.([]any); ok {
			d.walkList(path, l, w)
			return
		}
	}
	if !equal(want, live) {
		d.add(path, live, want)
	}
}

func (d *differ) walkMap(path []segment, live, want map[string]any) {
	keys := make([]string, 0, len(live)+len(want))
	for k := range want {
		keys = append(keys, k)
	}
	for k := range live {
		if _, ok := want[k]; !ok {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		next := append(path, segment{field: k})
		l, inLive := live[k]
		w, inWant := want[k]
		switch {
		case !inWant:
			d.add(next, l, nil)
		case !inLive:
			d.add(next, nil, w)
		default:
			d.walk(next, l, w)
		}
	}
}

func (d *differ) walkList(path []segment, live, want []any) {
	key := mergeKey(live, want)
	if key == "" {
		d.walkIndices(path, live, want)
		return
	}
	seen := map[string]bool{}
	last, reordered := -1, false
	for i, w := range want {
		id := fmt.Sprint(w.(map[string]any)[key])
		seen[id] = true
		at := slices.IndexFunc(live, func(l any) bool { return fmt.Sprint(l.(map[string]any)[key]) == id })
		if at < 0 {
			d.add(append(path, segment{list: true, live: -1, want: i, item: w}), nil, w)
			continue
		}
		reordered = reordered || at < last
		last = at
		d.walk(append(path, segment{list: true, live: at, want: i, item: live[at]}), live[at], w)
	}
	for i, l := range live {
		if !seen[fmt.Sprint(l.(map[string]any)[key])] {
			d.add(append(path, segment{list: true, live: i, want: -1, item: l}), l, nil)
		}
	}
	if reordered {
		d.add(path, live, want)
	}
}

func (d *differ) walkIndices(path []segment, live, want []any) {
	for i := range max(len(live), len(want)) {
		switch {
		case i >= len(want):
			d.add(append(path, segment{list: true, live: i, want: -1, item: live[i]}), live[i], nil)
		case i >= len(live):
			d.add(append(path, segment{list: true, live: -1, want: i, item: want[i]}), nil, want[i])
		default:
			d.walk(append(path, segment{list: true, live: i, want: i, item: live[i]}), live[i], want[i])
		}
	}
}

// withoutAdmission drops what the prediction changes although neither the
// source sets it nor an earlier sync did: admission did that.
func withoutAdmission(all []Difference, desired, live, predicted *unstructured.Unstructured, manager string) (kept, dropped []Difference) {
	apiVersion := desired.GetAPIVersion()
	before, after := ownFields(live.Object, manager, apiVersion), ownFields(predicted.Object, manager, apiVersion)
	if after == nil {
		return all, nil
	}
	for _, d := range all {
		_, was := follow(before, d.fields)
		_, is := follow(after, d.fields)
		if was || is || d.Want == nil && ownedByClientSide(live, d.fields) {
			kept = append(kept, d)
			continue
		}
		d.Why = "set by admission, not by the source; compare-options: IncludeMutationWebhook=true makes it count"
		dropped = append(dropped, d)
	}
	return kept, dropped
}
