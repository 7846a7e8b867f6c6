package builtin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// tree is a part of the job's files that can be read from outside of it.
type tree struct {
	root *os.Root
	at   string // where the job sees root
}

// match is a file that a pattern found.
type match struct {
	tree tree
	name string // within the tree
	abs  string // as the job sees it
}

// globbed is the result of patterns.
type globbed struct {
	files    []match
	searched []string // the fixed part of each pattern
	close    func()
}

// maxFiles bounds what one set of patterns may find.
const maxFiles = 500_000

// glob finds files as @actions/glob does: one pattern per line, `!` excludes,
// a directory means everything in it. hidden says whether names with a dot in
// front count.
func (c *Call) glob(ctx context.Context, patterns []string, hidden bool) (g globbed, err error) {
	var open []*os.Root
	g.close = func() {
		for _, r := range open {
			_ = r.Close()
		}
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	var wanted, refused []string
	for _, p := range patterns {
		if p = strings.TrimSpace(p); p == "" || strings.HasPrefix(p, "#") {
			continue
		}
		p, negated := strings.CutPrefix(p, "!")
		p = c.inJob(strings.TrimSpace(p))
		if !doublestar.ValidatePattern(p) {
			return g, c.errorf("", "%q is no pattern", p)
		}
		if negated {
			refused = append(refused, p)
		} else {
			wanted = append(wanted, p)
		}
	}
	seen := map[string]bool{}
	for _, pattern := range wanted {
		start := fixedPart(pattern)
		g.searched = append(g.searched, start)
		t, opened, err := c.treeOf(ctx, start)
		if err != nil {
			return g, err
		}
		if opened {
			open = append(open, t.root)
		}
		if t.root == nil {
			continue // there is no such place
		}
		if err := g.walk(ctx, t, start, pattern, refused, hidden, seen); err != nil {
			return g, fmt.Errorf("look for %s: %w", pattern, err)
		}
	}
	slices.SortFunc(g.files, func(a, b match) int { return strings.Compare(a.abs, b.abs) })
	return g, nil
}

// walk adds the files below start that pattern means.
func (g *globbed) walk(ctx context.Context, t tree, start, pattern string, refused []string, hidden bool, seen map[string]bool) error {
	rel := strings.TrimPrefix(strings.TrimPrefix(start, t.at), "/")
	if rel == "" {
		rel = "."
	}
	err := fs.WalkDir(t.root.FS(), rel, func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !hidden && name != "." && strings.HasPrefix(path.Base(name), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			// A link to a file within the tree counts as that file.
			if fi, err := t.root.Stat(name); err != nil || !fi.Mode().IsRegular() {
				return nil
			}
		}
		abs := path.Join(t.at, name)
		if seen[abs] || !means(pattern, abs) || slices.ContainsFunc(refused, func(p string) bool { return means(p, abs) }) {
			return nil
		}
		if len(g.files) >= maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		seen[abs] = true
		g.files = append(g.files, match{t, name, abs})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// means reports whether a pattern names a file or a directory above it.
func means(pattern, file string) bool {
	return doublestar.MatchUnvalidated(pattern, file) || doublestar.MatchUnvalidated(pattern+"/**", file)
}

// fixedPart is a pattern up to the first part that is one.
func fixedPart(pattern string) string {
	if !strings.ContainsAny(pattern, `*?[{\`) {
		return pattern
	}
	var parts []string
	for part := range strings.SplitSeq(pattern, "/") {
		if strings.ContainsAny(part, `*?[{\`) {
			break
		}
		parts = append(parts, part)
	}
	if out := strings.Join(parts, "/"); out != "" {
		return out
	}
	return "/"
}

// treeOf finds the tree that holds a path of the job. What is neither in the
// workspace nor in RUNNER_TEMP is copied to where it can be read; then opened
// is true and the caller closes it. root is nil when there is no such path.
func (c *Call) treeOf(ctx context.Context, abs string) (t tree, opened bool, err error) {
	for _, t := range []tree{{c.Job.Files, c.Job.Workspace}, {c.Job.Temp, c.Job.TempPath}} {
		if abs == t.at || strings.HasPrefix(abs, t.at+"/") {
			return t, false, nil
		}
	}
	if abs == "/" || abs == c.Job.HomePath {
		return t, false, c.errorf("name the folder that is meant", "%s as a whole cannot be read", abs)
	}
	const dir = "_lockstep/copies"
	if err := c.Job.Temp.MkdirAll(dir, 0o755); err != nil {
		return t, false, err
	}
	// The copy keeps the last part of the name, so that a file is found too.
	const copyOut = `[ -e "$1" ] || exit 44
d=$(mktemp -d "$2/XXXXXX") && cp -RL -- "$1" "$d/" && printf '%s' "${d##*/}"`
	var out strings.Builder
	code, err := c.Job.Exec(ctx, c.Job.Workspace, c.Env, []string{"sh", "-c", copyOut, "sh", abs, path.Join(c.Job.TempPath, dir)}, &out)
	if err != nil {
		return t, false, err
	}
	switch code {
	case 0:
	case 44:
		return t, false, nil
	default:
		return t, false, fmt.Errorf("copy %s: %s", abs, strings.TrimSpace(out.String()))
	}
	root, err := c.Job.Temp.OpenRoot(path.Join(dir, path.Base(strings.TrimSpace(out.String()))))
	if err != nil {
		return t, false, err
	}
	return tree{root, path.Dir(abs)}, true, nil
}

// commonRoot is the folder that names in an archive are relative to.
func (g globbed) commonRoot() string {
	if len(g.files) == 1 && len(g.searched) == 1 && g.files[0].abs == g.searched[0] {
		return path.Dir(g.searched[0])
	}
	if len(g.searched) == 0 {
		return "/"
	}
	common := strings.Split(g.searched[0], "/")
	for _, s := range g.searched[1:] {
		parts := strings.Split(s, "/")
		n := 0
		for n < len(common) && n < len(parts) && common[n] == parts[n] {
			n++
		}
		common = common[:n]
	}
	root := strings.Join(common, "/")
	for _, f := range g.files { // a file itself is no folder
		if f.abs == root {
			root = path.Dir(root)
		}
	}
	if root == "" {
		return "/"
	}
	return root
}
