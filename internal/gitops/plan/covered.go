package plan

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func mergeStringData(secret *unstructured.Unstructured) {
	plain, ok := secret.Object["stringData"].(map[string]any)
	if !ok {
		return
	}
	data, _ := secret.Object["data"].(map[string]any)
	if data == nil {
		data = map[string]any{}
	}
	for k, v := range plain {
		if s, ok := v.(string); ok {
			data[k] = base64.StdEncoding.EncodeToString([]byte(s))
		}
	}
	delete(secret.Object, "stringData")
	secret.Object["data"] = data
}

// covered reports whether live has every value that desired sets. It errs
// towards no: then the server is asked.
func covered(desired, live any) bool {
	switch d := desired.(type) {
	case nil:
		return live == nil
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range d {
			if !covered(v, l[k]) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		if !ok || len(l) != len(d) {
			return false
		}
		for i := range d {
			if !covered(d[i], l[i]) {
				return false
			}
		}
		return true
	}
	return sameScalar(desired, live)
}

// sameScalar knows no quantities: whether "1Gi" and "1024Mi" are the same
// depends on the field, and the server knows the field.
func sameScalar(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return x == y
		}
	}
	return false
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

// lost reports whether the manager applied a field to live before that desired
// no longer has.
func lost(desired, live *unstructured.Unstructured, manager string) bool {
	for _, e := range live.GetManagedFields() {
		if e.Manager != manager || e.Operation != "Apply" || e.Subresource != "" || e.FieldsV1 == nil {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields); err != nil {
			return true
		}
		if lacks(desired.Object, fields) {
			return true
		}
	}
	return false
}

// lacks walks a FieldsV1 tree beside a value.
func lacks(value any, fields map[string]any) bool {
	for k, sub := range fields {
		if k == "." {
			continue
		}
		v, ok := descend(value, k)
		if !ok {
			return true
		}
		if s, isMap := sub.(map[string]any); isMap && len(s) > 0 && lacks(v, s) {
			return true
		}
	}
	return false
}

// descend follows one element of FieldsV1: "f:name", "k:{keys}", "v:value",
// "i:index".
func descend(value any, element string) (any, bool) {
	kind, rest, _ := strings.Cut(element, ":")
	switch kind {
	case "f":
		m, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		v, ok := m[rest]
		return v, ok
	case "k":
		var keys map[string]any
		if err := json.Unmarshal([]byte(rest), &keys); err != nil {
			return nil, false
		}
		list, _ := value.([]any)
		for _, item := range list {
			if m, ok := item.(map[string]any); ok && hasKeys(m, keys) {
				return item, true
			}
		}
	case "v":
		var want any
		if err := json.Unmarshal([]byte(rest), &want); err != nil {
			return nil, false
		}
		list, _ := value.([]any)
		for _, item := range list {
			if sameScalar(item, want) {
				return item, true
			}
		}
	case "i":
		return nil, true
	}
	return nil, false
}

// hasKeys matches a list item with the keys of an associative list. A key that
// the item does not set (the protocol of a port) has its default and matches.
func hasKeys(item, keys map[string]any) bool {
	some := false
	for k, want := range keys {
		have, ok := item[k]
		if !ok {
			continue
		}
		if !sameScalar(have, want) {
			return false
		}
		some = true
	}
	return some
}
