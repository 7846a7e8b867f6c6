package settings

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Override is what resource.customizations say about the kinds of one pattern.
type Override struct {
	Pattern               Pattern
	HealthLua             string
	UseOpenLibs           bool // HealthLua may use the string and math libraries
	Actions               *Actions
	IgnoreDifferences     v1alpha1.IgnoreDifferences // without Group, Kind, Name and Namespace
	IgnoreResourceUpdates v1alpha1.IgnoreDifferences // the same
	KnownTypeFields       []KnownTypeField
}

// Actions are the resource actions of a kind, in Lua.
type Actions struct {
	DiscoveryLua        string             `json:"discovery.lua,omitempty"`
	Definitions         []ActionDefinition `json:"definitions,omitempty"`
	MergeBuiltinActions bool               `json:"mergeBuiltinActions,omitempty"`
}

// ActionDefinition is one action.
type ActionDefinition struct {
	Name string `json:"name"`
	Lua  string `json:"action.lua"`
}

// KnownTypeField says that a field of a custom resource holds a core type,
// such as core/v1/PodSpec or core/Quantity.
type KnownTypeField struct {
	Field string `json:"field"`
	Type  string `json:"type"`
}

// legacyOverride is one entry of the one large key resource.customizations.
// Some of its values are YAML in text.
type legacyOverride struct {
	HealthLua             string           `json:"health.lua,omitempty"`
	UseOpenLibs           bool             `json:"health.lua.useOpenLibs,omitempty"`
	Actions               string           `json:"actions,omitempty"`
	IgnoreDifferences     string           `json:"ignoreDifferences,omitempty"`
	IgnoreResourceUpdates string           `json:"ignoreResourceUpdates,omitempty"`
	KnownTypeFields       []KnownTypeField `json:"knownTypeFields,omitempty"`
}

type overrides map[Pattern]*Override

func (os overrides) of(p Pattern) *Override {
	o, ok := os[p]
	if !ok {
		o = &Override{Pattern: p}
		os[p] = o
	}
	return o
}

// sorted has exact patterns first, then the longest, so that the first that
// matches is the most specific.
func (os overrides) sorted() []Override {
	out := make([]Override, 0, len(os))
	for _, o := range os {
		out = append(out, *o)
	}
	slices.SortFunc(out, func(a, b Override) int {
		if x, y := a.Pattern.Exact(), b.Pattern.Exact(); x != y {
			if x {
				return -1
			}
			return 1
		}
		x, y := a.Pattern.String(), b.Pattern.String()
		return cmp.Or(len(y)-len(x), strings.Compare(x, y))
	})
	return out
}

func (p *parser) legacy(key, value string) {
	entries := map[string]legacyOverride{}
	if !p.yaml(key, value, &entries) {
		return
	}
	for name, e := range entries {
		at := key + ": " + name
		pattern, err := ParsePattern(name)
		if err != nil {
			p.warn(at, "is not read: %v", err)
			continue
		}
		o := p.overrides.of(pattern)
		o.HealthLua, o.UseOpenLibs, o.KnownTypeFields = e.HealthLua, e.UseOpenLibs, e.KnownTypeFields
		p.part(at+": actions", "actions", e.Actions, o)
		p.part(at+": ignoreDifferences", "ignoreDifferences", e.IgnoreDifferences, o)
		p.part(at+": ignoreResourceUpdates", "ignoreResourceUpdates", e.IgnoreResourceUpdates, o)
	}
}

// split reads a key resource.customizations.<part>.<group_Kind>.
func (p *parser) split(key, value string) {
	part, name, ok := strings.Cut(strings.TrimPrefix(key, customizations+"."), ".")
	if !ok {
		p.warn(key, "is not read: the key does not end with group_Kind")
		return
	}
	pattern, err := parseKeyPattern(name)
	if err != nil {
		p.warn(key, "is not read: %v", err)
		return
	}
	p.part(key, part, value, p.overrides.of(pattern))
}

func (p *parser) part(key, part, value string, o *Override) {
	if strings.TrimSpace(value) == "" {
		return
	}
	switch part {
	case "health":
		o.HealthLua = value
	case "useOpenLibs":
		open, err := strconv.ParseBool(strings.TrimSpace(value))
		if err != nil {
			p.warn(key, "%q is neither true nor false; false is taken", value)
		}
		o.UseOpenLibs = open
	case "actions":
		p.actions(key, value, o)
	case "ignoreDifferences":
		p.ignore(key, value, &o.IgnoreDifferences)
	case "ignoreResourceUpdates":
		p.ignore(key, value, &o.IgnoreResourceUpdates)
	case "knownTypeFields":
		p.yaml(key, value, &o.KnownTypeFields)
	default:
		p.warn(key, "%q is not a kind of customization; there are health, useOpenLibs, actions, ignoreDifferences, ignoreResourceUpdates and knownTypeFields", part)
	}
}

func (p *parser) actions(key, value string, o *Override) {
	a := &Actions{}
	if !p.yaml(key, value, a) {
		return
	}
	for _, d := range a.Definitions {
		if d.Name == "" || d.Lua == "" {
			p.warn(key, "a definition needs name and action.lua; definition %q is not offered", d.Name)
		}
	}
	a.Definitions = slices.DeleteFunc(a.Definitions, func(d ActionDefinition) bool { return d.Name == "" || d.Lua == "" })
	o.Actions = a
}

func (p *parser) ignore(key, value string, into *v1alpha1.IgnoreDifferences) {
	var read struct {
		JSONPointers          []string `json:"jsonPointers"`
		JQPathExpressions     []string `json:"jqPathExpressions"`
		ManagedFieldsManagers []string `json:"managedFieldsManagers"`
	}
	if !p.yaml(key, value, &read) {
		return
	}
	for _, pointer := range read.JSONPointers {
		if !strings.HasPrefix(pointer, "/") {
			p.warn(key, "the JSON pointer %q does not start with / and matches nothing", pointer)
		}
	}
	into.JSONPointers, into.JQPathExpressions, into.ManagedFieldsManagers =
		read.JSONPointers, read.JQPathExpressions, read.ManagedFieldsManagers
}

// yaml decodes a value. It warns about a value that cannot be read, and about
// fields that nobody knows, which Argo CD passes over without a word.
func (p *parser) yaml(key, value string, into any) bool {
	err := yaml.UnmarshalStrict([]byte(value), into)
	if err == nil {
		return true
	}
	if loose := yaml.Unmarshal([]byte(value), into); loose != nil {
		p.warn(key, "is not read: %v", oneLine(loose))
		return false
	}
	p.warn(key, "has a field that is not known, or twice: %v", oneLine(err))
	return true
}

func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return strings.TrimPrefix(text, "error unmarshaling JSON: while decoding JSON: ")
}

func (p *parser) warn(key, format string, args ...any) {
	p.warnings = append(p.warnings, Warning{Key: key, Message: fmt.Sprintf(format, args...)})
}
