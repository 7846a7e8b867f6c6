package v1alpha1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The group, version and resources of this package.
const (
	Group   = "argoproj.io"
	Version = "v1alpha1"
)

// Resources and kinds, for dynamic clients.
var (
	ApplicationResource = schema.GroupVersionResource{Group: Group, Version: Version, Resource: "applications"}
	AppProjectResource  = schema.GroupVersionResource{Group: Group, Version: Version, Resource: "appprojects"}
	ApplicationKind     = schema.GroupVersionKind{Group: Group, Version: Version, Kind: "Application"}
	AppProjectKind      = schema.GroupVersionKind{Group: Group, Version: Version, Kind: "AppProject"}
)

// Annotations and finalizers that people write on Applications and on the
// objects that they hold.
const (
	AnnotationTrackingID     = "argocd.argoproj.io/tracking-id"
	AnnotationRefresh        = "argocd.argoproj.io/refresh"
	AnnotationHook           = "argocd.argoproj.io/hook"
	AnnotationHookDelete     = "argocd.argoproj.io/hook-delete-policy"
	AnnotationSyncWave       = "argocd.argoproj.io/sync-wave"
	AnnotationSyncOptions    = "argocd.argoproj.io/sync-options"
	AnnotationCompareOptions = "argocd.argoproj.io/compare-options"
	AnnotationIgnoreHealth   = "argocd.argoproj.io/ignore-healthcheck"
	AnnotationSkipReconcile  = "argocd.argoproj.io/skip-reconcile"
	AnnotationGeneratePaths  = "argocd.argoproj.io/manifest-generate-paths"
	AnnotationDeletionOK     = "argocd.argoproj.io/deletion-approved" // RFC 3339; confirms what asks for it
	AnnotationHookFinalizer  = "argocd.argoproj.io/hook-finalizer"
	AnnotationRollback       = "lockstep.dev/rollback"   // ours: holds an Application at an earlier state
	AnnotationPause          = "lockstep.dev/pause"      // ours: stops automated syncs; the value is the reason
	AnnotationDependsOn      = "lockstep.dev/depends-on" // ours: Applications that must be well first

	FinalizerResources           = "resources-finalizer.argocd.argoproj.io"
	FinalizerResourcesForeground = "resources-finalizer.argocd.argoproj.io/foreground"
	FinalizerResourcesBackground = "resources-finalizer.argocd.argoproj.io/background"
)

// Application names a source of manifests, a destination, and how the two are
// kept the same.
type Application struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              ApplicationSpec   `json:"spec"`
	Status            ApplicationStatus `json:"status,omitempty"`
	Operation         *Operation        `json:"operation,omitempty"`
}

// ApplicationSpec is what people write.
type ApplicationSpec struct {
	Source               *ApplicationSource   `json:"source,omitempty"`
	Destination          Destination          `json:"destination"`
	Project              string               `json:"project"`
	SyncPolicy           *SyncPolicy          `json:"syncPolicy,omitempty"`
	IgnoreDifferences    []IgnoreDifferences  `json:"ignoreDifferences,omitempty"`
	Info                 []Info               `json:"info,omitempty"`
	RevisionHistoryLimit *int64               `json:"revisionHistoryLimit,omitempty"`
	Sources              []*ApplicationSource `json:"sources,omitempty"`
	SourceHydrator       json.RawMessage      `json:"sourceHydrator,omitempty"`
}

// ApplicationSource says where manifests come from and how they are rendered.
type ApplicationSource struct {
	RepoURL        string           `json:"repoURL"`
	Path           string           `json:"path,omitempty"`
	TargetRevision string           `json:"targetRevision,omitempty"`
	Helm           *SourceHelm      `json:"helm,omitempty"`
	Kustomize      *SourceKustomize `json:"kustomize,omitempty"`
	Directory      *SourceDirectory `json:"directory,omitempty"`
	Plugin         *SourcePlugin    `json:"plugin,omitempty"`
	Chart          string           `json:"chart,omitempty"`
	Ref            string           `json:"ref,omitempty"`
	Name           string           `json:"name,omitempty"`
	TagPrefix      string           `json:"tagPrefix,omitempty"`
}

// SourceKustomize overrides fields of the kustomization that a source names.
type SourceKustomize struct {
	NamePrefix                string             `json:"namePrefix,omitempty"`
	NameSuffix                string             `json:"nameSuffix,omitempty"`
	Images                    []string           `json:"images,omitempty"`
	CommonLabels              map[string]string  `json:"commonLabels,omitempty"`
	Version                   string             `json:"version,omitempty"`
	CommonAnnotations         map[string]string  `json:"commonAnnotations,omitempty"`
	ForceCommonLabels         bool               `json:"forceCommonLabels,omitempty"`
	ForceCommonAnnotations    bool               `json:"forceCommonAnnotations,omitempty"`
	Namespace                 string             `json:"namespace,omitempty"`
	CommonAnnotationsEnvsubst bool               `json:"commonAnnotationsEnvsubst,omitempty"`
	Replicas                  []KustomizeReplica `json:"replicas,omitempty"`
	Patches                   []KustomizePatch   `json:"patches,omitempty"`
	Components                []string           `json:"components,omitempty"`
	IgnoreMissingComponents   bool               `json:"ignoreMissingComponents,omitempty"`
	LabelWithoutSelector      bool               `json:"labelWithoutSelector,omitempty"`
	KubeVersion               string             `json:"kubeVersion,omitempty"`
	APIVersions               []string           `json:"apiVersions,omitempty"`
	LabelIncludeTemplates     bool               `json:"labelIncludeTemplates,omitempty"`
}

