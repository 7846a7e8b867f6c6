package generate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	k8sjson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

type treeKey struct{ project, repoURL, revision string }

// tree is one commit with what was listed of it.
type tree struct {
	*source.Tree
	err   error
	files map[string][]string // below a directory
}

// treeAt opens a repository once in a generation.
func (r *run) treeAt(ctx context.Context, repoURL, revision string) (*tree, error) {
	key := treeKey{r.project(), repoURL, revision}
	t := r.trees[key]
	if t == nil {
		t = &tree{files: map[string][]string{}}
		t.Tree, t.err = r.Repositories.Tree(ctx, key.project, repoURL, revision)
		r.trees[key] = t
	}
	if t.err != nil {
		return nil, fmt.Errorf("repository %s at %q: %w", repoURL, revision, t.err)
	}
	return t, nil
}

// project is whose rights repositories are read with: none in particular when
// the template decides on the project.
func (r *run) project() string {
	spec, _ := r.set.Spec.Template["spec"].(map[string]any)
	project, _ := spec["project"].(string)
	if strings.Contains(project, "{{") {
		return ""
	}
	return project
}

func (r *run) git(ctx context.Context, g *v1alpha1.GitGenerator, parent map[string]any) ([]map[string]any, error) {
	switch {
	case g.RepoURL == "":
		return nil, errors.New("repoURL is missing")
	case len(g.Directories) == 0 && len(g.Files) == 0:
		return nil, errors.New("names neither directories nor files")
	}
	t, err := r.treeAt(ctx, g.RepoURL, g.Revision)
	if err != nil {
		return nil, err
	}
	if len(g.Directories) > 0 {
		return r.gitDirectories(ctx, t, g, parent)
	}
	return r.gitFiles(ctx, t, g, parent)
}

func (r *run) gitDirectories(ctx context.Context, t *tree, g *v1alpha1.GitGenerator, parent map[string]any) ([]map[string]any, error) {
	dirs, err := t.directories(ctx, g.Directories)
	if err != nil {
		return nil, err
	}
	sets := make([]map[string]any, 0, len(dirs))
	for _, dir := range dirs {
		set := map[string]any{}
		r.addPath(set, g.PathParamPrefix, dir, "")
		if err := r.addValues(g.Values, set, parent); err != nil {
			return nil, fmt.Errorf("directory %s: %w", dir, err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

func (r *run) gitFiles(ctx context.Context, t *tree, g *v1alpha1.GitGenerator, parent map[string]any) ([]map[string]any, error) {
	found := map[string]bool{}
	for _, exclude := range []bool{false, true} {
		for _, f := range g.Files {
			if f.Exclude != exclude {
				continue
			}
			names, err := t.match(ctx, f.Path, r.StrictFileGlobs)
			if err != nil {
				return nil, fmt.Errorf("files %q: %w", f.Path, err)
			}
			for _, name := range names {
				found[name] = !exclude
			}
		}
	}
	maps.DeleteFunc(found, func(_ string, in bool) bool { return !in })
	if len(found) > maxFiles {
		return nil, fmt.Errorf("%d files match; at most %d are read", len(found), maxFiles)
	}
	sets := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		data, err := t.ReadFile(ctx, name)
		if err != nil {
			return nil, err
		}
		objects, err := r.objectsOf(data)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", name, err)
		}
		for _, set := range objects {
			r.addPath(set, g.PathParamPrefix, path.Dir(name), path.Base(name))
			if err := r.addValues(g.Values, set, parent); err != nil {
				return nil, fmt.Errorf("file %s: %w", name, err)
			}
			sets = append(sets, set)
		}
	}
	return sets, nil
}

// objectsOf reads a map or a list of maps in YAML or JSON; an empty file is one
// empty map.
func (r *run) objectsOf(data []byte) ([]map[string]any, error) {
	raw, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, fmt.Errorf("is neither YAML nor JSON: %w", err)
	}
	var v any
	if r.engine.Go() {
		err = json.Unmarshal(raw, &v) // numbers as Argo CD gives them to templates
	} else {
		err = k8sjson.Unmarshal(raw, &v) // whole numbers with all their digits
	}
	if err != nil {
		return nil, fmt.Errorf("is neither YAML nor JSON: %w", err)
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	out := make([]map[string]any, 0, len(list))
	for i, item := range list {
		m, ok := item.(map[string]any)
		if !ok && item != nil {
			return nil, fmt.Errorf("holds neither a map nor a list of maps (item %d is %T)", i+1, item)
		}
		set := make(map[string]any, len(m)+2)
		if r.engine.Go() {
			maps.Copy(set, m)
		} else {
			flatten("", orEmpty(m), set)
		}
		out = append(out, set)
	}
	return out, nil
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// addPath adds the parameters of a directory, or of a file in one.
func (r *run) addPath(set map[string]any, prefix, dir, file string) {
	base := path.Base(dir)
	segments := strings.Split(dir, "/")
	if r.engine.Go() {
		list := make([]any, len(segments))
		for i, s := range segments {
			list[i] = s
		}
		p := map[string]any{"path": dir, "basename": base, "basenameNormalized": template.Normalize(base), "segments": list}
		if file != "" {
			p["filename"], p["filenameNormalized"] = file, template.Normalize(file)
		}
		if prefix == "" {
			set["path"] = p
		} else {
			set[prefix] = map[string]any{"path": p}
		}
		return
	}
	name := "path"
	if prefix != "" {
		name = prefix + ".path"
	}
	set[name], set[name+".basename"], set[name+".basenameNormalized"] = dir, base, template.Normalize(base)
	if file != "" {
		set[name+".filename"], set[name+".filenameNormalized"] = file, template.Normalize(file)
	}
	for i, s := range segments {
		if s != "" {
			set[name+"["+strconv.Itoa(i)+"]"] = s
		}
	}
}
