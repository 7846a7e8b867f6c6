package generate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
)

// kind is the name of a generator.
type kind string

const (
	kindList     kind = "list"
	kindClusters kind = "clusters"
	kindGit      kind = "git"
	kindSCM      kind = "scmProvider"
	kindDecision kind = "clusterDecisionResource"
	kindPull     kind = "pullRequest"
	kindMatrix   kind = "matrix"
	kindMerge    kind = "merge"
	kindPlugin   kind = "plugin"
)

const supported = "list, clusters, git, matrix, merge, scmProvider, pullRequest, clusterDecisionResource and plugin"

func kindsOf(g *v1alpha1.ApplicationSetGenerator) []kind {
	var out []kind
	for _, k := range []struct {
		kind kind
		set  bool
	}{
		{kindList, g.List != nil}, {kindClusters, g.Clusters != nil}, {kindGit, g.Git != nil}, {kindSCM, g.SCMProvider != nil},
		{kindDecision, g.ClusterDecisionResource != nil}, {kindPull, g.PullRequest != nil}, {kindMatrix, g.Matrix != nil},
		{kindMerge, g.Merge != nil}, {kindPlugin, g.Plugin != nil},
	} {
		if k.set {
			out = append(out, k.kind)
		}
	}
	return out
}

func checkKinds(g *v1alpha1.ApplicationSetGenerator, kinds []kind) error {
	if len(g.Unknown) > 0 {
		return fmt.Errorf("the generator %q is not known; %s are", strings.Join(g.Unknown, ", "), supported)
	}
	if len(kinds) == 0 {
		return fmt.Errorf("names no generator; %s are known", supported)
	}
	return nil
}

func templateOf(k kind, g *v1alpha1.ApplicationSetGenerator) v1alpha1.ApplicationSetTemplate {
	switch k {
	case kindList:
		return g.List.Template
	case kindClusters:
		return g.Clusters.Template
	case kindGit:
		return g.Git.Template
	case kindSCM:
		return g.SCMProvider.Template
	case kindDecision:
		return g.ClusterDecisionResource.Template
	case kindPull:
		return g.PullRequest.Template
	case kindMatrix:
		return g.Matrix.Template
	case kindMerge:
		return g.Merge.Template
	case kindPlugin:
		return g.Plugin.Template
	}
	return nil
}

// params returns the sets of one generator. parent holds the parameters of the
// generators before it in a matrix; depth counts matrices and merges around it.
func (r *run) params(ctx context.Context, k kind, g *v1alpha1.ApplicationSetGenerator, parent map[string]any, depth int) ([]map[string]any, error) {
	var sets []map[string]any
	var err error
	switch {
	case (k == kindMatrix || k == kindMerge) && depth > 1:
		return nil, errors.New("matrix and merge may be nested only once")
	case k == kindMatrix:
		sets, err = r.matrix(ctx, g.Matrix, parent, depth)
	case k == kindMerge:
		sets, err = r.merge(ctx, g.Merge, parent, depth)
	default:
		if g, err = r.interpolate(k, g, parent); err == nil {
			sets, err = r.plain(ctx, k, g, parent)
		}
	}
	if err != nil {
		return nil, err
	}
	if sets, err = selected(g.Selector, sets); err != nil {
		return nil, err
	}
	if r.sets += len(sets); r.sets > maxSets {
		return nil, fmt.Errorf("more than %d sets of parameters; use several ApplicationSets", maxSets)
	}
	return sets, nil
}

func (r *run) plain(ctx context.Context, k kind, g *v1alpha1.ApplicationSetGenerator, parent map[string]any) ([]map[string]any, error) {
	switch k {
	case kindList:
		return r.list(g.List)
	case kindClusters:
		return r.clusterSets(ctx, g.Clusters, parent)
	case kindGit:
		return r.git(ctx, g.Git, parent)
	case kindSCM:
		return r.repositories(ctx, g.SCMProvider, parent)
	case kindPull:
		return r.pullRequests(ctx, g.PullRequest, parent)
	case kindDecision:
		return r.decisions(ctx, g.ClusterDecisionResource, parent)
	case kindPlugin:
		return r.plugin(ctx, g.Plugin, parent)
	}
	return nil, fmt.Errorf("the generator %s is not known", k)
}

// nested is params for a child of matrix or merge.
func (r *run) nested(ctx context.Context, i int, g *v1alpha1.ApplicationSetGenerator, parent map[string]any, depth int) ([]map[string]any, error) {
	kinds := kindsOf(g)
	err := checkKinds(g, kinds)
	if err == nil && len(kinds) > 1 {
		err = fmt.Errorf("has %d generators; each entry may have one", len(kinds))
	}
	var sets []map[string]any
	if err == nil {
		sets, err = r.params(ctx, kinds[0], g, parent, depth+1)
	}
	if err != nil {
		name := ""
		if len(kinds) > 0 {
			name = fmt.Sprintf(" (%s)", kinds[0])
		}
		return nil, fmt.Errorf("generators[%d]%s: %w", i, name, err)
	}
	return sets, nil
}

