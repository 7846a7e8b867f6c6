package generate

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const (
	maxListed = 200_000 // directories and files that one generation lists
	maxDepth  = 64
)

// directories returns those that a pattern matches and none excludes, in the
// order of a walk. Only directories on the way to a match are listed; those
// whose name begins with "." and symbolic links are left out.
func (t *tree) directories(ctx context.Context, patterns []v1alpha1.GitDirectory) ([]string, error) {
	var includes [][]string
	for i, p := range patterns {
		if _, err := path.Match(p.Path, ""); err != nil {
			return nil, fmt.Errorf("directories[%d]: the pattern %q is malformed", i, p.Path)
		}
		if !p.Exclude {
			includes = append(includes, strings.Split(p.Path, "/"))
		}
	}
	var out []string
	listed := 0
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		entries, err := t.ReadDir(ctx, dir)
		if err != nil {
			return err
		}
		if listed += len(entries); listed > maxListed {
			return fmt.Errorf("more than %d directories and files; use narrower patterns", maxListed)
		}
		for _, e := range entries {
			p := path.Join(dir, e.Name)
			if !e.Dir || strings.HasPrefix(e.Name, ".") || !leads(includes, p) || t.isLink(ctx, p) {
				continue
			}
			if wanted(patterns, p) {
				out = append(out, p)
			}
			if depth < maxDepth && leadsBelow(includes, p) {
				if err := walk(p, depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk("", 0); err != nil {
		return nil, err
	}
	return out, nil
}

func wanted(patterns []v1alpha1.GitDirectory, dir string) bool {
	in := false
	for _, p := range patterns {
		if ok, err := path.Match(p.Path, dir); err == nil && ok {
			if p.Exclude {
				return false
			}
			in = true
		}
	}
	return in
}

// leads reports whether a pattern matches the directory or something below it.
func leads(patterns [][]string, dir string) bool {
	parts := strings.Split(dir, "/")
	return slices.ContainsFunc(patterns, func(p []string) bool { return len(p) >= len(parts) && begins(p, parts) })
}

func leadsBelow(patterns [][]string, dir string) bool {
	parts := strings.Split(dir, "/")
	return slices.ContainsFunc(patterns, func(p []string) bool { return len(p) > len(parts) && begins(p, parts) })
}

func begins(pattern, parts []string) bool {
	for i, name := range parts {
		if ok, err := path.Match(pattern[i], name); err != nil || !ok {
			return false
		}
	}
	return true
}

// isLink reports whether the last component of an existing path is a symbolic
// link.
func (t *tree) isLink(ctx context.Context, p string) bool {
	real, _, err := t.Stat(ctx, p)
	return err != nil || real != p
}

// match returns the files that a pattern matches. Without strict it is read as
// git ls-files reads it: "*" also matches "/", and the name of a directory
// matches everything in it. With strict it is as doublestar has it.
func (t *tree) match(ctx context.Context, pattern string, strict bool) ([]string, error) {
	if strings.HasPrefix(pattern, ":") || path.IsAbs(pattern) {
		return nil, fmt.Errorf("a pattern must be relative to the root of the repository, without Git's pathspec magic")
	}
	matches, err := matcher(pattern, strict)
	if err != nil {
		return nil, err
	}
	root := pattern
	if i := strings.IndexAny(pattern, `*?[\{`); i >= 0 {
		root = pattern[:i]
		root = root[:strings.LastIndexByte(root, '/')+1]
	}
	root = strings.Trim(path.Clean("/"+root), "/")
	real, kind, err := t.Stat(ctx, root)
	switch {
	case err != nil:
		return nil, err
	case kind == source.Absent || real != root && root != "":
		return nil, nil
	case kind == source.File:
		return []string{root}, nil
	}
	all, err := t.below(ctx, root)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range all {
		if matches(f) {
			out = append(out, f)
		}
	}
	return out, nil
}

func matcher(pattern string, strict bool) (func(string) bool, error) {
	if strict {
		if !doublestar.ValidatePattern(pattern) {
			return nil, fmt.Errorf("the pattern is malformed")
		}
		return func(f string) bool { return doublestar.MatchUnvalidated(pattern, f) }, nil
	}
	if !strings.ContainsAny(pattern, `*?[\`) {
		dir := strings.TrimSuffix(path.Clean(pattern), "/") + "/"
		return func(f string) bool { return pattern == "." || f == pattern || strings.HasPrefix(f, dir) }, nil
	}
	re, err := wildmatch(pattern)
	if err != nil {
		return nil, err
	}
	return re.MatchString, nil
}

// wildmatch is a pattern of Git without WM_PATHNAME.
func wildmatch(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		case '\\':
			if i++; i == len(pattern) {
				return nil, fmt.Errorf("the pattern ends in a backslash")
			}
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		case '[':
			end := strings.IndexByte(pattern[min(i+2, len(pattern)):], ']')
			if end < 0 {
				return nil, fmt.Errorf("the pattern has a [ without ]")
			}
			set := pattern[i+1 : i+2+end]
			negated := set[0] == '!' || set[0] == '^'
			if negated {
				set = set[1:]
			}
			b.WriteByte('[')
			if negated {
				b.WriteByte('^')
			}
			b.WriteString(strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `^`, `\^`).Replace(set))
			b.WriteByte(']')
			i += 2 + end
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("the pattern is malformed: %w", err)
	}
	return re, nil
}

// below lists all files in a directory and deeper, in the order of a walk.
func (t *tree) below(ctx context.Context, root string) ([]string, error) {
	if files, ok := t.files[root]; ok {
		return files, nil
	}
	files := []string{}
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		entries, err := t.ReadDir(ctx, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			p := path.Join(dir, e.Name)
			if !e.Dir {
				files = append(files, p)
			} else if depth < maxDepth && !t.isLink(ctx, p) {
				if err := walk(p, depth+1); err != nil {
					return err
				}
			}
			if len(files) > maxListed {
				return fmt.Errorf("more than %d files below %q; use a narrower pattern", maxListed, root)
			}
		}
		return nil
	}
	if err := walk(root, 0); err != nil {
		return nil, err
	}
	t.files[root] = files
	return files, nil
}