// KustomizeReplica sets the replicas of the named workload.
type KustomizeReplica struct {
	Name  string             `json:"name"`
	Count intstr.IntOrString `json:"count"`
}

// KustomizePatch is an inline or file patch with its target.
type KustomizePatch struct {
	Path    string             `json:"path,omitempty"`
	Patch   string             `json:"patch,omitempty"`
	Target  *KustomizeSelector `json:"target,omitempty"`
	Options map[string]bool    `json:"options,omitempty"`
}

// KustomizeSelector picks the objects that a patch applies to.
type KustomizeSelector struct {
	Group              string `json:"group,omitempty"`
	Version            string `json:"version,omitempty"`
	Kind               string `json:"kind,omitempty"`
	Name               string `json:"name,omitempty"`
	Namespace          string `json:"namespace,omitempty"`
	AnnotationSelector string `json:"annotationSelector,omitempty"`
	LabelSelector      string `json:"labelSelector,omitempty"`
}

// SourceDirectory configures the reading of plain manifests.
type SourceDirectory struct {
	Recurse                bool          `json:"recurse,omitempty"`
	Jsonnet                SourceJsonnet `json:"jsonnet,omitzero"`
	Exclude                string        `json:"exclude,omitempty"`
	Include                string        `json:"include,omitempty"`
	DisableExtensionFilter bool          `json:"disableExtensionFilter,omitempty"`
}

// Destination is the cluster and namespace that objects go to.
type Destination struct {
	Server    string `json:"server,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// SyncPolicy says when and how a sync happens.
type SyncPolicy struct {
	Automated                *Automated         `json:"automated,omitempty"`
	SyncOptions              []string           `json:"syncOptions,omitempty"`
	Retry                    *Retry             `json:"retry,omitempty"`
	ManagedNamespaceMetadata *NamespaceMetadata `json:"managedNamespaceMetadata,omitempty"`
}

// Automated turns automated sync on.
type Automated struct {
	Prune      bool  `json:"prune,omitempty"`
	SelfHeal   bool  `json:"selfHeal,omitempty"`
	AllowEmpty bool  `json:"allowEmpty,omitempty"`
	Enabled    *bool `json:"enabled,omitempty"`
}

// Retry bounds the attempts of one sync.
type Retry struct {
	Limit   int64    `json:"limit,omitempty"`
	Backoff *Backoff `json:"backoff,omitempty"`
	Refresh bool     `json:"refresh,omitempty"`
}

// Backoff is the wait between attempts: Duration × Factor^n, at most MaxDuration.
type Backoff struct {
	Duration    string `json:"duration,omitempty"`
	Factor      *int64 `json:"factor,omitempty"`
	MaxDuration string `json:"maxDuration,omitempty"`
}

// NamespaceMetadata is put on the namespace that CreateNamespace=true makes.
type NamespaceMetadata struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// IgnoreDifferences names fields whose differences do not count.
type IgnoreDifferences struct {
	Group                 string   `json:"group,omitempty"`
	Kind                  string   `json:"kind"`
	Name                  string   `json:"name,omitempty"`
	Namespace             string   `json:"namespace,omitempty"`
	JSONPointers          []string `json:"jsonPointers,omitempty"`
	JQPathExpressions     []string `json:"jqPathExpressions,omitempty"`
	ManagedFieldsManagers []string `json:"managedFieldsManagers,omitempty"`
}

// Info is a name and value shown to people.
type Info struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Operation asks for a sync. Who wants one writes the field; the controller
// removes it when it has taken it up.
type Operation struct {
	Sync        *SyncOperation `json:"sync,omitempty"`
	InitiatedBy Initiator      `json:"initiatedBy,omitempty"`
	Info        []*Info        `json:"info,omitempty"`
	Retry       Retry          `json:"retry,omitempty"`
}

// SyncOperation says what to sync.
type SyncOperation struct {
	Revision              string               `json:"revision,omitempty"`
	Prune                 bool                 `json:"prune,omitempty"`
	DryRun                bool                 `json:"dryRun,omitempty"`
	SyncStrategy          *SyncStrategy        `json:"syncStrategy,omitempty"`
	Resources             []SyncResource       `json:"resources,omitempty"`
	Source                *ApplicationSource   `json:"source,omitempty"`
	Manifests             []string             `json:"manifests,omitempty"`
	SyncOptions           []string             `json:"syncOptions,omitempty"`
	Sources               []*ApplicationSource `json:"sources,omitempty"`
	Revisions             []string             `json:"revisions,omitempty"`
	AutoHealAttemptsCount int64                `json:"autoHealAttemptsCount,omitempty"`
}

// SyncStrategy chooses between apply only and apply with hooks.
type SyncStrategy struct {
	Apply *SyncStrategyApply `json:"apply,omitempty"`
	Hook  *SyncStrategyApply `json:"hook,omitempty"`
}

// SyncStrategyApply carries the force flag of a strategy.
type SyncStrategyApply struct {
	Force bool `json:"force,omitempty"`
}

// SyncResource selects one object of a selective sync.
type SyncResource struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
	Exclude   bool   `json:"-"`
}

// Initiator is who asked for an operation.
type Initiator struct {
	Username  string `json:"username,omitempty"`
	Automated bool   `json:"automated,omitempty"`
}
