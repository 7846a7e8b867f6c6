package kustomize

import (
	"errors"
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
	// folderLists are those whose entries may be folders and repositories.
	folderLists = []string{"resources", "bases", "components", "generators", "transformers", "validators"}
)

// errSchema says that a build must have Kustomize's global schema for itself.
var errSchema = errors.New("the kustomization brings an OpenAPI schema")

// check looks at every path in a kustomization before Kustomize does, because
// Kustomize would fetch what it does not find, and its own errors name
// neither file nor line. It returns what Kustomize is to read instead of data,
// where remote sources and charts are files and folders.
func (f *treeFS) check(file string, data []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		if _, _, perr := manifest.Parse(f.shown(file), data); perr != nil {
			return nil, perr
		}
		return nil, &manifest.Error{File: f.shown(file), Message: err.Error(), Err: err}
	}
	if len(doc.Content) == 0 {
		return nil, &manifest.Error{File: f.shown(file), Line: 1, Message: "the kustomization is empty", Hint: "List the manifests under resources."}
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, &manifest.Error{File: f.shown(file), Line: root.Line, Message: "a kustomization is a mapping", Hint: "Start with `resources:`."}
	}
	c := checker{treeFS: f, file: file, root: root}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if err := c.field(canonical(root.Content[i].Value), root.Content[i], root.Content[i+1]); err != nil {
			return nil, err
		}
	}
	if err := c.charts(); err != nil {
		return nil, err
	}
	if c.changed {
		var err error
		if data, err = yaml.Marshal(&doc); err != nil {
			return nil, &manifest.Error{File: f.shown(file), Message: err.Error(), Err: err}
		}
	}
	return data, f.guard(file, data)
}

// canonical is the name of a field as it is documented: Kustomize does not
// look at the case.
func canonical(key string) string {
	for _, known := range slices.Concat(inlineOrPath, pathLists, pathFields, generatorMap, []string{"openapi", "helmChartInflationGenerator"}) {
		if strings.EqualFold(known, key) {
			return known
		}
	}
	return key
}

// checker goes through one kustomization.
type checker struct {
	*treeFS
	file    string
	root    *yaml.Node
	changed bool
}

func (c *checker) bad(line int, hint, format string, args ...any) error {
	return &manifest.Error{File: c.shown(c.file), Line: line, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func (c *checker) field(key string, at, value *yaml.Node) error {
	switch {
	case key == "helmChartInflationGenerator":
		return c.bad(at.Line, "Use helmCharts.", "helmChartInflationGenerator was removed from Kustomize")
	case slices.Contains(pathLists, key):
		return c.paths(key, value.Content)
	case slices.Contains(inlineOrPath, key):
		var paths []*yaml.Node
		for _, n := range value.Content {
			if n.Kind != yaml.ScalarNode || !inline(n.Value) {
				paths = append(paths, n)
			}
		}
		return c.paths(key, paths)
	case slices.Contains(pathFields, key):
		for _, item := range value.Content {
			if p := field(item, "path"); p != nil {
				if err := c.paths(key, []*yaml.Node{p}); err != nil {
					return err
				}
			}
		}
	case key == "openapi":
		if !c.exclusive {
			return errSchema
		}
		if p := field(value, "path"); p != nil {
			return c.paths(key, []*yaml.Node{p})
		}
	case slices.Contains(generatorMap, key):
		for _, item := range value.Content {
			if err := c.generator(key, item); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) generator(key string, item *yaml.Node) error {
	var paths []*yaml.Node
	if n := field(item, "env"); n != nil {
		paths = append(paths, n)
	}
	if n := field(item, "envs"); n != nil {
		paths = append(paths, n.Content...)
	}
	if n := field(item, "files"); n != nil {
		for _, entry := range n.Content {
			name, p, named := strings.Cut(entry.Value, "=")
			if !named || remote(entry.Value) && !remote(p) { // a "=" may be part of an address
				paths = append(paths, entry)
				continue
			}
			copied := *entry
			copied.Value = p
			if err := c.paths(key, []*yaml.Node{&copied}); err != nil {
				return err
			}
			entry.Value = name + "=" + copied.Value
		}
	}
	return c.paths(key, paths)
}

// paths checks entries that are paths, and puts the place of what is fetched
// in the stead of remote ones.
func (c *checker) paths(key string, nodes []*yaml.Node) error {
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode || n.Value == "" {
			return c.bad(n.Line, "", "%s has an entry that is not a path", key)
		}
		if strings.Contains(n.Value, mountName) {
			return c.bad(n.Line, "", "%s: %s: the name %s is taken", key, n.Value, mountName)
		}
		if remote(n.Value) {
			to, err := c.mountRemote(c.file, key, n)
			if err != nil {
				return err
			}
			n.Value, n.Tag, n.Style, c.changed = to, "!!str", yaml.DoubleQuotedStyle, true
			continue
		}
		if strings.HasPrefix(n.Value, "/") {
			return c.bad(n.Line, "Write the path relative to the kustomization.", "%s: %s is an absolute path", key, n.Value)
		}
		if err := c.path(key, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) path(key string, n *yaml.Node) error {
	tree, dir, at := c.located(path.Dir(c.file))
	p := strings.TrimPrefix(dir+"/"+n.Value, "/") // not cleaned: ".." comes after links
	if at != "" && !within(dir, n.Value) {
		return c.bad(n.Line, "", "%s: %s %s", key, n.Value, source.ErrEscapes)
	}
	_, kind, err := tree.Stat(c.ctx, p)
	if err != nil {
		return &manifest.Error{File: c.shown(c.file), Line: n.Line, Message: fmt.Sprintf("%s: %v", key, err), Err: err}
	}
	if kind == source.Absent {
		return c.bad(n.Line, c.near(tree, p), "%s: %s does not exist in this commit", key, n.Value)
	}
	if at == "" {
		c.named = append(c.named, p)
	}
	if kind == source.Dir && !slices.Contains(folderLists, key) {
		return c.bad(n.Line, "Name a file.", "%s: %s is a directory", key, n.Value)
	}
	return nil
}

// within reports whether p, relative to dir, stays below the root.
func within(dir, p string) bool {
	return !strings.HasPrefix(path.Join(".", dir, p)+"/", "../")
}

// near names the files that do exist where p was expected.
func (f *treeFS) near(tree *source.Tree, p string) string {
	entries, err := tree.ReadDir(f.ctx, path.Dir(p))
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

func field(m *yaml.Node, key string) *yaml.Node {
	if m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if strings.EqualFold(m.Content[i].Value, key) {
			return m.Content[i+1]
		}
	}
	return nil
}
