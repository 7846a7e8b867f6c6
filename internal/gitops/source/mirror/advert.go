package mirror

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// advertisement is what a server says of its refs.
type advertisement struct {
	head   string            // the branch that HEAD names, "" when it is detached or unborn
	headID string            // "" when it is unborn or was not asked for
	refs   map[string]string // full name → object id, tags unpeeled
}

// parseAdvertisement reads the output of `git ls-remote --symref`.
func parseAdvertisement(out []byte) (advertisement, error) {
	a := advertisement{refs: map[string]string{}}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	for lines.Scan() {
		left, name, ok := strings.Cut(lines.Text(), "\t")
		switch {
		case !ok:
			return a, fmt.Errorf("unexpected line %.80q", lines.Text())
		case strings.HasPrefix(left, "ref: "):
			if name == "HEAD" {
				a.head = strings.TrimPrefix(left, "ref: ")
			}
		case len(left) != 40 && len(left) != 64 || strings.Trim(left, "0123456789abcdef") != "":
			return a, fmt.Errorf("unexpected object id %.80q", left)
		case name == "HEAD":
			a.headID = left
		case strings.HasSuffix(name, "^{}") || !strings.HasPrefix(name, "refs/"):
		default:
			a.refs[name] = left
		}
	}
	return a, lines.Err()
}

// tags returns the short names of all tags.
func (a advertisement) tags() []string {
	var tags []string
	for name := range a.refs {
		if tag, ok := strings.CutPrefix(name, "refs/tags/"); ok {
			tags = append(tags, tag)
		}
	}
	return tags
}

// ref returns the ref that the revision means here, "" when there is none.
func (a advertisement) ref(rev source.Revision) string {
	if rev.IsHead() {
		return a.head
	}
	names, err := rev.Names(func() ([]string, error) { return a.tags(), nil })
	if err != nil {
		return ""
	}
	for _, name := range names {
		if _, ok := a.refs[name]; ok {
			return name
		}
	}
	return ""
}
