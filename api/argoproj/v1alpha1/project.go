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
	SourceRepos                     []string          `json:"sourceRepos,omitempty"`
	Destinations                    []Destination     `json:"destinations,omitempty"`
	Description                     string            `json:"description,omitempty"`
	Roles                           json.RawMessage   `json:"roles,omitempty"`
	ClusterResourceWhitelist        []ResourcePattern `json:"clusterResourceWhitelist,omitempty"`
	NamespaceResourceBlacklist      []ResourcePattern `json:"namespaceResourceBlacklist,omitempty"`
	OrphanedResources               json.RawMessage   `json:"orphanedResources,omitempty"`
	SyncWindows                     json.RawMessage   `json:"syncWindows,omitempty"`
	NamespaceResourceWhitelist      []ResourcePattern `json:"namespaceResourceWhitelist,omitempty"`
	SignatureKeys                   json.RawMessage   `json:"signatureKeys,omitempty"`
	ClusterResourceBlacklist        []ResourcePattern `json:"clusterResourceBlacklist,omitempty"`
	SourceNamespaces                []string          `json:"sourceNamespaces,omitempty"`
	PermitOnlyProjectScopedClusters bool              `json:"permitOnlyProjectScopedClusters,omitempty"`
	DestinationServiceAccounts      json.RawMessage   `json:"destinationServiceAccounts,omitempty"`
	SourceIntegrity                 json.RawMessage   `json:"sourceIntegrity,omitempty"`
}

// ResourcePattern selects kinds; each field may be a glob.
type ResourcePattern struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name,omitempty"`
}
