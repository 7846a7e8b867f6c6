package csi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	secretsstore "github.com/lockstep-gitops/lockstep/api/secretsstore/v1"
	"github.com/lockstep-gitops/lockstep/internal/csi/azure"
	"github.com/lockstep-gitops/lockstep/internal/csi/workloadidentity"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

const (
	installTimeout = 30 * time.Second // of one attempt
	installPause   = 500 * time.Millisecond
	installPauseTo = 15 * time.Second
)

func crdResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// installUntilDone installs until it works, which it first does when the
// apiserver is up; false means that ctx ended.
func (d *Driver) installUntilDone(ctx context.Context) bool {
	for pause := installPause; ; pause = min(2*pause, installPauseTo) {
		err := d.install(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		d.log.Warn("could not install the CSI driver's objects; trying again", "in", pause, "error", err)
		if pause == installPauseTo { // it is not just starting up
			d.record(ctx, journal.Event{Subject: d.config.DriverName, Status: journal.StatusWaiting,
				Message: "waiting for the apiserver to take the CSI driver's objects: " + err.Error(), Hint: "look at the apiserver's log"})
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// install applies the driver's cluster objects and waits until the CRDs serve.
func (d *Driver) install(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	for _, text := range secretsstore.CRDs() {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &crd.Object); err != nil {
			return fmt.Errorf("read CRD: %w", err)
		}
		if err := d.apply(ctx, crdResource(), crd); err != nil {
			return err
		}
		if err := d.established(ctx, crd.GetName()); err != nil {
			return err
		}
	}
	inSecrets, err := d.tokensComeInSecrets()
	if err != nil {
		return err
	}
	if err := d.apply(ctx, schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers"}, d.csiDriver(inSecrets)); err != nil {
		return err
	}
	if d.config.WebhookURL == "" {
		d.log.Info("no webhook URL: pods get no workload identity environment")
		return nil
	}
	return d.apply(ctx, schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
		d.webhookConfiguration())
}

func (d *Driver) apply(ctx context.Context, resource schema.GroupVersionResource, obj *unstructured.Unstructured) error {
	_, err := d.dynamic.Resource(resource).Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", obj.GetKind(), obj.GetName(), err)
	}
	return nil
}

// established waits until the apiserver serves a CRD.
func (d *Driver) established(ctx context.Context, name string) error {
	w, err := d.dynamic.Resource(crdResource()).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return fmt.Errorf("watch CRD %s: %w", name, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for CRD %s to be established: %w", name, ctx.Err())
		case event, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("wait for CRD %s to be established: %w", name, errors.New("the watch ended"))
			}
			if crd, ok := event.Object.(*unstructured.Unstructured); ok && isEstablished(crd) {
				return nil
			}
		}
	}
}

func isEstablished(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
			return true
		}
	}
	return false
}

var leadingDigits = regexp.MustCompile(`^\d+`)

// tokensComeInSecrets reports whether this Kubernetes (1.35 and later) can put
// service account tokens where no log shows them.
func (d *Driver) tokensComeInSecrets() (bool, error) {
	v, err := d.kube.Discovery().ServerVersion()
	if err != nil {
		return false, fmt.Errorf("ask the apiserver's version: %w", err)
	}
	major, errMajor := strconv.Atoi(v.Major)
	minor, errMinor := strconv.Atoi(leadingDigits.FindString(v.Minor)) // "35+"
	if errMajor != nil || errMinor != nil {
		return false, fmt.Errorf("apiserver's version %q.%q has no numbers", v.Major, v.Minor)
	}
	return major > 1 || minor >= 35, nil
}

// csiDriver tells kubelet what a mount of ours needs.
func (d *Driver) csiDriver(tokensInSecrets bool) *unstructured.Unstructured {
	spec := map[string]any{
		"attachRequired":       false,
		"podInfoOnMount":       true,
		"volumeLifecycleModes": []any{"Ephemeral"},
		"requiresRepublish":    d.config.rotates(),
		"tokenRequests":        []any{map[string]any{"audience": azure.Audience}},
	}
	if tokensInSecrets {
		spec["serviceAccountTokenInSecrets"] = true
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
		"metadata": map[string]any{"name": d.config.DriverName}, "spec": spec}}
}

// webhookConfiguration sends pods that ask for workload identity to us. A pod
// without its identity would fail later and less clearly, so it must not pass
// when we do not answer.
func (d *Driver) webhookConfiguration() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
		"metadata": map[string]any{"name": "azure-wi-webhook-mutating-webhook-configuration"},
		"webhooks": []any{map[string]any{
			"name":                    "mutation.azure-workload-identity.io",
			"admissionReviewVersions": []any{"v1"},
			"sideEffects":             "None",
			"failurePolicy":           "Fail",
			"matchPolicy":             "Equivalent",
			"reinvocationPolicy":      "IfNeeded",
			"timeoutSeconds":          int64(10),
			"objectSelector":          map[string]any{"matchLabels": map[string]any{workloadidentity.UseLabel: "true"}},
			"clientConfig": map[string]any{"url": d.config.WebhookURL + workloadidentity.Path,
				"caBundle": base64.StdEncoding.EncodeToString(d.config.WebhookCA)},
			"rules": []any{map[string]any{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"CREATE"},
				"resources": []any{"pods"}, "scope": "Namespaced"}},
		}},
	}}
}
