package application

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// automated reports whether the application syncs by itself.
func automated(app *v1alpha1.Application) bool {
	policy := app.Spec.SyncPolicy
	return policy != nil && policy.Automated != nil && (policy.Automated.Enabled == nil || *policy.Automated.Enabled)
}

func (p *pass) startAutomated(ctx context.Context) {
	unfinished := p.plan != nil && p.resumes(true, p.revision()) != nil
	if p.plan == nil || !automated(&p.app) || p.plan.InSync() && !unfinished {
		p.setRetry(time.Time{})
		return
	}
	if why := p.app.Annotations[AnnotationPause]; why != "" {
		p.condition(ConditionPaused, "automated sync is paused: "+why)
		return
	}
	auto := p.app.Spec.SyncPolicy.Automated
	actions := []plan.Action{plan.Create, plan.Update}
	if auto.Prune {
		actions = append(actions, plan.Prune)
	}
	if p.plan.Count(actions...) == 0 && !unfinished {
		return
	}
	if auto.Prune && !auto.AllowEmpty && p.plan.Count(plan.Prune) == len(p.plan.Changes) {
		p.condition(v1alpha1.ConditionSyncError, fmt.Sprintf(
			"the source has no objects: automated sync would delete all %d; set spec.syncPolicy.automated.allowEmpty if that is meant", len(p.plan.Changes)))
		return
	}
	retries, heals, wait := p.due(auto)
	if wait < 0 || !p.windowOpen() || !p.dependenciesReady() {
		return
	}
	if wait > 0 {
		p.queue.AddAfter(p.key, wait)
		p.announceRetry(retries, wait)
		return
	}
	p.setRetry(time.Time{})
	p.st.last.heals = heals
	drift := ""
	if heals > 0 {
		drift = driftOf(p.plan)
	}
	sync := &v1alpha1.SyncOperation{Prune: auto.Prune, AutoHealAttemptsCount: int64(heals)}
	if len(p.app.Spec.Sources) > 0 {
		sync.Revisions = idsOf(p.revs)
	} else {
		sync.Revision = p.commit()
	}
	p.launch(ctx, launch{
		wish: v1alpha1.Operation{Sync: sync, InitiatedBy: v1alpha1.Initiator{Automated: true}},
		want: p.st.rendered, plan: p.plan, sources: p.sources, main: p.main, heals: drift, retries: retries,
	})
}

// ConditionPaused says that somebody paused automated syncs.
const ConditionPaused = "SyncPaused"

func (p *pass) setRetry(at time.Time) {
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.st.retryAt = at
}

// announceRetry says once per failure when the next attempt comes.
func (p *pass) announceRetry(failures int64, wait time.Duration) {
	p.setRetry(p.Now().Add(wait))
	if failures == 0 || p.st.last.told {
		return
	}
	p.st.last.told = true
	p.tellAt(p.commit(), journal.Event{Stage: journal.StageApply, Status: journal.StatusWaiting, Message: fmt.Sprintf(
		"tries again in %s (attempt %d); a newer commit ends the wait", wait.Round(time.Second), failures+1)})
}

// tellFailure says in a condition why the automated sync of what the sources
// name failed. It stays while the sync is tried again.
func (p *pass) tellFailure() {
	last := p.st.last
	if last.why == "" || !automated(&p.app) || last.params != p.st.params || p.plan == nil || p.plan.InSync() || last.commit != p.revision() {
		return
	}
	auto, text := p.app.Spec.SyncPolicy.Automated, fmt.Sprintf("sync of %s failed: %s", short(last.commit), last.why)
	if limit, _ := retryPolicy(p.app.Spec.SyncPolicy.Retry, last.failures); limit >= 0 && last.failures > limit && !auto.SelfHeal {
		text += fmt.Sprintf(". It failed %d times", last.failures)
		if last.final(limit) {
			text += " and is not tried again; push a fix, or sync by hand"
		} else {
			text += fmt.Sprintf(" and is tried again every %s, in case the cluster is mended; push a fix, or sync by hand", healMax)
		}
	}
	p.condition(v1alpha1.ConditionSyncError, text)
}

const (
	healBackoff = 2 * time.Second
	healFactor  = 3
	healMax     = 5 * time.Minute
	healForget  = 10 * time.Minute // drift after this long counts from one again
)

// due says how long to wait for the next automated attempt: 0 is now, less is
// not at all. It also returns what the attempt counts as.
func (p *pass) due(auto *v1alpha1.Automated) (retries int64, heals int, wait time.Duration) {
	last, now := p.st.last, p.Now()
	if last.commit != p.revision() || last.params != p.st.params {
		return 0, 0, 0
	}
	until := func(at time.Time) time.Duration { return max(0, at.Sub(now)) }
	switch last.phase {
	case v1alpha1.PhaseSucceeded:
		if !auto.SelfHeal {
			return 0, 0, -1
		}
		heals = last.heals + 1
		if now.Sub(last.at) > healForget {
			heals = 1
		}
		pause := time.Duration(0)
		for i := 1; i < heals; i++ {
			pause = min(max(healBackoff, pause*healFactor), healMax)
		}
		return 0, heals, until(last.at.Add(pause))
	case v1alpha1.PhaseFailed, v1alpha1.PhaseError:
		if strings.Contains(last.why, errTerminated.Error()) {
			return 0, 0, -1 // until a newer commit, or a sync by hand
		}
		limit, pause := retryPolicy(p.app.Spec.SyncPolicy.Retry, last.failures)
		if limit >= 0 && last.failures > limit {
			if last.final(limit) && !auto.SelfHeal {
				return 0, 0, -1
			}
			pause = healMax
		}
		return last.failures, last.heals, until(last.at.Add(pause))
	}
	return 0, 0, 0
}

// final reports whether a failed attempt is not tried again even now and then:
// retries are not wanted, or what a hook did is not to be done twice.
func (a attempt) final(limit int64) bool { return limit == 0 || a.hook }

// retryPolicy returns the limit of retries (-1 for none) and the wait before
// the one after n failures.
func retryPolicy(r *v1alpha1.Retry, n int64) (limit int64, wait time.Duration) {
	limit, wait, factor, longest := int64(5), 5*time.Second, int64(2), 3*time.Minute
	if r != nil {
		limit = r.Limit
		if b := r.Backoff; b != nil {
			if d, err := time.ParseDuration(b.Duration); err == nil && d > 0 {
				wait = d
			}
			if b.Factor != nil && *b.Factor > 0 {
				factor = *b.Factor
			}
			if d, err := time.ParseDuration(b.MaxDuration); err == nil && d > 0 {
				longest = d
			}
		}
	}
	for i := int64(1); i < n && wait < longest; i++ {
		wait *= time.Duration(factor)
	}
	return limit, min(wait, longest)
}
