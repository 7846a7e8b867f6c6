package action

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Kind says where a `uses` points to.
type Kind int

// The kinds of `uses`.
const (
	Local      Kind = iota // ./path in the workspace
	Repository             // owner/repo[/path]@ref
	Image                  // docker://image
	Self                   // $/path: the repository and commit of the file that says it
)

// Reference is the text of a `uses`.
type Reference struct {
	Kind Kind
	Text string // as written
	Repo string // "owner/name"
	Rev  string // branch, tag or commit
	Path string // of the action's folder in the repository; "" for its root
	// Image is the reference without docker://.
	Image string
}

// Of is a Reference of kind Self, which a file of a repository at a revision
// says, as one of kind Repository.
func (r Reference) Of(repo, rev string) Reference {
	r.Kind, r.Repo, r.Rev = Repository, repo, rev
	return r
}

// Name is the repository and path without the revision: "owner/repo/path".
func (r Reference) Name() string { return path.Join(r.Repo, r.Path) }

const maxReference = 1000

var (
	ownerName = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})$`)
	repoName  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)
	revName   = regexp.MustCompile(`^[A-Za-z0-9_./+@#=,-]{1,255}$`)
	imageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,511}$`)
)

// Parse reads a `uses`. The error says what is wrong with it.
func Parse(uses string) (Reference, error) {
	r := Reference{Text: uses}
	if len(uses) > maxReference {
		return r, fmt.Errorf("`uses` has %d characters; at most %d are read", len(uses), maxReference)
	}
	switch {
	case strings.HasPrefix(uses, "docker://"):
		r.Kind, r.Image = Image, strings.TrimPrefix(uses, "docker://")
		if !imageName.MatchString(r.Image) {
			return r, fmt.Errorf("%q names no image; write docker://image:tag", uses)
		}
		return r, nil
	case strings.HasPrefix(uses, "./"), uses == ".", strings.HasPrefix(uses, `.\`):
		r.Kind, r.Path = Local, path.Clean(strings.ReplaceAll(uses, `\`, "/"))
		if r.Path == ".." || strings.HasPrefix(r.Path, "../") {
			return r, fmt.Errorf("%q leads out of the workspace", uses)
		}
		if !fs.ValidPath(r.Path) || strings.ContainsRune(r.Path, 0) {
			return r, fmt.Errorf("%q is no path in the workspace", uses)
		}
		return r, nil
	case strings.HasPrefix(uses, "$/"):
		r.Kind, r.Path = Self, strings.Trim(strings.TrimPrefix(uses, "$/"), "/")
		if r.Path != "" && !fs.ValidPath(r.Path) || strings.ContainsAny(r.Path, ":\x00\n\\") {
			return r, fmt.Errorf("%q is no path in the repository", uses)
		}
		return r, nil
	}
	return r, r.repository(uses)
}

func (r *Reference) repository(uses string) error {
	r.Kind = Repository
	name, rev, found := strings.Cut(uses, "@")
	if !found || rev == "" {
		return fmt.Errorf("%q names no version; write owner/repository@version", uses)
	}
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 2 || !ownerName.MatchString(parts[0]) || !repoName.MatchString(parts[1]) || parts[1] == "." || parts[1] == ".." {
		return fmt.Errorf("%q is no action; write owner/repository@version, ./path, $/path or docker://image", uses)
	}
	if !GoodRev(rev) {
		return fmt.Errorf("%q: %q cannot be the name of a branch, tag or commit", uses, rev)
	}
	r.Repo, r.Rev = parts[0]+"/"+parts[1], rev
	if len(parts) == 3 {
		r.Path = strings.Trim(parts[2], "/")
		if r.Path != "" && !fs.ValidPath(r.Path) || strings.ContainsAny(r.Path, ":\x00\n\\") {
			return fmt.Errorf("%q: %q is no path in a repository", uses, parts[2])
		}
	}
	return nil
}

// GoodRev reports whether the text can name a branch, tag or commit.
func GoodRev(rev string) bool {
	return revName.MatchString(rev) && !strings.HasPrefix(rev, "-") && !strings.HasPrefix(rev, "/") && !strings.Contains(rev, "..") &&
		!strings.Contains(rev, "@{") && !strings.Contains(rev, "//") && !strings.HasSuffix(rev, "/") && !strings.HasSuffix(rev, ".lock")
}

func equalFold(a, b string) bool { return strings.EqualFold(a, b) }
