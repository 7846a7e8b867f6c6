// Package settings reads the settings that Argo CD keeps in the ConfigMaps
// argocd-cm and argocd-cmd-params-cm, as far as the engine uses them. It is
// pure.
//
// Input: the data of the two ConfigMaps. Output: a [Settings] value with
// Argo CD's defaults where a key is missing, and a [Warning] for each key that
// cannot be read, is not known, or asks for what the engine does not do. A bad
// key never hides the others.
//
// Start reading at [Parse].
package settings

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// The names of the two ConfigMaps, in the namespace of the Applications.
const (
	ConfigMapName = "argocd-cm"
	ParamsName    = "argocd-cmd-params-cm"
)

// Warning is about one key that does not do what its author may expect.
type Warning struct {
	Key     string
	Message string
}

func (w Warning) String() string { return w.Key + ": " + w.Message }

// TrackingMethod says how an object is marked as one of an application.
type TrackingMethod string

// The tracking methods.
const (
	TrackAnnotation         TrackingMethod = "annotation"
	TrackLabel              TrackingMethod = "label"
	TrackAnnotationAndLabel TrackingMethod = "annotation+label"
)

// StatusField says for which objects differences below /status do not count.
type StatusField string

// The values of ignoreResourceStatusField.
const (
	StatusOfAll  StatusField = "all"
	StatusOfCRDs StatusField = "crd"
	StatusOfNone StatusField = "none"
)

// Settings are what administrators configure for all applications. A Settings
// value is not changed after [Parse].
type Settings struct {
	URL            string
	AdditionalURLs []string

	// Overrides are the resource customizations, the most specific pattern
	// first.
	Overrides []Override
	// GenericHealth names the kinds without a rule whose conditions decide
	// their health. Argo CD has no such thing; it is empty by default.
	GenericHealth []Pattern

	Exclusions, Inclusions       []Filter
	RespectRBAC                  string // "", "normal" or "strict"
	IgnoreAggregatedRoles        bool
	IgnoreStatusField            StatusField
	IgnoreDifferencesOnUpdates   bool // ignoreDifferences also count as ignoreResourceUpdates
	IgnoreResourceUpdatesEnabled bool
	MaskedAnnotations            []string // of Secrets, beside their data

	InstanceLabelKey string
	TrackingMethod   TrackingMethod
	InstallationID   string

	KustomizeEnabled, HelmEnabled, JsonnetEnabled bool
	KustomizeBuildOptions                         string            // of the version that applications get by default
	KustomizeVersionOptions                       map[string]string // version to its build options
	HelmValuesSchemes                             []string          // of remote values files; empty for none

	Reconciliation       time.Duration // the pause between looks at a repository; 0 for never
	ReconciliationJitter time.Duration // at most so much longer

	GlobalProjects []GlobalProject
	Impersonation  bool

	ApplicationNamespaces []string // beside the own one; globs, or regular expressions between slashes
	ServerSideDiff        bool
	StatusProcessors      int // 0 when not set
	OperationProcessors   int // 0 when not set
	SelfHealTimeout       time.Duration
	SelfHealFactor        int
	SelfHealCap           time.Duration
	SyncTimeout           time.Duration // 0 for none
	GitTimeout            time.Duration // of one request; 0 when not set
	Submodules            bool
	MaxDirectorySize      string // of the manifests of one directory, as "10M"; "" when not set
}

// GlobalProject is a project whose rules also hold for all projects with
// certain labels.
type GlobalProject struct {
	Project  string               `json:"projectName"`
	Selector metav1.LabelSelector `json:"labelSelector"`
}

// Default returns the settings of two empty ConfigMaps.
func Default() *Settings {
	return &Settings{
		IgnoreStatusField: StatusOfAll, IgnoreDifferencesOnUpdates: true, IgnoreResourceUpdatesEnabled: true,
		InstanceLabelKey: "app.kubernetes.io/instance", TrackingMethod: TrackAnnotation,
		KustomizeEnabled: true, HelmEnabled: true, JsonnetEnabled: true, HelmValuesSchemes: []string{"https", "http"},
		Reconciliation: 2 * time.Minute, ReconciliationJitter: time.Minute,
		SelfHealTimeout: 2 * time.Second, SelfHealFactor: 3, SelfHealCap: 5 * time.Minute, Submodules: true,
	}
}

type parser struct {
	*Settings
	overrides overrides
	warnings  []Warning
}

// Parse reads the data of argocd-cm and of argocd-cmd-params-cm; both may be
// nil. Warnings are sorted by key.
func Parse(config, params map[string]string) (*Settings, []Warning) {
	p := &parser{Settings: Default(), overrides: overrides{}}
	// The large old key is read first: the small ones win over it.
	if v := config[customizations]; strings.TrimSpace(v) != "" {
		p.legacy(customizations, v)
	}
	for _, key := range slices.Sorted(maps.Keys(config)) {
		p.config(key, config[key])
	}
	for _, key := range slices.Sorted(maps.Keys(params)) {
		p.params(key, params[key])
	}
	p.Overrides = p.overrides.sorted()
	slices.SortStableFunc(p.warnings, func(a, b Warning) int { return strings.Compare(a.Key, b.Key) })
	return p.Settings, p.warnings
}

