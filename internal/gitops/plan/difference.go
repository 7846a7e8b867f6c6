package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Difference is one field that is not as it should be.
type Difference struct {
	Path    string // for people: "spec.template.spec.containers[web].image"
	Pointer string // RFC 6901, with the indices of the live object
	Live    any    // nil when the field is not there
	Want    any    // nil when the field goes
	Manager string // who wrote the live value, "" when nobody says so
	Since   time.Time
	Why     string // one sentence: why it counts, or why it is ignored

	fields []segment
}

// segment is one step of a path: a field, or an item of a list.
type segment struct {
	field string
	index int
	item  any // the live item, nil when there is none
}

// diff compares two objects of the server.
func diff(live, want *unstructured.Unstructured) []Difference {
	var d differ
	d.walk(nil, comparable(live), comparable(want))
	return d.out
}

// diffDesired compares only what desired sets.
func diffDesired(live, desired *unstructured.Unstructured) []Difference {
	d := differ{partial: true}
	d.walk(nil, comparable(live), desired.Object)
	return d.out
}

// comparable is an object without what the server keeps for itself.
func comparable(o *unstructured.Unstructured) map[string]any {
	out := make(map[string]any, len(o.Object))
	for k, v := range o.Object {
		if k != "status" {
			out[k] = v
		}
	}
	md, _ := out["metadata"].(map[string]any)
	kept := make(map[string]any, len(md))
	for k, v := range md {
		switch k {
		case "managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds":
		default:
			kept[k] = v
		}
	}
	out["metadata"] = kept
	return out
}

const maxDifferences = 500 // of one object

type differ struct {
	partial bool // a field that want does not have is not a difference
	out     []Difference
}

func (d *differ) add(path []segment, live, want any) {
	if len(d.out) >= maxDifferences {
		return
	}
	d.out = append(d.out, Difference{Path: pretty(path), Pointer: pointer(path), Live: live, Want: want, fields: slices.Clone(path)})
}

func (d *differ) walk(path []segment, live, want any) {
	switch w := want.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			if len(w) == 0 && live == nil && d.partial {
				return
			}
			d.add(path, live, want)
			return
		}
		d.walkMap(path, l, w)
	case []any:
		l, ok := live.([]any)
		if !ok {
			if len(w) == 0 && live == nil && d.partial {
				return
			}
			d.add(path, live, want)
			return
		}
		d.walkList(path, l, w)
	default:
		if want == nil && (live == nil || d.partial) {
			return
		}
		if !sameScalar(want, live) {
			d.add(path, live, want)
		}
	}
}

