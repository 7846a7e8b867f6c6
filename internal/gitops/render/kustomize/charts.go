package kustomize

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Charts renders the charts that a kustomization lists under helmCharts.
type Charts interface {
	Chart(ctx context.Context, tree *source.Tree, chart Chart) (Result, error)
}

// Chart is one chart of a kustomization.
type Chart struct {
	// Dir is the folder of the chart in the tree. When it is "", the chart is
	// Name of Repo, in the newest version that Version allows.
	Dir                 string
	Repo, Name, Version string
	Release, Namespace  string
	Values              map[string]any // on top of the chart's own
	CRDs, SkipTests     bool
	KubeVersion         string
	APIVersions         []string
}

// inflater renders one chart to YAML.
type inflater func(tree *source.Tree, c Chart) ([]byte, error)

func inflaterOf(f *treeFS, req Request) inflater {
	if req.Charts == nil || !f.options.helm {
		return nil
	}
	return func(tree *source.Tree, c Chart) ([]byte, error) {
		if c.KubeVersion == "" {
			c.KubeVersion = req.KubeVersion
		}
		if len(c.APIVersions) == 0 {
			c.APIVersions = req.APIVersions
		}
		res, err := req.Charts.Chart(f.ctx, tree, c)
		f.warnings, f.fetched = append(f.warnings, res.Warnings...), append(f.fetched, res.Fetched...)
		if err != nil {
			return nil, err
		}
		var out []byte
		for _, o := range res.Objects {
			data, err := k8syaml.Marshal(o.Object)
			if err != nil {
				return nil, err
			}
			out = append(append(out, "---\n"...), data...)
		}
		return out, nil
	}
}

// charts renders what helmCharts lists and makes it resources instead.
func (c *checker) charts() error {
	list := field(c.root, "helmCharts")
	c.nameSpaces()
	if list == nil || len(list.Content) == 0 {
		return nil
	}
	if !c.options.helm {
		return c.bad(list.Line, "Add --enable-helm to kustomize.buildOptions in the ConfigMap argocd-cm.", "helmCharts is off: Kustomize renders charts only with --enable-helm")
	}
	if c.inflate == nil {
		return c.bad(list.Line, "Let the Application point to the chart instead.", "helmCharts cannot be rendered here")
	}
	var k types.Kustomization
	for key, into := range map[string]any{"helmCharts": &k.HelmCharts, "helmGlobals": &k.HelmGlobals} {
		if n := field(c.root, key); n != nil {
			raw, err := yaml.Marshal(n)
			if err == nil {
				err = k8syaml.UnmarshalStrict(raw, into)
			}
			if err != nil {
				return c.bad(n.Line, "", "%s: %v", key, err)
			}
		}
	}
	for i, h := range k.HelmCharts {
		line := list.Content[i].Line
		chart, tree, err := c.chart(line, h, k.HelmGlobals)
		if err != nil {
			return err
		}
		out, err := c.inflate(tree, chart)
		if err != nil {
			var placed *manifest.Error
			if errors.As(err, &placed) && placed.File != "" {
				return err
			}
			return &manifest.Error{File: c.shown(c.file), Line: line, Message: fmt.Sprintf("chart %s: %v", h.Name, err), Err: err}
		}
		if h.SkipHooks {
			if out, err = withoutHooks(out); err != nil {
				return c.bad(line, "", "chart %s: %v", h.Name, err)
			}
		}
		if len(out) > 0 {
			c.addResource(c.addFile(c.file, h.Name+".yaml", out))
		}
	}
	c.remove("helmCharts", "helmGlobals")
	return nil
}

// chart is what a helmCharts entry asks for, and the tree that its Dir is in.
func (c *checker) chart(line int, h types.HelmChart, globals *types.HelmGlobals) (Chart, *source.Tree, error) {
	fail := func(format string, args ...any) (Chart, *source.Tree, error) {
		return Chart{}, nil, c.bad(line, "", "chart %s: "+format, append([]any{h.Name}, args...)...)
	}
	if h.Name == "" {
		return fail("it has no name")
	}
	if h.NameTemplate != "" || h.Devel {
		return fail("nameTemplate and devel are not supported; give releaseName and version")
	}
	if h.ReleaseName == "" {
		h.ReleaseName = "release-name" // what helm template calls one without
	}
	home := types.HelmDefaultHome
	if globals != nil && globals.ChartHome != "" {
		home = globals.ChartHome
	}
	if h.Repo != "" && h.Version != "" {
		home = path.Join(home, h.Name+"-"+h.Version)
	}
	tree, dir, _ := c.located(path.Dir(c.file))
	if path.IsAbs(home) || !within(dir, home) {
		return fail("chartHome %s %s", home, source.ErrEscapes)
	}
	out := Chart{
		Dir: path.Join(dir, home, h.Name), Repo: h.Repo, Name: h.Name, Version: h.Version, Release: h.ReleaseName, Namespace: h.Namespace,
		CRDs: h.IncludeCRDs, SkipTests: h.SkipTests, KubeVersion: h.KubeVersion, APIVersions: h.ApiVersions,
	}
	if out.Namespace == "" {
		out.Namespace = c.namespace()
	}
	_, kind, err := tree.Stat(c.ctx, out.Dir)
	switch {
	case err != nil:
		return fail("%v", err)
	case kind != source.Dir && h.Repo == "":
		return fail("there is no folder %s, and no repo to fetch it from", path.Join(home, h.Name))
	case kind != source.Dir:
		out.Dir = ""
	}
	if out.Values, err = c.values(tree, dir, out, h); err != nil {
		return fail("%v", err)
	}
	return out, tree, nil
}

