// Package trigger decides which events start a workflow.
//
// Input: the triggers of a workflow (package syntax) and a push or a dispatch.
// Output: a [Decision] with its reason, or the values of the inputs.
//
// Invariants: pure; every refusal says which filter refused.
//
// Start reading at [MatchPush].
package trigger

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Push is what a push event says.
type Push struct {
	Ref     string // full ref name
	Message string // of the head commit
	Paths   []string
}

// Decision says whether a workflow starts, and why not.
type Decision struct {
	Start  bool
	Reason string
	Line   int // of the trigger in the file
}

// MatchPush decides for one workflow. The paths of a tag are not looked at.
func MatchPush(w *syntax.Workflow, p Push) (Decision, error) {
	e := w.Event("push")
	if e == nil {
		return Decision{Reason: "the workflow has no push trigger"}, nil
	}
	no := func(format string, args ...any) (Decision, error) {
		return Decision{Reason: fmt.Sprintf(format, args...), Line: e.Line}, nil
	}
	if marker := SkipMarker(p.Message); marker != "" {
		return no("the commit message says %s", marker)
	}
	branch, isBranch := strings.CutPrefix(p.Ref, "refs/heads/")
	tag, isTag := strings.CutPrefix(p.Ref, "refs/tags/")
	branches, tags := e.Branches != nil || e.BranchesIgnore != nil, e.Tags != nil || e.TagsIgnore != nil
	var ok bool
	var err error
	switch {
	case isBranch && branches:
		ok, err = passes(e.Branches, e.BranchesIgnore, []string{branch})
	case isTag && tags:
		ok, err = passes(e.Tags, e.TagsIgnore, []string{tag})
	case isBranch && tags:
		return no("the push trigger is only for tags")
	case isTag && branches:
		return no("the push trigger is only for branches")
	default:
		ok = isBranch || isTag
	}
	if err != nil {
		return Decision{Line: e.Line}, err
	}
	if !ok {
		return no("%s is not among the branches and tags of the push trigger", p.Ref)
	}
	if isTag || e.Paths == nil && e.PathsIgnore == nil {
		return Decision{Start: true, Line: e.Line}, nil
	}
	if ok, err = passes(e.Paths, e.PathsIgnore, p.Paths); err != nil {
		return Decision{Line: e.Line}, err
	}
	if !ok {
		return no("none of the %d changed files passes the path filters of the push trigger", len(p.Paths))
	}
	return Decision{Start: true, Line: e.Line}, nil
}

// passes reports whether at least one name is wanted.
func passes(include, ignore, names []string) (bool, error) {
	patterns, wanted := include, true
	if ignore != nil {
		patterns, wanted = ignore, false
	}
	for _, name := range names {
		matched, err := MatchAny(patterns, name)
		if err != nil {
			return false, err
		}
		if matched == wanted {
			return true, nil
		}
	}
	return false, nil
}

var skipMarkers = []string{"[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]"}

var skipTrailer = regexp.MustCompile(`(?im)^skip-checks:\s*true\s*$`)

// SkipMarker finds the text in a commit message that asks for no runs.
func SkipMarker(message string) string {
	for _, m := range skipMarkers {
		if strings.Contains(message, m) {
			return m
		}
	}
	// The trailer counts only at the end, after an empty line.
	if i := strings.LastIndex(strings.TrimSpace(message), "\n\n"); i >= 0 {
		if m := skipTrailer.FindString(message[i:]); m != "" {
			return strings.TrimSpace(m)
		}
	}
	return ""
}
