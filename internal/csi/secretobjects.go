package csi

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	secretsstore "github.com/lockstep-gitops/lockstep/api/secretsstore/v1"
	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
)

// syncSecrets brings the Kubernetes Secrets that the class asks for in step
// with the mounted files, before the pod's containers start: they may take
// environment variables from them.
func (d *Driver) syncSecrets(ctx context.Context, class secretsstore.SecretProviderClass, pod podRef, files []volume.File) error {
	if len(class.Spec.SecretObjects) == 0 {
		return nil
	}
	owner, err := d.owner(ctx, pod)
	if err != nil {
		return err
	}
	for i, want := range class.Spec.SecretObjects {
		data, err := secretData(want, files)
		if err != nil {
			return &provider.Error{Code: codes.InvalidArgument,
				Message: fmt.Sprintf("secretproviderclass %s/%s: secretObjects[%d]: %v", class.Namespace, class.Name, i, err)}
		}
		if err := d.applySecret(ctx, pod.namespace, want, data, owner); err != nil {
			return err
		}
	}
	return nil
}

// secretData picks a Secret's data from the mounted files, in base64.
func secretData(want secretsstore.SecretObject, files []volume.File) (map[string]any, error) {
	switch {
	case want.SecretName == "":
		return nil, fmt.Errorf("secretName is empty")
	case want.Type == "":
		return nil, fmt.Errorf("%s: type is empty; Opaque is the usual one", want.SecretName)
	case len(want.Data) == 0:
		return nil, fmt.Errorf("%s: data is empty", want.SecretName)
	}
	data := map[string]any{}
	for _, item := range want.Data {
		if item.Key == "" {
			return nil, fmt.Errorf("%s: an entry of data has no key", want.SecretName)
		}
		i := slices.IndexFunc(files, func(f volume.File) bool { return f.Path == item.ObjectName })
		if i < 0 {
			return nil, fmt.Errorf("%s: no object is mounted as %q; objectName must be the alias or name of one in parameters.objects", want.SecretName, item.ObjectName)
		}
		content := files[i].Data
		if want.Type == string(corev1.SecretTypeTLS) {
			var err error
			if content, err = tlsPart(item.Key, content); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", want.SecretName, item.ObjectName, err)
			}
		}
		data[item.Key] = base64.StdEncoding.EncodeToString(content)
	}
	return data, nil
}

// tlsPart takes the key or the certificates from PEM that holds both.
func tlsPart(key string, content []byte) ([]byte, error) {
	var part []byte
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		isKey := strings.HasSuffix(block.Type, "PRIVATE KEY")
		if isKey && key == corev1.TLSPrivateKeyKey || block.Type == "CERTIFICATE" && key == corev1.TLSCertKey {
			part = append(part, pem.EncodeToMemory(block)...)
		}
	}
	switch {
	case key != corev1.TLSCertKey && key != corev1.TLSPrivateKeyKey:
		return content, nil
	case part == nil:
		return nil, fmt.Errorf("there is no PEM block for %s in it", key)
	}
	return part, nil
}

// applySecret writes one Secret. Each owner is applied under its own manager,
// so that the Secret lives until its last owner is gone.
func (d *Driver) applySecret(ctx context.Context, namespace string, want secretsstore.SecretObject, data map[string]any, owner metav1.OwnerReference) error {
	secrets := d.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(namespace)
	labels := maps.Clone(want.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[secretsstore.ManagedLabel] = "true"
	metadata := map[string]any{"name": want.SecretName, "namespace": namespace, "labels": anyMap(labels)}
	if len(want.Annotations) > 0 {
		metadata["annotations"] = anyMap(want.Annotations)
	}
	content := map[string]any{"apiVersion": "v1", "kind": "Secret", "type": want.Type, "metadata": metadata, "data": data}
	owned := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": want.SecretName, "namespace": namespace,
		"ownerReferences": []any{map[string]any{"apiVersion": owner.APIVersion, "kind": owner.Kind, "name": owner.Name, "uid": string(owner.UID)}}}}
	_, err := secrets.Apply(ctx, want.SecretName, &unstructured.Unstructured{Object: content}, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err == nil {
		_, err = secrets.Apply(ctx, want.SecretName, &unstructured.Unstructured{Object: owned}, metav1.ApplyOptions{FieldManager: fieldManager + "-" + string(owner.UID), Force: true})
	}
	if err == nil {
		return nil
	}
	code := codes.Unavailable
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		code = codes.InvalidArgument
	}
	// The apiserver quotes field names, never a Secret's data.
	return &provider.Error{Code: code, Message: fmt.Sprintf("write Secret %s/%s: %v", namespace, want.SecretName, err)}
}

// owner is what the Secrets of a pod belong to: its controller, so that they
// outlive the pod's restarts, or the pod itself.
func (d *Driver) owner(ctx context.Context, pod podRef) (metav1.OwnerReference, error) {
	obj, err := d.kube.CoreV1().Pods(pod.namespace).Get(ctx, pod.name, metav1.GetOptions{})
	if err != nil {
		return metav1.OwnerReference{}, &provider.Error{Code: codes.Unavailable, Message: fmt.Sprintf("read pod %s for the owner of its Secrets: %v", pod, err)}
	}
	if c := metav1.GetControllerOf(obj); c != nil {
		return *c, nil
	}
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.name, UID: types.UID(pod.uid)}, nil
}

func anyMap(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}
