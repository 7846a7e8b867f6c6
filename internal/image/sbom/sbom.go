// Package sbom finds out what is inside an image.
//
// Input: the file system of an image as one tar stream. Output: an [Inventory]
// of its operating system and packages, and the same as an SPDX 2.3 document.
//
// Invariants: what is listed was found in the image: package databases of
// Debian and Alpine, Go programs by their build information, installed modules
// of npm and Python. What cannot be read is a note in the document, never a
// silent gap. The same image gives the same bytes. Memory is bounded: programs
// are looked at through a temporary file.
//
// Start reading at [Scan], then spdx.go.
package sbom

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
)

// Bounds of one scan.
const (
	maxFiles    = 500_000
	maxDatabase = 64 << 20  // bytes of a package database
	maxMetadata = 1 << 20   // bytes of one package's description
	maxProgram  = 512 << 20 // bytes of a program that is looked at
	maxPackages = 100_000
)

// Package is one thing that somebody released under a name and version.
type Package struct {
	Type    string // of its package URL: deb, apk, golang, npm, pypi
	Name    string // for npm and golang with its namespace
	Version string
	Arch    string // "" where there is none
	License string // as its metadata says, "" when it does not
	Found   string // file of the image that says so
}

// PURL is the package URL, such as pkg:deb/debian/bash@5.2?arch=amd64.
func (p Package) PURL(distribution string) string {
	namespace, name := "", p.Name
	var qualifiers packageurl.Qualifiers
	switch p.Type {
	case "deb", "apk":
		namespace = distribution
		if p.Arch != "" {
			qualifiers = packageurl.QualifiersFromMap(map[string]string{"arch": p.Arch})
		}
	case "golang", "npm":
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			namespace, name = name[:i], name[i+1:]
		}
	}
	return packageurl.NewPackageURL(p.Type, namespace, name, p.Version, qualifiers, "").ToString()
}

// Inventory is what an image holds.
type Inventory struct {
	Distribution string // ID of os-release: "debian", "alpine", "" when there is none
	Release      string // VERSION_ID of os-release
	Packages     []Package
	Notes        []string // of what could not be read
}

// Scan reads the file system of an image, a tar stream, to its end. tmp is a
// folder for programs while they are looked at.
func Scan(ctx context.Context, files io.Reader, tmp string) (Inventory, error) {
	s := &scan{tmp: tmp, seen: map[Package]bool{}}
	in := tar.NewReader(files)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return Inventory{}, fmt.Errorf("look into the image: %w", err)
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Inventory{}, fmt.Errorf("look into the image: %w", err)
		}
		if n == maxFiles {
			s.note("the image has more than %d files: the rest was not looked at", maxFiles)
			break
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := s.file(strings.TrimPrefix(path.Clean("/"+h.Name), "/"), h, in); err != nil {
			return Inventory{}, fmt.Errorf("look into the image: %s: %w", h.Name, err)
		}
	}
	return s.result(), nil
}

// scan is one look at an image.
type scan struct {
	tmp      string
	out      Inventory
	packages []Package
	seen     map[Package]bool
}

func (s *scan) note(format string, args ...any) {
	if len(s.out.Notes) < 100 {
		s.out.Notes = append(s.out.Notes, fmt.Sprintf(format, args...))
	}
}

func (s *scan) add(found string, packages ...Package) {
	for _, p := range packages {
		if p.Name == "" || p.Version == "" {
			continue
		}
		key := p // the same package may be said to be there by several files
		p.Found = found
		if s.seen[key] {
			continue
		}
		if len(s.packages) == maxPackages {
			s.note("the image has more than %d packages: the rest is not listed", maxPackages)
			return
		}
		s.seen[key] = true
		s.packages = append(s.packages, p)
	}
}

// file looks at one regular file.
func (s *scan) file(name string, h *tar.Header, in io.Reader) error {
	base := path.Base(name)
	switch {
	case name == "etc/os-release" || name == "usr/lib/os-release":
		return s.text(name, h, in, maxMetadata, s.release)
	case name == "var/lib/dpkg/status" || path.Dir(name) == "var/lib/dpkg/status.d" && !strings.HasSuffix(base, ".md5sums"):
		return s.text(name, h, in, maxDatabase, debian)
	case name == "lib/apk/db/installed" || name == "usr/lib/apk/db/installed":
		return s.text(name, h, in, maxDatabase, alpine)
	case base == "package.json" && strings.Contains(name, "node_modules/"):
		return s.text(name, h, in, maxMetadata, npm)
	case base == "METADATA" && strings.HasSuffix(path.Dir(name), ".dist-info"), base == "PKG-INFO" && strings.HasSuffix(path.Dir(name), ".egg-info"):
		return s.text(name, h, in, maxMetadata, python)
	case h.FileInfo().Mode()&0o111 != 0:
		return s.program(name, h, in)
	}
	return nil
}

// text reads a small file whole and adds what read finds in it.
func (s *scan) text(name string, h *tar.Header, in io.Reader, most int64, read func([]byte) ([]Package, error)) error {
	if h.Size > most {
		s.note("/%s has %d bytes, %d are read: its packages are not listed", name, h.Size, most)
		return nil
	}
	content, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	packages, err := read(content)
	if err != nil {
		s.note("/%s: %v", name, err)
	}
	s.add("/"+name, packages...)
	return nil
}

// program looks for the build information of a Go program.
func (s *scan) program(name string, h *tar.Header, in io.Reader) error {
	magic := make([]byte, 4)
	if _, err := io.ReadFull(in, magic); err != nil || !bytes.Equal(magic, []byte("\x7fELF")) {
		return nil // too short, or a script
	}
	if h.Size > maxProgram {
		s.note("/%s has %d bytes, %d are looked at: its modules are not listed", name, h.Size, maxProgram)
		return nil
	}
	f, err := os.CreateTemp(s.tmp, "program-")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }()
	if _, err := io.Copy(f, io.MultiReader(bytes.NewReader(magic), in)); err != nil {
		return err
	}
	s.add("/"+name, modules(f)...)
	return nil
}

func (s *scan) release(content []byte) ([]Package, error) {
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			s.out.Distribution = strings.ToLower(value)
		case "VERSION_ID":
			s.out.Release = value
		}
	}
	return nil, nil
}

func (s *scan) result() Inventory {
	slices.SortFunc(s.packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Found, b.Found))
	})
	s.out.Packages = s.packages
	return s.out
}
