package v1alpha1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AppProject bounds what the Applications that name it may do.
type AppProject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              AppProjectSpec  `json:"spec"`
	Status            json.RawMessage `json:"status,omitempty"`
}

// AppProjectSpec is what people write.
type AppProjectSpec struct {
	SourceRepos                     []string                    `json:"sourceRepos,omitempty"`
	Destinations                    []Destination               `json:"destinations,omitempty"`
	Description                     string                      `json:"description,omitempty"`
	Roles                           []ProjectRole               `json:"roles,omitempty"`
	ClusterResourceWhitelist        []ResourcePattern           `json:"clusterResourceWhitelist,omitempty"`
	NamespaceResourceBlacklist      []ResourcePattern           `json:"namespaceResourceBlacklist,omitempty"`
	OrphanedResources               *OrphanedResources          `json:"orphanedResources,omitempty"`
	SyncWindows                     []SyncWindow                `json:"syncWindows,omitempty"`
	NamespaceResourceWhitelist      []ResourcePattern           `json:"namespaceResourceWhitelist,omitempty"`
	SignatureKeys                   []SignatureKey              `json:"signatureKeys,omitempty"`
	ClusterResourceBlacklist        []ResourcePattern           `json:"clusterResourceBlacklist,omitempty"`
	SourceNamespaces                []string                    `json:"sourceNamespaces,omitempty"`
	PermitOnlyProjectScopedClusters bool                        `json:"permitOnlyProjectScopedClusters,omitempty"`
	DestinationServiceAccounts      []DestinationServiceAccount `json:"destinationServiceAccounts,omitempty"`
	SourceIntegrity                 json.RawMessage             `json:"sourceIntegrity,omitempty"`
}

// ResourcePattern selects kinds; each field may be a glob.
type ResourcePattern struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name,omitempty"`
}

// ProjectRole gives its members the rights that its policies name.
type ProjectRole struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitempty"`
	Policies    []string       `json:"policies,omitempty"` // "p, subject, resource, action, object, effect"
	JWTTokens   []ProjectToken `json:"jwtTokens,omitempty"`
	Groups      []string       `json:"groups,omitempty"`
}

// ProjectToken is a token that was issued to a role; times in seconds since
// 1970.
type ProjectToken struct {
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp,omitempty"`
	ID        string `json:"id,omitempty"`
}

// OrphanedResources turns the search for objects that no Application holds on.
type OrphanedResources struct {
	Warn   *bool         `json:"warn,omitempty"` // nil means no
	Ignore []OrphanedKey `json:"ignore,omitempty"`
}

// OrphanedKey names objects that may be orphaned; each field may be a glob.
type OrphanedKey struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind,omitempty"`
	Name  string `json:"name,omitempty"`
}

// SyncWindow is a time in which syncs are allowed or denied.
type SyncWindow struct {
	Kind         string   `json:"kind,omitempty"`     // allow or deny
	Schedule     string   `json:"schedule,omitempty"` // cron, five fields
	Duration     string   `json:"duration,omitempty"` // as in Go, "1h30m"
	Applications []string `json:"applications,omitempty"`
	Namespaces   []string `json:"namespaces,omitempty"`
	Clusters     []string `json:"clusters,omitempty"`
	ManualSync   bool     `json:"manualSync,omitempty"`
	TimeZone     string   `json:"timeZone,omitempty"`
	AndOperator  bool     `json:"andOperator,omitempty"`
	Description  string   `json:"description,omitempty"`
	SyncOverrun  bool     `json:"syncOverrun,omitempty"`
}

// SignatureKey is a GPG key that commits must be signed with.
type SignatureKey struct {
	KeyID string `json:"keyID"`
}

// DestinationServiceAccount is the account that syncs to a destination act as.
type DestinationServiceAccount struct {
	Server                string `json:"server"`
	Namespace             string `json:"namespace,omitempty"`
	DefaultServiceAccount string `json:"defaultServiceAccount"`
}
