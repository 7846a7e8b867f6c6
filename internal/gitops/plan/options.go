package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Options are the sync options of an application.
type Options struct {
	ObjectOptions
	CreateNamespace          bool
	PrunePropagation         string // foreground, background, orphan
	RespectIgnoreDifferences bool
	FailOnSharedResource     bool
	OnlyOutOfSync            bool   // ApplyOutOfSyncOnly=true: say nothing of what is in sync
	KeepClientSide           bool   // ClientSideApplyMigration=false
	MigrationManager         string // whose client-side fields are taken over; "" for kubectl's
}

// ObjectOptions are the options that an object may set for itself.
type ObjectOptions struct {
	Prune             string // "", "false" or "confirm"
	Delete            string // "", "false" or "confirm"
	PruneLast         bool
	Replace           bool
	Force             bool // delete and make anew what cannot be changed
	ServerSideApply   bool // asked for; objects are written so in any case
	SkipValidation    bool // Validate=false
	SkipMissingDryRun bool // SkipDryRunOnMissingResource=true
}

// AnnotationMigrationManager on an Application names the field manager whose
// fields ClientSideApplyMigration takes over.
const AnnotationMigrationManager = "argocd.argoproj.io/client-side-apply-migration-manager"

var propagations = []string{"foreground", "background", "orphan"}

// ParseOptions reads syncOptions. What is not carried out becomes a warning.
func ParseOptions(list []string) (Options, []Warning) {
	o := Options{PrunePropagation: "foreground"}
	var warnings []Warning
	for _, entry := range list {
		entry = strings.TrimSpace(entry)
		if w := o.set(entry); w != "" {
			warnings = append(warnings, unsupported("syncOptions", entry, w))
		}
	}
	return o, warnings
}

func unsupported(where, entry, what string) Warning {
	return Warning{v1alpha1.ConditionUnsupportedFeatures, fmt.Sprintf("%s: %s is not carried out: %s", where, entry, what)}
}

// set takes one option of an application; it returns why it cannot.
func (o *Options) set(entry string) string {
	name, value, _ := strings.Cut(entry, "=")
	switch name {
	case "CreateNamespace":
		return yesNo(value, &o.CreateNamespace)
	case "RespectIgnoreDifferences":
		return yesNo(value, &o.RespectIgnoreDifferences)
	case "FailOnSharedResource":
		return yesNo(value, &o.FailOnSharedResource)
	case "ApplyOutOfSyncOnly":
		return yesNo(value, &o.OnlyOutOfSync)
	case "ClientSideApplyMigration":
		return noYes(value, &o.KeepClientSide)
	case "PrunePropagationPolicy":
		if !slices.Contains(propagations, value) {
			return "the values are foreground, background and orphan"
		}
		o.PrunePropagation = value
		return ""
	case "Force":
		return "it is an option of single objects: set it in their annotation argocd.argoproj.io/sync-options"
	}
	return o.ObjectOptions.set(entry)
}

func yesNo(value string, to *bool) string {
	if value != "true" && value != "false" {
		return "the values are true and false"
	}
	*to = value == "true"
	return ""
}

func noYes(value string, to *bool) string {
	why := yesNo(value, to)
	if why == "" {
		*to = !*to
	}
	return why
}

// set takes one option of an object; it returns why it cannot.
func (o *ObjectOptions) set(entry string) string {
	name, value, _ := strings.Cut(entry, "=")
	switch name {
	case "Prune":
		return consent(value, &o.Prune)
	case "Delete":
		return consent(value, &o.Delete)
	case "PruneLast":
		return yesNo(value, &o.PruneLast)
	case "Replace":
		return yesNo(value, &o.Replace)
	case "Force":
		return yesNo(value, &o.Force)
	case "Validate":
		return noYes(value, &o.SkipValidation)
	case "SkipDryRunOnMissingResource":
		return yesNo(value, &o.SkipMissingDryRun)
	case "ServerSideApply":
		if value == "false" {
			o.ServerSideApply = false
			return "objects are always written by server-side apply"
		}
		return yesNo(value, &o.ServerSideApply)
	}
	return "it is not an option that this engine knows"
}

