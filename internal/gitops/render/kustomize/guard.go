package kustomize

import (
	"bytes"
	"fmt"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// Kustomize fetches a remote path by itself when it meets one. The checker
// takes them out where people write them. What follows makes sure that none is
// left, however it is written: behind an anchor, an escape, or in the
// configuration of a plugin.

// guard refuses a checked kustomization that still names something remote.
func (f *treeFS) guard(file string, data []byte) error {
	if !mayBeRemote(data) {
		return nil
	}
	var k types.Kustomization
	if err := k.Unmarshal(data); err != nil {
		return nil // Kustomize says the same, and stops
	}
	paths := append(append(append(append([]string{}, k.Resources...), k.Bases...), k.Components...), k.Crds...) //nolint:staticcheck // the old field counts too
	paths = append(append(paths, k.Configurations...), k.OpenAPI["path"])
	for _, p := range append(append([]types.Patch{}, k.Patches...), k.PatchesJson6902...) { //nolint:staticcheck // see above
		paths = append(paths, p.Path)
	}
	for _, r := range k.Replacements {
		paths = append(paths, r.Path)
	}
	for _, g := range k.ConfigMapGenerator {
		paths = append(paths, sources(g.KvPairSources)...)
	}
	for _, g := range k.SecretGenerator {
		paths = append(paths, sources(g.KvPairSources)...)
	}
	for _, p := range k.PatchesStrategicMerge { //nolint:staticcheck // see above
		if !inline(string(p)) {
			paths = append(paths, string(p))
		}
	}
	for _, list := range [][]string{k.Generators, k.Transformers, k.Validators} {
		for _, p := range list {
			if !inline(p) {
				paths = append(paths, p)
			} else if err := f.guardPlugin(file, []byte(p)); err != nil {
				return err
			}
		}
	}
	for _, p := range paths {
		if remote(p) {
			return &manifest.Error{File: f.shown(file), Message: fmt.Sprintf("remote source %s is written so that it cannot be followed", p), Hint: "Write the address out in its place, without anchors."}
		}
	}
	return nil
}

func sources(s types.KvPairSources) []string {
	paths := append([]string{s.EnvSource}, s.EnvSources...)
	for _, p := range s.FileSources {
		if _, file, named := strings.Cut(p, "="); named {
			paths = append(paths, file)
		}
		paths = append(paths, p)
	}
	return paths
}

// guardPlugin refuses the configuration of a built-in plugin that names
// something remote.
func (f *treeFS) guardPlugin(file string, data []byte) error {
	if !bytes.Contains(data, []byte("builtin")) || !mayBeRemote(data) {
		return nil
	}
	for doc := range bytes.SplitSeq(data, []byte("\n---")) {
		var v map[string]any
		if err := k8syaml.Unmarshal(doc, &v); err != nil || v["apiVersion"] != "builtin" {
			continue
		}
		if p, found := remoteIn(v); found {
			return &manifest.Error{File: f.shown(file), Message: fmt.Sprintf("remote source %s in the configuration of a plugin is not fetched", p), Hint: "Use the field of the kustomization that does the same, or commit the file."}
		}
	}
	return nil
}

// remoteIn finds a remote path in the fields of a plugin that hold paths.
func remoteIn(v map[string]any) (string, bool) {
	for key, value := range v {
		switch strings.ToLower(key) {
		case "path", "paths", "files", "env", "envs", "targetfilepath", "repo", "valuesfile", "additionalvaluesfiles":
			for _, p := range texts(value) {
				if _, file, named := strings.Cut(p, "="); named && remote(file) || remote(p) {
					return p, true
				}
			}
		case "replacements":
			list, _ := value.([]any)
			for _, item := range list {
				if m, ok := item.(map[string]any); ok {
					if p, found := remoteIn(m); found {
						return p, true
					}
				}
			}
		}
	}
	return "", false
}

func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, item := range v {
			out = append(out, texts(item)...)
		}
		return out
	}
	return nil
}

// mayBeRemote is a cheap look for what every remote address has, or for
// escapes that could hide it.
func mayBeRemote(data []byte) bool {
	return bytes.ContainsAny(data, `@\`) || bytes.Contains(data, []byte("://")) || bytes.Contains(bytes.ToLower(data), []byte("github.com"))
}

// inline reports whether an entry is YAML rather than a path.
func inline(v string) bool {
	return strings.Contains(v, "\n") || strings.Contains(v, ": ") || strings.HasPrefix(strings.TrimSpace(v), "{")
}
