package application

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// moment is now, as a status has it.
func (p *pass) moment() metav1.Time { return metav1.NewTime(p.Now()).Rfc3339Copy() }

// writeStatus puts what was found into the Application, if it is new.
func (p *pass) writeStatus(ctx context.Context) error {
	if p.quiet {
		return nil
	}
	if op := p.st.op; op != nil { // a wish goes from the operation field to the state with one write
		p.st.state = op.state(&p.app)
	}
	status := p.app.Status // history was replaced; slices are fresh
	now := p.moment()
	status.ControllerNamespace = p.Namespace
	status.Conditions = conditionsSince(p.conditions, status.Conditions, now)
	p.syncStatus(&status)
	if p.plan != nil {
		p.healthStatus(&status, now)
	} else if status.Health.Status == "" {
		status.Health = v1alpha1.AppHealth{Status: v1alpha1.HealthUnknown, LastTransitionTime: &now}
	}
	switch old := status.OperationState; {
	case p.st.state != nil:
		status.OperationState = p.st.state
	case old != nil && !old.Phase.Completed() && p.st.op == nil && p.waiting == "":
		ended := *old
		ended.Phase, ended.Message, ended.FinishedAt = v1alpha1.PhaseError, "interrupted by a restart of the engine", &now
		status.OperationState = &ended
	}
	return p.patch(ctx, &status, now)
}

func (p *pass) syncStatus(status *v1alpha1.ApplicationStatus) {
	if p.waiting != "" && status.Sync.Status != "" {
		return // as it was
	}
	next := v1alpha1.SyncStatus{Status: v1alpha1.SyncUnknown, ComparedTo: v1alpha1.ComparedTo{
		Source: sourceOf(&p.app), Sources: p.app.Spec.Sources, Destination: p.app.Spec.Destination, IgnoreDifferences: p.app.Spec.IgnoreDifferences,
	}}
	ids := idsOf(p.revs)
	if p.plan != nil {
		next.Status = v1alpha1.SyncOutOfSync
		if p.plan.InSync() {
			next.Status = v1alpha1.SyncSynced
			if old := status.Sync; old.Status == v1alpha1.SyncSynced && p.st.rendered != nil && p.unaffected(old) {
				next.Revision, next.Revisions = old.Revision, old.Revisions
				ids = nil
			}
		}
	}
	if ids != nil && p.plan != nil {
		p.st.rendered.told = ids
	}
	switch {
	case ids == nil:
	case len(p.app.Spec.Sources) > 0:
		next.Revisions = ids
	case len(ids) > 0:
		next.Revision = ids[0]
	}
	if r := p.st.rendered; r != nil && len(r.tools) > 0 {
		if len(p.app.Spec.Sources) > 0 {
			status.SourceTypes = nil
			for _, t := range r.tools {
				status.SourceTypes = append(status.SourceTypes, string(t))
			}
		} else {
			status.SourceType = string(r.tools[0])
		}
	}
	status.Sync = next
}

// unaffected reports whether the status names revisions at which the objects
// were the same: then it stays as it is.
func (p *pass) unaffected(old v1alpha1.SyncStatus) bool {
	named := old.Revisions
	if len(named) == 0 {
		named = []string{old.Revision}
	}
	return p.hold == nil && slices.Equal(named, p.st.rendered.told)
}

// healthStatus fills in the objects, their health and that of the whole.
func (p *pass) healthStatus(status *v1alpha1.ApplicationStatus, now metav1.Time) {
	worst, reason := v1alpha1.HealthHealthy, ""
	resources := make([]v1alpha1.ResourceStatus, 0, len(p.plan.Changes))
	images, urls := map[string]bool{}, map[string]bool{}
	for _, c := range p.plan.Changes {
		r := v1alpha1.ResourceStatus{Group: c.Group, Version: c.Version, Kind: c.Kind, Namespace: c.Namespace, Name: c.Name, Status: v1alpha1.SyncSynced, SyncWave: int64(c.Wave)}
		if !c.InSync() {
			r.Status = v1alpha1.SyncOutOfSync
		}
		r.RequiresPruning = c.Action == plan.Prune
		live := p.cluster.Live.Lookup(c.Key)
		s, ok := health.Status{Code: v1alpha1.HealthMissing, Message: "does not exist"}, true
		if live != nil {
			s, ok = p.cluster.Live.HealthOf(live)
			for _, image := range live.Images {
				images[image] = true
			}
			for _, url := range live.URLs {
				urls[url] = true
			}
		}
		if ok {
			r.Health = &v1alpha1.HealthStatus{Status: s.Code, Message: s.Message}
			if c.Action != plan.Prune && !c.IgnoreHealth && health.Worse(s.Counts(), worst) {
				worst, reason = s.Counts(), fmt.Sprintf("%s: %s", c.Key, s.Message)
			}
		}
		resources = append(resources, r)
	}
	sort.Slice(resources, func(i, j int) bool {
		a, b := resources[i], resources[j]
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name)) < 0
	})
	status.Resources = resources
	since := status.Health.LastTransitionTime
	if status.Health.Status != worst || since == nil {
		since = &now
	}
	status.Health = v1alpha1.AppHealth{Status: worst, Message: reason, LastTransitionTime: since}
	status.Summary.Images = slices.Sorted(maps.Keys(images))
	status.Summary.ExternalURLs = slices.Sorted(maps.Keys(urls))
	p.announceHealth(worst, reason, len(resources))
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
	old, err := json.Marshal(map[string]any{"status": p.was})
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
	if len(p.annotate) > 0 {
		patch["metadata"] = map[string]any{"annotations": p.annotate}
	}
	if len(patch) == 0 {
		return nil
	}
	if err := p.patchApp(ctx, patch); err != nil {
		return err
	}
	p.wakeDependents(p.key)
	return nil
}

func statusPatch(old []byte, status *v1alpha1.ApplicationStatus) ([]byte, error) {
	next, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	if bytes.Equal(old, next) {
		return []byte("{}"), nil
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
	app := &v1alpha1.Application{}
	if err := v1alpha1.Decode(got, app); err != nil {
		return err
	}
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.st.written = app
	return nil
}