// interpolate fills a generator's own fields with the parameters of those
// before it. Values and template are filled later, when there is more to fill
// them with.
func (r *run) interpolate(k kind, g *v1alpha1.ApplicationSetGenerator, parent map[string]any) (*v1alpha1.ApplicationSetGenerator, error) {
	if len(parent) == 0 {
		return g, nil
	}
	data, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("encode the generator: %w", err)
	}
	if !strings.Contains(string(data), "{{") {
		return g, nil
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("encode the generator: %w", err)
	}
	inner, _ := fields[string(k)].(map[string]any)
	kept := map[string]any{"values": inner["values"], "template": inner["template"]}
	maps.DeleteFunc(inner, func(name string, _ any) bool { _, ok := kept[name]; return ok })
	program, err := r.engine.Compile("", fields)
	if err != nil {
		return nil, err
	}
	filled, err := program.Fill(parent)
	if err != nil {
		return nil, err
	}
	if inner, ok := filled.(map[string]any)[string(k)].(map[string]any); ok {
		for name, v := range kept {
			if v != nil {
				inner[name] = v
			}
		}
	}
	if data, err = json.Marshal(filled); err != nil {
		return nil, fmt.Errorf("encode the generator: %w", err)
	}
	var out v1alpha1.ApplicationSetGenerator
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("after its templates are filled: %w", err)
	}
	return &out, nil
}

// addValues fills the values of a generator, which see its other parameters
// and those of the generators before it, but not each other.
func (r *run) addValues(values map[string]string, params, parent map[string]any) error {
	if len(values) == 0 {
		return nil
	}
	visible := params
	if len(parent) > 0 {
		visible = r.over(parent, params)
	}
	filled := make(map[string]any, len(values))
	for k, v := range values {
		s, err := r.engine.Text(v, visible)
		if err != nil {
			return fmt.Errorf("values.%s: %w", k, err)
		}
		filled[k] = s
	}
	if r.engine.Go() {
		params["values"] = filled
		return nil
	}
	for k, v := range filled {
		params["values."+k] = v
	}
	return nil
}

// over joins two sets, of which the first wins.
func (r *run) over(first, second map[string]any) map[string]any {
	if r.engine.Go() {
		return template.Override(first, second)
	}
	out := maps.Clone(second)
	maps.Copy(out, first)
	return out
}

// flatten turns nested maps and lists into "a.b.0" keys with texts. Whole
// numbers are written with all their digits.
func flatten(prefix string, v any, into map[string]any) {
	key := func(k string) string {
		if prefix == "" {
			return k
		}
		return prefix + "." + k
	}
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			flatten(key(k), item, into)
		}
	case []any:
		for i, item := range v {
			flatten(key(fmt.Sprint(i)), item, into)
		}
	case float64:
		if v == float64(int64(v)) && v < 1e15 && v > -1e15 {
			into[prefix] = fmt.Sprint(int64(v))
			return
		}
		into[prefix] = fmt.Sprint(v)
	default:
		into[prefix] = fmt.Sprint(v)
	}
}

func sameMap(a, b map[string]any) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// requeue is the shortest time after which a generator wants to be asked again.
func requeue(generators []v1alpha1.ApplicationSetGenerator) time.Duration {
	var least time.Duration
	consider := func(seconds *int64, byDefault time.Duration) {
		d := byDefault
		if seconds != nil {
			d = time.Duration(min(max(*seconds, 0), 1<<30)) * time.Second
		}
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	for _, g := range generators {
		switch {
		case g.Git != nil:
			consider(g.Git.RequeueAfterSeconds, 3*time.Minute)
		case g.ClusterDecisionResource != nil:
			consider(g.ClusterDecisionResource.RequeueAfterSeconds, 3*time.Minute)
		case g.PullRequest != nil:
			consider(g.PullRequest.RequeueAfterSeconds, 30*time.Minute)
		case g.SCMProvider != nil:
			consider(g.SCMProvider.RequeueAfterSeconds, 30*time.Minute)
		case g.Plugin != nil:
			consider(g.Plugin.RequeueAfterSeconds, 30*time.Minute)
		case g.Matrix != nil:
			consider(nil, requeue(g.Matrix.Generators))
		case g.Merge != nil:
			consider(nil, requeue(g.Merge.Generators))
		}
	}
	return least
}
