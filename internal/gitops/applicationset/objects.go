package applicationset

import (
	"context"
	"encoding/base64"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/generate"
)

var (
	secretResource    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	configMapResource = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

// LocalServer and LocalName are the address and name of the engine's own
// cluster.
const (
	LocalServer = "https://kubernetes.default.svc"
	LocalName   = "in-cluster"
)

// objects reads from the API server.
type objects struct{ client dynamic.Interface }

func (o objects) Secret(ctx context.Context, namespace, name string) (map[string]string, error) {
	got, err := o.get(ctx, secretResource, "Secret", namespace, name)
	if err != nil {
		return nil, err
	}
	return secretData(got), nil
}

func secretData(o *unstructured.Unstructured) map[string]string {
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	out := make(map[string]string, len(data))
	for k, v := range data {
		if raw, err := base64.StdEncoding.DecodeString(v); err == nil {
			out[k] = string(raw)
		}
	}
	return out
}

func (o objects) ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error) {
	got, err := o.get(ctx, configMapResource, "ConfigMap", namespace, name)
	if err != nil {
		return nil, err
	}
	data, _, _ := unstructured.NestedStringMap(got.Object, "data")
	return data, nil
}

func (o objects) get(ctx context.Context, resource schema.GroupVersionResource, kind, namespace, name string) (*unstructured.Unstructured, error) {
	got, err := o.client.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no %s %s/%s", kind, namespace, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s %s/%s: %w", kind, namespace, name, err)
	}
	return got, nil
}

func (o objects) List(ctx context.Context, resource schema.GroupVersionResource, namespace, name, selector string) ([]*unstructured.Unstructured, error) {
	opts := metav1.ListOptions{LabelSelector: selector}
	if name != "" {
		opts.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
	}
	list, err := o.client.Resource(resource).Namespace(namespace).List(ctx, opts)
	if err != nil {
		return nil, err
	}
	out := make([]*unstructured.Unstructured, len(list.Items))
	for i := range list.Items {
		out[i] = &list.Items[i]
	}
	return out, nil
}

// withoutCredentials keeps of a cluster Secret what generators may see.
func withoutCredentials(obj any) (any, error) {
	o, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return obj, nil
	}
	data := secretData(o)
	o.SetManagedFields(nil)
	delete(o.Object, "data")
	delete(o.Object, "stringData")
	o.Object["cluster"] = map[string]any{"name": data["name"], "server": data["server"], "project": data["project"]}
	annotations := o.GetAnnotations()
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration") // holds the data again
	o.SetAnnotations(annotations)
	return o, nil
}

// secretClusters are the clusters of cluster Secrets, and the engine's own
// unless there is a Secret for it.
type secretClusters struct{ secrets cache.SharedIndexInformer }

func (s secretClusters) List(context.Context) ([]generate.Cluster, error) {
	var out []generate.Cluster
	local := false
	for _, obj := range s.secrets.GetStore().List() {
		o := unwrap(obj)
		if o == nil {
			continue
		}
		c, _, _ := unstructured.NestedStringMap(o.Object, "cluster")
		out = append(out, generate.Cluster{Name: c["name"], Server: c["server"], Project: c["project"], Labels: o.GetLabels(), Annotations: o.GetAnnotations()})
		local = local || c["server"] == LocalServer
	}
	if !local {
		out = append(out, generate.Cluster{Name: LocalName, Server: LocalServer, Local: true})
	}
	return out, nil
}