// values merges valuesFile, valuesInline and additionalValuesFiles.
func (c *checker) values(tree *source.Tree, dir string, chart Chart, h types.HelmChart) (map[string]any, error) {
	read := func(p string) (map[string]any, error) {
		if !within(dir, p) {
			return nil, fmt.Errorf("%s %w", p, source.ErrEscapes)
		}
		data, err := tree.ReadFile(c.ctx, path.Join(dir, p))
		if err != nil {
			return nil, err
		}
		var v map[string]any
		if err := k8syaml.Unmarshal(data, &v); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		return v, nil
	}
	file := map[string]any{}
	var err error
	switch {
	case h.ValuesFile != "":
		file, err = read(h.ValuesFile)
	case h.ValuesMerge == "merge" && chart.Dir != "":
		file, err = read(strings.TrimPrefix(strings.TrimPrefix(path.Join(chart.Dir, "values.yaml"), dir), "/"))
	}
	if err != nil {
		return nil, err
	}
	inline, err := plain(h.ValuesInline)
	if err != nil {
		return nil, err
	}
	out := file
	if len(inline) > 0 {
		switch h.ValuesMerge {
		case "", "override":
			out = merged(file, inline)
		case "merge":
			out = merged(inline, file)
		case "replace":
			out = inline
		default:
			return nil, fmt.Errorf("valuesMerge is override, merge or replace, not %q", h.ValuesMerge)
		}
	}
	for _, p := range h.AdditionalValuesFiles {
		more, err := read(p)
		if err != nil {
			return nil, err
		}
		out = merged(out, more)
	}
	return out, nil
}

// plain gives values the types of JSON.
func plain(values map[string]any) (map[string]any, error) {
	raw, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, json.Unmarshal(raw, &out)
}

// merged is under with the values of over on top.
func merged(under, over map[string]any) map[string]any {
	out := maps.Clone(under)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range over {
		a, isMap := out[k].(map[string]any)
		b, both := v.(map[string]any)
		if isMap && both {
			v = merged(a, b)
		}
		out[k] = v
	}
	return out
}

func withoutHooks(data []byte) ([]byte, error) {
	objects, _, err := manifest.Parse("chart", data)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, o := range objects {
		if o.GetAnnotations()["helm.sh/hook"] != "" {
			continue
		}
		raw, err := k8syaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		out = append(append(out, "---\n"...), raw...)
	}
	return out, nil
}

// nameSpaces tells the kustomizations that this one lists its namespace: their
// charts without one get it.
func (c *checker) nameSpaces() {
	for _, key := range []string{"resources", "bases", "components"} {
		if list := field(c.root, key); list != nil {
			for _, n := range list.Content {
				c.spaces[path.Join("/", path.Dir(c.file), n.Value)] = c.namespace()
			}
		}
	}
}

func (c *checker) namespace() string {
	if c.treeFS.namespace != "" && path.Dir("/"+c.file) == path.Join("/", c.treeFS.root) {
		return c.treeFS.namespace
	}
	if n := field(c.root, "namespace"); n != nil && n.Value != "" {
		return n.Value
	}
	return c.spaces[path.Join("/", path.Dir(c.file))]
}

func (c *checker) addResource(p string) {
	c.changed = true
	entry := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: p}
	if list := field(c.root, "resources"); list != nil && list.Kind == yaml.SequenceNode {
		list.Content = append(list.Content, entry)
		return
	}
	c.remove("resources")
	c.root.Content = append(c.root.Content,
		&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "resources"},
		&yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{entry}})
}

func (c *checker) remove(keys ...string) {
	var kept []*yaml.Node
	for i := 0; i+1 < len(c.root.Content); i += 2 {
		if !slices.Contains(keys, c.root.Content[i].Value) {
			kept = append(kept, c.root.Content[i], c.root.Content[i+1])
		}
	}
	c.root.Content, c.changed = kept, true
}
