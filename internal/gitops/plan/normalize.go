package plan

import (
	"encoding/base64"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Normalize returns a desired object as it is applied: without status and the
// fields that only the server sets, with the stringData of a Secret in its
// data, without the null fields of Kubernetes' own kinds, and without the
// rules of an aggregated ClusterRole. The result shares with o what is the
// same: change neither.
func Normalize(o *unstructured.Unstructured) *unstructured.Unstructured {
	out := o.Object
	copied := false
	own := func() {
		if !copied {
			out, copied = maps.Clone(out), true
		}
	}
	if _, has := out["status"]; has {
		own()
		delete(out, "status")
	}
	if md, ok := out["metadata"].(map[string]any); ok {
		kept := md
		for f := range md {
			if !serverField(f) {
				continue
			}
			if len(kept) == len(md) {
				kept = without(md, f)
			}
			delete(kept, f)
		}
		if len(kept) != len(md) {
			own()
			out["metadata"] = kept
		}
	}
	if data := secretData(o.Object); isSecretObject(o) && data != nil {
		own()
		out["data"] = data
		delete(out, "stringData")
	}
	if _, has := out["rules"]; has && aggregated(out) {
		own()
		delete(out, "rules")
	}
	if builtinGroup(KeyOf(o).Group) {
		if slim, changed := withoutNulls(out); changed {
			out = slim.(map[string]any)
		}
	}
	return &unstructured.Unstructured{Object: out}
}

// withoutNulls drops fields that are null; it copies only where it has to.
func withoutNulls(v any) (any, bool) {
	switch x := v.(type) {
	case map[string]any:
		var out map[string]any
		for k, sub := range x {
			slim, changed := withoutNulls(sub)
			if sub != nil && !changed {
				continue
			}
			if out == nil {
				out = maps.Clone(x)
			}
			if delete(out, k); sub != nil {
				out[k] = slim
			}
		}
		if out != nil {
			return out, true
		}
	case []any:
		var out []any
		for i, sub := range x {
			if slim, changed := withoutNulls(sub); changed {
				if out == nil {
					out = append([]any{}, x...)
				}
				out[i] = slim
			}
		}
		if out != nil {
			return out, true
		}
	}
	return v, false
}

// secretData is the data of a Secret with its stringData, which wins; nil when
// it has none, or one that is no map.
func secretData(o map[string]any) map[string]any {
	data, ok := o["data"].(map[string]any)
	if !ok && o["data"] != nil {
		return nil
	}
	plain, _ := o["stringData"].(map[string]any)
	nulls := false
	for _, v := range data {
		nulls = nulls || v == nil
	}
	if len(plain) == 0 && !nulls {
		return data
	}
	out := make(map[string]any, len(data)+len(plain))
	for k, v := range data {
		if v == nil {
			v = ""
		}
		out[k] = v
	}
	for k, v := range plain {
		if s, ok := v.(string); ok {
			out[k] = base64.StdEncoding.EncodeToString([]byte(s))
		} else {
			out[k] = v // the server names what is wrong
		}
	}
	return out
}

func withSecretData(o map[string]any) map[string]any {
	out := without(o, "stringData")
	out["data"] = secretData(o)
	return out
}
