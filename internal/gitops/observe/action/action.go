// Package action lists what one can do with a live object besides changing its
// manifest: restart, pause, scale, promote. It is pure: the caller writes the
// changes.
//
// Input: a live object, the settings, and the name of an action with its
// parameters. Output: the actions that the object offers, and the objects to
// write when one is run. Actions in Lua from resource.customizations.actions
// take the place of the built-in ones of a kind, or stand beside them with
// mergeBuiltinActions.
//
// Start reading at [Actions.Run].
package action

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

// Param is a value that an action takes.
type Param struct {
	Name    string
	Default string // what holds now
}

// Action is one that an object offers.
type Action struct {
	Name        string
	DisplayName string // "" for the name
	Icon        string // a class of Font Awesome; "" for none
	Disabled    bool   // it makes no sense in the present state
	Params      []Param
}

// Operation says how the object of a change is written.
type Operation string

// The operations.
const (
	Patch  Operation = "patch"  // the object exists: write the difference to it
	Create Operation = "create" // the object is new
)

// Change is one object to write. For a patch, Object is all of the object as
// it should be; Subresource is "status" where the change is below /status and
// the kind keeps that apart, else "".
type Change struct {
	Operation   Operation
	Subresource string
	Object      *unstructured.Unstructured
}

// ErrUnknown is wrapped by the error of [Actions.Run] for an action that the
// kind does not have.
var ErrUnknown = errors.New("no such action")

// Actions knows the actions under some settings. It does not change, and is
// safe for use by several goroutines.
type Actions struct {
	custom []custom
	now    func() time.Time
}

type custom struct {
	settings.Pattern
	merge     bool
	discovery *sandbox.Program // nil when there is none
	programs  map[string]*sandbox.Program
}

// New makes Actions. s may be nil, and so may now, for the clock. Warnings are
// about scripts that cannot be compiled; their actions are not offered.
func New(s *settings.Settings, now func() time.Time) (*Actions, []settings.Warning) {
	if now == nil {
		now = time.Now
	}
	a := &Actions{now: now}
	if s == nil {
		return a, nil
	}
	var warnings []settings.Warning
	pool := new(sandbox.Pool)
	for _, o := range s.Overrides {
		if o.Actions == nil {
			continue
		}
		key := "resource.customizations.actions: " + o.Pattern.String()
		c := custom{Pattern: o.Pattern, merge: o.Actions.MergeBuiltinActions, programs: map[string]*sandbox.Program{}}
		compile := func(name, script string) *sandbox.Program {
			p, err := pool.Compile(name+" of "+o.Pattern.String(), script, o.UseOpenLibs)
			if err != nil {
				warnings = append(warnings, settings.Warning{Key: key, Message: err.Error()})
				return nil
			}
			return p
		}
		if o.Actions.DiscoveryLua != "" {
			c.discovery = compile("discovery.lua", o.Actions.DiscoveryLua)
		}
		for _, d := range o.Actions.Definitions {
			if p := compile("action "+d.Name, d.Lua); p != nil {
				c.programs[d.Name] = p
			}
		}
		a.custom = append(a.custom, c)
	}
	return a, warnings
}

func (a *Actions) customOf(o *unstructured.Unstructured) *custom {
	gk := o.GroupVersionKind().GroupKind()
	for i := range a.custom {
		if a.custom[i].Matches(gk.Group, gk.Kind) {
			return &a.custom[i]
		}
	}
	return nil
}

// List returns what an object offers, sorted by name. The error is of a script.
func (a *Actions) List(o *unstructured.Unstructured) ([]Action, error) {
	c := a.customOf(o)
	var out []Action
	if c != nil && c.discovery != nil {
		found, err := discover(c.discovery, o)
		if err != nil {
			return nil, fmt.Errorf("list the actions of %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		out = found
	}
	if c == nil || c.merge {
		for _, b := range builtin[o.GroupVersionKind().GroupKind()] {
			if !slices.ContainsFunc(out, func(x Action) bool { return x.Name == b.name }) {
				out = append(out, b.of(o.Object))
			}
		}
	}
	slices.SortFunc(out, func(x, y Action) int { return cmp.Compare(x.Name, y.Name) })
	return out, nil
}

// Run returns what an action changes. o is not changed. An action that is
// disabled runs all the same, as it does in Argo CD: what is shown may be old.
func (a *Actions) Run(o *unstructured.Unstructured, name string, params map[string]string) ([]Change, error) {
	c := a.customOf(o)
	if c != nil {
		if p := c.programs[name]; p != nil {
			changes, err := runLua(p, o, params)
			if err != nil {
				return nil, fmt.Errorf("run %s on %s %s: %w", name, o.GetKind(), o.GetName(), err)
			}
			return changes, nil
		}
	}
	if c == nil || c.merge {
		for _, b := range builtin[o.GroupVersionKind().GroupKind()] {
			if b.name == name {
				return a.runBuiltin(b, o, params)
			}
		}
	}
	return nil, fmt.Errorf("%w: %s %s does not offer %q; it offers %s", ErrUnknown, o.GetKind(), o.GetName(), name, a.names(o))
}

func (a *Actions) names(o *unstructured.Unstructured) string {
	list, err := a.List(o)
	if err != nil || len(list) == 0 {
		return "none"
	}
	var names []string
	for _, x := range list {
		names = append(names, x.Name)
	}
	return strings.Join(names, ", ")
}

func (a *Actions) runBuiltin(b action, o *unstructured.Unstructured, params map[string]string) ([]Change, error) {
	r := &run{object: o.DeepCopy().Object, params: params, now: a.now().UTC()}
	before := o.DeepCopy().Object
	if err := b.do(r); err != nil {
		return nil, fmt.Errorf("run %s on %s %s: %w", b.name, o.GetKind(), o.GetName(), err)
	}
	var out []Change
	for _, made := range r.created {
		out = append(out, Change{Operation: Create, Object: &unstructured.Unstructured{Object: made}})
	}
	if reflect.DeepEqual(before, r.object) {
		return out, nil
	}
	return append(out, split(before, r.object, b.status)...), nil
}

// split makes one change of what is below /status, where the kind keeps it
// apart, and one of the rest.
func split(before, after map[string]any, status bool) []Change {
	if !status {
		return []Change{{Operation: Patch, Object: &unstructured.Unstructured{Object: after}}}
	}
	var out []Change
	rest, state := (&unstructured.Unstructured{Object: after}).DeepCopy().Object, after
	if s, ok := before["status"]; ok {
		rest["status"] = s
	} else {
		delete(rest, "status")
	}
	if !reflect.DeepEqual(before, rest) {
		out = append(out, Change{Operation: Patch, Object: &unstructured.Unstructured{Object: rest}})
	}
	if !reflect.DeepEqual(before["status"], state["status"]) {
		whole := (&unstructured.Unstructured{Object: before}).DeepCopy()
		whole.Object["status"] = state["status"]
		out = append(out, Change{Operation: Patch, Subresource: "status", Object: whole})
	}
	return out
}

// Kinds returns the kinds with built-in actions.
func Kinds() []schema.GroupKind {
	var out []schema.GroupKind
	for gk := range builtin {
		out = append(out, gk)
	}
	slices.SortFunc(out, func(a, b schema.GroupKind) int { return cmp.Compare(a.String(), b.String()) })
	return out
}