func (d *differ) walkMap(path []segment, live, want map[string]any) {
	keys := make([]string, 0, len(live)+len(want))
	for k := range want {
		keys = append(keys, k)
	}
	if !d.partial {
		for k := range live {
			if _, ok := want[k]; !ok {
				keys = append(keys, k)
			}
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		next := append(slices.Clone(path), segment{field: k})
		l, inLive := live[k]
		w, inWant := want[k]
		switch {
		case !inWant:
			d.add(next, l, nil)
		case !inLive && !d.partial:
			d.add(next, nil, w)
		default:
			d.walk(next, l, w)
		}
	}
}

func (d *differ) walkList(path []segment, live, want []any) {
	key := mergeKey(live, want)
	if key == "" {
		for i := range max(len(live), len(want)) {
			var l, w any
			if i < len(live) {
				l = live[i]
			}
			if i < len(want) {
				w = want[i]
			}
			next := append(slices.Clone(path), segment{index: i, item: l})
			switch {
			case i >= len(want):
				d.add(next, l, nil)
			case i >= len(live):
				d.add(next, nil, w)
			default:
				d.walk(next, l, w)
			}
		}
		return
	}
	seen := map[string]bool{}
	for i, w := range want {
		id := fmt.Sprint(w.(map[string]any)[key])
		seen[id] = true
		at := slices.IndexFunc(live, func(l any) bool { return fmt.Sprint(l.(map[string]any)[key]) == id })
		if at < 0 {
			d.add(append(slices.Clone(path), segment{index: i, item: w}), nil, w)
			continue
		}
		d.walk(append(slices.Clone(path), segment{index: at, item: live[at]}), live[at], w)
	}
	if d.partial {
		return
	}
	for i, l := range live {
		if !seen[fmt.Sprint(l.(map[string]any)[key])] {
			d.add(append(slices.Clone(path), segment{index: i, item: l}), l, nil)
		}
	}
}

// mergeKey is a field that names every item of both lists, or "".
func mergeKey(lists ...[]any) string {
	for _, key := range []string{"name", "mountPath", "key", "ip", "containerPort", "port", "type", "uid"} {
		if names(key, lists) {
			return key
		}
	}
	return ""
}

func names(key string, lists [][]any) bool {
	some := false
	for _, list := range lists {
		seen := map[string]bool{}
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

func pretty(path []segment) string {
	var b strings.Builder
	for _, s := range path {
		switch {
		case s.field == "":
			b.WriteString("[" + itemName(s) + "]")
		case strings.ContainsAny(s.field, "./"):
			b.WriteString("[" + strconv.Quote(s.field) + "]")
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.field)
		}
	}
	return b.String()
}

func itemName(s segment) string {
	if m, ok := s.item.(map[string]any); ok {
		if n, ok := m["name"].(string); ok {
			return n
		}
	}
	return strconv.Itoa(s.index)
}

func pointer(path []segment) string {
	var b strings.Builder
	for _, s := range path {
		b.WriteByte('/')
		if s.field == "" {
			b.WriteString(strconv.Itoa(s.index))
			continue
		}
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(s.field))
	}
	return b.String()
}

// explain fills in who wrote the live value and why it counts.
func (x *Difference) explain(live *unstructured.Unstructured, self string) {
	manager, since := ownerOf(live, x.fields)
	x.Manager, x.Since = manager, since
	by := ""
	switch manager {
	case "":
	case self:
		by = " by an earlier sync"
	default:
		by = " by " + manager
	}
	switch {
	case x.Live == nil:
		x.Why = "the source sets it, the live object does not have it"
	case x.Want == nil:
		x.Why = "set" + by + "; the source no longer has it"
	case by == "":
		x.Why = "the live value is not that of the source"
	default:
		x.Why = "set" + by + "; the source says otherwise"
	}
}

// ownerOf returns the manager that last wrote the field, by managedFields.
func ownerOf(live *unstructured.Unstructured, path []segment) (string, time.Time) {
	manager, since := "", time.Time{}
	for _, e := range live.GetManagedFields() {
		if e.FieldsV1 == nil {
			continue
		}
		var fields map[string]any
		if json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields) != nil || !owns(fields, path) {
			continue
		}
		at := time.Time{}
		if e.Time != nil {
			at = e.Time.Time
		}
		if manager == "" || at.After(since) {
			manager, since = e.Manager, at
		}
	}
	return manager, since
}

func owns(fields map[string]any, path []segment) bool {
	for _, s := range path {
		if len(fields) == 0 {
			return true // a leaf above: the owner has the whole value
		}
		next, ok := fields["f:"+s.field]
		if s.field == "" {
			ok = false
			for k, v := range fields {
				kind, rest, _ := strings.Cut(k, ":")
				var keys map[string]any
				m, isMap := s.item.(map[string]any)
				if kind == "k" && isMap && json.Unmarshal([]byte(rest), &keys) == nil && hasKeys(m, keys) ||
					kind == "v" && rest == fmt.Sprintf("%q", s.item) {
					next, ok = v, true
					break
				}
			}
		}
		if !ok {
			return false
		}
		fields, _ = next.(map[string]any)
	}
	return true
}

const (
	hidden      = "(hidden)"
	hiddenOther = "(hidden, not the same)"
)

// maskAll hides the values of a Secret.
func maskAll(ds []Difference) {
	for i, d := range ds {
		if !strings.HasPrefix(d.Pointer, "/data") && !strings.HasPrefix(d.Pointer, "/stringData") && !strings.HasPrefix(d.Pointer, "/metadata/annotations") {
			continue
		}
		if d.Live != nil {
			ds[i].Live = hidden
		}
		if d.Want != nil {
			ds[i].Want = hidden
			if d.Live != nil {
				ds[i].Want = hiddenOther
			}
		}
		for j := range ds[i].fields {
			ds[i].fields[j].item = nil
		}
	}
}
