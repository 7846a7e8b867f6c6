package observe

import (
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/klauspost/compress/s2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	k8sjson "k8s.io/apimachinery/pkg/util/json"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
)

// Object is a live object as the cache keeps it: what lists need at hand, the
// whole compressed. It is immutable.
type Object struct {
	Key             plan.Key
	Version         string // of the API
	UID             types.UID
	ResourceVersion string
	Created         time.Time
	Deleting        bool
	Instance        string // the application of its tracking annotation, "" for none
	Owners          []metav1.OwnerReference
	Health          health.Status
	HasHealth       bool
	Problem         string   // of a pod: why it does not run
	Images          []string // of a workload
	URLs            []string // by which people reach it
	raw             []byte   // JSON, compressed; nil when only the above is kept
}

// Whole reports whether the object can be had from the cache.
func (o *Object) Whole() bool { return o.raw != nil }

// GVK is the kind with its version.
func (o *Object) GVK() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: o.Key.Group, Version: o.Version, Kind: o.Key.Kind}
}

// Unstructured returns a fresh copy of the whole object.
func (o *Object) Unstructured() (*unstructured.Unstructured, error) {
	data, err := s2.Decode(nil, o.raw)
	if err != nil {
		return nil, fmt.Errorf("%s in the cache: %w", o.Key, err)
	}
	out := &unstructured.Unstructured{}
	if err := k8sjson.Unmarshal(data, &out.Object); err != nil {
		return nil, fmt.Errorf("%s in the cache: %w", o.Key, err)
	}
	return out, nil
}

// GetObjectMeta lets client-go name the object.
func (o *Object) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: o.Key.Name, Namespace: o.Key.Namespace, ResourceVersion: o.ResourceVersion, UID: o.UID}
}

// compact makes an Object. Objects that no application tracks are kept without
// their content.
func (c *Cache) compact(u *unstructured.Unstructured) (*Object, error) {
	o := &Object{
		Key: plan.KeyOf(u), Version: u.GroupVersionKind().Version, UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
		Created: u.GetCreationTimestamp().Time, Deleting: u.GetDeletionTimestamp() != nil, Owners: u.GetOwnerReferences(),
	}
	o.Key.Group, o.Key.Kind, o.Key.Namespace, o.Version = c.share(o.Key.Group), c.share(o.Key.Kind), c.share(o.Key.Namespace), c.share(o.Version)
	o.Health, o.HasHealth = c.assess(u)
	if o.Key.Kind == "Pod" {
		o.Problem = health.PodProblem(u)
	}
	instance, tracked := render.Tracked(u)
	if !tracked {
		return o, nil
	}
	o.Instance = instance
	o.Images, o.URLs = imagesOf(u), urlsOf(u)
	data, err := json.Marshal(u.Object)
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", o.Key, err)
	}
	o.raw = s2.Encode(nil, data)
	if cap(o.raw) > 2*len(o.raw) { // Encode allocates for the worst case
		o.raw = append(make([]byte, 0, len(o.raw)), o.raw...)
	}
	return o, nil
}

// share returns one copy of a string that many objects have. c.strings is
// bounded: kinds and namespaces are few.
func (c *Cache) share(s string) string {
	if s == "" {
		return ""
	}
	if v, ok := c.strings.Load(s); ok {
		return v.(string)
	}
	v, _ := c.strings.LoadOrStore(s, s)
	return v.(string)
}

// newerThan compares resource versions, which the API server counts up.
func newerThan(a, b string) bool {
	x, xerr := strconv.ParseUint(a, 10, 64)
	y, yerr := strconv.ParseUint(b, 10, 64)
	return xerr != nil || yerr != nil || x > y
}

// imagesOf returns the images of a workload, sorted.
func imagesOf(o *unstructured.Unstructured) []string {
	var out []string
	for _, path := range [][]string{{"spec", "template", "spec"}, {"spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}} {
		spec := o.Object
		for _, f := range path {
			spec, _ = spec[f].(map[string]any)
		}
		for _, list := range []string{"containers", "initContainers"} {
			containers, _ := spec[list].([]any)
			for _, c := range containers {
				if m, ok := c.(map[string]any); ok {
					if image, ok := m["image"].(string); ok {
						out = append(out, image)
					}
				}
			}
		}
	}
	sort.Strings(out)
	return out
}
