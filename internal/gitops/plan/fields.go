package plan

import (
	"encoding/json"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// fields is a FieldsV1 tree as it lies in metadata.managedFields: "f:name" for
// a field, `k:{"name":"web"}` for an item of a keyed list, `v:"x"` for one of a
// set, "." for the field itself. A leaf is empty. nil means: not known.
type fields = map[string]any

// ownFields returns what the manager applied, by managedFields.
func ownFields(o map[string]any, manager, apiVersion string) fields {
	var out fields
	for _, e := range managedFields(o) {
		if text(e, "manager") != manager || text(e, "operation") != "Apply" || text(e, "subresource") != "" {
			continue
		}
		if f, _ := e["fieldsV1"].(map[string]any); f != nil && (out == nil || text(e, "apiVersion") == apiVersion) {
			out = f
		}
	}
	return out
}

func managedFields(o map[string]any) []map[string]any {
	md, _ := o["metadata"].(map[string]any)
	switch list := md["managedFields"].(type) {
	case []any:
		out := make([]map[string]any, 0, len(list))
		for _, e := range list {
			if m, ok := e.(map[string]any); ok {
				out = append(out, m)
			}
		}
		return out
	case []map[string]any:
		return list
	}
	return nil
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

func below(f fields, field string) fields {
	if f == nil {
		return nil
	}
	sub, _ := f["f:"+field].(map[string]any)
	return sub
}

// keyNames are the fields that name an item of a keyed list.
type keyNames struct {
	name [4]string
	n    int
}

func keysNamed(names ...string) keyNames {
	var k keyNames
	k.n = copy(k.name[:], names)
	return k
}

// namesIn reads the field names of `k:{"containerPort":80,"protocol":"TCP"}`.
func namesIn(element string) keyNames {
	var k keyNames
	rest := strings.TrimPrefix(element, "k:")
	for k.n < len(k.name) {
		start := strings.IndexByte(rest, '"')
		if start < 0 {
			return k
		}
		rest = rest[start+1:]
		end := strings.IndexByte(rest, '"')
		if end < 0 {
			return k
		}
		k.name[k.n], k.n = rest[:end], k.n+1
		if rest = rest[end+1:]; !strings.HasPrefix(rest, ":") {
			return k
		}
		rest = afterValue(rest[1:])
	}
	return k
}

// afterValue skips one JSON scalar.
func afterValue(s string) string {
	if !strings.HasPrefix(s, `"`) {
		if i := strings.IndexByte(s, ','); i >= 0 {
			return s[i:]
		}
		return ""
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[i+1:]
		}
	}
	return ""
}

// keyDefault is what the server fills in for a key field that is not set.
func keyDefault(name string) any {
	if name == "protocol" {
		return "TCP"
	}
	return nil
}

func keyValue(item map[string]any, name string) any {
	if v := item[name]; v != nil {
		return v
	}
	return keyDefault(name)
}

func (k keyNames) same(a, b map[string]any) bool {
	for _, name := range k.name[:k.n] {
		if !sameScalar(keyValue(a, name), keyValue(b, name)) {
			return false
		}
	}
	return true
}

// find returns the index of the item with the keys of item, looking from a
// hint on.
func (k keyNames) find(list []any, item map[string]any, hint int) int {
	if hint > len(list) {
		hint = 0
	}
	for n := range list {
		i := hint + n
		if i >= len(list) {
			i -= len(list)
		}
		if m, ok := list[i].(map[string]any); ok && k.same(m, item) {
			return i
		}
	}
	return -1
}

// itemFields returns the tree below a keyed item.
func (k keyNames) itemFields(f fields, item map[string]any) fields {
	if f == nil {
		return nil
	}
	var space [160]byte
	buf := append(space[:0], "k:{"...)
	for i, name := range k.name[:k.n] {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(append(append(buf, '"'), name...), '"', ':')
		var ok bool
		if buf, ok = appendScalar(buf, keyValue(item, name)); !ok {
			return k.search(f, item)
		}
	}
	buf = append(buf, '}')
	if sub, ok := f[string(buf)].(map[string]any); ok {
		return sub
	}
	return nil
}

func appendScalar(buf []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case string:
		for i := range len(v) {
			if c := v[i]; c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c > '~' {
				return buf, false
			}
		}
		return append(append(append(buf, '"'), v...), '"'), true
	case int64:
		return strconv.AppendInt(buf, v, 10), true
	case bool:
		return strconv.AppendBool(buf, v), true
	}
	return buf, false
}

func (k keyNames) search(f fields, item map[string]any) fields {
	for element, sub := range f {
		if want, ok := keysOf(element); ok && k.same(want, item) {
			m, _ := sub.(map[string]any)
			return m
		}
	}
	return nil
}

// keysOf decodes `k:{...}`.
func keysOf(element string) (map[string]any, bool) {
	raw, ok := strings.CutPrefix(element, "k:")
	if !ok {
		return nil, false
	}
	var keys map[string]any
	if json.Unmarshal([]byte(raw), &keys) != nil {
		return nil, false
	}
	return keys, true
}

// valueOf decodes `v:...`.
func valueOf(element string) (any, bool) {
	raw, ok := strings.CutPrefix(element, "v:")
	if !ok {
		return nil, false
	}
	var v any
	if json.Unmarshal([]byte(raw), &v) != nil {
		return nil, false
	}
	return v, true
}

// follow walks a tree along a path of the live object. Above a leaf the whole
// value is owned.
func follow(f fields, path []segment) (node fields, owned bool) {
	for i := range path {
		if len(f) == 0 {
			return f, f != nil
		}
		if f, owned = exactly(f, path[i:i+1]); !owned {
			return nil, false
		}
	}
	return f, f != nil
}

// exactly returns the node at a path, and nothing for what is below a leaf.
func exactly(f fields, path []segment) (node fields, owned bool) {
	for _, s := range path {
		var next any
		if !s.list {
			next = f["f:"+s.field]
		} else {
			next, _ = itemOf(f, s.item)
		}
		if f, owned = next.(map[string]any); !owned {
			return nil, false
		}
	}
	return f, f != nil
}

func itemOf(f fields, item any) (any, bool) {
	m, isMap := item.(map[string]any)
	for element, sub := range f {
		if keys, ok := keysOf(element); ok && isMap {
			all := true
			for k, want := range keys {
				all = all && sameScalar(keyValue(m, k), want)
			}
			if all {
				return sub, true
			}
		}
		if v, ok := valueOf(element); ok && !isMap && sameScalar(v, item) {
			return sub, true
		}
	}
	return nil, false
}

func isSecretObject(o *unstructured.Unstructured) bool {
	return o.GetKind() == "Secret" && o.GetAPIVersion() == "v1"
}
