package observe

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"
)

func client(d dynamic.Interface, r Resource, namespace string) dynamic.ResourceInterface {
	if r.Namespaced {
		return d.Resource(r.GroupVersionResource).Namespace(namespace)
	}
	return d.Resource(r.GroupVersionResource)
}

// ignoreGone returns nil when cause says that the object does not exist.
func ignoreGone(err, cause error) error {
	if apierrors.IsNotFound(cause) {
		return nil
	}
	return err
}
