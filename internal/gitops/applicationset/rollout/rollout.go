// Package rollout decides which Applications of a rolling sync are next.
//
// Input: the steps, the Applications as they are, how far each was, the time.
// Output: how far each is now, which to sync, which to look at anew. It is a
// pure function.
//
// Each Application is Waiting (something is to be rolled out), Pending (its
// sync was asked for), Progressing (the sync began) or Healthy. What is to be
// rolled out is named by the revisions that it is compared with; the same
// revisions are synced at most once, so nothing goes round in circles, and new
// revisions begin anew at once, so a repaired Application goes on.
//
// Invariants: an Application is synced only when all of the earlier steps are
// Healthy and were looked at since it began to wait; at most maxUpdate of a
// step are Pending or Progressing; no step, no sync.
//
// Start reading at [Next].
package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// The states of an Application in a rollout.
const (
	Waiting     = "Waiting"
	Pending     = "Pending"
	Progressing = "Progressing"
	Healthy     = "Healthy"
)

// RetryAfter is how long after its turn an Application gets another one when
// its sync was refused or interrupted. A sync that failed is not repeated: that
// is what spec.syncPolicy.retry is for.
const RetryAfter = time.Minute

// App is an Application that is wanted, there, or both.
type App struct {
	Name        string
	Labels      map[string]string // as wanted, or of the live one when it is not wanted
	Wanted      bool
	Exists      bool
	Revisions   []string // that the live one is compared with
	Sync        v1alpha1.SyncCode
	Health      v1alpha1.HealthCode
	Fresh       bool      // Sync and Health are about the spec as wanted
	SpecChanged bool      // the live spec is not yet as wanted
	Error       bool      // it cannot be compared
	LookedAt    time.Time // when Sync and Health were last confirmed
	Asked       bool      // operation is set and was not taken up yet
	Started     time.Time // of the last sync; zero for none
	Mark        string    // that the last sync carried; see [Mark]
	Running     bool      // the last sync is not over
	Refused     bool      // the last sync was not carried out, or was interrupted
}

// Input is a rollout at one moment.
type Input struct {
	Steps  []v1alpha1.RolloutStep
	Apps   []App // in a stable order
	Status []v1alpha1.RolloutStatus
	Now    time.Time
}

// Output is what follows from it.
type Output struct {
	Status   []v1alpha1.RolloutStatus // of the Applications that exist, by name
	Sync     []string                 // to be asked to sync
	Look     []string                 // to be looked at anew before it can go on
	Step     int                      // at work, from 1; 0 when all is done
	Problems []string                 // in the steps; they hold nothing up
}

// Next takes the rollout one turn further.
func Next(in Input) Output {
	t := turn{Input: in, now: metav1.NewTime(in.Now).Rfc3339Copy(), stepOf: map[string]int{}, old: map[string]v1alpha1.RolloutStatus{}, status: map[string]*v1alpha1.RolloutStatus{}}
	for _, s := range in.Status {
		t.old[s.Application] = s
	}
	t.assign()
	for i := range in.Apps {
		if in.Apps[i].Exists {
			t.observe(&in.Apps[i])
		}
	}
	t.advance()
	for _, a := range in.Apps {
		if s := t.status[a.Name]; s != nil {
			t.out.Status = append(t.out.Status, *s)
		}
	}
	slices.SortFunc(t.out.Status, func(a, b v1alpha1.RolloutStatus) int { return strings.Compare(a.Application, b.Application) })
	return t.out
}

type turn struct {
	Input
	now    metav1.Time
	stepOf map[string]int // from 0
	old    map[string]v1alpha1.RolloutStatus
	status map[string]*v1alpha1.RolloutStatus
	out    Output
}

