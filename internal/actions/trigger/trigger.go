// Package trigger decides which events start a workflow.
//
// Input: the triggers of a workflow (package syntax) and an event, or the inputs
// of a dispatch. Output: a [Decision] with its reason and the line of the filter
// that said no, or the values of the inputs.
//
// Invariants: pure; every refusal says which filter refused.
//
// Start reading at [Match].
package trigger

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Event is something that may start a workflow.
type Event struct {
	Name string // "push", "pull_request_target", "schedule"
	// Action is the activity type: "opened". Of schedule it is the cron
	// expression, of repository_dispatch the event_type.
	Action  string
	Ref     string   // of push: the full ref name
	BaseRef string   // of pull_request, pull_request_target, merge_group: the branch it goes to
	Paths   []string // that changed; read only when NeedsPaths says so
	Message string   // of the head commit of push and pull_request
	// Of workflow_run: the name of the workflow that ran, and the branch it ran for.
	Workflow, Branch string
}

// Decision says whether a workflow starts, and why not.
type Decision struct {
	Start  bool
	Reason string // "" when it starts
	Line   int    // of what decided in the file; 0 when the event is not among the triggers
}

// NeedsPaths reports whether the changed paths decide about an event.
func NeedsPaths(w *syntax.Workflow, event string) bool {
	e := w.Event(event)
	return e != nil && (e.Paths != nil || e.PathsIgnore != nil)
}

// Match decides for one workflow. The error is a filter pattern that is not
// valid, at Decision.Line.
func Match(w *syntax.Workflow, ev Event) (Decision, error) {
	e := w.Event(ev.Name)
	if e == nil {
		return Decision{Reason: fmt.Sprintf("the workflow has no %s trigger", ev.Name)}, nil
	}
	m := &match{event: e}
	if ev.Name == "push" || ev.Name == "pull_request" {
		if marker := SkipMarker(ev.Message); marker != "" {
			m.no("", "the commit message says %s", marker)
		}
	}
	m.types(ev)
	switch ev.Name {
	case "push":
		m.ref(ev.Ref)
	case "pull_request", "pull_request_target", "merge_group":
		m.branch(strings.TrimPrefix(ev.BaseRef, "refs/heads/"), "the base branch")
	case "workflow_run":
		m.workflow(ev.Workflow)
		m.branch(strings.TrimPrefix(ev.Branch, "refs/heads/"), "the branch")
	}
	if !strings.HasPrefix(ev.Ref, "refs/tags/") || ev.Name != "push" { // the paths of a tag are not looked at
		m.paths(ev.Paths)
	}
	if m.decision == nil {
		return Decision{Start: true, Line: e.Line}, m.err
	}
	return *m.decision, m.err
}

// match is one decision on its way: the first no stands.
type match struct {
	event    *syntax.Event
	decision *Decision
	err      error
}

func (m *match) no(filter, format string, args ...any) {
	if m.decision != nil {
		return
	}
	if m.event.Lines[filter] == 0 {
		filter += "-ignore"
	}
	m.decision = &Decision{Reason: fmt.Sprintf(format, args...), Line: m.event.LineOf(filter)}
}

// types looks at the activity.
func (m *match) types(ev Event) {
	e := m.event
	if e.Name == "schedule" {
		if !slices.ContainsFunc(e.Crons, func(c syntax.Cron) bool { return c.Expr == ev.Action }) {
			m.no("", "the schedule %q is not in the file", ev.Action)
		}
		return
	}
	wanted := e.ActiveTypes()
	if wanted == nil || slices.Contains(wanted, ev.Action) {
		return
	}
	if e.Types == nil {
		m.no("", "%s starts without `types` only for %s, not for %q", e.Name, strings.Join(wanted, ", "), ev.Action)
		return
	}
	m.no("types", "%q is not among the types of the %s trigger", ev.Action, e.Name)
}

// ref looks at the branch or tag of a push.
func (m *match) ref(ref string) {
	e := m.event
	branch, isBranch := strings.CutPrefix(ref, "refs/heads/")
	tag, isTag := strings.CutPrefix(ref, "refs/tags/")
	branches, tags := e.Branches != nil || e.BranchesIgnore != nil, e.Tags != nil || e.TagsIgnore != nil
	switch {
	case isBranch && branches:
		m.names("branches", e.Branches, e.BranchesIgnore, []string{branch}, "%s is not among the branches and tags of the push trigger", ref)
	case isTag && tags:
		m.names("tags", e.Tags, e.TagsIgnore, []string{tag}, "%s is not among the branches and tags of the push trigger", ref)
	case isBranch && tags:
		m.no("tags", "the push trigger is only for tags")
	case isTag && branches:
		m.no("branches", "the push trigger is only for branches")
	case !isBranch && !isTag:
		m.no("", "%s is not among the branches and tags of the push trigger", ref)
	}
}

func (m *match) branch(name, what string) {
	e := m.event
	m.names("branches", e.Branches, e.BranchesIgnore, []string{name}, "%s %s is not among the branches of the %s trigger", what, name, e.Name)
}

func (m *match) workflow(name string) {
	if !slices.Contains(m.event.Workflows, name) {
		m.no("workflows", "%q is not among the workflows of the workflow_run trigger", name)
	}
}

func (m *match) paths(paths []string) {
	e := m.event
	m.names("paths", e.Paths, e.PathsIgnore, paths, "none of the %d changed files passes the path filters of the %s trigger", len(paths), e.Name)
}

// names says no unless a name passes the filter of the given key, or the one
// that ignores.
func (m *match) names(key string, include, ignore, names []string, format string, args ...any) {
	patterns, wanted := include, true
	if include == nil {
		key, patterns, wanted = key+"-ignore", ignore, false
	}
	if m.decision != nil || patterns == nil {
		return
	}
	filter, err := compileAll(patterns)
	if err != nil {
		m.err = err
		m.no(key, "%v", err)
		return
	}
	if !slices.ContainsFunc(names, func(name string) bool { return filter.match(name) == wanted }) {
		m.no(key, format, args...)
	}
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
