package plan

import (
	"encoding/base64"
	"reflect"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// sameScalar compares values without knowing their place.
func sameScalar(a, b any) bool {
	switch x := a.(type) {
	case nil:
		return b == nil
	case string:
		y, ok := b.(string)
		return ok && x == y
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case int64:
		if y, ok := b.(int64); ok {
			return x == y
		}
	}
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x == y
	}
	return reflect.DeepEqual(a, b)
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case int:
		return float64(n), true
	}
	return 0, false
}

// equal compares whole values; 1 and 1.0 are the same.
func equal(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			if w, ok := y[k]; !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !equal(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	return sameScalar(a, b)
}

// empty reports whether a built-in kind drops the value when it is stored.
func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case string:
		return x == ""
	case bool:
		return !x
	case int64:
		return x == 0
	case float64:
		return x == 0
	}
	return false
}

// looseMaps are the fields that hold any keys. An empty one is not stored by
// built-in kinds, unlike an empty structure, which may mean something.
func looseMap(field string) bool {
	switch field {
	case "labels", "annotations", "matchLabels", "nodeSelector", "data", "binaryData", "limits", "requests", "hard",
		"parameters", "capacity", "default", "defaultRequest", "max", "min", "maxLimitRequestRatio", "resources", "metadata", "volumeAttributes":
		return true
	}
	return false
}

// alike reports whether two scalars mean the same at this place.
func (w *walk) alike(want, live any) bool {
	if w.secret && len(w.path) > 0 && w.path[0].field == "data" {
		return sameBytes(want, live)
	}
	switch w.typeHere() {
	case quantityType:
		return sameQuantity(want, live)
	case durationType:
		return sameDuration(want, live)
	}
	return false
}

func sameBytes(a, b any) bool {
	x, ok := decoded(a)
	y, ok2 := decoded(b)
	return ok && ok2 && x == y
}

func decoded(v any) (string, bool) {
	if v == nil {
		return "", true
	}
	s, ok := v.(string)
	if !ok {
		return "", false
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	return string(raw), err == nil
}

func sameQuantity(a, b any) bool {
	x, ok := quantity(a)
	y, ok2 := quantity(b)
	return ok && ok2 && x.Cmp(y) == 0
}

func quantity(v any) (resource.Quantity, bool) {
	s, ok := v.(string)
	if !ok {
		n, isNumber := number(v)
		if !isNumber {
			return resource.Quantity{}, false
		}
		s = formatNumber(n)
	}
	q, err := resource.ParseQuantity(strings.TrimSpace(s))
	return q, err == nil
}

func sameDuration(a, b any) bool {
	x, ok := a.(string)
	y, ok2 := b.(string)
	if !ok || !ok2 {
		return false
	}
	d, err := time.ParseDuration(x)
	e, err2 := time.ParseDuration(y)
	return err == nil && err2 == nil && d == e
}

type placeType uint8

const (
	plainType placeType = iota
	quantityType
	durationType
)

// typeHere is the type of the scalar at the current path: a quantity where
// Kubernetes has one in every kind, or what knownTypeFields say.
func (w *walk) typeHere() placeType {
	n := len(w.path)
	if n < 2 {
		return plainType
	}
	for i := range w.known {
		if t := w.known[i].at(w.path); t != plainType {
			return t
		}
	}
	if !w.builtin && !w.inKnown() {
		return resourceList(w.path)
	}
	last, parent := w.path[n-1].field, w.path[n-2].field
	switch {
	case last == "sizeLimit", last == "divisor", last == "averageValue":
		return quantityType
	case last == "value" && parent == "target":
		return quantityType
	case parent == "hard", parent == "capacity", parent == "podFixed", parent == "allocatable":
		return quantityType
	}
	if n >= 3 && w.path[n-3].list {
		switch parent {
		case "default", "defaultRequest", "max", "min", "maxLimitRequestRatio":
			return quantityType
		}
	}
	return resourceList(w.path)
}

// resourceList finds resources.limits and resources.requests, which custom
// resources have too.
func resourceList(path []segment) placeType {
	if n := len(path); n >= 3 {
		if p := path[n-2].field; (p == "limits" || p == "requests") && path[n-3].field == "resources" {
			return quantityType
		}
	}
	return plainType
}

// inKnown reports whether the path is below a field of a core structure.
func (w *walk) inKnown() bool {
	for i := range w.known {
		if w.known[i].below(w.path) {
			return true
		}
	}
	return false
}

// KnownType says that a field of a custom resource holds a type of
// Kubernetes' own.
type KnownType struct {
	Field []string // path; items of lists are passed through
	Type  string   // core/Quantity, meta/v1/Duration, or core/v1/<type>
}

func (k KnownType) at(path []segment) placeType {
	if rest, ok := k.cut(path); !ok || rest > 1 || rest == 1 && path[len(path)-1].list {
		return plainType
	} else if rest == 1 && k.Type == "core/v1/ResourceList" {
		return quantityType
	} else if rest == 1 {
		return plainType
	}
	switch k.Type {
	case "core/Quantity":
		return quantityType
	case "meta/v1/Duration":
		return durationType
	}
	return plainType
}

func (k KnownType) below(path []segment) bool {
	rest, ok := k.cut(path)
	return ok && rest > 0 && strings.HasPrefix(k.Type, "core/v1/")
}

// cut returns how many steps of path are below the field.
func (k KnownType) cut(path []segment) (rest int, ok bool) {
	at := 0
	for i, s := range path {
		if at == len(k.Field) {
			return len(path) - i, true
		}
		if s.list {
			continue
		}
		if s.field != k.Field[at] {
			return 0, false
		}
		at++
	}
	return 0, at == len(k.Field)
}
