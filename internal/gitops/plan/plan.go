// Package plan compares what is to be with what is, and says what to change
// and why. It is pure: no I/O, no clock.
//
// Input: desired objects, live objects, and for those that look different the
// API server's own prediction of the result. Output: [Plan], one [Change] per
// object, each difference with its path, both values, the manager that wrote
// the live one and a sentence for people.
//
// How phantom drift is avoided: [Suspects] compares only the fields that
// desired sets, and the fields that this engine applied before and desired no
// longer has (from managedFields). What is equal by that is in sync, without
// a request. What is not goes through a server-side apply dry run, and [Make]
// compares that prediction with the live object: defaulting, quantities,
// admission and merge keys are the server's business and cannot differ. Where
// no prediction could be had (the dry run was refused), the desired fields
// decide.
//
// Invariants: Make of objects that are as desired changes nothing; only live
// objects whose tracking annotation names this instance are pruned; values of
// Secrets are in no Difference.
//
// Start reading at [Make].
package plan

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// Key names an object, whatever its version.
type Key struct{ Group, Kind, Namespace, Name string }

// KeyOf returns the key of an object.
func KeyOf(o *unstructured.Unstructured) Key {
	gvk := o.GroupVersionKind()
	return Key{gvk.Group, gvk.Kind, o.GetNamespace(), o.GetName()}
}

// String is "Kind namespace/name".
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Action is what happens to an object.
type Action string

// The actions.
const (
	None   Action = "none"
	Create Action = "create"
	Update Action = "update"
	Prune  Action = "prune"
)

// Prediction is what the API server said an apply would give.
type Prediction struct {
	Object *unstructured.Unstructured // nil when Err is set or the object is new
	Err    error                      // why it refused
}

// Input is everything that a plan depends on.
type Input struct {
	Instance  string // this application in tracking annotations
	Manager   string // field manager of this engine
	Desired   []manifest.Object
	Live      map[Key]*unstructured.Unstructured // desired ones that exist, and all tracked ones
	Predicted map[Key]Prediction
	Ignore    []v1alpha1.IgnoreDifferences
	Options   Options
	// Accepted is what the API server made of exactly this desired object when
	// it was applied, where that is not what desired says.
	Accepted map[Key]*unstructured.Unstructured
	// Unchanged are changes of an earlier plan that hold still; they are sorted in.
	Unchanged []Change
}

// Digest names the content of an object.
type Digest [16]byte

// Change is one object of the plan.
type Change struct {
	Key
	Version     string
	Action      Action
	Desired     *unstructured.Unstructured // what to apply; nil for Prune
	Live        *unstructured.Unstructured // nil for Create
	Predicted   *unstructured.Unstructured // the result, where the server said
	Place       string                     // "file:line" of the manifest
	Differences []Difference               // those that count
	Ignored     []Difference               // those that do not, and why
	Wave        int
	Options     ObjectOptions
	Refused     error  // the server would not accept the object
	Kept        string // for Prune: why the object stays
	Extraneous  bool   // left over, but compare-options says to ignore that
	SharedWith  string // another application that tracks the live object
	// IgnoreHealth says that the object's health is not part of the application's.
	IgnoreHealth bool
}

// InSync reports whether nothing is to be done for the object.
func (c Change) InSync() bool { return c.Action == None || c.Action == Prune && c.Extraneous }

// Plan is what a sync would do.
type Plan struct {
	Changes  []Change // sorted in the order of application
	Hooks    []Hook
	Warnings []Warning
}

// Warning is a condition to show on the Application.
type Warning struct{ Type, Message string }

// Count returns how many changes have one of the actions.
func (p *Plan) Count(actions ...Action) int {
	n := 0
	for _, c := range p.Changes {
		if slices.Contains(actions, c.Action) && !(c.Action == Prune && (c.Kept != "" || c.Extraneous)) {
			n++
		}
	}
	return n
}

// InSync reports whether live is as desired.
func (p *Plan) InSync() bool {
	return !slices.ContainsFunc(p.Changes, func(c Change) bool { return !c.InSync() })
}

// Suspects returns the keys of desired objects that exist and may differ: the
// ones to get a prediction for.
func Suspects(in Input) []Key {
	var out []Key
	for _, d := range in.Desired {
		if isHook(d.Unstructured) {
			continue
		}
		live := in.Live[KeyOf(d.Unstructured)]
		if live == nil {
			continue
		}
		want := Normalize(d.Unstructured)
		if !covered(want.Object, live.Object) || lost(want, live, in.Manager) {
			out = append(out, KeyOf(d.Unstructured))
		}
	}
	return out
}

