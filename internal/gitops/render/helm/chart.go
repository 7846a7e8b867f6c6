package helm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/ignore"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const chartFile = "Chart.yaml"

const (
	maxFiles = 10000     // of one chart, subcharts included
	maxBytes = 128 << 20 // of all files of a chart, unpacked
)

// chartLoader reads charts out of a tree. It remembers where the content of each
// file came from by the address of its first byte: Helm copies and renames
// charts (aliases), but not the content.
type chartLoader struct {
	ctx      context.Context
	tree     *source.Tree
	dir      string           // of the chart
	places   map[*byte]string // content → path, for people
	lazy     map[*byte]string // placeholder → path of a file not read yet
	files    int
	bytes    int
	warnings []manifest.Warning
}

// find returns the folder that holds Chart.yaml.
func (l *chartLoader) find(dir string, unpacked bool) (string, error) {
	at := func(dir string) (bool, error) {
		_, kind, err := l.tree.Stat(l.ctx, path.Join(dir, chartFile))
		if err != nil {
			return false, &manifest.Error{File: path.Join(dir, chartFile), Message: err.Error(), Err: err}
		}
		return kind == source.File, nil
	}
	if ok, err := at(dir); ok || err != nil {
		return dir, err
	}
	missing := &manifest.Error{File: path.Join(dir, chartFile), Message: "there is no Chart.yaml, so this is not a Helm chart", Hint: "Check spec.source.path, or remove spec.source.helm."}
	if !unpacked {
		return "", missing
	}
	entries, err := l.tree.ReadDir(l.ctx, dir)
	if err != nil {
		return "", &manifest.Error{File: dir, Message: err.Error(), Err: err}
	}
	var dirs []string
	for _, e := range entries {
		if e.Dir {
			dirs = append(dirs, path.Join(dir, e.Name))
		}
	}
	if len(dirs) != 1 {
		return "", missing
	}
	ok, err := at(dirs[0])
	if err == nil && !ok {
		err = missing
	}
	return dirs[0], err
}

// chart loads the chart in dir.
func (l *chartLoader) chart(dir string) (*chart.Chart, error) {
	rules := ignore.Empty()
	data, err := l.tree.ReadFile(l.ctx, path.Join(dir, ignore.HelmIgnore))
	if err == nil {
		if rules, err = ignore.Parse(bytes.NewReader(data)); err != nil {
			return nil, &manifest.Error{File: path.Join(dir, ignore.HelmIgnore), Message: err.Error(), Err: err}
		}
	} else if !errors.Is(err, git.ErrNotFound) {
		return nil, l.failure(path.Join(dir, ignore.HelmIgnore), err)
	}
	rules.AddDefaults()
	files, err := l.walk(nil, dir, "", rules, nil)
	if err != nil {
		return nil, err
	}
	return l.build(dir, files)
}

func (l *chartLoader) failure(file string, err error) error {
	if ctxErr := l.ctx.Err(); ctxErr != nil {
		return fmt.Errorf("render %s: %w", file, ctxErr)
	}
	return &manifest.Error{File: file, Message: err.Error(), Err: err}
}

// build makes a chart of its files.
func (l *chartLoader) build(dir string, files []*archive.BufferedFile) (*chart.Chart, error) {
	names := make([]string, len(files)) // Helm renames the files of subcharts
	for i, f := range files {
		names[i] = f.Name
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		for i, f := range files {
			f.Name = names[i]
		}
		return nil, l.explainLoad(dir, files, err)
	}
	sortDependencies(c)
	return c, nil
}

// sortDependencies undoes the random order in which Helm finds subcharts.
func sortDependencies(c *chart.Chart) {
	deps := slices.Clone(c.Dependencies())
	slices.SortStableFunc(deps, func(a, b *chart.Chart) int {
		return strings.Compare(a.Name()+"\x00"+a.Metadata.Version, b.Name()+"\x00"+b.Metadata.Version)
	})
	c.SetDependencies(deps...)
	for _, d := range deps {
		sortDependencies(d)
	}
}

var packed = regexp.MustCompile(`^(charts/[^/]+/)*charts/[^/]+\.tgz$`)