// IgnoreDifferencesFor returns the rules whose differences do not count for a
// kind: those of every override that names it, and /status where the settings
// say so.
func (s *Settings) IgnoreDifferencesFor(group, kind string) []v1alpha1.IgnoreDifferences {
	var out []v1alpha1.IgnoreDifferences
	for i := range s.Overrides {
		o := &s.Overrides[i]
		if hasRules(o.IgnoreDifferences) && o.Pattern.Matches(group, kind) {
			out = append(out, of(o.IgnoreDifferences, group, kind))
		}
	}
	if s.IgnoresStatus(group, kind) {
		out = append(out, v1alpha1.IgnoreDifferences{Group: group, Kind: kind, JSONPointers: []string{"/status"}})
	}
	return out
}

// IgnoreUpdatesFor returns the rules for changes of watched objects that are
// no reason to look at an application again.
func (s *Settings) IgnoreUpdatesFor(group, kind string) []v1alpha1.IgnoreDifferences {
	if !s.IgnoreResourceUpdatesEnabled {
		return nil
	}
	var out []v1alpha1.IgnoreDifferences
	for i := range s.Overrides {
		o := &s.Overrides[i]
		if !o.Pattern.Matches(group, kind) {
			continue
		}
		if hasRules(o.IgnoreResourceUpdates) {
			out = append(out, of(o.IgnoreResourceUpdates, group, kind))
		}
		if s.IgnoreDifferencesOnUpdates && hasRules(o.IgnoreDifferences) {
			out = append(out, of(o.IgnoreDifferences, group, kind))
		}
	}
	return out
}

func hasRules(r v1alpha1.IgnoreDifferences) bool {
	return len(r.JSONPointers)+len(r.JQPathExpressions)+len(r.ManagedFieldsManagers) > 0
}

func of(r v1alpha1.IgnoreDifferences, group, kind string) v1alpha1.IgnoreDifferences {
	r.Group, r.Kind = group, kind
	return r
}

// IgnoresStatus reports whether differences below /status do not count.
func (s *Settings) IgnoresStatus(group, kind string) bool {
	switch s.IgnoreStatusField {
	case StatusOfNone:
		return false
	case StatusOfCRDs:
		return group == "apiextensions.k8s.io" && kind == "CustomResourceDefinition"
	}
	return true
}

// OverridesFor returns the overrides that name a kind, the most specific first.
func (s *Settings) OverridesFor(group, kind string) []Override {
	var out []Override
	for _, o := range s.Overrides {
		if o.Pattern.Matches(group, kind) {
			out = append(out, o)
		}
	}
	return out
}

// KnownTypeFieldsFor returns the fields of a kind that hold core types.
func (s *Settings) KnownTypeFieldsFor(group, kind string) []KnownTypeField {
	var out []KnownTypeField
	for _, o := range s.OverridesFor(group, kind) {
		out = append(out, o.KnownTypeFields...)
	}
	return out
}

// BuildOptions returns the flags of kustomize build for a version, "" for the
// default one. ok is false when a version was asked for that no key names.
func (s *Settings) BuildOptions(version string) (flags []string, ok bool) {
	if version == "" {
		return strings.Fields(s.KustomizeBuildOptions), true
	}
	options, ok := s.KustomizeVersionOptions[version]
	return strings.Fields(options), ok
}

func (p *parser) boolean(key, value string, into *bool) {
	if value = strings.TrimSpace(value); value == "" {
		return
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		p.warn(key, "%q is neither true nor false; %v stays", value, *into)
		return
	}
	*into = b
}

func (p *parser) duration(key, value string, into *time.Duration) {
	if value = strings.TrimSpace(value); value == "" {
		return
	}
	d, err := parseDuration(value)
	if err != nil {
		p.warn(key, "%v; %v stays", err, *into)
		return
	}
	*into = d
}

// parseDuration reads Go's notation, with days, and a number of seconds.
func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < 1<<31 {
		return time.Duration(n) * time.Second, nil
	}
	rest, days := text, 0
	if head, tail, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.Atoi(head)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is not a duration such as 30s, 3m or 1d", text)
		}
		if rest, days = tail, n; rest == "" {
			rest = "0"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30s, 3m or 1d", text)
	}
	return d + time.Duration(days)*24*time.Hour, nil
}

func (p *parser) number(key, value string, into *int) {
	if value = strings.TrimSpace(value); value == "" {
		return
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		p.warn(key, "%q is not a number from 0; %d stays", value, *into)
		return
	}
	*into = n
}

func list(value string) []string {
	var out []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}
