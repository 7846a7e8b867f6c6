package helm

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/gobwas/glob"
	"helm.sh/helm/v4/pkg/chart/common"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// files is .Files with everything read.
type files map[string][]byte

// GetBytes returns the content of a file, nothing when there is none.
func (f files) GetBytes(name string) []byte {
	if data, ok := f[name]; ok {
		return data
	}
	return []byte{}
}

// Get returns the content of a file, "" when there is none.
func (f files) Get(name string) string { return string(f[name]) }

// Glob returns the files that a pattern matches.
func (f files) Glob(pattern string) files {
	match := matcher(pattern)
	out := files{}
	for name, data := range f {
		if match.Match(name) {
			out[name] = data
		}
	}
	return out
}

func matcher(pattern string) glob.Glob {
	g, err := glob.Compile(pattern, '/')
	if err != nil {
		return glob.MustCompile("**")
	}
	return g
}

// AsConfig is the data of a ConfigMap: names without folders, and texts.
func (f files) AsConfig() (string, error) {
	data := map[string]string{}
	for _, name := range sortedNames(f) {
		data[path.Base(name)] = string(f[name])
	}
	return yamlText(data)
}

// AsSecrets is the data of a Secret: names without folders, and base64.
func (f files) AsSecrets() (string, error) {
	data := map[string]string{}
	for _, name := range sortedNames(f) {
		data[path.Base(name)] = base64.StdEncoding.EncodeToString(f[name])
	}
	return yamlText(data)
}

// Lines returns the lines of a file.
func (f files) Lines(name string) []string {
	if len(f[name]) == 0 {
		return []string{}
	}
	return strings.Split(strings.TrimSuffix(string(f[name]), "\n"), "\n")
}

func sortedNames(f files) []string {
	all := make(map[string]any, len(f))
	for name := range f {
		all[name] = nil
	}
	return sortedKeys(all)
}

// lazyFiles is .Files that reads what is asked for, so that only those files
// are inputs. It has the methods of files.
type lazyFiles struct {
	loader *chartLoader
	known  map[string][]byte // content or placeholder
}

func (l *lazyFiles) read(name string) ([]byte, error) {
	data, ok := l.known[name]
	if !ok {
		return []byte{}, nil
	}
	return l.loader.content(data)
}

// content returns what a file holds: data, unless it is a placeholder.
func (l *chartLoader) content(data []byte) ([]byte, error) {
	if len(data) != 1 {
		return data, nil
	}
	at, lazy := l.lazy[&data[0]]
	if !lazy {
		return data, nil
	}
	read, err := l.tree.ReadFile(l.ctx, at)
	if errors.Is(err, git.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	return l.keep(at, read)
}

func (l *lazyFiles) some(match func(string) bool) (files, error) {
	out := files{}
	for name := range l.known {
		if !match(name) {
			continue
		}
		data, err := l.read(name)
		if err != nil {
			return nil, err
		}
		out[name] = data
	}
	return out, nil
}

func (l *lazyFiles) all() (files, error) { return l.some(func(string) bool { return true }) }

func (l *lazyFiles) GetBytes(name string) ([]byte, error) { return l.read(name) }

func (l *lazyFiles) Get(name string) (string, error) {
	data, err := l.read(name)
	return string(data), err
}

func (l *lazyFiles) Glob(pattern string) (files, error) { return l.some(matcher(pattern).Match) }

func (l *lazyFiles) Lines(name string) ([]string, error) {
	data, err := l.read(name)
	return files{name: data}.Lines(name), err
}

func (l *lazyFiles) AsConfig() (string, error) {
	all, err := l.all()
	if err != nil {
		return "", err
	}
	return all.AsConfig()
}

func (l *lazyFiles) AsSecrets() (string, error) {
	all, err := l.all()
	if err != nil {
		return "", err
	}
	return all.AsSecrets()
}

// MarshalJSON is for templates that print everything they see.
func (l *lazyFiles) MarshalJSON() ([]byte, error) {
	all, err := l.all()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string][]byte(all))
}

// chartFiles is .Files of one chart.
func (x *run) chartFiles(from []*common.File) (any, error) {
	lazy := &lazyFiles{loader: x.loader, known: make(map[string][]byte, len(from))}
	for _, f := range from {
		lazy.known[f.Name] = f.Data
	}
	if x.files {
		return lazy.all()
	}
	return lazy, nil
}
