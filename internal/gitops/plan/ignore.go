package plan

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

type rules []v1alpha1.IgnoreDifferences

// rulesFor returns the rules of ignoreDifferences that are about an object.
func (in Input) rulesFor(o *unstructured.Unstructured) rules {
	var out rules
	key := KeyOf(o)
	for _, r := range in.Ignore {
		if matches(r.Group, key.Group) && matches(r.Kind, key.Kind) &&
			(r.Name == "" || r.Name == key.Name) && (r.Namespace == "" || r.Namespace == key.Namespace) {
			out = append(out, r)
		}
	}
	return out
}

func matches(pattern, value string) bool {
	if pattern == value {
		return true
	}
	ok, err := path.Match(pattern, value)
	return err == nil && ok
}

// ignores returns why the difference does not count, or "".
func (rs rules) ignores(d Difference, live *unstructured.Unstructured) string {
	if live.GetKind() == "ClusterRole" && d.Path == "rules" {
		if _, aggregated := live.Object["aggregationRule"]; aggregated {
			return "ignored: the rules of an aggregated ClusterRole are filled in by the cluster"
		}
	}
	for _, r := range rs {
		for _, p := range r.JSONPointers {
			if d.Pointer == p || strings.HasPrefix(d.Pointer, p+"/") {
				return "ignored by ignoreDifferences, jsonPointers " + p
			}
		}
		if d.Manager != "" && slices.Contains(r.ManagedFieldsManagers, d.Manager) {
			return "ignored by ignoreDifferences, managedFieldsManagers " + d.Manager
		}
	}
	return ""
}

// UnsupportedIgnores names the parts of ignoreDifferences that are not carried
// out.
func UnsupportedIgnores(ignore []v1alpha1.IgnoreDifferences) []Warning {
	var out []Warning
	for i, r := range ignore {
		if len(r.JQPathExpressions) > 0 {
			out = append(out, Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf(
				"spec.ignoreDifferences[%d].jqPathExpressions is not carried out: the differences it names count; use jsonPointers", i)})
		}
	}
	return out
}

// respect takes ignored fields out of what is applied, by the live value where
// there is one.
func respect(desired, live *unstructured.Unstructured, ignored []Difference) {
	for _, d := range ignored {
		set(desired.Object, live.Object, d.fields)
	}
}

func set(desired, live any, path []segment) {
	for i, s := range path {
		last := i == len(path)-1
		if s.field == "" {
			dl, ok := desired.([]any)
			ll, lok := live.([]any)
			at := sameItem(dl, s)
			if !ok || !lok || at < 0 || s.index >= len(ll) {
				return
			}
			if last {
				dl[at] = ll[s.index]
			}
			desired, live = dl[at], ll[s.index]
			continue
		}
		dm, ok := desired.(map[string]any)
		lm, lok := live.(map[string]any)
		if !ok || !lok {
			return
		}
		if last {
			if v, has := lm[s.field]; has {
				dm[s.field] = v
			} else {
				delete(dm, s.field)
			}
			return
		}
		desired, live = dm[s.field], lm[s.field]
	}
}

// sameItem finds the item of desired that a segment of the live object means.
func sameItem(desired []any, s segment) int {
	name := itemName(s)
	if name != strconv.Itoa(s.index) {
		return slices.IndexFunc(desired, func(v any) bool {
			m, ok := v.(map[string]any)
			return ok && m["name"] == name
		})
	}
	if s.index < len(desired) {
		return s.index
	}
	return -1
}
