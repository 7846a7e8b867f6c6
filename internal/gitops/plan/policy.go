package plan

import (
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan/ignore"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

// Policy is what administrators say about comparing, for all applications. It
// is safe for concurrent use. A nil Policy is that of empty settings.
type Policy struct {
	Expressions    *ignore.Expressions // nil: compiled anew for each object that differs
	Status         settings.StatusField
	Masked         []string // annotations of Secrets whose values are hidden
	ServerSideDiff bool     // what a compare-options annotation does not say

	rules []ignore.Rule
	known []knownKind
}

type knownKind struct {
	settings.Pattern
	types []KnownType
}

// PolicyOf takes from the settings what is about comparing.
func PolicyOf(s *settings.Settings) *Policy {
	p := &Policy{
		Expressions: ignore.NewExpressions(0), Status: s.IgnoreStatusField, Masked: s.MaskedAnnotations, ServerSideDiff: s.ServerSideDiff,
	}
	for _, o := range s.Overrides {
		r := o.IgnoreDifferences
		if len(r.JSONPointers)+len(r.JQPathExpressions)+len(r.ManagedFieldsManagers) > 0 {
			r.Group, r.Kind = o.Pattern.Group, o.Pattern.Kind
			p.rules = append(p.rules, ignore.Rule{IgnoreDifferences: r, Origin: "ignored by the settings, ignoreDifferences of " + o.Pattern.String()})
		}
		var types []KnownType
		for _, f := range o.KnownTypeFields {
			types = append(types, KnownType{strings.Split(f.Field, "."), f.Type})
		}
		if len(types) > 0 {
			p.known = append(p.known, knownKind{o.Pattern, types})
		}
	}
	return p
}

// Check names what is wrong with the policy, for administrators.
func (p *Policy) Check() []string {
	var out []string
	for _, r := range p.rules {
		for _, w := range ignore.Check([]v1alpha1.IgnoreDifferences{r.IgnoreDifferences}) {
			out = append(out, r.Origin+": "+w)
		}
	}
	for _, k := range p.known {
		for _, t := range k.types {
			if t.Type != "core/Quantity" && t.Type != "meta/v1/Duration" && !strings.HasPrefix(t.Type, "core/v1/") {
				out = append(out, fmt.Sprintf("knownTypeFields of %s: type %s of %s is not known; there are core/Quantity, meta/v1/Duration and core/v1/<type>",
					k.Pattern, t.Type, strings.Join(t.Field, ".")))
			}
		}
	}
	return out
}

func (p *Policy) statusCounts(key Key) bool {
	if p == nil {
		return false
	}
	switch p.Status {
	case settings.StatusOfNone:
		return true
	case settings.StatusOfCRDs:
		return key.Kind != "CustomResourceDefinition"
	}
	return false
}

func (p *Policy) knownTypes(key Key) []KnownType {
	if key.Group == "argoproj.io" && key.Kind == "Rollout" {
		return []KnownType{{[]string{"spec", "template", "spec"}, "core/v1/PodSpec"}}
	}
	if p == nil {
		return nil
	}
	var out []KnownType
	for _, k := range p.known {
		if k.Matches(key.Group, key.Kind) {
			out = append(out, k.types...)
		}
	}
	return out
}

func (p *Policy) expressions() *ignore.Expressions {
	if p == nil || p.Expressions == nil {
		return ignore.NewExpressions(0)
	}
	return p.Expressions
}

func (p *Policy) masked() []string {
	if p == nil {
		return nil
	}
	return p.Masked
}

// CompareOptions are those of the annotation compare-options of an object.
type CompareOptions struct {
	IgnoreExtraneous       bool
	ServerSideDiff         bool // compare with a prediction of the server
	IncludeMutationWebhook bool // what admission changes counts
}

// CompareOptionsOf reads the annotation; policy says what it leaves open.
func CompareOptionsOf(value string, policy *Policy) CompareOptions {
	o := CompareOptions{ServerSideDiff: policy != nil && policy.ServerSideDiff}
	for entry := range strings.SplitSeq(value, ",") {
		switch strings.TrimSpace(entry) {
		case "IgnoreExtraneous":
			o.IgnoreExtraneous = true
		case "ServerSideDiff=true":
			o.ServerSideDiff = true
		case "ServerSideDiff=false":
			o.ServerSideDiff = false
		case "IncludeMutationWebhook=true":
			o.IncludeMutationWebhook = true
		}
	}
	return o
}
