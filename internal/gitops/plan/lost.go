package plan

import (
	"slices"
	"strings"
)

// lostFields finds what was applied before and desired no longer has.
func (w *walk) lostFields(d, l map[string]any, own fields) bool {
	same := true
	if w.answers {
		return true
	}
	for element, sub := range own {
		name, ok := strings.CutPrefix(element, "f:")
		if !ok {
			continue
		}
		lv, inLive := l[name]
		if dv, wanted := d[name]; wanted && dv != nil || !inLive || lv == nil || w.exempt(name, d) {
			continue
		}
		if !w.lost(name, lv, sub) {
			if same = false; !w.collect {
				return false
			}
		}
	}
	return same
}

// exempt fields do not count although they were applied.
func (w *walk) exempt(name string, d map[string]any) bool {
	if len(w.path) != 0 {
		return len(w.path) == 1 && w.path[0].field == "metadata" && (serverField(name) || name == "namespace" || name == "name")
	}
	switch name {
	case "apiVersion", "kind":
		return true
	case "status":
		return !w.status
	case "data":
		return w.secret && d["stringData"] != nil
	case "rules":
		return aggregated(d)
	}
	return false
}

// lost notes what goes of a field that desired no longer has. What others own
// too, and what they own inside it, stays.
func (w *walk) lost(name string, live, sub any) bool {
	w.path = append(w.path, segment{field: name})
	defer func() { w.path = w.path[:len(w.path)-1] }()
	f, _ := sub.(map[string]any)
	shared := w.shared()
	switch l := live.(type) {
	case map[string]any:
		if len(f) > 0 && (shared || !ownsAll(f, l)) {
			return w.lostFields(nil, l, f)
		}
	case []any:
		kind, keys, _ := kindOf(f, len(l))
		if kind == atomicList || !shared && !slices.ContainsFunc(l, func(v any) bool { return !ownsItem(f, v) }) {
			break
		}
		if kind == setList {
			return w.set(nil, l, noAnswer{}, f)
		}
		return w.lostItems(nil, l, f, keys, 0)
	}
	return shared || w.add(live, nil)
}

// lostItem is the same for an item of a keyed list.
func (w *walk) lostItem(item map[string]any, f fields, keys keyNames) bool {
	if !w.shared() {
		return w.add(item, nil)
	}
	kept := make(map[string]any, keys.n)
	for _, name := range keys.name[:keys.n] {
		kept[name] = item[name]
	}
	return w.lostFields(kept, item, f)
}

// shared reports whether somebody else owns the current place, or something
// inside it. What client-side apply owns is taken over, and is not shared.
func (w *walk) shared() bool {
	for _, e := range managedFields(w.object.Object) {
		f, ok := e["fieldsV1"].(map[string]any)
		name, applied := text(e, "manager"), text(e, "operation") == "Apply"
		if !ok || applied && name == w.manager || !applied && slices.Contains(clientSide(), name) {
			continue
		}
		node, owned := exactly(f, w.path)
		if owned && w.path[len(w.path)-1].list && len(node) > 0 {
			_, owned = node["."] // who owns fields of an item only, loses them with it
		}
		if owned {
			return true
		}
	}
	return false
}

func ownsItem(f fields, item any) bool {
	_, ok := itemOf(f, item)
	return ok
}

func ownsAll(f fields, l map[string]any) bool {
	for k := range l {
		if _, ok := f["f:"+k]; !ok {
			return false
		}
	}
	return true
}

// lostItems finds the items that were applied before and desired no longer has.
func (w *walk) lostItems(d, l []any, own fields, keys keyNames, ours int) bool {
	if w.answers || own == nil {
		return true
	}
	n := 0
	for element := range own {
		if strings.HasPrefix(element, "k:") {
			n++
		}
	}
	if n <= ours {
		return true
	}
	same := true
	for i, lv := range l {
		lm, ok := lv.(map[string]any)
		f := keys.itemFields(own, lm)
		if !ok || f == nil || keys.find(d, lm, 0) >= 0 {
			continue
		}
		w.path = append(w.path, segment{list: true, live: i, want: -1, item: lv})
		same = w.lostItem(lm, f, keys) && same
		w.path = w.path[:len(w.path)-1]
		if !same && !w.collect {
			return false
		}
	}
	return same
}
