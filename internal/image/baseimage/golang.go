package baseimage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var versionPattern = regexp.MustCompile(`^go(([0-9]+)\.([0-9]+))(?:\.([0-9]+))?((?:rc|beta)[0-9]+)?$`)

// golangTags are the tags of library/golang that stand for a version of Go, as
// in the first line of GOROOT/VERSION. A pre-release has only its own.
func golangTags(version string) ([]string, error) {
	m := versionPattern.FindStringSubmatch(version)
	if m == nil {
		return nil, fmt.Errorf("%q is not a released version of Go", version)
	}
	if m[5] != "" {
		return []string{strings.TrimPrefix(version, "go")}, nil
	}
	tags := []string{strings.TrimPrefix(version, "go")}
	for _, t := range []string{m[1], m[2], "latest"} {
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return tags, nil
}

// golangImage is the toolchain at goroot on top of root.
func golangImage(goroot string, root rootfs) (product, error) {
	text, err := os.ReadFile(filepath.Join(goroot, "VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return product{}, fmt.Errorf("%s holds no Go toolchain (no file VERSION): install Go, or set GOROOT to it", goroot)
	}
	if err != nil {
		return product{}, err
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	tags, err := golangTags(version)
	if err != nil {
		return product{}, err
	}
	p := product{name: "golang"}
	for _, t := range tags {
		p.tags = append(p.tags, "docker.io/library/golang:"+t)
	}
	entries, err := toolchain(goroot)
	if err != nil {
		return product{}, err
	}
	p.key = root.key + keyOf(entries)
	p.make = func(scratch string) (v1.Image, error) {
		system, err := writeLayer(filepath.Join(scratch, "root.tar"), root.entries)
		if err != nil {
			return nil, err
		}
		golang, err := writeLayer(filepath.Join(scratch, "go.tar"), entries)
		if err != nil {
			return nil, err
		}
		return assemble(v1.Config{
			Env: []string{"PATH=/go/bin:/usr/local/go/bin:" + systemPath, "GOLANG_VERSION=" + strings.TrimPrefix(version, "go"),
				"GOTOOLCHAIN=local", "GOPATH=/go", "CGO_ENABLED=0"},
			WorkingDir: "/go", Cmd: []string{"sh"},
			Labels: labels("golang", version+" of this machine on busybox; no C compiler (CGO_ENABLED=0), no package manager, no tests and no source of the go command"),
		}, system, golang)
	}
	return p, nil
}

// toolchain lists what of a GOROOT a build needs, in order.
func toolchain(goroot string) ([]entry, error) {
	entries := []entry{
		{path: "go", mode: 0o1777, dir: true}, {path: "go/bin", mode: 0o1777, dir: true}, {path: "go/src", mode: 0o1777, dir: true},
		{path: "usr/local/go", mode: 0o755, dir: true},
	}
	for _, name := range []string{"LICENSE", "VERSION", "bin", "go.env", "lib", "pkg", "src"} {
		var err error
		entries, err = collect(entries, goroot, name, 0)
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// maxDepth bounds how deep a GOROOT is followed, symbolic links included.
const maxDepth = 20

// collect adds the file or directory at rel, if it is there and is needed.
func collect(entries []entry, goroot, rel string, depth int) ([]entry, error) {
	if !needed(rel) {
		return entries, nil
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: too many directories inside each other", filepath.Join(goroot, rel))
	}
	path := filepath.Join(goroot, rel)
	info, err := os.Stat(path) // follows links: Debian's GOROOT is made of them
	if errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	if err != nil {
		return nil, err
	}
	name := "usr/local/go/" + filepath.ToSlash(rel)
	if info.Mode().IsRegular() {
		return append(entries, entry{path: name, mode: int64(info.Mode().Perm() | 0o444), file: path, size: info.Size()}), nil
	}
	if !info.IsDir() {
		return entries, nil
	}
	entries = append(entries, entry{path: name, mode: 0o755, dir: true})
	children, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, err
	}
	for _, c := range children {
		if entries, err = collect(entries, goroot, filepath.Join(rel, c.Name()), depth+1); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// needed leaves out tests, race detector libraries (they need a C compiler)
// and the source of the go command itself.
func needed(rel string) bool {
	rel = filepath.ToSlash(rel)
	base := rel[strings.LastIndexByte(rel, '/')+1:]
	switch {
	case base == "testdata", strings.HasSuffix(rel, "_test.go"), base == ".git",
		rel == "src/cmd", rel == "pkg/obj", rel == "pkg/bootstrap", rel == "src/runtime/race",
		strings.HasSuffix(base, ".syso"):
		return false
	}
	return true
}
