// Package plan compares what is to be with what is, and says what to change
// and why. It is pure: no I/O, no clock.
//
// Input: desired objects, live objects, and for those that look different the
// API server's own prediction of the result. Output: [Plan], one [Change] per
// object, each difference with its path, both values, the manager that wrote
// the live one and a sentence for people.
//
// How phantom drift is avoided, without a request where the answer is known:
// the fields that desired sets are compared with the live object as the server
// merges them (keyed lists, sets, and values with one owner, by managedFields),
// and quantities and the like by what they mean. What differs still is
// compared with [Input].Accepted, the server's answer to an apply of the same
// desired object: defaulting and admission are in it. Fields that were applied
// before, by this engine (managedFields) or by client-side apply (its
// annotation), and that desired no longer has, are differences too. A
// prediction of the server (a dry run) is needed only where compare-options
// ask for ServerSideDiff; then it decides.
//
// Invariants: Make of objects that are as desired changes nothing; only live
// objects whose tracking annotation names this instance are pruned; values of
// Secrets are in no Difference; the objects given are not changed, and those
// of the plan share with them.
//
// Start reading at [Make], then walk.go.
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
	Instance string // this application in tracking annotations
	Manager  string // field manager of this engine
	Desired  []manifest.Object
	Live     map[Key]*unstructured.Unstructured // desired ones that exist, and all tracked ones
	// Accepted has the API server's answers to an apply of exactly these
	// desired objects: whole, or what [AcceptedOf] left of them.
	Accepted  map[Key]*unstructured.Unstructured
	Predicted map[Key]Prediction
	Ignore    []v1alpha1.IgnoreDifferences
	Policy    *Policy // of the settings; nil for none
	Options   Options
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
	Desired     *unstructured.Unstructured // what to apply, as Normalize makes it unless Action is None; nil for Prune
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
	Warnings     []Warning // about this object; also among those of the plan

	masked []string // annotations whose values are hidden
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

// Suspects returns the keys of desired objects that exist and differ, by all
// that is known without a request and before anything is ignored.
func Suspects(in Input) []Key {
	var out []Key
	var w walk
	for _, d := range in.Desired {
		if isHook(d.Unstructured) {
			continue
		}
		key := KeyOf(d.Unstructured)
		if live := in.Live[key]; live != nil && !in.same(&w, key, d.Unstructured, live) {
			out = append(out, key)
		}
	}
	return out
}

// Unpredicted returns the suspects whose compare-options, or the settings, ask
// for ServerSideDiff: the ones to get a prediction for.
func Unpredicted(in Input) []Key {
	var out []Key
	var w walk
	for _, d := range in.Desired {
		options, has := annotation(d.Unstructured, v1alpha1.AnnotationCompareOptions)
		if !has && (in.Policy == nil || !in.Policy.ServerSideDiff) || isHook(d.Unstructured) || !CompareOptionsOf(options, in.Policy).ServerSideDiff {
			continue
		}
		key := KeyOf(d.Unstructured)
		if live := in.Live[key]; live != nil && !in.same(&w, key, d.Unstructured, live) {
			out = append(out, key)
		}
	}
	return out
}

// Make returns the plan.
func Make(in Input) *Plan {
	p := &Plan{Changes: make([]Change, 0, len(in.Desired))}
	wanted := make(map[Key]bool, len(in.Desired))
	var w walk
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
		c, warnings := in.compare(&w, key, d)
		c.Warnings = warnings
		p.Changes = append(p.Changes, c)
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
	for _, c := range p.Changes {
		p.Warnings = append(p.Warnings, c.Warnings...)
	}
	return p
}

// same reports whether the live object is as desired.
func (in Input) same(w *walk, key Key, desired, live *unstructured.Unstructured) bool {
	w.reset(desired, live, in.Manager, in.Policy)
	return in.walkOver(w, key, desired, live)
}

func (in Input) walkOver(w *walk, key Key, desired, live *unstructured.Unstructured) bool {
	var accepted map[string]any
	if a := in.Accepted[key]; a != nil {
		accepted = a.Object
	}
	same := w.objects(desired.Object, live.Object, accepted, ownFields(live.Object, in.Manager, desired.GetAPIVersion()))
	return (same || w.collect) && w.lostBefore(desired.Object, live.Object) && same
}

// differences returns all fields that are not as desired.
func (in Input) differences(w *walk, key Key, desired, live *unstructured.Unstructured) []Difference {
	w.reset(desired, live, in.Manager, in.Policy)
	w.collect = true
	in.walkOver(w, key, desired, live)
	out := once(w.out)
	w.out = nil
	sortDifferences(out)
	return out
}

