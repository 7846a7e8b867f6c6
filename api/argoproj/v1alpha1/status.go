package v1alpha1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SyncCode says whether live state is what the source asks for.
type SyncCode string

// The sync codes.
const (
	SyncUnknown   SyncCode = "Unknown"
	SyncSynced    SyncCode = "Synced"
	SyncOutOfSync SyncCode = "OutOfSync"
)

// HealthCode says how well an object or application works.
type HealthCode string

// The health codes.
const (
	HealthUnknown     HealthCode = "Unknown"
	HealthProgressing HealthCode = "Progressing"
	HealthHealthy     HealthCode = "Healthy"
	HealthSuspended   HealthCode = "Suspended"
	HealthDegraded    HealthCode = "Degraded"
	HealthMissing     HealthCode = "Missing"
)

// Phase says how far an operation is.
type Phase string

// The phases of an operation.
const (
	PhaseRunning     Phase = "Running"
	PhaseTerminating Phase = "Terminating"
	PhaseFailed      Phase = "Failed"
	PhaseError       Phase = "Error"
	PhaseSucceeded   Phase = "Succeeded"
)

// Completed reports whether nothing more happens in an operation of this phase.
func (p Phase) Completed() bool {
	return p == PhaseFailed || p == PhaseError || p == PhaseSucceeded
}

// The types of conditions that this engine writes.
const (
	ConditionDeletionError       = "DeletionError"
	ConditionInvalidSpecError    = "InvalidSpecError"
	ConditionComparisonError     = "ComparisonError"
	ConditionSyncError           = "SyncError"
	ConditionUnknownError        = "UnknownError"
	ConditionSharedResource      = "SharedResourceWarning"
	ConditionRepeatedResource    = "RepeatedResourceWarning"
	ConditionExcludedResource    = "ExcludedResourceWarning"
	ConditionOrphanedResource    = "OrphanedResourceWarning"
	ConditionUnsupportedFeatures = "UnsupportedFeatureWarning" // ours: a setting that this engine does not carry out
	ConditionManifestWarning     = "ManifestWarning"           // ours: a manifest that is read, but looks wrong
)

// ApplicationStatus is what the controller found and did.
type ApplicationStatus struct {
	Resources            []ResourceStatus  `json:"resources,omitempty"`
	Sync                 SyncStatus        `json:"sync,omitempty"`
	Health               AppHealth         `json:"health,omitempty"`
	History              []RevisionHistory `json:"history,omitempty"`
	Conditions           []Condition       `json:"conditions,omitempty"`
	ReconciledAt         *metav1.Time      `json:"reconciledAt,omitempty"`
	OperationState       *OperationState   `json:"operationState,omitempty"`
	ObservedAt           *metav1.Time      `json:"observedAt,omitempty"`
	SourceType           string            `json:"sourceType,omitempty"`
	Summary              Summary           `json:"summary,omitempty"`
	ResourceHealthSource string            `json:"resourceHealthSource,omitempty"`
	SourceTypes          []string          `json:"sourceTypes,omitempty"`
	ControllerNamespace  string            `json:"controllerNamespace,omitempty"`
	SourceHydrator       json.RawMessage   `json:"sourceHydrator,omitempty"`
}

// ResourceStatus is one object of an application.
type ResourceStatus struct {
	Group                        string        `json:"group,omitempty"`
	Version                      string        `json:"version,omitempty"`
	Kind                         string        `json:"kind,omitempty"`
	Namespace                    string        `json:"namespace,omitempty"`
	Name                         string        `json:"name,omitempty"`
	Status                       SyncCode      `json:"status,omitempty"`
	Health                       *HealthStatus `json:"health,omitempty"`
	Hook                         bool          `json:"hook,omitempty"`
	RequiresPruning              bool          `json:"requiresPruning,omitempty"`
	SyncWave                     int64         `json:"syncWave,omitempty"`
	RequiresDeletionConfirmation bool          `json:"requiresDeletionConfirmation,omitempty"`
}

// HealthStatus is the health of one object, with the reason when it is not well.
type HealthStatus struct {
	Status             HealthCode   `json:"status,omitempty"`
	Message            string       `json:"message,omitempty"`
	LastTransitionTime *metav1.Time `json:"lastTransitionTime,omitempty"`
}

// AppHealth is the worst health of an application's objects.
type AppHealth struct {
	Status             HealthCode   `json:"status,omitempty"`
	Message            string       `json:"message,omitempty"`
	LastTransitionTime *metav1.Time `json:"lastTransitionTime,omitempty"`
}

// SyncStatus is the result of the last comparison.
type SyncStatus struct {
	Status     SyncCode   `json:"status"`
	ComparedTo ComparedTo `json:"comparedTo,omitempty"`
	Revision   string     `json:"revision,omitempty"`
	Revisions  []string   `json:"revisions,omitempty"`
}

// ComparedTo is what the last comparison was made with.
type ComparedTo struct {
	Source            *ApplicationSource   `json:"source,omitempty"`
	Destination       Destination          `json:"destination"`
	Sources           []*ApplicationSource `json:"sources,omitempty"`
	IgnoreDifferences []IgnoreDifferences  `json:"ignoreDifferences,omitempty"`
}

// RevisionHistory is one successful sync.
type RevisionHistory struct {
	Revision        string               `json:"revision,omitempty"`
	DeployedAt      metav1.Time          `json:"deployedAt"`
	ID              int64                `json:"id"`
	Source          *ApplicationSource   `json:"source,omitempty"`
	DeployStartedAt *metav1.Time         `json:"deployStartedAt,omitempty"`
	Sources         []*ApplicationSource `json:"sources,omitempty"`
	Revisions       []string             `json:"revisions,omitempty"`
	InitiatedBy     *Initiator           `json:"initiatedBy,omitempty"`
}

// Condition is something about an application that people should know.
type Condition struct {
	Type               string       `json:"type"`
	Message            string       `json:"message"`
	LastTransitionTime *metav1.Time `json:"lastTransitionTime,omitempty"`
}

// OperationState is how far the last operation came.
type OperationState struct {
	Operation  Operation    `json:"operation"`
	Phase      Phase        `json:"phase"`
	Message    string       `json:"message,omitempty"`
	SyncResult *SyncResult  `json:"syncResult,omitempty"`
	StartedAt  metav1.Time  `json:"startedAt"`
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	RetryCount int64        `json:"retryCount,omitempty"`
}

// SyncResult is what a sync did, object by object.
type SyncResult struct {
	Resources []*ResourceResult    `json:"resources,omitempty"`
	Revision  string               `json:"revision"`
	Source    *ApplicationSource   `json:"source,omitempty"`
	Sources   []*ApplicationSource `json:"sources,omitempty"`
	Revisions []string             `json:"revisions,omitempty"`
}

// ResourceResult is what a sync did to one object.
type ResourceResult struct {
	Group     string   `json:"group"`
	Version   string   `json:"version"`
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Status    string   `json:"status,omitempty"`
	Message   string   `json:"message,omitempty"`
	HookType  string   `json:"hookType,omitempty"`
	HookPhase Phase    `json:"hookPhase,omitempty"`
	SyncPhase string   `json:"syncPhase,omitempty"`
	Images    []string `json:"images,omitempty"`
}

// Summary is what lists show of an application.
type Summary struct {
	ExternalURLs []string `json:"externalURLs,omitempty"`
	Images       []string `json:"images,omitempty"`
}
