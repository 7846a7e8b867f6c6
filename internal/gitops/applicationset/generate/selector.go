package generate

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// selected keeps the sets that a selector matches. It sees nested parameters as
// "a.b", and other than Kubernetes it takes any text as a value.
func selected(selector *metav1.LabelSelector, sets []map[string]any) ([]map[string]any, error) {
	if selector == nil || len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return sets, nil
	}
	for _, e := range selector.MatchExpressions {
		switch e.Operator {
		case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
			if len(e.Values) == 0 {
				return nil, fmt.Errorf("selector: %s of %s needs values", e.Operator, e.Key)
			}
		case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
		default:
			return nil, fmt.Errorf("selector: %q is no operator; In, NotIn, Exists and DoesNotExist are", e.Operator)
		}
	}
	var out []map[string]any
	for _, p := range sets {
		flat := map[string]any{}
		flatten("", p, flat)
		if matches(selector, flat) {
			out = append(out, p)
		}
	}
	return out, nil
}

func matches(selector *metav1.LabelSelector, flat map[string]any) bool {
	for k, want := range selector.MatchLabels {
		if v, ok := flat[k].(string); !ok || v != want {
			return false
		}
	}
	for _, e := range selector.MatchExpressions {
		v, has := flat[e.Key].(string)
		ok := false
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			ok = has && slices.Contains(e.Values, v)
		case metav1.LabelSelectorOpNotIn:
			ok = !has || !slices.Contains(e.Values, v)
		case metav1.LabelSelectorOpExists:
			ok = has
		case metav1.LabelSelectorOpDoesNotExist:
			ok = !has
		}
		if !ok {
			return false
		}
	}
	return true
}

// dotted looks "a.b.c" up in nested maps; nil when it is not there.
func dotted(m map[string]any, key string) any {
	for {
		head, rest, more := strings.Cut(key, ".")
		v, ok := m[head]
		if !more || !ok {
			return v
		}
		if m, ok = v.(map[string]any); !ok {
			return nil
		}
		key = rest
	}
}
