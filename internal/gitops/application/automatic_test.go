package application

import (
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func TestWhenTheNextAttemptIsDue(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	failed := func(failures int64, ago time.Duration) attempt {
		return attempt{commit: "c", params: "p", phase: v1alpha1.PhaseFailed, failures: failures, at: now.Add(-ago), why: "refused"}
	}
	after := func(a attempt, change func(*attempt)) attempt { change(&a); return a }
	const never = -1
	for name, c := range map[string]struct {
		last attempt
		heal bool
		want time.Duration
	}{
		"nothing was tried":                       {attempt{}, false, 0},
		"another commit failed":                   {after(failed(9, 0), func(a *attempt) { a.commit = "b" }), false, 0},
		"the first failure":                       {failed(1, time.Second), false, 4 * time.Second},
		"the third failure":                       {failed(3, time.Second), false, 19 * time.Second},
		"the retries are used up":                 {failed(6, time.Minute), false, 4 * time.Minute},
		"the retries are used up, and time is":    {failed(6, 6*time.Minute), false, 0},
		"a hook failed, retries are left":         {after(failed(1, time.Minute), func(a *attempt) { a.hook = true }), false, 0},
		"a hook failed, and the retries are gone": {after(failed(6, time.Hour), func(a *attempt) { a.hook = true }), false, never},
		"a hook failed, but drift is healed":      {after(failed(6, time.Hour), func(a *attempt) { a.hook = true }), true, 0},
		"retries are not wanted":                  {after(failed(1, time.Hour), func(a *attempt) { a.params = "none" }), false, never},
		"somebody ended it":                       {after(failed(1, time.Hour), func(a *attempt) { a.why = "x: " + errTerminated.Error() }), true, never},
		"it succeeded":                            {attempt{commit: "c", params: "p", phase: v1alpha1.PhaseSucceeded, at: now}, false, never},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pass{
				Controller: &Controller{Deps: Deps{Now: func() time.Time { return now }}},
				st:         &state{params: c.last.params, last: c.last}, revs: []Revision{{ID: "c"}},
				app: v1alpha1.Application{Spec: v1alpha1.ApplicationSpec{SyncPolicy: &v1alpha1.SyncPolicy{}}},
			}
			if c.last.params == "none" {
				p.app.Spec.SyncPolicy.Retry = &v1alpha1.Retry{}
			}
			if _, _, got := p.due(&v1alpha1.Automated{SelfHeal: c.heal}); got != c.want && (c.want >= 0 || got >= 0) {
				t.Errorf("due in %s, want %s", got, c.want)
			}
		})
	}
}

func TestAHookThatFailed(t *testing.T) {
	for name, c := range map[string]struct {
		r    v1alpha1.ResourceResult
		want bool
	}{
		"an object":         {v1alpha1.ResourceResult{Status: "SyncFailed", HookPhase: v1alpha1.PhaseFailed}, false},
		"a hook that ran":   {v1alpha1.ResourceResult{HookType: "PreSync", HookPhase: v1alpha1.PhaseFailed}, true},
		"a hook unwritten":  {v1alpha1.ResourceResult{HookType: "PreSync", Status: "SyncFailed", HookPhase: v1alpha1.PhaseError}, false},
		"a hook that works": {v1alpha1.ResourceResult{HookType: "PreSync", HookPhase: v1alpha1.PhaseSucceeded}, false},
	} {
		if hookFailed(&c.r) != c.want {
			t.Errorf("%s: %v, want %v", name, !c.want, c.want)
		}
	}
}
