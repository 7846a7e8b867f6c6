package plan

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Difference is one field that is not as it should be.
type Difference struct {
	Path    string // for people: "spec.template.spec.containers[web].image"
	Pointer string // RFC 6901, with the indices of the live object where it has the item
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
	list  bool
	live  int // index in the live list, -1 when it is not there
	want  int // the same in the wanted list
	item  any // the live item, or the wanted one when there is none
}

func (s segment) index() int {
	if s.live >= 0 {
		return s.live
	}
	return s.want
}

func pretty(path []segment) string {
	var b strings.Builder
	for _, s := range path {
		switch {
		case s.list:
			b.WriteString("[" + itemName(s) + "]")
		case strings.ContainsAny(s.field, "./") || s.field == "":
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
	return strconv.Itoa(s.index())
}

func pointer(path []segment) string {
	var b strings.Builder
	for _, s := range path {
		b.WriteByte('/')
		if s.list {
			b.WriteString(strconv.Itoa(s.index()))
			continue
		}
		b.WriteString(escapePointer(s.field))
	}
	return b.String()
}

func escapePointer(field string) string {
	if !strings.ContainsAny(field, "~/") {
		return field
	}
	return strings.ReplaceAll(strings.ReplaceAll(field, "~", "~0"), "/", "~1")
}

func sortDifferences(ds []Difference) {
	slices.SortStableFunc(ds, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
}

// explain fills in who wrote the live value and why it counts.
func (x *Difference) explain(live *unstructured.Unstructured, self string) {
	x.Manager, x.Since = ownerOf(live, x.fields)
	by := ""
	switch x.Manager {
	case "":
	case self:
		by = " by an earlier sync"
	default:
		by = " by " + x.Manager
	}
	switch {
	case x.Why != "":
	case x.Live == nil:
		x.Why = "the source sets it, the live object does not have it"
	case x.Want == nil && by == "":
		x.Why = "the source does not have it"
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
	for _, e := range managedFields(live.Object) {
		f, ok := e["fieldsV1"].(map[string]any)
		if !ok {
			continue
		}
		if _, owned := follow(f, path); !owned {
			continue
		}
		at, err := time.Parse(time.RFC3339, text(e, "time"))
		if err != nil {
			at = time.Time{}
		}
		if manager == "" || at.After(since) {
			manager, since = text(e, "manager"), at
		}
	}
	return manager, since
}

// ownedBy returns the first of the managers that owns the field.
func ownedBy(live *unstructured.Unstructured, path []segment, managers []string) string {
	for _, e := range managedFields(live.Object) {
		f, ok := e["fieldsV1"].(map[string]any)
		if name := text(e, "manager"); ok && slices.Contains(managers, name) {
			if _, owned := follow(f, path); owned {
				return name
			}
		}
	}
	return ""
}