func (in Input) compare(w *walk, key Key, d manifest.Object) (Change, []Warning) {
	c := Change{Key: key, Version: d.GroupVersionKind().Version, Place: d.Place(), Live: in.Live[key], Action: None, masked: in.Policy.masked()}
	var warnings []Warning
	c.Options, warnings = objectOptions(d.Unstructured, in.Options)
	c.Wave, warnings = wave(d.Unstructured, warnings)
	c.Desired = d.Unstructured
	ignoreHealth, _ := annotation(d.Unstructured, v1alpha1.AnnotationIgnoreHealth)
	c.IgnoreHealth = ignoreHealth == "true"
	prediction := in.Predicted[key]
	c.Predicted, c.Refused = prediction.Object, prediction.Err
	if c.Live == nil {
		c.Action, c.Desired = Create, Normalize(d.Unstructured)
		c.Differences = []Difference{{Path: "", Why: "the object does not exist"}}
		return c, warnings
	}
	if other, ok := in.tracker(d.Unstructured, c.Live); ok && other != in.Instance {
		c.SharedWith = other
		warnings = append(warnings, Warning{v1alpha1.ConditionSharedResource, fmt.Sprintf("%s is part of application %s too; the two will overwrite each other", key, other)})
	}
	if in.same(w, key, d.Unstructured, c.Live) {
		return c, warnings
	}
	c.Desired = Normalize(d.Unstructured)
	all, admission, want := in.explained(w, &c, d.Unstructured)
	ig := in.ignoring(want, c.Live)
	for _, err := range ig.errs {
		warnings = append(warnings, Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf("%s: %v", key, err)})
	}
	c.Differences, c.Ignored = ig.split(all)
	if in.Options.RespectIgnoreDifferences {
		_, taken := ig.split(in.differences(w, key, d.Unstructured, c.Live))
		c.Desired = respect(c.Desired, c.Live, taken)
	}
	for i := range c.Differences {
		c.Differences[i].explain(c.Live, in.Manager)
	}
	for i := range c.Ignored {
		c.Ignored[i].explain(c.Live, in.Manager)
	}
	c.Ignored = append(c.Ignored, admission...)
	if isSecret(key) {
		maskAll(c.Differences, c.masked)
		maskAll(c.Ignored, c.masked)
	}
	if len(c.Differences) > 0 {
		c.Action = Update
	}
	return c, warnings
}

// explained returns the differences of an object that is not as desired, and
// the object that live was compared with.
func (in Input) explained(w *walk, c *Change, desired *unstructured.Unstructured) (all, admission []Difference, want *unstructured.Unstructured) {
	if c.Predicted != nil {
		v, _ := annotation(desired, v1alpha1.AnnotationCompareOptions)
		options := CompareOptionsOf(v, in.Policy)
		all = diff(c.Live, c.Predicted, in.Policy.statusCounts(c.Key))
		if !options.IncludeMutationWebhook {
			all, admission = withoutAdmission(all, desired, c.Live, c.Predicted, in.Manager)
		}
		if options.ServerSideDiff || !strings.Contains(v, "ServerSideDiff=false") {
			return all, admission, c.Predicted
		}
	}
	return in.differences(w, c.Key, desired, c.Live), nil, c.Desired
}

// tracker returns the application that the live object says it is part of. It
// is mostly the one that desired names.
func (in Input) tracker(desired, live *unstructured.Unstructured) (string, bool) {
	have, ok := annotation(live, v1alpha1.AnnotationTrackingID)
	if !ok {
		return "", false
	}
	if want, _ := annotation(desired, v1alpha1.AnnotationTrackingID); want == have && in.Instance != "" && strings.HasPrefix(strings.TrimPrefix(have, in.Instance), ":") {
		return in.Instance, true
	}
	return render.Tracked(live)
}

// leftover is the change for a live object that is not desired, if it is ours.
func (in Input) leftover(key Key, live *unstructured.Unstructured) (Change, bool) {
	instance, ok := render.Tracked(live)
	if !ok || instance != in.Instance || isHook(live) {
		return Change{}, false
	}
	if isDefinition(live) {
		return Change{}, false // as Argo CD: with it all objects of its kind would go
	}
	c := Change{Key: key, Version: live.GroupVersionKind().Version, Action: Prune, Live: live, masked: in.Policy.masked()}
	c.Options, _ = objectOptions(live, in.Options)
	c.Wave, _ = wave(live, nil)
	c.Differences = []Difference{{Why: "the object is no longer in the source"}}
	v, _ := annotation(live, v1alpha1.AnnotationCompareOptions)
	c.Extraneous = CompareOptionsOf(v, in.Policy).IgnoreExtraneous
	switch {
	case live.GetDeletionTimestamp() != nil:
		c.Kept = "it is being deleted already"
	case c.Options.Prune == "false":
		c.Kept = "Prune=false is set"
	}
	return c, true
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
