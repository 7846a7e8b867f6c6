package generate

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func (r *run) list(g *v1alpha1.ListGenerator) ([]map[string]any, error) {
	sets := make([]map[string]any, 0, len(g.Elements))
	for i, raw := range g.Elements {
		var element map[string]any
		if err := json.Unmarshal(raw, &element); err != nil {
			return nil, fmt.Errorf("elements[%d] is no map of parameters: %w", i, err)
		}
		set, err := r.element(element)
		if err != nil {
			return nil, fmt.Errorf("elements[%d]: %w", i, err)
		}
		sets = append(sets, set)
	}
	if g.ElementsYAML == "" {
		return sets, nil
	}
	var more []map[string]any
	if err := yaml.Unmarshal([]byte(g.ElementsYAML), &more); err != nil {
		return nil, fmt.Errorf("elementsYaml is no list of maps: %w", err)
	}
	for _, element := range more {
		if element == nil {
			element = map[string]any{}
		}
		if !r.engine.Go() {
			flat := map[string]any{}
			flatten("", element, flat)
			element = flat
		}
		sets = append(sets, element)
	}
	return sets, nil
}

// element checks that templates of the form "{{name}}" get texts.
func (r *run) element(element map[string]any) (map[string]any, error) {
	if r.engine.Go() {
		if element == nil {
			element = map[string]any{}
		}
		return element, nil
	}
	set := map[string]any{}
	for k, v := range element {
		if values, ok := v.(map[string]any); ok && k == "values" {
			for name, v := range values {
				s, ok := v.(string)
				if !ok {
					return nil, notText("values."+name, v)
				}
				set["values."+name] = s
			}
			continue
		}
		s, ok := v.(string)
		if !ok {
			return nil, notText(k, v)
		}
		set[k] = s
	}
	return set, nil
}

func notText(key string, v any) error {
	return fmt.Errorf("the parameter %s must be a text, it is %v; put it in quotes, or set spec.goTemplate", key, v)
}
