package health

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

// check decides the health of the objects of a kind. ok is false when the kind
// has health, but not this object.
type check func(o *unstructured.Unstructured) (s Status, ok bool)

// Assessor knows what is healthy under some settings. It does not change, and
// is safe for use by several goroutines. When settings change, make a new one.
type Assessor struct {
	exact   map[schema.GroupKind]check
	pattern []patternCheck // in the order of precedence
}

type patternCheck struct {
	settings.Pattern
	suffix string // of the group, where the pattern is a star and this
	check  check
}

func newPatternCheck(p settings.Pattern, f check) patternCheck {
	out := patternCheck{Pattern: p, check: f}
	if rest, star := strings.CutPrefix(p.Group, "*"); star && rest != "" && !strings.ContainsAny(rest, "*?{") {
		out.suffix = rest
	}
	return out
}

// matches is quick to say no: it is asked for every object without a rule.
func (p *patternCheck) matches(gk schema.GroupKind) bool {
	if p.suffix != "" {
		return strings.HasSuffix(gk.Group, p.suffix) && (p.Kind == "*" || settings.Glob(p.Kind, gk.Kind))
	}
	return settings.Glob(p.Group, gk.Group) && (p.Kind == "*" || settings.Glob(p.Kind, gk.Kind))
}

// New makes an Assessor. s may be nil. Warnings are about scripts that cannot
// be compiled; the kinds that they are for are Unknown.
func New(s *settings.Settings) (*Assessor, []settings.Warning) {
	if s == nil {
		s = &settings.Settings{}
	}
	a := &Assessor{exact: map[schema.GroupKind]check{}}
	for gk, f := range builtin {
		a.exact[gk] = always(f)
	}
	ours := embedded()
	for _, r := range ours {
		for _, p := range r.match {
			if p.Exact() {
				a.exact[schema.GroupKind{Group: p.Group, Kind: p.Kind}] = r.of
			}
		}
	}
	warnings := a.scripts(s.Overrides)
	for _, r := range ours {
		for _, p := range r.match {
			if !p.Exact() {
				a.pattern = append(a.pattern, newPatternCheck(p, r.of))
			}
		}
	}
	for _, p := range s.GenericHealth {
		a.pattern = append(a.pattern, newPatternCheck(p, generic))
	}
	return a, warnings
}

// scripts adds the Lua of the settings. Overrides are sorted, the most
// specific first.
func (a *Assessor) scripts(overrides []settings.Override) []settings.Warning {
	var warnings []settings.Warning
	pool := new(sandbox.Pool)
	taken := map[schema.GroupKind]bool{}
	for _, o := range overrides {
		if o.HealthLua == "" {
			continue
		}
		f, err := script(pool, o)
		if err != nil {
			warnings = append(warnings, settings.Warning{Key: "resource.customizations.health: " + o.Pattern.String(), Message: err.Error()})
		}
		if o.Pattern.Exact() {
			gk := schema.GroupKind{Group: o.Pattern.Group, Kind: o.Pattern.Kind}
			a.exact[gk], taken[gk] = f, true
			continue
		}
		for gk := range a.exact {
			if !taken[gk] && o.Pattern.Matches(gk.Group, gk.Kind) {
				a.exact[gk], taken[gk] = f, true
			}
		}
		a.pattern = append(a.pattern, newPatternCheck(o.Pattern, f))
	}
	return warnings
}

// Of returns the health of a live object; ok is false for an object that has
// none.
func (a *Assessor) Of(o *unstructured.Unstructured) (s Status, ok bool) {
	if o == nil || o.Object == nil {
		return Status{}, false
	}
	if deleted(o.Object) && !isHook(o.Object) {
		return progressing("being deleted"), true
	}
	f := a.checkFor(o)
	if f == nil {
		return Status{}, false
	}
	return f(o)
}

// Known reports whether objects of a kind can have health.
func (a *Assessor) Known(gk schema.GroupKind) bool { return a.find(gk) != nil }

func (a *Assessor) checkFor(o *unstructured.Unstructured) check {
	version, _ := o.Object["apiVersion"].(string)
	kind, _ := o.Object["kind"].(string)
	return a.find(schema.GroupKind{Group: groupOf(version), Kind: kind})
}

func (a *Assessor) find(gk schema.GroupKind) check {
	if f, ok := a.exact[gk]; ok {
		return f
	}
	for i := range a.pattern {
		if p := &a.pattern[i]; p.matches(gk) {
			return p.check
		}
	}
	return nil
}

func groupOf(apiVersion string) string {
	for i := range len(apiVersion) {
		if apiVersion[i] == '/' {
			return apiVersion[:i]
		}
	}
	return ""
}

func deleted(o map[string]any) bool {
	meta, _ := o["metadata"].(map[string]any)
	at, _ := meta["deletionTimestamp"].(string)
	return at != ""
}

func isHook(o map[string]any) bool {
	return annotation(o, v1alpha1.AnnotationHook) != ""
}

func annotation(o map[string]any, key string) string {
	meta, _ := o["metadata"].(map[string]any)
	all, _ := meta["annotations"].(map[string]any)
	v, _ := all[key].(string)
	return v
}

func always(f func(object) Status) check {
	return func(o *unstructured.Unstructured) (Status, bool) { return f(o.Object), true }
}

// script makes a check of Lua. One that cannot be compiled says so for every
// object: to pass over it would show a health that the settings deny.
func script(pool *sandbox.Pool, o settings.Override) (check, error) {
	name := "health.lua of " + o.Pattern.String()
	program, err := pool.Compile(name, o.HealthLua, o.UseOpenLibs)
	if err != nil {
		return func(*unstructured.Unstructured) (Status, bool) { return unknown(err.Error()), true }, err
	}
	return func(o *unstructured.Unstructured) (Status, bool) {
		result, err := program.Run(o.Object, nil)
		if err != nil {
			return unknown(fmt.Sprintf("%s: %v", name, err)), true
		}
		return verdict(name, result), true
	}, nil
}

// verdict reads what a script returned: {status, message, aggregateAs}.
func verdict(name string, result any) Status {
	m, ok := result.(map[string]any)
	if !ok {
		return unknown(name + ": returns no table with status and message")
	}
	code, _ := m["status"].(string)
	as, _ := m["aggregateAs"].(string)
	s := Status{Code: v1alpha1.HealthCode(code), AggregateAs: v1alpha1.HealthCode(as)}
	switch text := m["message"].(type) {
	case string:
		s.Message = text
	case nil:
	default:
		s.Message = fmt.Sprint(text)
	}
	if !known(s.Code) {
		return unknown(fmt.Sprintf("%s: returns the status %q, which is none of %v", name, code, order))
	}
	if as != "" && !known(s.AggregateAs) {
		s.AggregateAs = ""
	}
	return s
}
