package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// Options are the sync options of an application.
type Options struct {
	ObjectOptions
	CreateNamespace          bool
	PrunePropagation         string // foreground, background, orphan
	RespectIgnoreDifferences bool
	FailOnSharedResource     bool
}

// ObjectOptions are the options that an object may set for itself.
type ObjectOptions struct {
	Prune             string // "", "false" or "confirm"
	Delete            string // "", "false" or "confirm"
	PruneLast         bool
	Replace           bool
	SkipValidation    bool // Validate=false
	SkipMissingDryRun bool // SkipDryRunOnMissingResource=true
}

// ParseOptions reads syncOptions. What is not carried out becomes a warning.
func ParseOptions(list []string) (Options, []Warning) {
	o := Options{PrunePropagation: "foreground"}
	var warnings []Warning
	for _, entry := range list {
		name, value, _ := strings.Cut(strings.TrimSpace(entry), "=")
		yes := value == "true"
		switch name {
		case "CreateNamespace":
			o.CreateNamespace = yes
		case "PrunePropagationPolicy":
			if !slices.Contains([]string{"foreground", "background", "orphan"}, value) {
				warnings = append(warnings, unsupported("syncOptions", entry, "foreground is used; the values are foreground, background and orphan"))
				continue
			}
			o.PrunePropagation = value
		case "RespectIgnoreDifferences":
			o.RespectIgnoreDifferences = yes
		case "FailOnSharedResource":
			o.FailOnSharedResource = yes
		case "ApplyOutOfSyncOnly", "ClientSideApplyMigration":
			if !yes && name == "ClientSideApplyMigration" {
				warnings = append(warnings, unsupported("syncOptions", entry, "fields of an earlier client-side apply are always taken over"))
			} // only what differs is ever written
		default:
			if w, ok := o.ObjectOptions.set(name, value, "syncOptions", entry); ok && w != nil {
				warnings = append(warnings, *w)
			} else if !ok {
				warnings = append(warnings, unsupported("syncOptions", entry, "it is not an option that this engine knows"))
			}
		}
	}
	return o, warnings
}

func unsupported(where, entry, what string) Warning {
	return Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf("%s: %s is not carried out: %s", where, entry, what)}
}

// set takes one option; ok says whether its name is known.
func (o *ObjectOptions) set(name, value, where, entry string) (warning *Warning, ok bool) {
	yes := value == "true"
	warn := func(what string) (*Warning, bool) {
		w := unsupported(where, entry, what)
		return &w, true
	}
	switch name {
	case "Prune":
		o.Prune = value
	case "Delete":
		o.Delete = value
	case "PruneLast":
		o.PruneLast = yes
	case "Replace":
		o.Replace = yes
	case "Force":
		if yes {
			return warn("objects are not deleted and made anew; delete the object, and the next sync makes it")
		}
	case "Validate":
		o.SkipValidation = value == "false"
	case "SkipDryRunOnMissingResource":
		o.SkipMissingDryRun = yes
	case "ServerSideApply":
		if value == "false" {
			return warn("objects are always written by server-side apply")
		}
	default:
		return nil, false
	}
	return nil, true
}

func objectOptions(o *unstructured.Unstructured, app Options) (ObjectOptions, []Warning) {
	out := app.ObjectOptions
	var warnings []Warning
	where := fmt.Sprintf("%s, annotation sync-options", KeyOf(o))
	for _, entry := range splitOptions(o.GetAnnotations()[v1alpha1.AnnotationSyncOptions]) {
		name, value, _ := strings.Cut(entry, "=")
		w, ok := out.set(name, value, where, entry)
		if !ok {
			warnings = append(warnings, unsupported(where, entry, "it is not an option that this engine knows for an object"))
		} else if w != nil {
			warnings = append(warnings, *w)
		}
	}
	for _, entry := range splitOptions(o.GetAnnotations()[v1alpha1.AnnotationCompareOptions]) {
		name, _, _ := strings.Cut(entry, "=")
		if name != "IgnoreExtraneous" && name != "ServerSideDiff" && name != "IncludeMutationWebhook" {
			warnings = append(warnings, unsupported(fmt.Sprintf("%s, annotation compare-options", KeyOf(o)), entry, "it is not an option that this engine knows"))
		}
	}
	return out, warnings
}

func wave(o *unstructured.Unstructured, warnings []Warning) (int, []Warning) {
	v, ok := o.GetAnnotations()[v1alpha1.AnnotationSyncWave]
	if !ok {
		return 0, warnings
	}
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil {
		return 0, append(warnings, Warning{v1alpha1.ConditionManifestWarning, fmt.Sprintf("%s: sync-wave %q is not a number; wave 0 is used", KeyOf(o), v)})
	}
	return n, warnings
}

// Phase is a part of a sync.
type Phase string

// The phases that this engine runs, in order; SyncFail instead of the rest
// when one fails.
const (
	PreSync  Phase = "PreSync"
	Sync     Phase = "Sync"
	PostSync Phase = "PostSync"
	SyncFail Phase = "SyncFail"
)

// DeletePolicy says when a hook's object is deleted.
type DeletePolicy string

// The policies.
const (
	HookSucceeded      DeletePolicy = "HookSucceeded"
	HookFailed         DeletePolicy = "HookFailed"
	BeforeHookCreation DeletePolicy = "BeforeHookCreation"
)

// Hook is an object that is created at a phase of a sync and waited for.
type Hook struct {
	Key
	Object *unstructured.Unstructured
	Phases []Phase
	Delete []DeletePolicy
	Wave   int
	Place  string
}

func isHook(o *unstructured.Unstructured) bool {
	_, ok := o.GetAnnotations()[v1alpha1.AnnotationHook]
	return ok
}

// parseHook returns nil for objects that no sync applies.
func parseHook(d manifest.Object) (*Hook, []Warning) {
	h := &Hook{Key: KeyOf(d.Unstructured), Object: Normalize(d.Unstructured), Place: d.Place()}
	var warnings []Warning
	h.Wave, warnings = wave(d.Unstructured, nil)
	for _, p := range splitOptions(d.GetAnnotations()[v1alpha1.AnnotationHook]) {
		switch Phase(p) {
		case PreSync, Sync, PostSync, SyncFail:
			h.Phases = append(h.Phases, Phase(p))
		case "Skip":
		default:
			warnings = append(warnings, Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf(
				"%s: hook %s is not run; PreSync, Sync, PostSync and SyncFail are", h.Key, p)})
		}
	}
	for _, p := range splitOptions(d.GetAnnotations()[v1alpha1.AnnotationHookDelete]) {
		switch DeletePolicy(p) {
		case HookSucceeded, HookFailed, BeforeHookCreation:
			h.Delete = append(h.Delete, DeletePolicy(p))
		default:
			warnings = append(warnings, Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf("%s: hook-delete-policy %s is not known", h.Key, p)})
		}
	}
	if len(h.Delete) == 0 {
		h.Delete = []DeletePolicy{BeforeHookCreation}
	}
	if len(h.Phases) == 0 {
		return nil, warnings
	}
	return h, warnings
}

// OptionsOf returns the options of one object: those of the application, and
// over them those of its annotation.
func OptionsOf(o *unstructured.Unstructured, app Options) ObjectOptions {
	out, _ := objectOptions(o, app)
	return out
}