// assign finds the step of each wanted Application.
func (t *turn) assign() {
	t.out.Problems = Check(t.Steps)
	filled := make([]bool, len(t.Steps))
	for _, a := range t.Apps {
		if !a.Wanted {
			continue
		}
		at := StepsOf(t.Steps, a.Labels)
		if len(at) > 1 {
			t.out.Problems = append(t.out.Problems, fmt.Sprintf("steps %d and %d both select %s; the first counts", at[0]+1, at[1]+1, a.Name))
		}
		if len(at) > 0 {
			t.stepOf[a.Name] = at[0]
			filled[at[0]] = true
		}
	}
	for i, f := range filled {
		if !f {
			t.out.Problems = append(t.out.Problems, fmt.Sprintf("step %d selects no Application", i+1))
		}
	}
}

// Check says what is wrong with the steps.
func Check(steps []v1alpha1.RolloutStep) []string {
	var out []string
	for i, s := range steps {
		for _, e := range s.MatchExpressions {
			if e.Operator != "In" && e.Operator != "NotIn" {
				out = append(out, fmt.Sprintf("step %d: %q is no operator; In and NotIn are; the step selects nothing", i+1, e.Operator))
			}
		}
		if s.MaxUpdate != nil {
			if _, err := intstr.GetScaledValueFromIntOrPercent(s.MaxUpdate, 100, false); err != nil {
				out = append(out, fmt.Sprintf("step %d: maxUpdate %q is neither a number nor a percentage; nothing of the step is synced", i+1, s.MaxUpdate.String()))
			}
		}
	}
	return out
}

// StepsOf returns the steps, from 0, that select the labels.
func StepsOf(steps []v1alpha1.RolloutStep, labels map[string]string) []int {
	var out []int
	for i, s := range steps {
		if !slices.ContainsFunc(s.MatchExpressions, func(e v1alpha1.MatchExpression) bool { return !holds(e, labels) }) {
			out = append(out, i)
		}
	}
	return out
}

func holds(e v1alpha1.MatchExpression, labels map[string]string) bool {
	v, has := labels[e.Key]
	in := has && slices.Contains(e.Values, v)
	switch e.Operator {
	case "In":
		return in
	case "NotIn":
		return !in
	}
	return false
}

func (t *turn) step(name string) string {
	if i, ok := t.stepOf[name]; ok {
		return strconv.Itoa(i + 1)
	}
	return "-1"
}

// observe moves one Application by what is seen of it.
func (t *turn) observe(a *App) {
	s, known := t.old[a.Name]
	if !known {
		s = v1alpha1.RolloutStatus{Application: a.Name, TargetRevisions: a.Revisions}
		t.move(&s, Waiting, "No status yet: waiting for its turn")
	}
	s.Step = t.step(a.Name)
	changed := !slices.Equal(s.TargetRevisions, a.Revisions)
	if s.TargetRevisions = a.Revisions; s.TargetRevisions == nil {
		s.TargetRevisions = []string{}
	}
	if s.LastTransitionTime == nil {
		s.LastTransitionTime = &t.now
	}
	began := a.Mark == Mark(s) || a.Started.After(s.LastTransitionTime.Time)
	switch {
	case a.SpecChanged && s.Status != Waiting:
		t.move(&s, Waiting, "The spec changes: waiting for its turn")
	case changed && known && s.Status == Pending && !began:
		// The sync that was asked for takes the newest revision anyhow.
	case changed && known:
		t.move(&s, Waiting, "New revisions: waiting for its turn")
	}
	settled := !a.SpecChanged && a.Fresh && a.Sync == v1alpha1.SyncSynced && !a.Running && !a.Asked
	switch {
	case s.Status == Waiting && settled && a.Health == v1alpha1.HealthHealthy:
		t.move(&s, Healthy, "Synced and healthy")
	case s.Status == Waiting && settled:
		t.move(&s, Progressing, "Synced: waiting for it to get healthy")
	case s.Status == Pending && began:
		t.move(&s, Progressing, "The sync began")
	case s.Status == Progressing && a.Refused && !a.Running && !a.Error && a.Fresh && !settled && t.Now.Sub(s.LastTransitionTime.Time) >= RetryAfter:
		t.move(&s, Waiting, "The sync was not carried out: waiting for another turn")
	}
	if s.Status == Progressing && settled && a.Health == v1alpha1.HealthHealthy {
		t.move(&s, Healthy, "Synced and healthy")
	}
	t.status[a.Name] = &s
}

