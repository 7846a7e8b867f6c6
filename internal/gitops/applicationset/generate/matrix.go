package generate

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
)

// matrix joins each set of the first generator with each of the second, which
// is filled with the first's parameters.
func (r *run) matrix(ctx context.Context, g *v1alpha1.MatrixGenerator, parent map[string]any, depth int) ([]map[string]any, error) {
	if n := len(g.Generators); n != 2 {
		return nil, fmt.Errorf("has %d generators; a matrix has exactly two", n)
	}
	first, err := r.nested(ctx, 0, &g.Generators[0], parent, depth)
	if err != nil {
		return nil, err
	}
	sets := []map[string]any{}
	for _, a := range first {
		seen := a
		if len(parent) > 0 {
			seen = r.over(parent, a)
		}
		second, err := r.nested(ctx, 1, &g.Generators[1], seen, depth)
		if err != nil {
			return nil, fmt.Errorf("for the set%s of the first generator: %w", describe(a), err)
		}
		for _, b := range second {
			joined, err := r.join(a, b)
			if err != nil {
				return nil, err
			}
			sets = append(sets, joined)
		}
	}
	return sets, nil
}

func (r *run) join(a, b map[string]any) (map[string]any, error) {
	if r.engine.Go() {
		return template.Override(a, b), nil
	}
	out := maps.Clone(a)
	for k, v := range b {
		if have, ok := out[k]; ok && !reflect.DeepEqual(have, v) {
			return nil, fmt.Errorf("both generators have the parameter %q, with the values %v and %v; for git set pathParamPrefix", k, have, v)
		}
		out[k] = v
	}
	return out, nil
}

// merge lays the sets of the later generators over those of the first that
// have the same values of the merge keys.
func (r *run) merge(ctx context.Context, g *v1alpha1.MergeGenerator, parent map[string]any, depth int) ([]map[string]any, error) {
	if len(g.Generators) < 2 {
		return nil, fmt.Errorf("has %d generators; a merge has two or more", len(g.Generators))
	}
	if len(g.MergeKeys) == 0 {
		return nil, fmt.Errorf("mergeKeys is empty")
	}
	keys := slices.Compact(slices.Sorted(slices.Values(g.MergeKeys)))
	var base []map[string]any
	index := map[string]int{}
	for i := range g.Generators {
		sets, err := r.nested(ctx, i, &g.Generators[i], parent, depth)
		if err != nil {
			return nil, err
		}
		byKey := map[string]int{}
		for j, set := range sets {
			key := mergeKey(keys, set)
			if _, twice := byKey[key]; twice {
				return nil, fmt.Errorf("generators[%d]: two sets have the same mergeKeys: %s", i, key)
			}
			byKey[key] = j
			at, ok := index[key]
			switch {
			case i == 0:
			case ok && r.engine.Go():
				base[at] = template.Override(set, base[at])
			case ok:
				merged := maps.Clone(base[at])
				maps.Copy(merged, set)
				base[at] = merged
			}
		}
		if i == 0 {
			base, index = slices.Clone(sets), byKey
		}
	}
	return base, nil
}

// mergeKey is the values of the keys; "a.b" also means b in a.
func mergeKey(keys []string, set map[string]any) string {
	s := ""
	for _, k := range keys {
		v, ok := set[k]
		if !ok {
			v = dotted(set, k)
		}
		s += fmt.Sprintf("%s=%q ", k, fmt.Sprint(v))
	}
	return s[:len(s)-1]
}
