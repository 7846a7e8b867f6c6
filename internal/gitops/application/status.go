package application

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// writeStatus puts what was found into the Application, if it is new.
func (p *pass) writeStatus(ctx context.Context) error {
	status := p.app.Status // history was changed in place; slices are fresh
	now := metav1.NewTime(p.Now()).Rfc3339Copy()
	status.ControllerNamespace = p.Namespace
	status.Conditions = conditionsSince(p.conditions, status.Conditions, now)
	p.syncStatus(&status)
	if p.plan != nil {
		p.healthStatus(ctx, &status, now)
	} else if status.Health.Status == "" {
		status.Health = v1alpha1.AppHealth{Status: v1alpha1.HealthUnknown, LastTransitionTime: &now}
	}
	switch old := status.OperationState; {
	case p.st.state != nil:
		status.OperationState = p.st.state
	case old != nil && !old.Phase.Completed() && p.st.op == nil:
		ended := *old
		ended.Phase, ended.Message, ended.FinishedAt = v1alpha1.PhaseError, "interrupted by a restart of the engine", &now
		status.OperationState = &ended
	}
	return p.patch(ctx, &status, now)
}

func (p *pass) syncStatus(status *v1alpha1.ApplicationStatus) {
	compared := v1alpha1.ComparedTo{
		Source: sourceOf(&p.app), Destination: p.app.Spec.Destination, IgnoreDifferences: p.app.Spec.IgnoreDifferences,
	}
	next := v1alpha1.SyncStatus{Status: v1alpha1.SyncUnknown, ComparedTo: compared, Revision: p.st.commit}
	if p.plan != nil {
		next.Status = v1alpha1.SyncOutOfSync
		if p.plan.InSync() {
			next.Status = v1alpha1.SyncSynced
		}
	}
	if p.st.rendered != nil {
		status.SourceType = string(p.st.rendered.result.Tool)
	}
	status.Sync = next
}

// healthStatus fills in the objects, their health and that of the whole.
func (p *pass) healthStatus(ctx context.Context, status *v1alpha1.ApplicationStatus, now metav1.Time) {
	worst, reason := v1alpha1.HealthHealthy, ""
	var resources []v1alpha1.ResourceStatus
	images, urls := map[string]bool{}, map[string]bool{}
	for _, c := range p.plan.Changes {
		r := v1alpha1.ResourceStatus{Group: c.Group, Version: c.Version, Kind: c.Kind, Namespace: c.Namespace, Name: c.Name, Status: v1alpha1.SyncSynced, SyncWave: int64(c.Wave)}
		if !c.InSync() {
			r.Status = v1alpha1.SyncOutOfSync
		}
		r.RequiresPruning = c.Action == plan.Prune
		s, ok := p.healthOf(c)
		if ok {
			r.Health = &v1alpha1.HealthStatus{Status: s.Code, Message: s.Message}
			ignored := c.Desired != nil && c.Desired.GetAnnotations()[v1alpha1.AnnotationIgnoreHealth] == "true"
			if c.Action != plan.Prune && !ignored && health.Worse(s.Code, worst) {
				worst, reason = s.Code, fmt.Sprintf("%s: %s", c.Key, s.Message)
			}
		}
		addImages(images, c.Live)
		addURLs(urls, c.Live)
		resources = append(resources, r)
	}
	sort.Slice(resources, func(i, j int) bool {
		a, b := resources[i], resources[j]
		return fmt.Sprint(a.Kind, a.Group, a.Namespace, a.Name) < fmt.Sprint(b.Kind, b.Group, b.Namespace, b.Name)
	})
	status.Resources = resources
	since := status.Health.LastTransitionTime
	if status.Health.Status != worst || since == nil {
		since = &now
	}
	status.Health = v1alpha1.AppHealth{Status: worst, Message: reason, LastTransitionTime: since}
	status.Summary.Images = slices.Sorted(maps.Keys(images))
	status.Summary.ExternalURLs = slices.Sorted(maps.Keys(urls))
	p.announceHealth(ctx, worst, reason, len(resources))
}

func (p *pass) healthOf(c plan.Change) (health.Status, bool) {
	if c.Live == nil {
		return health.Status{Code: v1alpha1.HealthMissing, Message: "does not exist"}, true
	}
	return p.live.Health(c.Live)
}

// addImages collects the images of a workload.
func addImages(into map[string]bool, o *unstructured.Unstructured) {
	if o == nil {
		return
	}
	for _, path := range [][]string{{"spec", "template", "spec"}, {"spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}} {
		for _, list := range []string{"containers", "initContainers"} {
			containers, _, err := unstructured.NestedSlice(o.Object, append(slices.Clone(path), list)...)
			if err != nil {
				continue
			}
			for _, c := range containers {
				if m, ok := c.(map[string]any); ok {
					if image, ok := m["image"].(string); ok {
						into[image] = true
					}
				}
			}
		}
	}
}

// conditionsSince keeps the time of conditions that were there before.
func conditionsSince(next, old []v1alpha1.Condition, now metav1.Time) []v1alpha1.Condition {
	for i, c := range next {
		next[i].LastTransitionTime = &now
		for _, o := range old {
			if o.Type == c.Type && o.Message == c.Message && o.LastTransitionTime != nil {
				next[i].LastTransitionTime = o.LastTransitionTime
			}
		}
	}
	return next
}

// patch writes only what differs, and nothing when nothing does.
func (p *pass) patch(ctx context.Context, status *v1alpha1.ApplicationStatus, now metav1.Time) error {
	before, ok := p.object.Object["status"]
	if !ok {
		before = map[string]any{}
	}
	old, err := json.Marshal(map[string]any{"status": before})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	diff, err := statusPatch(old, status)
	if err != nil {
		return err
	}
	if string(diff) != "{}" {
		status.ReconciledAt = &now
		if diff, err = statusPatch(old, status); err != nil {
			return err
		}
	}
	patch := map[string]any{}
	if err := json.Unmarshal(diff, &patch); err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	if p.takeOp && p.app.Operation != nil {
		patch["operation"] = nil
	}
	if p.refreshed {
		patch["metadata"] = map[string]any{"annotations": map[string]any{v1alpha1.AnnotationRefresh: nil}}
	}
	if len(patch) == 0 {
		return nil
	}
	return p.patchApp(ctx, patch)
}

func statusPatch(old []byte, status *v1alpha1.ApplicationStatus) ([]byte, error) {
	next, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	diff, err := jsonpatch.CreateMergePatch(old, next)
	if err != nil {
		return nil, fmt.Errorf("compare the status: %w", err)
	}
	return diff, nil
}

// patchApp writes the Application and keeps the answer, which may be younger
// than what the watch has.
func (p *pass) patchApp(ctx context.Context, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode the patch: %w", err)
	}
	got, err := p.Client.Resource(v1alpha1.ApplicationResource).Namespace(p.app.Namespace).
		Patch(ctx, p.app.Name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: p.FieldManager})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	got.SetManagedFields(nil)
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.st.written = got
	return nil
}
