package action

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health/sandbox"
)

const maxChanges = 100 // of one action

// discover reads {name = {disabled, displayName, iconClass, params}}.
func discover(p *sandbox.Program, o *unstructured.Unstructured) ([]Action, error) {
	result, err := p.Run(o.Object, nil)
	if err != nil {
		return nil, err
	}
	found, ok := result.(map[string]any)
	if !ok {
		if list, empty := result.([]any); empty && len(list) == 0 {
			return nil, nil
		}
		return nil, errors.New("discovery.lua does not return a table of actions by name")
	}
	var out []Action
	for name, v := range found {
		m, _ := v.(map[string]any)
		a := Action{Name: name}
		a.Disabled, _ = m["disabled"].(bool)
		a.DisplayName, _ = m["displayName"].(string)
		a.Icon, _ = m["iconClass"].(string)
		params, _ := m["params"].([]any)
		for _, item := range params {
			p, _ := item.(map[string]any)
			name, _ := p["name"].(string)
			def := ""
			if d, ok := p["default"]; ok {
				def = fmt.Sprint(d)
			}
			if name != "" {
				a.Params = append(a.Params, Param{Name: name, Default: def})
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// runLua reads what a script returns: the object as it should be, or a list of
// {operation = "patch" or "create", resource = object}.
func runLua(p *sandbox.Program, o *unstructured.Unstructured, params map[string]string) ([]Change, error) {
	if params == nil {
		params = map[string]string{}
	}
	result, err := p.Run(o.Object, params)
	if err != nil {
		return nil, err
	}
	switch x := result.(type) {
	case map[string]any:
		return []Change{{Operation: Patch, Object: patched(o, x)}}, check(x, o)
	case []any:
		if len(x) > maxChanges {
			return nil, fmt.Errorf("the script returns %d changes; at most %d are made", len(x), maxChanges)
		}
		var out []Change
		for i, item := range x {
			c, err := impact(o, item)
			if err != nil {
				return nil, fmt.Errorf("change %d: %w", i+1, err)
			}
			out = append(out, c)
		}
		return out, nil
	}
	return nil, fmt.Errorf("the script returns neither an object nor a list of changes, but %T", result)
}

func impact(o *unstructured.Unstructured, item any) (Change, error) {
	m, _ := item.(map[string]any)
	object, ok := m["resource"].(map[string]any)
	if !ok {
		return Change{}, errors.New("it has no resource")
	}
	switch op, _ := m["operation"].(string); op {
	case "patch":
		return Change{Operation: Patch, Object: patched(o, object)}, check(object, o)
	case "create":
		if object["kind"] == nil || object["apiVersion"] == nil {
			return Change{}, errors.New("the resource has no apiVersion or kind")
		}
		return Change{Operation: Create, Object: &unstructured.Unstructured{Object: object}}, nil
	default:
		return Change{}, fmt.Errorf("the operation %q is neither patch nor create", op)
	}
}

// check refuses a patch of another object: who may run an action on one object
// may not change all.
func check(changed map[string]any, o *unstructured.Unstructured) error {
	c := &unstructured.Unstructured{Object: changed}
	if c.GetAPIVersion() != o.GetAPIVersion() || c.GetKind() != o.GetKind() || c.GetName() != o.GetName() || c.GetNamespace() != o.GetNamespace() {
		return fmt.Errorf("the script patches %s %s/%s; an action patches only its own object", c.GetKind(), c.GetNamespace(), c.GetName())
	}
	return nil
}

func patched(o *unstructured.Unstructured, changed map[string]any) *unstructured.Unstructured {
	m, _ := restore(changed, o.Object).(map[string]any)
	return &unstructured.Unstructured{Object: m}
}

// restore makes empty maps of empty lists where they were maps before: Lua
// does not tell them apart.
func restore(v, was any) any {
	switch x := v.(type) {
	case []any:
		if m, ok := was.(map[string]any); ok && len(x) == 0 {
			if len(m) == 0 {
				return m
			}
			return map[string]any{}
		}
		before, _ := was.([]any)
		for i := range x {
			if i < len(before) {
				x[i] = restore(x[i], before[i])
			}
		}
	case map[string]any:
		before, _ := was.(map[string]any)
		for k := range x {
			x[k] = restore(x[k], before[k])
		}
	}
	return v
}
