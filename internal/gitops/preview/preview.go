// Package preview says what a proposed commit would change in the clusters.
//
// Input: for each Application that a change affects, the objects that its
// sources give before and after, as far as they differ, and what is wrong with
// them. Output: [Report], which gives a summary line, Markdown for a pull
// request, and the places of what does not render.
//
// Invariants: pure; the same input gives the same text; no value of a Secret is
// in it; no text is longer than it was asked to be, and what is left out is
// counted; nothing of the input can end a code block or mention somebody.
//
// Start reading at [Compare], then [Report.Markdown].
package preview

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// Application is one that a change may affect.
type Application struct {
	Namespace, Name string
	Cluster         string // name of the destination, or its address
	Target          string // namespace of the destination
	Path            string // of the source that the change is in
	Note            string // what to know beside the changes, "" for nothing
	Before, After   []manifest.Object
	Same            int      // objects that are the same on both sides and in neither list
	Masked          []string // annotations of Secrets that are hidden too
	Problems        []Problem
}

// Problem is why an Application cannot be rendered or synced.
type Problem struct {
	File    string // in the repository, "" when not known
	Line    int    // from 1; 0 when not known
	Message string
	Hint    string
	Old     bool // it was so before the change
	Fault   bool // of the surroundings: it says nothing about the change
}

// Place is "file:line", "" when the file is not known.
func (p Problem) Place() string {
	if p.File == "" || p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// isNew reports whether the change made the problem.
func (p Problem) isNew() bool { return !p.Old && !p.Fault }

func (p Problem) String() string {
	text := p.Message
	if at := p.Place(); at != "" {
		text = at + ": " + text
	}
	if p.Hint != "" {
		text += ". " + p.Hint
	}
	return text
}

// Action is what happens to an object.
type Action string

// The actions.
const (
	Added   Action = "added"
	Changed Action = "changed"
	Removed Action = "removed"
)

// Object is one that differs.
type Object struct {
	plan.Key
	Action Action
	Place  string // "file:line" of the manifest, "" when not known
	Text   string // lines of a unified diff
	Cut    int    // lines of it that are left out
}

// Outcome is what the change does to one Application.
type Outcome struct {
	Namespace, Name       string
	Cluster, Target, Path string
	Note                  string
	Objects               []Object // by action, then by key
	Same                  int
	Problems              []Problem
}

// Count is the number of objects with an action.
func (o Outcome) Count(a Action) int {
	n := 0
	for _, x := range o.Objects {
		if x.Action == a {
			n++
		}
	}
	return n
}

// broken reports whether the change itself makes something wrong.
func (o Outcome) broken() bool {
	return slices.ContainsFunc(o.Problems, Problem.isNew)
}

// Compare says what differs between the two sides of an Application. It keeps
// no object.
func Compare(a Application) Outcome {
	out := Outcome{Namespace: a.Namespace, Name: a.Name, Cluster: a.Cluster, Target: a.Target, Path: a.Path, Note: a.Note, Same: a.Same, Problems: a.Problems}
	before, after := byKey(a.Before), byKey(a.After)
	if len(a.Problems) > 0 && len(a.After) == 0 && a.Same == 0 {
		return out // what is not rendered is not removed
	}
	for key, o := range after {
		from, ok := before[key]
		action := Changed
		if !ok {
			action = Added
		}
		out.add(action, key, from, o, a.Masked)
	}
	for key, o := range before {
		if _, ok := after[key]; !ok {
			out.add(Removed, key, o, manifest.Object{}, a.Masked)
		}
	}
	order := map[Action]int{Added: 0, Changed: 1, Removed: 2}
	slices.SortFunc(out.Objects, func(x, y Object) int {
		if d := order[x.Action] - order[y.Action]; d != 0 {
			return d
		}
		return strings.Compare(x.Key.String()+"\x00"+x.Group, y.Key.String()+"\x00"+y.Group)
	})
	return out
}

func byKey(objects []manifest.Object) map[plan.Key]manifest.Object {
	out := make(map[plan.Key]manifest.Object, len(objects))
	for _, o := range objects {
		out[plan.KeyOf(o.Unstructured)] = o
	}
	return out
}

func (o *Outcome) add(action Action, key plan.Key, before, after manifest.Object, masked []string) {
	text, cut := difference(key, before.Unstructured, after.Unstructured, masked)
	if text == "" && cut == 0 {
		o.Same++ // it differs in what nobody applies
		return
	}
	place := after.Place()
	if action == Removed {
		place = before.Place()
	}
	o.Objects = append(o.Objects, Object{Key: key, Action: action, Place: place, Text: text, Cut: cut})
}
