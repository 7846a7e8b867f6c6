package git

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
)

// maxBlob bounds what one read may bring into memory, in bytes.
const maxBlob = 64 << 20

// ErrTooLarge says that an object is larger than one read may bring into
// memory (64 MiB).
var ErrTooLarge = errors.New("object is larger than 64 MiB")

// Kind is the type of a Git object as git prints it.
type Kind string

// The object types.
const (
	KindBlob   Kind = "blob"
	KindTree   Kind = "tree"
	KindCommit Kind = "commit" // in a tree: a submodule
	KindTag    Kind = "tag"    // an annotated tag
)

// Entry is one entry of a tree.
type Entry struct {
	Name string // within its directory
	Path string // from the root of the repository, slash-separated
	Mode string // as in the tree, "100644", "100755", "120000", "040000", "160000"
	Kind Kind
	ID   string
}

// Symlink reports whether the entry is a symbolic link.
func (e Entry) Symlink() bool { return e.Mode == "120000" }

// Object is a stored object: its id, type and content.
type Object struct {
	ID   string
	Kind Kind
	Data []byte
}

// Object reads what spec names: an object id, or "commit:path". It returns
// ErrNotFound when there is none. A path of "" is the root tree.
func (r *Repository) Object(ctx context.Context, spec string) (Object, error) {
	o, _, err := r.ask(ctx, "contents", spec)
	return o, err
}

// Stat returns the id and type of what spec names, as Object, and its size in
// bytes, without reading the content.
func (r *Repository) Stat(ctx context.Context, spec string) (id string, kind Kind, size int64, err error) {
	o, size, err := r.ask(ctx, "info", spec)
	return o.ID, o.Kind, size, err
}

// ReadFile returns the content of the file at path in the given commit.
func (r *Repository) ReadFile(ctx context.Context, commit, file string) ([]byte, error) {
	spec, err := pathSpec(commit, file)
	if err != nil {
		return nil, err
	}
	o, err := r.Object(ctx, spec)
	if err != nil {
		return nil, err
	}
	if o.Kind != KindBlob {
		return nil, fmt.Errorf("%s is a %s, not a file: %w", file, o.Kind, ErrNotFound)
	}
	return o.Data, nil
}

// ReadDir lists the directory dir ("" for the root) of the given commit.
func (r *Repository) ReadDir(ctx context.Context, commit, dir string) ([]Entry, error) {
	spec, err := pathSpec(commit, dir)
	if err != nil {
		return nil, err
	}
	o, err := r.Object(ctx, spec)
	if err != nil {
		return nil, err
	}
	if o.Kind != KindTree {
		return nil, fmt.Errorf("%s is not a directory: %w", dir, ErrNotFound)
	}
	return ParseTree(o.Data, cleanPath(dir))
}

// ListTree lists everything below the directory dir ("" for the root) of the
// given commit, without the directories themselves, sorted by path. It returns
// ErrNotFound when dir is not a directory there.
func (r *Repository) ListTree(ctx context.Context, commit, dir string) ([]Entry, error) {
	spec, err := pathSpec(commit, dir)
	if err != nil {
		return nil, err
	}
	id, kind, _, err := r.Stat(ctx, spec)
	if err != nil {
		return nil, err
	}
	if kind != KindTree {
		return nil, fmt.Errorf("%s is not a directory: %w", dir, ErrNotFound)
	}
	out, err := run(ctx, r.dir, nil, "ls-tree", "-r", "-z", "--full-tree", id)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for line := range strings.SplitSeq(string(out), "\x00") {
		head, name, ok := strings.Cut(line, "\t")
		if !ok {
			continue
		}
		f := strings.Fields(head)
		if len(f) != 3 {
			return nil, fmt.Errorf("git ls-tree %s: unexpected answer %q", id, line)
		}
		entries = append(entries, Entry{
			Name: path.Base(name), Path: path.Join(cleanPath(dir), name),
			Mode: f[0], Kind: Kind(f[1]), ID: f[2],
		})
	}
	return entries, nil
}

// pathSpec names a path of a commit for git. A path that leaves the repository
// does not exist in it.
func pathSpec(commit, file string) (string, error) {
	clean := cleanPath(file)
	if strings.HasPrefix(file, "/") || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("path %q leaves the repository: %w", file, ErrNotFound)
	}
	return commit + ":" + clean, nil
}

// cleanPath is path.Clean with "" for the root.
func cleanPath(p string) string {
	if p = path.Clean(p); p == "." {
		return ""
	}
	return p
}

// ParseTree decodes a tree object (gitformat-tree) of the directory dir.
func ParseTree(data []byte, dir string) ([]Entry, error) {
	const idLen = 20
	damaged := fmt.Errorf("tree object of %q is damaged", dir)
	prefix := dir
	if prefix != "" {
		prefix += "/"
	}
	entries := make([]Entry, 0, len(data)/40)
	for len(data) > 0 {
		head, rest, ok := bytes.Cut(data, []byte{0})
		if !ok || len(rest) < idLen {
			return nil, damaged
		}
		mode, name, ok := strings.Cut(string(head), " ")
		if !ok || len(mode) < 5 || len(mode) > 6 || strings.Trim(mode, "01234567") != "" ||
			name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			return nil, damaged
		}
		if len(mode) == 5 {
			mode = "0" + mode
		}
		entries = append(entries, Entry{
			Name: name, Path: prefix + name, Mode: mode, Kind: kindOfMode(mode), ID: hex.EncodeToString(rest[:idLen]),
		})
		data = rest[idLen:]
	}
	return entries, nil
}

func kindOfMode(mode string) Kind {
	switch mode {
	case "040000":
		return KindTree
	case "160000":
		return KindCommit
	}
	return KindBlob
}