func consent(value string, to *string) string {
	switch value {
	case "false", "confirm":
		*to = value
	case "true":
		*to = ""
	default:
		return "the values are true, false and confirm"
	}
	return ""
}

// appOnly are the options that an object cannot set.
var appOnly = []string{
	"CreateNamespace", "ApplyOutOfSyncOnly", "PrunePropagationPolicy", "RespectIgnoreDifferences", "FailOnSharedResource", "ClientSideApplyMigration",
}

func objectOptions(o *unstructured.Unstructured, app Options) (ObjectOptions, []Warning) {
	out := app.ObjectOptions
	if v, _ := annotation(o, helmResourcePolicy); v == "keep" {
		out.Prune, out.Delete = "false", "false"
	}
	var warnings []Warning
	v, _ := annotation(o, v1alpha1.AnnotationSyncOptions)
	for _, entry := range splitOptions(v) {
		name, _, _ := strings.Cut(entry, "=")
		why := ""
		if slices.Contains(appOnly, name) {
			why = "it is an option of an application: set it in spec.syncPolicy.syncOptions"
		} else {
			why = out.set(entry)
		}
		if why != "" {
			warnings = append(warnings, unsupported(fmt.Sprintf("%s, annotation sync-options", KeyOf(o)), entry, why))
		}
	}
	v, _ = annotation(o, v1alpha1.AnnotationCompareOptions)
	for _, entry := range splitOptions(v) {
		name, _, _ := strings.Cut(entry, "=")
		if name != "IgnoreExtraneous" && name != "ServerSideDiff" && name != "IncludeMutationWebhook" {
			warnings = append(warnings, unsupported(fmt.Sprintf("%s, annotation compare-options", KeyOf(o)), entry, "it is not an option that this engine knows"))
		}
	}
	return out, warnings
}

// OptionsOf returns the options of one object: those of the application, and
// over them those of its annotation.
func OptionsOf(o *unstructured.Unstructured, app Options) ObjectOptions {
	out, _ := objectOptions(o, app)
	return out
}

// wave is the wave of an object: its own annotation, or its weight as a Helm
// hook, or 0.
func wave(o *unstructured.Unstructured, warnings []Warning) (int, []Warning) {
	v, ok := annotation(o, v1alpha1.AnnotationSyncWave)
	if ok {
		n, err := strconv.Atoi(strings.TrimSpace(v))
		if err == nil {
			return n, warnings
		}
	}
	n := 0
	if w, has := annotation(o, helmHookWeight); has {
		if weight, err := strconv.Atoi(strings.TrimSpace(w)); err == nil {
			n = weight
		}
	}
	if ok {
		warnings = append(warnings, Warning{v1alpha1.ConditionManifestWarning, fmt.Sprintf("%s: sync-wave %q is not a number; wave %d is used", KeyOf(o), v, n)})
	}
	return n, warnings
}

// Confirmed reports whether the annotations of an Application approve what
// was asked for at since: deletion-approved has a time (RFC 3339) not before.
func Confirmed(annotations map[string]string, since time.Time) bool {
	at, err := time.Parse(time.RFC3339, annotations[v1alpha1.AnnotationDeletionOK])
	return err == nil && !at.Before(since.Truncate(time.Second))
}

// Deletion says what becomes of a live object when its application is deleted
// with its objects: why it stays ("" when it goes), and whether the deletion
// has to be confirmed first.
func Deletion(live *unstructured.Unstructured, app Options) (stays string, confirm bool) {
	o := OptionsOf(live, app)
	switch {
	case o.Delete == "false":
		return "Delete=false is set", false
	case isDefinition(live):
		return "with a CustomResourceDefinition all objects of its kind would go", false
	}
	return "", o.Delete == "confirm"
}

func isDefinition(o *unstructured.Unstructured) bool {
	return o.GetKind() == "CustomResourceDefinition" && strings.HasPrefix(o.GetAPIVersion(), "apiextensions.k8s.io/")
}