// walk collects the files below dir/rel. above holds the real paths of the
// folders on the way, against links that lead back.
func (l *chartLoader) walk(files []*archive.BufferedFile, dir, rel string, rules *ignore.Rules, above []string) ([]*archive.BufferedFile, error) {
	at := path.Join(dir, rel)
	real, _, err := l.tree.Stat(l.ctx, at)
	if err != nil {
		return nil, l.failure(at, err)
	}
	if slices.Contains(above, real) {
		return nil, &manifest.Error{File: at, Message: "symbolic link leads back to a folder above it"}
	}
	above = append(slices.Clone(above), real)
	entries, err := l.tree.ReadDir(l.ctx, at)
	if err != nil {
		return nil, l.failure(at, err)
	}
	for _, e := range entries {
		name := path.Join(rel, e.Name)
		if rules.Ignore(name, info{e}) {
			continue
		}
		if e.Dir {
			if files, err = l.walk(files, dir, name, rules, above); err != nil {
				return nil, err
			}
			continue
		}
		if files, err = l.add(files, dir, name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func (l *chartLoader) add(files []*archive.BufferedFile, dir, name string) ([]*archive.BufferedFile, error) {
	at := path.Join(dir, name)
	if l.files++; l.files > maxFiles {
		return nil, &manifest.Error{File: dir, Message: fmt.Sprintf("the chart has more than %d files", maxFiles), Hint: "List what is no part of the chart in .helmignore."}
	}
	if !essential(name) {
		placeholder := []byte{0}
		l.lazy[&placeholder[0]] = at
		return append(files, &archive.BufferedFile{Name: name, Data: placeholder}), nil
	}
	data, err := l.tree.ReadFile(l.ctx, at)
	if errors.Is(err, git.ErrNotFound) { // a link to nowhere or a submodule
		return files, nil
	}
	if err != nil {
		return nil, l.failure(at, err)
	}
	if packed.MatchString(name) {
		inner, err := l.unpack(at, data)
		if err != nil {
			return nil, err
		}
		for _, f := range inner {
			f.Name = path.Join(strings.TrimSuffix(name, ".tgz")+"~", f.Name)
		}
		return append(files, inner...), nil
	}
	data, err = l.keep(at, data)
	return append(files, &archive.BufferedFile{Name: name, Data: data}), err
}

// keep counts the content of a file and remembers its path.
func (l *chartLoader) keep(at string, data []byte) ([]byte, error) {
	if l.bytes += len(data); l.bytes > maxBytes {
		return nil, &manifest.Error{File: at, Message: fmt.Sprintf("the chart is larger than %d MiB", maxBytes>>20)}
	}
	data = bytes.Clone(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if len(data) > 0 {
		l.places[&data[0]] = at
	}
	return data, nil
}

// unpack returns the files of a chart archive, without its top folder.
func (l *chartLoader) unpack(at string, data []byte) ([]*archive.BufferedFile, error) {
	files, err := archive.LoadArchiveFiles(bytes.NewReader(data))
	if err != nil {
		return nil, &manifest.Error{File: at, Message: "not a chart archive: " + err.Error(), Err: err}
	}
	for _, f := range files {
		if f.Data, err = l.keep(at+"/"+f.Name, f.Data); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// essential reports whether a file shapes the output without being asked for.
func essential(name string) bool {
	for {
		rest, ok := strings.CutPrefix(name, "charts/")
		if !ok {
			break
		}
		_, below, isDir := strings.Cut(rest, "/")
		if !isDir {
			return path.Ext(rest) != ".prov"
		}
		name = below
	}
	switch name {
	case chartFile, "Chart.lock", "values.yaml", "values.schema.json", "requirements.yaml", "requirements.lock":
		return true
	}
	return strings.HasPrefix(name, "templates/") || strings.HasPrefix(name, "crds/")
}

// place is the path of a template's or file's content.
func (l *chartLoader) place(data []byte, otherwise string) string {
	if len(data) > 0 {
		if at, ok := l.places[&data[0]]; ok {
			return at
		}
	}
	return otherwise
}

// info is what .helmignore rules want to know of a file.
type info struct{ source.Entry }

func (i info) Name() string       { return i.Entry.Name }
func (i info) IsDir() bool        { return i.Dir }
func (i info) Size() int64        { return 0 }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.Dir {
		return fs.ModeDir
	}
	return 0
}
