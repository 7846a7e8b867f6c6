package kustomize

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Names are the names a kustomization file may have, in Kustomize's order.
var Names = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

func isKustomization(p string) bool { return slices.Contains(Names, path.Base(p)) }

// Fields of a kustomization that hold paths. In the first group an entry may
// be inline YAML instead.
var (
	inlineOrPath = []string{"patchesStrategicMerge", "generators", "transformers", "validators"}
	pathLists    = []string{"resources", "bases", "components", "crds", "configurations"}
	pathFields   = []string{"patches", "patchesJson6902", "replacements"}
	generatorMap = []string{"configMapGenerator", "secretGenerator"}
)

// check looks at every path in a kustomization before Kustomize does, because
// Kustomize would fetch what it does not find, and its own errors name
// neither file nor line.
func (f *treeFS) check(file string, data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		_, _, perr := manifest.Parse(file, data)
		if perr != nil {
			return perr
		}
		return &manifest.Error{File: file, Message: err.Error(), Err: err}
	}
	if len(doc.Content) == 0 {
		return &manifest.Error{File: file, Line: 1, Message: "the kustomization is empty", Hint: "List the manifests under resources."}
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return &manifest.Error{File: file, Line: root.Line, Message: "a kustomization is a mapping", Hint: "Start with `resources:`."}
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if err := f.checkField(file, root.Content[i].Value, root.Content[i], root.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (f *treeFS) checkField(file, key string, at, value *yaml.Node) error {
	switch {
	case key == "helmCharts" || key == "helmChartInflationGenerator":
		return &manifest.Error{File: file, Line: at.Line, Message: "Helm charts in a kustomization are not rendered yet", Hint: "Commit the rendered manifests and list them under resources."}
	case slices.Contains(pathLists, key):
		return f.checkPaths(file, key, value.Content)
	case slices.Contains(inlineOrPath, key):
		var paths []*yaml.Node
		for _, n := range value.Content {
			if n.Kind == yaml.ScalarNode && !strings.ContainsAny(n.Value, "\n{:") {
				paths = append(paths, n)
			} else if remote(n.Value) {
				return f.refused(file, n)
			}
		}
		return f.checkPaths(file, key, paths)
	case slices.Contains(pathFields, key):
		for _, item := range value.Content {
			if p := field(item, "path"); p != nil {
				if err := f.checkPaths(file, key, []*yaml.Node{p}); err != nil {
					return err
				}
			}
		}
	case key == "openapi":
		if p := field(value, "path"); p != nil {
			return f.checkPaths(file, key, []*yaml.Node{p})
		}
	case slices.Contains(generatorMap, key):
		for _, item := range value.Content {
			if err := f.checkGenerator(file, key, item); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *treeFS) checkGenerator(file, key string, item *yaml.Node) error {
	var paths []*yaml.Node
	if n := field(item, "env"); n != nil {
		paths = append(paths, n)
	}
	if n := field(item, "envs"); n != nil {
		paths = append(paths, n.Content...)
	}
	if n := field(item, "files"); n != nil {
		for _, entry := range n.Content {
			copied := *entry
			if _, p, ok := strings.Cut(entry.Value, "="); ok {
				copied.Value = p
			}
			paths = append(paths, &copied)
		}
	}
	return f.checkPaths(file, key, paths)
}

func (f *treeFS) checkPaths(file, key string, nodes []*yaml.Node) error {
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode || n.Value == "" {
			return &manifest.Error{File: file, Line: n.Line, Message: key + " has an entry that is not a path"}
		}
		if remote(n.Value) {
			return f.refused(file, n)
		}
		p := path.Dir(file) + "/" + n.Value
		if strings.HasPrefix(n.Value, "/") {
			return &manifest.Error{File: file, Line: n.Line, Message: fmt.Sprintf("%s: %s is an absolute path", key, n.Value), Hint: "Write the path relative to the kustomization."}
		}
		_, kind, err := f.tree.Stat(f.ctx, p)
		if err != nil {
			return &manifest.Error{File: file, Line: n.Line, Message: fmt.Sprintf("%s: %v", key, err), Err: err}
		}
		if kind == source.Absent {
			return &manifest.Error{File: file, Line: n.Line, Message: fmt.Sprintf("%s: %s does not exist in this commit", key, n.Value), Hint: f.near(p)}
		}
	}
	return nil
}

func (f *treeFS) refused(file string, n *yaml.Node) error {
	return &manifest.Error{File: file, Line: n.Line, Message: fmt.Sprintf("remote source %s is not fetched", n.Value), Hint: "Keep what a commit needs in its repository: copy the base into it."}
}

// near names the files that do exist where p was expected.
func (f *treeFS) near(p string) string {
	entries, err := f.tree.ReadDir(f.ctx, path.Dir(p))
	if err != nil || len(entries) == 0 {
		return "Is the file committed?"
	}
	var names []string
	for _, e := range entries {
		if names = append(names, e.Name); len(names) == 8 {
			break
		}
	}
	return "Is the file committed? The directory has: " + strings.Join(names, ", ") + "."
}

func remote(v string) bool {
	return strings.Contains(v, "://") || strings.Contains(v, "?ref=") || strings.Contains(v, "git@") || strings.HasPrefix(v, "git::") ||
		strings.HasPrefix(v, "gh:") || strings.HasPrefix(v, "github.com") || strings.Contains(v, ".git/") || strings.HasSuffix(v, ".git") || strings.Contains(v, "_git/")
}

func field(m *yaml.Node, key string) *yaml.Node {
	if m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}