// Mark names one turn of an Application: the operation that is asked for
// carries it, so that it is told from earlier ones.
func Mark(s v1alpha1.RolloutStatus) string {
	if s.LastTransitionTime == nil {
		return ""
	}
	return s.LastTransitionTime.UTC().Format(time.RFC3339)
}

// take gives an Application its turn, at a time that no sync before had.
func (t *turn) take(a *App, s *v1alpha1.RolloutStatus) {
	t.move(s, Pending, "Its turn: a sync is asked for")
	after := a.Started
	if m, err := time.Parse(time.RFC3339, a.Mark); err == nil && m.After(after) {
		after = m
	}
	if !s.LastTransitionTime.After(after) {
		later := metav1.NewTime(after.Truncate(time.Second).Add(time.Second))
		s.LastTransitionTime = &later
	}
}

func (t *turn) move(s *v1alpha1.RolloutStatus, to, why string) {
	now := t.now
	s.Status, s.Message, s.LastTransitionTime = to, why, &now
}

// advance lets Applications of the first step that is not done go on.
func (t *turn) advance() {
	for i := range t.Steps {
		if t.stepDone(i) {
			continue
		}
		t.out.Step = i + 1
		t.startStep(i)
		return
	}
}

func (t *turn) stepDone(i int) bool {
	for _, a := range t.Apps {
		if at, ok := t.stepOf[a.Name]; !ok || at != i || !a.Wanted {
			continue
		}
		if s := t.status[a.Name]; s == nil || s.Status != Healthy {
			return false
		}
	}
	return true
}

func (t *turn) startStep(i int) {
	busy, total := 0, 0
	for _, a := range t.Apps {
		if at, ok := t.stepOf[a.Name]; !ok || at != i {
			continue
		}
		total++
		if s := t.status[a.Name]; s != nil && (s.Status == Pending || s.Status == Progressing) {
			busy++
		}
	}
	limit := maxUpdate(t.Steps[i].MaxUpdate, total)
	for j := range t.Apps {
		a := &t.Apps[j]
		at, ok := t.stepOf[a.Name]
		s := t.status[a.Name]
		if !ok || at != i || s == nil {
			continue
		}
		if s.Status == Waiting && busy < limit && t.mayStart(i, a, s) {
			t.take(a, s)
			busy++
		}
		if s.Status == Pending && !a.Asked && !a.Running {
			t.out.Sync = append(t.out.Sync, a.Name)
		}
	}
}

// mayStart holds back what was not compared with its newest spec, cannot be
// compared, or runs a sync already, and what waits since earlier steps were
// last looked at: they may have something to roll out first.
func (t *turn) mayStart(step int, a *App, s *v1alpha1.RolloutStatus) bool {
	if a.SpecChanged || !a.Fresh || a.Error || a.Running || a.Asked || a.Sync == "" {
		return false
	}
	ok := true
	for _, other := range t.Apps {
		at, in := t.stepOf[other.Name]
		if !in || at >= step || !other.LookedAt.Before(s.LastTransitionTime.Add(time.Second)) { // the time is cut to the second
			continue
		}
		ok = false
		if !slices.Contains(t.out.Look, other.Name) {
			t.out.Look = append(t.out.Look, other.Name)
		}
	}
	return ok
}

// maxUpdate is how many of total may be updated at a time.
func maxUpdate(v *intstr.IntOrString, total int) int {
	if v == nil {
		return total
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, total, false)
	if err != nil {
		return 0
	}
	if v.Type == intstr.String && v.StrVal != "0%" && n < 1 {
		return 1
	}
	return n
}
