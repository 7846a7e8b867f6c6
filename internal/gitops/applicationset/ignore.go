package applicationset

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

const maxQuery = 2 * time.Second

// rules are the parsed ignoreApplicationDifferences.
type rules []rule

type rule struct {
	name     string
	pointers [][]string
	queries  []*gojq.Code
}

func rulesOf(from []v1alpha1.IgnoreApplicationDiffRule) (rules, error) {
	var out rules
	for i, f := range from {
		r := rule{name: f.Name}
		for _, p := range f.JSONPointers {
			if !strings.HasPrefix(p, "/") {
				return nil, fmt.Errorf("spec.ignoreApplicationDifferences[%d]: the JSON pointer %q does not begin with /", i, p)
			}
			parts := strings.Split(p[1:], "/")
			for j, s := range parts {
				parts[j] = strings.NewReplacer("~1", "/", "~0", "~").Replace(s)
			}
			r.pointers = append(r.pointers, parts)
		}
		for _, e := range f.JQPathExpressions {
			q, err := gojq.Parse("del(" + e + ")")
			if err != nil {
				return nil, fmt.Errorf("spec.ignoreApplicationDifferences[%d]: the jq expression %q: %w", i, e, err)
			}
			code, err := gojq.Compile(q)
			if err != nil {
				return nil, fmt.Errorf("spec.ignoreApplicationDifferences[%d]: the jq expression %q: %w", i, e, err)
			}
			r.queries = append(r.queries, code)
		}
		out = append(out, r)
	}
	return out, nil
}

// apply takes the ignored fields out of both sides, which may share parts with
// others: they are copied where they change.
func (rs rules) apply(name string, sides ...map[string]any) error {
	for _, r := range rs {
		if r.name != "" && r.name != name {
			continue
		}
		for _, side := range sides {
			for _, p := range r.pointers {
				if v, changed := without(side, p); changed {
					maps.Copy(side, v.(map[string]any))
				}
			}
			for _, q := range r.queries {
				if err := query(q, side); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// without returns v less what the path names, and less maps that this empties.
func without(v any, path []string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		child, ok := v[path[0]]
		if !ok {
			return v, false
		}
		out := maps.Clone(v)
		if len(path) == 1 {
			delete(out, path[0])
			return out, true
		}
		child, changed := without(child, path[1:])
		if m, isMap := child.(map[string]any); isMap && len(m) == 0 && changed {
			delete(out, path[0])
		} else {
			out[path[0]] = child
		}
		return out, changed
	case []any:
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i >= len(v) {
			return v, false
		}
		out := append([]any(nil), v...)
		if len(path) == 1 {
			return append(out[:i], out[i+1:]...), true
		}
		child, changed := without(out[i], path[1:])
		out[i] = child
		return out, changed
	}
	return v, false
}

func query(q *gojq.Code, side map[string]any) error {
	ctx, cancel := context.WithTimeout(context.Background(), maxQuery)
	defer cancel()
	v, ok := q.RunWithContext(ctx, forJQ(side)).Next()
	if !ok {
		return nil
	}
	if err, failed := v.(error); failed {
		if ctx.Err() != nil {
			return fmt.Errorf("spec.ignoreApplicationDifferences: a jq expression took longer than %s", maxQuery)
		}
		_ = err // a path that is not there takes nothing away, as in Argo CD
		return nil
	}
	if m, ok := fromJQ(v).(map[string]any); ok {
		clear(side)
		maps.Copy(side, m)
	}
	return nil
}

// forJQ copies a value with the types that gojq knows.
func forJQ(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[k] = forJQ(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = forJQ(item)
		}
		return out
	case int64:
		return int(v)
	}
	return v
}

// fromJQ undoes forJQ, and drops maps that are empty now.
func fromJQ(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			if m, ok := item.(map[string]any); ok && len(m) == 0 {
				delete(v, k)
				continue
			}
			v[k] = fromJQ(item)
		}
		return v
	case []any:
		for i, item := range v {
			v[i] = fromJQ(item)
		}
		return v
	case int:
		return int64(v)
	}
	return v
}
