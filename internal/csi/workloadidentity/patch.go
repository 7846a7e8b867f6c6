package workloadidentity

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Annotations of pods and service accounts.
const (
	annotationClientID   = "azure.workload.identity/client-id"
	annotationTenantID   = "azure.workload.identity/tenant-id"
	annotationExpiration = "azure.workload.identity/service-account-token-expiration"
	annotationSkip       = "azure.workload.identity/skip-containers"
	annotationProxy      = "azure.workload.identity/inject-proxy-sidecar"
)

const (
	audience     = "api://AzureADTokenExchange"
	mountPath    = "/var/run/secrets/azure/wi"
	tokenPath    = "token/azure-identity-token"
	volumePrefix = "azure-workload-identity-reserved-"

	defaultExpiration = 3600 // seconds
	minExpiration     = 3600
	maxExpiration     = 86400
)

// identity is what a pod is told about itself.
type identity struct {
	clientID, tenantID, authority string
	expiration                    int64 // seconds
}

// identityOf reads the annotations; the pod's expiry wins over its account's.
func (h *webhook) identityOf(pod *corev1.Pod, account map[string]string) (identity, error) {
	id := identity{clientID: account[annotationClientID], tenantID: h.config.TenantID, authority: h.config.AuthorityHost, expiration: defaultExpiration}
	if tenant, ok := account[annotationTenantID]; ok {
		id.tenantID = tenant
	}
	for _, from := range []map[string]string{pod.Annotations, account} {
		text := from[annotationExpiration]
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < minExpiration || n > maxExpiration {
			return id, fmt.Errorf("annotation %s: token expiration %q not valid. Expected value to be between %d and %d (seconds)", annotationExpiration, text, minExpiration, maxExpiration)
		}
		id.expiration = n
		break
	}
	return id, nil
}

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patchFor adds environment, mounts and the token's volume, where missing.
func patchFor(pod *corev1.Pod, id identity) []operation {
	name := volumeName(pod)
	skip := map[string]bool{}
	for c := range strings.SplitSeq(pod.Annotations[annotationSkip], ";") {
		skip[strings.TrimSpace(c)] = true
	}
	var patch []operation
	containers := func(list string, all []corev1.Container) {
		for i, c := range all {
			if !skip[c.Name] {
				patch = append(patch, containerPatch(fmt.Sprintf("/spec/%s/%d", list, i), c, name, id)...)
			}
		}
	}
	containers("initContainers", pod.Spec.InitContainers)
	containers("containers", pod.Spec.Containers)
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }) {
		patch = append(patch, appendTo("/spec/volumes", len(pod.Spec.Volumes) == 0, tokenVolume(name, id.expiration))...)
	}
	return patch
}

// containerPatch adds to one container what it has not set itself.
func containerPatch(at string, c corev1.Container, volume string, id identity) []operation {
	var patch []operation
	empty := len(c.Env) == 0
	for _, env := range []corev1.EnvVar{
		{Name: "AZURE_CLIENT_ID", Value: id.clientID},
		{Name: "AZURE_TENANT_ID", Value: id.tenantID},
		{Name: "AZURE_FEDERATED_TOKEN_FILE", Value: mountPath + "/" + tokenPath},
		{Name: "AZURE_AUTHORITY_HOST", Value: id.authority},
	} {
		if env.Value == "" || slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == env.Name }) {
			continue
		}
		patch = append(patch, appendTo(at+"/env", empty, env)...)
		empty = false
	}
	// A mount at the path may carry another name when the pod got its own name
	// between two calls (reinvocationPolicy); two at one path are invalid.
	if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume || m.MountPath == mountPath }) {
		patch = append(patch, appendTo(at+"/volumeMounts", len(c.VolumeMounts) == 0, corev1.VolumeMount{Name: volume, MountPath: mountPath, ReadOnly: true})...)
	}
	return patch
}

// appendTo appends to a list, which it makes if it is not there.
func appendTo(path string, missing bool, value any) []operation {
	if missing {
		return []operation{{Op: "add", Path: path, Value: []any{value}}}
	}
	return []operation{{Op: "add", Path: path + "/-", Value: value}}
}

func tokenVolume(name string, expiration int64) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: audience, ExpirationSeconds: &expiration, Path: tokenPath}}}}}}
}

// volumeName is upstream's: fixed for a pod, and within 63 characters.
func volumeName(pod *corev1.Pod) string {
	name := pod.Name
	if name == "" {
		name = pod.GenerateName + " (prefix)"
	}
	return volumePrefix + fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:63-len(volumePrefix)]
}