// Make returns the plan.
func Make(in Input) *Plan {
	p := &Plan{}
	wanted := map[Key]bool{}
	suspect := map[Key]bool{}
	for _, k := range Suspects(in) {
		suspect[k] = true
	}
	for _, d := range in.Desired {
		key := KeyOf(d.Unstructured)
		wanted[key] = true
		if isHook(d.Unstructured) {
			h, warnings := parseHook(d)
			p.Warnings = append(p.Warnings, warnings...)
			if h != nil {
				p.Hooks = append(p.Hooks, *h)
			}
			continue
		}
		c, warnings := in.compare(d, suspect[key])
		p.Changes = append(p.Changes, c)
		p.Warnings = append(p.Warnings, warnings...)
	}
	for key, live := range in.Live {
		if !wanted[key] {
			if c, ok := in.leftover(key, live); ok {
				p.Changes = append(p.Changes, c)
			}
		}
	}
	p.Changes = append(p.Changes, in.Unchanged...)
	p.sort(in.Options.PruneLast)
	return p
}

func (in Input) compare(d manifest.Object, suspect bool) (Change, []Warning) {
	key := KeyOf(d.Unstructured)
	c := Change{Key: key, Version: d.GroupVersionKind().Version, Place: d.Place(), Live: in.Live[key], Action: None}
	var warnings []Warning
	c.Options, warnings = objectOptions(d.Unstructured, in.Options)
	c.Wave, warnings = wave(d.Unstructured, warnings)
	c.Desired = Normalize(d.Unstructured)
	c.IgnoreHealth = d.GetAnnotations()[v1alpha1.AnnotationIgnoreHealth] == "true"
	prediction := in.Predicted[key]
	c.Predicted, c.Refused = prediction.Object, prediction.Err
	if c.Live == nil {
		c.Action = Create
		c.Differences = []Difference{{Path: "", Why: "the object does not exist"}}
		return c, warnings
	}
	if other, ok := render.Tracked(c.Live); ok && other != in.Instance {
		c.SharedWith = other
		warnings = append(warnings, Warning{v1alpha1.ConditionSharedResource, fmt.Sprintf("%s is part of application %s too; the two will overwrite each other", key, other)})
	}
	if !suspect {
		return c, warnings
	}
	var all []Difference
	if c.Predicted != nil {
		all = diff(c.Live, c.Predicted)
	} else {
		all = diffDesired(c.Live, c.Desired)
	}
	rules := in.rulesFor(c.Desired)
	for _, x := range all {
		x.explain(c.Live, in.Manager)
		if why := rules.ignores(x, c.Live); why != "" {
			x.Why = why
			c.Ignored = append(c.Ignored, x)
			continue
		}
		c.Differences = append(c.Differences, x)
	}
	if isSecret(key) {
		maskAll(c.Differences)
		maskAll(c.Ignored)
	}
	if c.Predicted == nil && lost(c.Desired, c.Live, in.Manager) {
		c.Differences = append(c.Differences, Difference{Why: "an earlier sync set fields that the source no longer has"})
	}
	if len(c.Differences) > 0 {
		c.Action = Update
	}
	if in.Options.RespectIgnoreDifferences {
		respect(c.Desired, c.Live, c.Ignored)
	}
	return c, warnings
}

// leftover is the change for a live object that is not desired, if it is ours.
func (in Input) leftover(key Key, live *unstructured.Unstructured) (Change, bool) {
	instance, ok := render.Tracked(live)
	if !ok || instance != in.Instance || isHook(live) {
		return Change{}, false
	}
	c := Change{Key: key, Version: live.GroupVersionKind().Version, Action: Prune, Live: live}
	c.Options, _ = objectOptions(live, in.Options)
	c.Wave, _ = wave(live, nil)
	c.Differences = []Difference{{Why: "the object is no longer in the source"}}
	c.Extraneous = slices.Contains(splitOptions(live.GetAnnotations()[v1alpha1.AnnotationCompareOptions]), "IgnoreExtraneous")
	switch {
	case live.GetDeletionTimestamp() != nil:
		c.Kept = "it is being deleted already"
	case c.Options.Prune == "false":
		c.Kept = "Prune=false is set"
	case c.Options.Prune == "confirm":
		c.Kept = "Prune=confirm is set: delete it by hand"
	}
	return c, true
}

// Normalize returns a copy of a desired object as the server would take it:
// without status and the fields that only the server sets, and with the
// stringData of a Secret in its data.
func Normalize(o *unstructured.Unstructured) *unstructured.Unstructured {
	out := o.DeepCopy()
	delete(out.Object, "status")
	if md, ok := out.Object["metadata"].(map[string]any); ok {
		for _, f := range []string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"} {
			delete(md, f)
		}
	}
	if isSecret(KeyOf(out)) {
		mergeStringData(out)
	}
	return out
}

func isSecret(k Key) bool { return k.Group == "" && k.Kind == "Secret" }

func splitOptions(v string) []string {
	var out []string
	for o := range strings.SplitSeq(v, ",") {
		if o = strings.TrimSpace(o); o != "" {
			out = append(out, o)
		}
	}
	return out
}
