package csi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	secretsstore "github.com/lockstep-gitops/lockstep/api/secretsstore/v1"
	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
)

// filePermission is upstream's mode of files that do not name their own.
const filePermission = 0o644

// eventTimeout bounds leaving a Kubernetes event, also after a failed mount
// has used up its own time.
const eventTimeout = 5 * time.Second

// refresh reads what the class asks for and makes volume, Secrets and status
// object agree with it. changed says whether the volume's content did.
func (d *Driver) refresh(ctx context.Context, p publication, state *volumeState) (result provider.Result, changed bool, err error) {
	started := d.now()
	class, err := d.class(ctx, p.pod.namespace, p.class)
	if err != nil {
		return result, false, err
	}
	if result, err = d.fetch(ctx, class, p, state); err != nil {
		return result, false, err
	}
	mounted, err := volume.Mounted(p.target)
	if err != nil {
		return result, false, err
	}
	if !mounted {
		if err := volume.Mount(p.target); err != nil {
			return result, false, err
		}
	}
	if changed, err = volume.Write(p.target, result.Files, p.gid); err != nil {
		return result, false, err
	}
	if err := d.syncSecrets(ctx, class, p.pod, result.Files); err != nil {
		return result, changed, err
	}
	if err := d.applyStatus(ctx, p, result.Versions); err != nil {
		return result, changed, err
	}
	state.checked, state.versions = started, result.Versions
	return result, changed, nil
}

// class reads a SecretProviderClass of the pod's own namespace.
func (d *Driver) class(ctx context.Context, namespace, name string) (secretsstore.SecretProviderClass, error) {
	var class secretsstore.SecretProviderClass
	obj, err := d.dynamic.Resource(secretsstore.SecretProviderClasses()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return class, &provider.Error{Code: codes.NotFound, Message: fmt.Sprintf("failed to get secretproviderclass %s/%s: it does not exist", namespace, name),
			Hint: "create it in the pod's namespace or correct the volume's secretProviderClass"}
	case err != nil:
		return class, &provider.Error{Code: codes.Unavailable, Message: fmt.Sprintf("failed to get secretproviderclass %s/%s: %v", namespace, name, err)}
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &class); err != nil {
		return class, fmt.Errorf("read secretproviderclass %s/%s: %w", namespace, name, err)
	}
	return class, nil
}

// fetch asks the class's provider, as one of a bounded number at a time.
func (d *Driver) fetch(ctx context.Context, class secretsstore.SecretProviderClass, p publication, state *volumeState) (provider.Result, error) {
	from := d.providers[class.Spec.Provider]
	if from == nil {
		return provider.Result{}, &provider.Error{Code: codes.InvalidArgument,
			Message: fmt.Sprintf("secretproviderclass %s/%s: provider %q is not supported here", class.Namespace, class.Name, class.Spec.Provider),
			Hint:    "supported: " + strings.Join(slices.Sorted(maps.Keys(d.providers)), ", ")}
	}
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return provider.Result{}, &provider.Error{Code: codes.DeadlineExceeded,
			Message: fmt.Sprintf("%d other mounts are reading from their stores and none ended in time", cap(d.slots)), Hint: "it is tried again"}
	}
	attributes := maps.Clone(class.Spec.Parameters)
	if attributes == nil {
		attributes = map[string]string{}
	}
	maps.Copy(attributes, p.attributes)
	return from.Mount(ctx, provider.Request{Attributes: attributes, Secrets: p.secrets, Mode: filePermission, Current: state.versions})
}

// applyStatus writes the SecretProviderClassPodStatus of the volume.
func (d *Driver) applyStatus(ctx context.Context, p publication, versions map[string]string) error {
	name := p.pod.name + "-" + p.pod.namespace + "-" + p.class
	status := secretsstore.SecretProviderClassPodStatus{
		TypeMeta: metav1.TypeMeta{APIVersion: secretsstore.Group + "/" + secretsstore.Version, Kind: "SecretProviderClassPodStatus"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.pod.namespace,
			Labels:          map[string]string{secretsstore.NodeLabel: d.config.NodeName},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.pod.name, UID: types.UID(p.pod.uid)}}},
		Status: secretsstore.SecretProviderClassPodStatusStatus{PodName: p.pod.name, SecretProviderClassName: p.class, Mounted: true, TargetPath: p.target},
	}
	if p.gid != volume.NoGID {
		status.Status.FSGroup = strconv.Itoa(p.gid)
	}
	for _, id := range slices.Sorted(maps.Keys(versions)) {
		status.Status.Objects = append(status.Status.Objects, secretsstore.SecretProviderClassObject{ID: id, Version: versions[id]})
	}
	obj, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return fmt.Errorf("secretproviderclasspodstatus %s/%s: %w", p.pod.namespace, name, err)
	}
	unstructured.RemoveNestedField(obj, "metadata", "creationTimestamp")
	_, err = d.dynamic.Resource(secretsstore.SecretProviderClassPodStatuses()).Namespace(p.pod.namespace).
		Apply(ctx, name, &unstructured.Unstructured{Object: obj}, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return &provider.Error{Code: codes.Unavailable, Message: fmt.Sprintf("write secretproviderclasspodstatus %s/%s: %v", p.pod.namespace, name, err), Hint: "it is tried again"}
	}
	return nil
}

// podEvent leaves a Kubernetes event on the pod.
func (d *Driver) podEvent(ctx context.Context, pod podRef, kind, reason, message string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer cancel()
	now := metav1.NewTime(d.now())
	_, err := d.kube.CoreV1().Events(pod.namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: pod.name + ".", Namespace: pod.namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.namespace, Name: pod.name, UID: types.UID(pod.uid)},
		Type:           kind, Reason: reason, Message: message, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: "csi-secrets-store-controller", Host: d.config.NodeName},
	}, metav1.CreateOptions{})
	if err != nil {
		d.log.Warn("could not leave an event on the pod", "pod", pod.String(), "reason", reason, "error", err)
	}
}
