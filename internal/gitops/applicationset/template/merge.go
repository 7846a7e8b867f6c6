package template

import (
	"errors"
	"fmt"
	"slices"

	k8sjson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// Override lays the template of a generator over that of the ApplicationSet:
// maps are merged, lists and values replaced. What is empty, zero or false in
// the generator's template does not count, as in Argo CD. The inputs are not
// changed; the result shares parts of both.
func Override(over, base map[string]any) map[string]any {
	if len(over) == 0 {
		return base
	}
	out := make(map[string]any, len(base)+len(over))
	for k, v := range base {
		out[k] = v
	}
	for k, v := range over {
		om, isMap := v.(map[string]any)
		bm, both := base[k].(map[string]any)
		switch {
		case isMap && both:
			out[k] = Override(om, bm)
		case !Empty(v):
			out[k] = v
		case out[k] == nil:
			out[k] = v
		}
	}
	return out
}

// Empty reports whether v is the zero value of its type.
func Empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case int64:
		return v == 0
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// Patch lays a templatePatch (YAML, filled) over an Application: null removes
// a key, maps are merged, lists replaced, finalizers added; "$patch: replace"
// and "$patch: delete" work on maps. The result is a copy where it differs.
func Patch(app map[string]any, patch string) (map[string]any, error) {
	data, err := yaml.YAMLToJSON([]byte(patch))
	if err != nil {
		return nil, fmt.Errorf("the patch is no YAML after it is filled: %w", err)
	}
	var v any
	if err := k8sjson.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("the patch: %w", err)
	}
	if v == nil {
		return app, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the patch is no map of fields")
	}
	out, _ := patched(app, m, "").(map[string]any)
	return out, nil
}

func patched(base any, patch map[string]any, path string) any {
	bm, _ := base.(map[string]any)
	switch patch["$patch"] {
	case "delete":
		return nil
	case "replace":
		bm = nil
	}
	out := make(map[string]any, len(bm)+len(patch))
	for k, v := range bm {
		out[k] = v
	}
	for k, v := range patch {
		if k == "$patch" || k == "$retainKeys" {
			continue
		}
		at := join(path, k)
		pm, isMap := v.(map[string]any)
		list, isList := v.([]any)
		switch {
		case v == nil:
			delete(out, k)
		case isMap:
			if r := patched(out[k], pm, at); r == nil {
				delete(out, k)
			} else {
				out[k] = r
			}
		case isList && at == "metadata.finalizers":
			out[k] = union(out[k], list)
		default:
			out[k] = v
		}
	}
	return out
}

func union(base any, more []any) []any {
	out, _ := base.([]any)
	out = slices.Clone(out)
	for _, v := range more {
		name, _ := v.(string)
		if !slices.ContainsFunc(out, func(have any) bool { s, ok := have.(string); return ok && s == name }) {
			out = append(out, v)
		}
	}
	return out
}
