package plan

import (
	"fmt"
	"slices"
	"strings"
)

type listKind uint8

const (
	atomicList listKind = iota // written as one
	keyedList                  // items have owners, found by key fields
	setList                    // scalars have owners
)

// lists compares two lists in the way in which the server merges them.
func (w *walk) lists(d, l []any, acc any, own fields) bool {
	kind, keys := w.listKind(d, own)
	if w.answers && kind == atomicList {
		return w.whole(d, l)
	}
	switch kind {
	case keyedList:
		return w.keyed(d, l, acc, own, keys)
	case setList:
		return w.set(d, l, acc, own)
	}
	return w.atomicList(d, l, acc)
}

// listKind asks, in this order: what we applied, what others applied, and what
// is known of Kubernetes' own kinds.
func (w *walk) listKind(d []any, own fields) (listKind, keyNames) {
	if w.atomic > 0 {
		return atomicList, keyNames{}
	}
	if own != nil {
		if kind, keys, ok := kindOf(own, len(d)); ok {
			return kind, keys
		}
	} else {
		for _, f := range w.managers() {
			if node, owned := follow(f, w.path); owned && node != nil {
				if kind, keys, ok := kindOf(node, len(d)); ok && (kind != atomicList || !w.builtin) {
					return kind, keys
				}
			}
		}
	}
	return w.knownList(d)
}

func kindOf(f fields, items int) (listKind, keyNames, bool) {
	for element := range f {
		switch {
		case strings.HasPrefix(element, "k:"):
			return keyedList, namesIn(element), true
		case strings.HasPrefix(element, "v:"):
			return setList, keyNames{}, true
		}
	}
	return atomicList, keyNames{}, len(f) == 0 && items > 0
}

// knownList is the merge key of a list of a built-in kind, for objects that
// nobody applied yet.
func (w *walk) knownList(d []any) (listKind, keyNames) {
	if w.here() == "finalizers" && w.parent() == "metadata" {
		return setList, keyNames{}
	}
	if w.here() == "ownerReferences" && w.parent() == "metadata" {
		return keyedList, keysNamed("uid")
	}
	if !w.builtin && !w.inKnown() {
		return atomicList, keyNames{}
	}
	switch w.here() {
	case "containers", "initContainers", "ephemeralContainers", "env", "volumes", "imagePullSecrets", "secrets", "webhooks",
		"resourceClaims", "schedulingGates":
		return keyedList, keysNamed("name")
	case "volumeMounts":
		return keyedList, keysNamed("mountPath")
	case "volumeDevices":
		return keyedList, keysNamed("devicePath")
	case "hostAliases":
		return keyedList, keysNamed("ip")
	case "topologySpreadConstraints":
		return keyedList, keysNamed("topologyKey", "whenUnsatisfiable")
	case "ports":
		if len(d) > 0 {
			m, _ := d[0].(map[string]any)
			if _, ok := m["containerPort"]; ok {
				return keyedList, keysNamed("containerPort", "protocol")
			}
			if _, ok := m["port"]; ok && w.parent() == "spec" && len(w.path) == 2 {
				return keyedList, keysNamed("port", "protocol")
			}
		}
	}
	return atomicList, keyNames{}
}

func (w *walk) keyed(d, l []any, acc any, own fields, keys keyNames) bool {
	same, ours, last, reordered := true, 0, -1, false
	accepted, _ := acc.([]any)
	for i, dv := range d {
		dm, ok := dv.(map[string]any)
		if !ok {
			return w.atomicList(d, l, acc)
		}
		at := keys.find(l, dm, last+1)
		if at < 0 {
			if w.dropped(accepted, dm, keys) {
				continue
			}
			same = w.item(segment{list: true, live: -1, want: i, item: dv}, func() bool { return w.add(nil, dv) }) && same
		} else {
			lm, _ := l[at].(map[string]any)
			of := keys.itemFields(own, lm)
			if of != nil {
				ours++
			}
			if at < last {
				reordered = true
			}
			last = at
			w.path = append(w.path, segment{list: true, live: at, want: i, item: lm})
			same = w.maps(dm, lm, w.acceptedItem(acc, accepted, dm, keys), of) && same
			w.path = w.path[:len(w.path)-1]
		}
		if !same && !w.collect {
			return false
		}
	}
	if reordered && !w.acceptedOrder(d, l, accepted, keys) {
		same = w.reordered(d, l, keys)
	}
	return w.lostItems(d, l, own, keys, ours) && same
}

// dropped reports whether the server answered without the item.
func (w *walk) dropped(accepted []any, item map[string]any, keys keyNames) bool {
	if accepted == nil {
		return false
	}
	at := keys.find(accepted, item, 0)
	if at < 0 {
		return w.full
	}
	m, _ := accepted[at].(map[string]any)
	_, gone := m[goneMark]
	return gone
}

// reordered notes that the items of desired are there in another order. The
// items of others keep their places.
func (w *walk) reordered(d, l []any, keys keyNames) bool {
	want := slices.Clone(l)
	next := 0
	for i, lv := range l {
		lm, ok := lv.(map[string]any)
		if !ok || keys.find(d, lm, 0) < 0 {
			continue
		}
		for ; next < len(d); next++ {
			if at := keys.find(l, d[next].(map[string]any), 0); at >= 0 {
				want[i] = l[at]
				next++
				break
			}
		}
	}
	same := w.add(l, want)
	if n := len(w.out); n > 0 {
		w.out[n-1].Why = "the source has the items in another order"
	}
	return same
}

