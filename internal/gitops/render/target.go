package render

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// Scoper says whether objects of a kind live in namespaces. known is false
// for kinds that the cluster does not have.
type Scoper interface {
	Namespaced(gvk schema.GroupVersionKind) (namespaced, known bool, err error)
}

// Target makes rendered objects what is to be in the cluster. It changes
// nothing that it was given. The scope of kinds that the cluster does not have
// yet is taken from CRDs among the objects; where there is none either, a
// namespace is not added. instance is the value of the tracking annotation up
// to the first colon: "name", or "namespace_name" for an Application outside
// the home namespace.
func Target(objects []manifest.Object, instance, namespace string, scopes Scoper) ([]manifest.Object, []manifest.Warning, error) {
	own := scopesOf(objects)
	seen := map[string]int{}
	var out []manifest.Object
	var warnings []manifest.Warning
	for _, in := range objects {
		o := manifest.Object{Unstructured: in.DeepCopy(), File: in.File, Line: in.Line}
		gvk := o.GroupVersionKind()
		namespaced, known := own[gvk.GroupKind()]
		if !known {
			var err error
			if namespaced, known, err = scopes.Namespaced(gvk); err != nil {
				return nil, nil, err
			}
		}
		if known && namespaced && o.GetNamespace() == "" {
			o.SetNamespace(namespace)
		}
		if known && !namespaced && o.GetNamespace() != "" {
			unstructured.RemoveNestedField(o.Object, "metadata", "namespace")
		}
		id := TrackingID(instance, o.Unstructured)
		if first, twice := seen[id]; twice && o.GetName() != "" {
			warnings = append(warnings, manifest.Warning{File: o.File, Line: o.Line, Message: fmt.Sprintf(
				"%s %s is rendered more than once; the last one counts (the first is at %s)", o.GetKind(), o.GetName(), out[first].Place())})
			setTracking(o.Unstructured, id)
			out[first] = o
			continue
		}
		seen[id] = len(out)
		setTracking(o.Unstructured, id)
		out = append(out, o)
	}
	return out, warnings, nil
}

func scopesOf(objects []manifest.Object) map[schema.GroupKind]bool {
	scopes := map[schema.GroupKind]bool{}
	for _, o := range objects {
		if o.GetKind() != "CustomResourceDefinition" || o.GroupVersionKind().Group != "apiextensions.k8s.io" {
			continue
		}
		group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
		scope, _, _ := unstructured.NestedString(o.Object, "spec", "scope")
		scopes[schema.GroupKind{Group: group, Kind: kind}] = scope == "Namespaced"
	}
	return scopes
}

// TrackingID is the value of the tracking annotation for an object:
// "app:group/Kind:namespace/name".
func TrackingID(instance string, o *unstructured.Unstructured) string {
	gvk := o.GroupVersionKind()
	return fmt.Sprintf("%s:%s/%s:%s/%s", instance, gvk.Group, gvk.Kind, o.GetNamespace(), o.GetName())
}

func setTracking(o *unstructured.Unstructured, id string) {
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[v1alpha1.AnnotationTrackingID] = id
	o.SetAnnotations(annotations)
}

// Tracked returns the instance that an object says it belongs to. An
// annotation that was copied from another object does not count: the id must
// name this one.
func Tracked(o *unstructured.Unstructured) (instance string, ok bool) {
	id := o.GetAnnotations()[v1alpha1.AnnotationTrackingID]
	instance, _, found := strings.Cut(id, ":")
	if !found || instance == "" || id != TrackingID(instance, o) {
		return "", false
	}
	return instance, true
}
