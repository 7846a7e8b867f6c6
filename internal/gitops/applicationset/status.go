package applicationset

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/generate"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/rollout"
)

const maxMessage = 4000 // bytes of a condition

// writeStatus writes what was found, if it is new.
func (p *pass) writeStatus(ctx context.Context, turn *rollout.Output) error {
	status := v1alpha1.ApplicationSetStatus{ApplicationStatus: p.set.Status.ApplicationStatus}
	switch {
	case turn != nil:
		status.ApplicationStatus = turn.Status
	case !rolling(&p.set):
		status.ApplicationStatus = nil
	}
	status.Conditions = p.conditions(turn)
	status.Resources, status.ResourcesCount = p.resources()
	before, ok := p.object.Object["status"]
	if !ok {
		before = map[string]any{}
	}
	old, err := json.Marshal(map[string]any{"status": before})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	next, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	patch, err := jsonpatch.CreateMergePatch(old, next)
	if err != nil {
		return fmt.Errorf("compare the status: %w", err)
	}
	if string(patch) == "{}" {
		return nil
	}
	return p.patchSetRaw(ctx, patch, "status")
}

func (p *pass) patchSet(ctx context.Context, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return p.patchSetRaw(ctx, data)
}

func (p *pass) patchSetRaw(ctx context.Context, patch []byte, subresource ...string) error {
	got, err := p.Client.Resource(v1alpha1.ApplicationSetResource).Namespace(p.set.Namespace).
		Patch(ctx, p.set.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: p.FieldManager}, subresource...)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the ApplicationSet: %w", err)
	}
	got.SetManagedFields(nil)
	p.st.set, p.object = got, got
	return nil
}

// conditions are all that apply, with the times of those that were there.
func (p *pass) conditions(turn *rollout.Output) []v1alpha1.ApplicationSetCondition {
	pr := p.problem
	if err := p.st.failure; err != nil {
		pr = problemOf(err)
	}
	condition := func(kind string, holds bool, reason, message string) v1alpha1.ApplicationSetCondition {
		status := "False"
		if holds {
			status = "True"
		}
		if len(message) > maxMessage {
			message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
		}
		return v1alpha1.ApplicationSetCondition{Type: kind, Status: status, Reason: reason, Message: message}
	}
	const generated = "Successfully generated parameters for all Applications"
	var out []v1alpha1.ApplicationSetCondition
	if pr == nil {
		out = append(out, condition(v1alpha1.ConditionErrorOccurred, false, "ApplicationSetUpToDate", "All applications have been generated successfully"),
			condition(v1alpha1.ConditionParametersGenerated, true, "ParametersGenerated", generated),
			condition(v1alpha1.ConditionResourcesUpToDate, true, "ApplicationSetUpToDate", "All applications have been generated successfully"))
	} else {
		out = append(out, condition(v1alpha1.ConditionErrorOccurred, true, pr.reason, pr.message))
		if pr.generated {
			out = append(out, condition(v1alpha1.ConditionParametersGenerated, true, "ParametersGenerated", generated))
		} else {
			out = append(out, condition(v1alpha1.ConditionParametersGenerated, false, "ErrorOccurred", pr.message))
		}
		out = append(out, condition(v1alpha1.ConditionResourcesUpToDate, false, pr.reason, pr.message))
	}
	if turn != nil {
		out = append(out, rolloutCondition(turn))
	} else if rolling(&p.set) {
		for _, c := range p.set.Status.Conditions {
			if c.Type == v1alpha1.ConditionRolloutProgressing {
				out = append(out, c)
			}
		}
	}
	stamp := now(p.Controller)
	for i, c := range out {
		out[i].LastTransitionTime = &stamp
		for _, o := range p.set.Status.Conditions {
			if o.Type == c.Type && o.Status == c.Status && o.Reason == c.Reason && o.Message == c.Message && o.LastTransitionTime != nil {
				out[i].LastTransitionTime = o.LastTransitionTime
			}
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.ApplicationSetCondition) int { return strings.Compare(a.Type, b.Type) })
	return out
}

func problemOf(err error) *problem {
	if g, ok := err.(*generate.Error); ok { //nolint:errorlint // generate.Run returns it bare
		return &problem{g.Reason, g.Error(), g.Reason == generate.ReasonTemplate}
	}
	return &problem{generate.ReasonParams, err.Error(), false}
}

// seen is what status.resources shows of an Application.
type seen struct {
	sync    v1alpha1.SyncCode
	health  v1alpha1.HealthCode
	message string
}

func seenOf(o *unstructured.Unstructured) seen {
	status, _ := o.Object["status"].(map[string]any)
	field := func(path ...string) string {
		s, _, _ := unstructured.NestedString(status, path...)
		return s
	}
	return seen{v1alpha1.SyncCode(field("sync", "status")), v1alpha1.HealthCode(field("health", "status")), field("health", "message")}
}

// resources lists the Applications, by name, and says how many there are.
func (p *pass) resources() ([]v1alpha1.ResourceStatus, int64) {
	names := make([]string, 0, len(p.current))
	for name := range p.current {
		if !p.pruned[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []v1alpha1.ResourceStatus
	for _, name := range names[:min(len(names), p.MaxResources)] {
		o := p.current[name]
		s := seenOf(o)
		r := v1alpha1.ResourceStatus{
			Group: v1alpha1.Group, Version: v1alpha1.Version, Kind: v1alpha1.ApplicationKind.Kind, Namespace: o.GetNamespace(), Name: name, Status: s.sync,
		}
		if s.health != "" {
			r.Health = &v1alpha1.HealthStatus{Status: s.health, Message: s.message}
		}
		out = append(out, r)
	}
	return out, int64(len(names))
}