func (w *walk) item(s segment, do func() bool) bool {
	w.path = append(w.path, s)
	same := do()
	w.path = w.path[:len(w.path)-1]
	return same
}

func (w *walk) acceptedItem(acc any, accepted []any, item map[string]any, keys keyNames) any {
	if accepted == nil {
		return noAnswer{}
	}
	if at := keys.find(accepted, item, 0); at >= 0 {
		return accepted[at]
	}
	return noAnswer{}
}

// acceptedOrder reports whether the server answered with the order of live.
func (w *walk) acceptedOrder(d, l, accepted []any, keys keyNames) bool {
	if accepted == nil {
		return false
	}
	last := -1
	for _, lv := range l {
		lm, ok := lv.(map[string]any)
		if !ok || keys.find(d, lm, 0) < 0 {
			continue
		}
		at := keys.find(accepted, lm, 0)
		if at < last {
			return false
		}
		last = at
	}
	return true
}

func (w *walk) set(d, l []any, acc any, own fields) bool {
	if _, unknown := acc.(noAnswer); !unknown && equal(acc, l) {
		return true
	}
	same := true
	if w.answers {
		for _, dv := range d {
			same = same && contains(l, dv)
		}
		return same || w.add(l, d)
	}
	for i, dv := range d {
		if !contains(l, dv) {
			same = w.item(segment{list: true, live: -1, want: i, item: dv}, func() bool { return w.add(nil, dv) }) && same
		}
	}
	for i, lv := range l {
		if _, ours := itemOf(own, lv); ours && !contains(d, lv) {
			same = w.item(segment{list: true, live: i, want: -1, item: lv}, func() bool { return w.shared() || w.add(lv, nil) }) && same
		}
	}
	return same
}

func contains(list []any, v any) bool {
	for _, x := range list {
		if sameScalar(x, v) {
			return true
		}
	}
	return false
}

// atomicList compares a list that is written as one: others may not add to it.
// What the server fills in to its items does not count, unless its answer is
// known.
func (w *walk) atomicList(d, l []any, acc any) bool {
	_, unknown := acc.(noAnswer)
	if !unknown && equal(acc, l) {
		return true
	}
	w.atomic++
	defer func() { w.atomic-- }()
	if len(d) != len(l) {
		if !w.collect {
			return false
		}
		return w.aligned(d, l)
	}
	before := len(w.out)
	same := true
	for i, dv := range d {
		w.path = append(w.path, segment{list: true, live: i, want: i, item: l[i]})
		same = w.value(dv, l[i], noAnswer{}, nil) && same
		w.path = w.path[:len(w.path)-1]
		if !same && !w.collect {
			return false
		}
	}
	if want, ok := acc.([]any); same && ok && !equal(d, l) {
		w.out = w.out[:before]
		return w.add(l, want)
	}
	return same
}

// aligned compares lists of different length item by item: by name where every
// item has one, so that people see what came and went.
func (w *walk) aligned(d, l []any) bool {
	if key := mergeKey(d, l); key != "" {
		keys := keysNamed(key)
		for i, dv := range d {
			dm := dv.(map[string]any)
			at := keys.find(l, dm, i)
			if at < 0 {
				w.item(segment{list: true, live: -1, want: i, item: dv}, func() bool { return w.add(nil, dv) })
				continue
			}
			w.item(segment{list: true, live: at, want: i, item: l[at]}, func() bool { return w.value(dv, l[at], noAnswer{}, nil) })
		}
		for i, lv := range l {
			if keys.find(d, lv.(map[string]any), 0) < 0 {
				w.item(segment{list: true, live: i, want: -1, item: lv}, func() bool { return w.add(lv, nil) })
			}
		}
		return false
	}
	for i := range max(len(d), len(l)) {
		switch {
		case i >= len(d):
			w.item(segment{list: true, live: i, want: -1, item: l[i]}, func() bool { return w.add(l[i], nil) })
		case i >= len(l):
			w.item(segment{list: true, live: -1, want: i, item: d[i]}, func() bool { return w.add(nil, d[i]) })
		default:
			w.item(segment{list: true, live: i, want: i, item: l[i]}, func() bool { return w.value(d[i], l[i], noAnswer{}, nil) })
		}
	}
	return false
}

// mergeKey is a field that names every item of both lists, or "".
func mergeKey(lists ...[]any) string {
	for _, key := range []string{"name", "mountPath", "key", "ip", "containerPort", "port", "type", "uid"} {
		if named(key, lists) {
			return key
		}
	}
	return ""
}

func named(key string, lists [][]any) bool {
	some := false
	for _, list := range lists {
		seen := make(map[string]bool, len(list))
		for _, item := range list {
			m, ok := item.(map[string]any)
			v, has := m[key]
			id := fmt.Sprint(v)
			if !ok || !has || seen[id] {
				return false
			}
			seen[id] = true
			some = true
		}
	}
	return some
}
