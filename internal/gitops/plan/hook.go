package plan

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// Phase is a part of a sync, or of the deletion of an application.
type Phase string

// The phases of a sync in order, SyncFail instead of the rest when one fails;
// and those before and after the objects of an application are deleted.
const (
	PreSync    Phase = "PreSync"
	Sync       Phase = "Sync"
	PostSync   Phase = "PostSync"
	SyncFail   Phase = "SyncFail"
	PreDelete  Phase = "PreDelete"
	PostDelete Phase = "PostDelete"
)

// DeletePolicy says when a hook's object is deleted.
type DeletePolicy string

// The policies.
const (
	HookSucceeded      DeletePolicy = "HookSucceeded"
	HookFailed         DeletePolicy = "HookFailed"
	BeforeHookCreation DeletePolicy = "BeforeHookCreation"
	NeverDelete        DeletePolicy = "Never"
)

// The annotations of Helm that mean something here.
const (
	helmHook           = "helm.sh/hook"
	helmHookWeight     = "helm.sh/hook-weight"
	helmHookDelete     = "helm.sh/hook-delete-policy"
	helmResourcePolicy = "helm.sh/resource-policy"
)

// Hook is an object that is created at a phase and waited for.
type Hook struct {
	Key
	Object *unstructured.Unstructured
	Phases []Phase
	Delete []DeletePolicy
	Wave   int
	Place  string
}

// HooksOf returns the hooks of a phase in order of wave, kind and name.
func (p *Plan) HooksOf(phase Phase) []Hook {
	var out []Hook
	for _, h := range p.Hooks {
		if slices.Contains(h.Phases, phase) {
			out = append(out, h)
		}
	}
	return out
}

// annotation reads one annotation without copying them all.
func annotation(o *unstructured.Unstructured, name string) (string, bool) {
	metadata, _ := o.Object["metadata"].(map[string]any)
	all, _ := metadata["annotations"].(map[string]any)
	v, ok := all[name].(string)
	return v, ok
}

// IsHook reports whether an object is no part of the desired state but is
// created at a phase, or never. A hook of Argo CD goes before one of Helm;
// Helm's crd-install is a plain object.
func IsHook(o *unstructured.Unstructured) bool {
	if _, ok := annotation(o, v1alpha1.AnnotationHook); ok {
		return true
	}
	v, ok := annotation(o, helmHook)
	return ok && v != "crd-install"
}

func isHook(o *unstructured.Unstructured) bool { return IsHook(o) }

var helmPhases = map[string]Phase{
	"pre-install": PreSync, "pre-upgrade": PreSync, "post-install": PostSync, "post-upgrade": PostSync,
	"pre-delete": PreDelete, "post-delete": PostDelete,
}

var helmPolicies = map[string]DeletePolicy{
	"hook-succeeded": HookSucceeded, "hook-failed": HookFailed, "before-hook-creation": BeforeHookCreation,
}

// parseHook returns nil for objects that are never applied.
func parseHook(d manifest.Object) (*Hook, []Warning) {
	key := KeyOf(d.Unstructured)
	phases, warnings := hookPhases(key, d.Unstructured)
	if len(phases) == 0 {
		return nil, warnings
	}
	h := &Hook{Key: key, Object: Normalize(d.Unstructured), Place: d.Place(), Phases: phases}
	h.Wave, warnings = wave(d.Unstructured, warnings)
	h.Delete, warnings = hookPolicies(key, d.Unstructured, warnings)
	_, more := objectOptions(d.Unstructured, Options{})
	return h, append(warnings, more...)
}

func hookPhases(key Key, o *unstructured.Unstructured) (phases []Phase, warnings []Warning) {
	add := func(p Phase) {
		if !slices.Contains(phases, p) {
			phases = append(phases, p)
		}
	}
	v, ok := annotation(o, v1alpha1.AnnotationHook)
	if !ok {
		v, _ = annotation(o, helmHook)
		for _, name := range splitOptions(v) {
			if p, known := helmPhases[name]; known {
				add(p)
			} // tests and rollbacks are never run, as with Argo CD
		}
		return phases, nil
	}
	for _, name := range splitOptions(v) {
		switch p := Phase(name); p {
		case PreSync, Sync, PostSync, SyncFail, PreDelete, PostDelete:
			add(p)
		case "Skip":
		default:
			warnings = append(warnings, Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf(
				"%s: there is no hook %q; the object is not applied at it: the hooks are PreSync, Sync, PostSync, SyncFail, PreDelete, PostDelete and Skip", key, name)})
		}
	}
	return phases, warnings
}

func hookPolicies(key Key, o *unstructured.Unstructured, warnings []Warning) ([]DeletePolicy, []Warning) {
	var out []DeletePolicy
	v, _ := annotation(o, v1alpha1.AnnotationHookDelete)
	for _, name := range splitOptions(v) {
		switch p := DeletePolicy(name); p {
		case HookSucceeded, HookFailed, BeforeHookCreation, NeverDelete:
			out = append(out, p)
		default:
			warnings = append(warnings, Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf(
				"%s: there is no hook-delete-policy %q; the policies are HookSucceeded, HookFailed, BeforeHookCreation and Never", key, name)})
		}
	}
	v, _ = annotation(o, helmHookDelete)
	for _, name := range splitOptions(v) {
		if p, known := helmPolicies[name]; known && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		out = []DeletePolicy{BeforeHookCreation}
	}
	return out, warnings
}

// HookName is the name of the object that a hook with generateName gets at a
// phase of the sync of a revision that began at started (Unix seconds).
func HookName(h Hook, phase Phase, revision string, started int64) string {
	if name := h.Object.GetName(); name != "" {
		return name
	}
	if revision != "" {
		revision = revision[:min(len(revision), 7)] + "-"
	}
	return strings.ToLower(fmt.Sprintf("%s%s%s-%d", h.Object.GetGenerateName(), revision, phase, started))
}
