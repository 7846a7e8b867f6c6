// Package v1 holds the types of secrets-store.csi.x-k8s.io/v1: the same JSON
// as the Secrets Store CSI driver of kubernetes-sigs, and their CRDs.
//
// Input: what a team writes in Git ([SecretProviderClass]). Output: what the
// driver mounted ([SecretProviderClassPodStatus]); neither holds secret values.
//
// Start reading at [SecretProviderClass].
package v1

import (
	_ "embed" // the CRDs below

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names that objects of this group and their readers agree on.
const (
	Group   = "secrets-store.csi.x-k8s.io"
	Version = "v1"
	// NodeLabel on a SecretProviderClassPodStatus names the node of its pod.
	NodeLabel = "internal.secrets-store.csi.k8s.io/node-name"
	// ManagedLabel on a Secret says that the driver keeps its content.
	ManagedLabel = "secrets-store.csi.k8s.io/managed"
)

//go:embed secretproviderclasses.yaml
var secretProviderClassCRD []byte

//go:embed secretproviderclasspodstatuses.yaml
var secretProviderClassPodStatusCRD []byte

// CRDs returns the CustomResourceDefinitions of this group as YAML documents.
func CRDs() [][]byte {
	return [][]byte{append([]byte(nil), secretProviderClassCRD...), append([]byte(nil), secretProviderClassPodStatusCRD...)}
}

// SecretProviderClasses is the resource of [SecretProviderClass].
func SecretProviderClasses() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: Group, Version: Version, Resource: "secretproviderclasses"}
}

// SecretProviderClassPodStatuses is the resource of [SecretProviderClassPodStatus].
func SecretProviderClassPodStatuses() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: Group, Version: Version, Resource: "secretproviderclasspodstatuses"}
}

// SecretProviderClass says which objects of which store a volume holds.
type SecretProviderClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SecretProviderClassSpec   `json:"spec,omitempty"`
	Status SecretProviderClassStatus `json:"status,omitempty"`
}

// SecretProviderClassSpec is what a team writes.
type SecretProviderClassSpec struct {
	// Provider names the store's provider, "azure".
	Provider string `json:"provider,omitempty"`
	// Parameters go to the provider as they are.
	Parameters map[string]string `json:"parameters,omitempty"`
	// SecretObjects are Kubernetes Secrets to keep in step with the mount.
	SecretObjects []SecretObject `json:"secretObjects,omitempty"`
}

// SecretObject is a Kubernetes Secret that is filled from mounted files.
type SecretObject struct {
	SecretName  string             `json:"secretName,omitempty"`
	Type        string             `json:"type,omitempty"`
	Labels      map[string]string  `json:"labels,omitempty"`
	Annotations map[string]string  `json:"annotations,omitempty"`
	Data        []SecretObjectData `json:"data,omitempty"`
}

// SecretObjectData is one key of a [SecretObject].
type SecretObjectData struct {
	// ObjectName is the mounted file's name: the object's alias or name.
	ObjectName string `json:"objectName,omitempty"`
	// Key is the key of the Secret's data.
	Key string `json:"key,omitempty"`
}

// SecretProviderClassStatus is kept for the schema; nothing writes it.
type SecretProviderClassStatus struct {
	ByPod []ByPodStatus `json:"byPod,omitempty"`
}

// ByPodStatus names a pod that uses the class.
type ByPodStatus struct {
	ID        string `json:"id,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// SecretProviderClassPodStatus says what is mounted into one pod from one
// class. Its name is "<pod>-<namespace>-<class>" and the pod owns it.
type SecretProviderClassPodStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status SecretProviderClassPodStatusStatus `json:"status,omitempty"`
}

// SecretProviderClassPodStatusStatus is the body of a [SecretProviderClassPodStatus].
type SecretProviderClassPodStatusStatus struct {
	PodName                 string `json:"podName,omitempty"`
	SecretProviderClassName string `json:"secretProviderClassName,omitempty"`
	Mounted                 bool   `json:"mounted,omitempty"`
	TargetPath              string `json:"targetPath,omitempty"`
	// Objects are sorted by ID.
	Objects []SecretProviderClassObject `json:"objects,omitempty"`
	// FSGroup is the group id that owns the files, decimal; "" for root's.
	FSGroup string `json:"fsGroup,omitempty"`
}

// SecretProviderClassObject is one mounted object: "secret/db-password" and
// the version that the store gave.
type SecretProviderClassObject struct {
	ID      string `json:"id,omitempty"`
	Version string `json:"version,omitempty"`
}
