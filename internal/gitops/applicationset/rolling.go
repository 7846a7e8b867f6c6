package applicationset

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/rollout"
)

// turn asks what is next in a rolling sync; nil for sets without one.
func (p *pass) turn(d *desired, todo []change) *rollout.Output {
	if !rolling(&p.set) {
		return nil
	}
	in := rollout.Input{Steps: p.set.Spec.Strategy.RollingSync.Steps, Status: p.set.Status.ApplicationStatus, Now: p.Now()}
	specs := map[string]bool{}
	for _, ch := range todo {
		specs[ch.want.GetName()] = ch.spec || ch.live == nil
	}
	wanted := map[string]bool{}
	for _, want := range d.apps {
		wanted[want.GetName()] = true
		in.Apps = append(in.Apps, p.seen(want.GetName(), want.GetLabels(), true, specs[want.GetName()]))
	}
	var rest []string
	for name := range p.current {
		if !wanted[name] {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	for _, name := range rest {
		in.Apps = append(in.Apps, p.seen(name, p.current[name].GetLabels(), false, false))
	}
	out := rollout.Next(in)
	return &out
}

// seen is what the rollout looks at of an Application.
func (p *pass) seen(name string, labels map[string]string, wanted, specChanged bool) rollout.App {
	a := rollout.App{Name: name, Labels: labels, Wanted: wanted, SpecChanged: specChanged}
	o := p.current[name]
	if o == nil || o.GetDeletionTimestamp() != nil {
		return a
	}
	a.Exists = true
	status, _ := o.Object["status"].(map[string]any)
	field := func(path ...string) string {
		s, _, _ := unstructured.NestedString(status, path...)
		return s
	}
	a.Sync, a.Health = v1alpha1.SyncCode(field("sync", "status")), v1alpha1.HealthCode(field("health", "status"))
	if a.Revisions, _, _ = unstructured.NestedStringSlice(status, "sync", "revisions"); len(a.Revisions) == 0 && field("sync", "revision") != "" {
		a.Revisions = []string{field("sync", "revision")}
	}
	a.Fresh = fresh(o, status)
	a.Asked = o.Object["operation"] != nil
	phase := v1alpha1.Phase(field("operationState", "phase"))
	a.Running = phase != "" && !phase.Completed()
	a.Refused = phase == v1alpha1.PhaseError
	a.Started = timeOf(field("operationState", "startedAt"))
	a.Mark = markOf(status)
	a.LookedAt = timeOf(field("reconciledAt"))
	if told, ok := p.st.looks[name]; ok && o.GetAnnotations()[v1alpha1.AnnotationRefresh] == "" && told.After(a.LookedAt) {
		a.LookedAt = told // the annotation is taken away when the look is over
	}
	conditions, _, _ := unstructured.NestedSlice(status, "conditions")
	for _, c := range conditions {
		m, _ := c.(map[string]any)
		kind, _ := m["type"].(string)
		if kind == v1alpha1.ConditionComparisonError || kind == v1alpha1.ConditionInvalidSpecError || kind == v1alpha1.ConditionUnknownError {
			a.Error = true
		}
	}
	return a
}

// compared is what a comparison was made with.
type compared struct {
	Source      *v1alpha1.ApplicationSource   `json:"source,omitempty"`
	Sources     []*v1alpha1.ApplicationSource `json:"sources,omitempty"`
	Destination v1alpha1.Destination          `json:"destination"`
}

// fresh reports whether the status is about the sources and destination that
// the spec has now.
func fresh(o *unstructured.Unstructured, status map[string]any) bool {
	with, ok, _ := unstructured.NestedFieldNoCopy(status, "sync", "comparedTo")
	if !ok {
		return false
	}
	return canonical(with) == canonical(o.Object["spec"])
}

// canonical writes the known fields in one way; fields that are not known do
// not count.
func canonical(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var c compared
	if err := json.Unmarshal(data, &c); err != nil {
		return err.Error()
	}
	if len(c.Sources) == 1 {
		c.Source, c.Sources = c.Sources[0], nil
	}
	if data, err = json.Marshal(c); err != nil {
		return err.Error()
	}
	return string(data)
}

func timeOf(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func markOf(status map[string]any) string {
	info, _, _ := unstructured.NestedSlice(status, "operationState", "operation", "info")
	for _, i := range info {
		if m, ok := i.(map[string]any); ok && m["name"] == markName {
			s, _ := m["value"].(string)
			return s
		}
	}
	return ""
}

const (
	askAgain  = time.Minute // for a sync that was asked for and did not begin
	lookAgain = time.Second
)

// trigger asks for the syncs and looks of a turn. The status is written before.
func (p *pass) trigger(ctx context.Context, d *desired, turn *rollout.Output) error {
	marks := map[string]string{}
	waiting := false
	for _, s := range turn.Status {
		marks[s.Application] = rollout.Mark(s)
		waiting = waiting || s.Status == rollout.Pending || s.Status == rollout.Progressing
	}
	if waiting {
		p.queue.AddAfter(p.key, askAgain+time.Second) // the watch is quicker
	}
	now := p.Now()
	apps := map[string]*unstructured.Unstructured{}
	for _, a := range d.apps {
		apps[a.GetName()] = a
	}
	for _, name := range turn.Sync {
		last, mark := p.st.asked[name], marks[name]
		if last.mark == mark && now.Sub(last.at) < askAgain || apps[name] == nil {
			continue
		}
		wish := p.wishOf(apps[name], d.prune[name], mark)
		if err := p.patchApp(ctx, name, map[string]any{"operation": wish}); err != nil {
			return err
		}
		p.st.asked[name] = asked{mark, now}
		p.Log.Info("sync an Application in its turn", "applicationset", p.key, "application", name)
	}
	for _, name := range turn.Look {
		live := p.current[name]
		if live == nil || live.GetAnnotations()[v1alpha1.AnnotationRefresh] != "" {
			continue
		}
		if last, ok := p.st.looks[name]; ok && now.Sub(last) < lookAgain {
			p.queue.AddAfter(p.key, lookAgain)
			continue
		}
		if err := p.patchApp(ctx, name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{v1alpha1.AnnotationRefresh: "normal"}}}); err != nil {
			return err
		}
		p.st.looks[name] = now
	}
	return nil
}

// rolloutCondition says how far the rollout is.
func rolloutCondition(turn *rollout.Output) v1alpha1.ApplicationSetCondition {
	c := v1alpha1.ApplicationSetCondition{Type: v1alpha1.ConditionRolloutProgressing, Status: "False", Reason: "ApplicationSetRolloutComplete", Message: "ApplicationSet Rollout has completed"}
	if turn.Step > 0 {
		c.Status, c.Reason = "True", "ApplicationSetModified"
		c.Message = fmt.Sprintf("ApplicationSet is performing rollout of step %d%s", turn.Step, holding(turn))
	}
	if len(turn.Problems) > 0 {
		shown := turn.Problems[:min(len(turn.Problems), 3)]
		c.Message += ". Look at spec.strategy.rollingSync.steps: " + strings.Join(shown, "; ")
	}
	return c
}

// holding names what the step waits for.
func holding(turn *rollout.Output) string {
	var names []string
	for _, s := range turn.Status {
		if s.Step != fmt.Sprint(turn.Step) || s.Status == rollout.Healthy {
			continue
		}
		if len(names) == 3 {
			names = append(names, "…")
			break
		}
		names = append(names, s.Application+" is "+s.Status)
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}
