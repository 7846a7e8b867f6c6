package source

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

var (
	fullSHA  = regexp.MustCompile(`^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$`)
	shortSHA = regexp.MustCompile(`^[0-9a-fA-F]{7,}$`)
)

// Revision is what the source of an Application says about the commit or
// version that it wants.
type Revision struct {
	Target    string // branch, tag, SHA, HEAD ("" too), a full ref name, or a constraint
	TagPrefix string // only tags that start so are versions; the rest of the tag is the version
}

// IsSHA reports whether the revision is a full commit id, which never moves.
func (r Revision) IsSHA() bool { return fullSHA.MatchString(r.Target) }

// IsShort reports whether the revision may be the first digits of a commit id.
func (r Revision) IsShort() bool { return shortSHA.MatchString(r.Target) }

// IsHead reports whether the revision is the default branch.
func (r Revision) IsHead() bool { return r.Target == "" || r.Target == "HEAD" }

// Constraint returns the constraint on versions that the revision is. "1.2.3",
// "v1.0" and "1.0" are versions, not constraints.
func (r Revision) Constraint() (*semver.Constraints, bool) {
	if r.IsHead() || strings.HasPrefix(r.Target, "refs/") {
		return nil, false
	}
	if _, err := semver.NewVersion(r.Target); err == nil {
		return nil, false
	}
	c, err := semver.NewConstraint(r.Target)
	return c, err == nil
}

// Newest returns the tag of the highest version among tags that the constraint
// allows, "" when there is none. Among equal versions the first one wins.
func (r Revision) Newest(tags []string) string {
	c, ok := r.Constraint()
	if !ok {
		return ""
	}
	best, tag := (*semver.Version)(nil), ""
	for _, name := range tags {
		version, ok := strings.CutPrefix(name, r.TagPrefix)
		if !ok {
			continue
		}
		v, err := semver.NewVersion(version)
		if err == nil && c.Check(v) && (best == nil || v.GreaterThan(best)) {
			best, tag = v, name
		}
	}
	return tag
}

// Names returns the full names of the refs that the revision can mean, the one
// that wins first. A branch wins over a tag of its name. tags are the short
// names of the repository's tags, asked for when the revision is a constraint
// or has a prefix.
func (r Revision) Names(tags func() ([]string, error)) ([]string, error) {
	target := r.Target
	switch {
	case r.IsHead() || r.IsSHA():
		return nil, nil
	case strings.HasPrefix(target, "refs/"):
		return refNames(target), nil
	}
	if _, constraint := r.Constraint(); constraint {
		all, err := tags()
		if err != nil {
			return nil, err
		}
		if tag := r.Newest(all); tag != "" {
			return []string{"refs/tags/" + tag}, nil
		}
	} else if r.TagPrefix != "" {
		if _, err := semver.NewVersion(target); err == nil {
			target = r.TagPrefix + target
		} else {
			all, err := tags()
			if err != nil {
				return nil, err
			}
			for _, tag := range all {
				if tag == r.TagPrefix+target {
					target = tag
					break
				}
			}
		}
	}
	return refNames("refs/heads/"+target, "refs/tags/"+target, "refs/"+target), nil
}

// refNames returns what can be names of refs: the others git would take for
// expressions.
func refNames(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return strings.ContainsAny(name, "~^:?*[\\ ") || strings.Contains(name, "..") || strings.Contains(name, "@{")
	})
}

// Resolve returns the commit that targetRevision names: a branch, tag, SHA (7
// digits or more), HEAD (which "" means too), a full ref name, or a constraint
// on the versions that tags are.
func Resolve(ctx context.Context, repo *git.Repository, targetRevision string) (string, error) {
	return Revision{Target: targetRevision}.Resolve(ctx, repo)
}

// Resolve returns the commit that the revision names in repo, or an error that
// is git.ErrNotFound. Only constraints and prefixes make it list the tags.
func (r Revision) Resolve(ctx context.Context, repo *git.Repository) (string, error) {
	fail := func(err error) (string, error) {
		if errors.Is(err, git.ErrNotFound) {
			return "", r.NotFound()
		}
		return "", fmt.Errorf("targetRevision %s: %w", r.Target, err)
	}
	names, err := r.Names(func() ([]string, error) { return Tags(ctx, repo) })
	if err != nil {
		return fail(err)
	}
	switch {
	case r.IsHead():
		names = []string{"HEAD"}
	case r.IsSHA():
		names = []string{r.Target}
	case r.IsShort():
		names = append(names, r.Target)
	}
	for _, name := range names {
		id, err := repo.Resolve(ctx, name)
		if errors.Is(err, git.ErrNotFound) {
			continue
		}
		if err != nil {
			return fail(err)
		}
		return id, nil
	}
	return fail(git.ErrNotFound)
}

// NotFound is the error of a revision that names nothing.
func (r Revision) NotFound() error {
	what := "is no branch, tag or commit of the repository"
	if _, ok := r.Constraint(); ok {
		what = "is satisfied by no tag of the repository"
		if r.TagPrefix != "" {
			what = fmt.Sprintf("is satisfied by no tag that starts with %q", r.TagPrefix)
		}
	} else if r.IsHead() {
		return fmt.Errorf("targetRevision HEAD: the repository has no commit on its default branch: %w", git.ErrNotFound)
	}
	return fmt.Errorf("targetRevision %s %s: %w", r.Target, what, git.ErrNotFound)
}

// Tags returns the short names of the repository's tags, sorted.
func Tags(ctx context.Context, repo *git.Repository) ([]string, error) {
	out, err := repo.Run(ctx, "for-each-ref", "--format=%(refname)", "refs/tags/")
	if err != nil {
		return nil, err
	}
	var tags []string
	for line := range strings.Lines(string(out)) {
		tags = append(tags, strings.TrimPrefix(strings.TrimSpace(line), "refs/tags/"))
	}
	return tags, nil
}

// Tracks reports whether a push to ref (full name) can move targetRevision.
// head is the branch that HEAD names, "refs/heads/main".
func Tracks(targetRevision, ref, head string) bool {
	return Revision{Target: targetRevision}.Tracks(ref, head)
}

// Tracks is like the function of that name, and honours the prefix.
func (r Revision) Tracks(ref, head string) bool {
	if r.IsHead() {
		return head == "" || ref == head || ref == "HEAD"
	}
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		if _, constraint := r.Constraint(); constraint {
			return strings.HasPrefix(tag, r.TagPrefix)
		}
		if r.TagPrefix != "" && tag == r.TagPrefix+r.Target {
			return true
		}
	}
	return ref == r.Target || ref == "refs/heads/"+r.Target || ref == "refs/tags/"+r.Target || ref == "refs/"+r.Target
}
