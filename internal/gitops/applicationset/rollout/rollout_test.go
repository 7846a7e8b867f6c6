package rollout

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func step(env string, maxUpdate any) v1alpha1.RolloutStep {
	s := v1alpha1.RolloutStep{MatchExpressions: []v1alpha1.MatchExpression{{Key: "env", Operator: "In", Values: []string{env}}}}
	switch v := maxUpdate.(type) {
	case int:
		n := intstr.FromInt32(int32(v))
		s.MaxUpdate = &n
	case string:
		n := intstr.FromString(v)
		s.MaxUpdate = &n
	}
	return s
}

// world is a model of Applications, their controller and time.
type world struct {
	steps  []v1alpha1.RolloutStep
	apps   map[string]*modelApp
	names  []string
	status []v1alpha1.RolloutStatus
	now    time.Time
	syncs  map[string]int // "app@revision" → times
}

type modelApp struct {
	step      int
	env       string
	head      string // what it should be at
	seen      string // what the controller compared it with
	live      string // what was applied
	broken    map[string]bool
	running   bool
	asked     bool
	mark      string
	askedMark string
	started   time.Time
	lookedAt  time.Time
}

func (a *modelApp) health() v1alpha1.HealthCode {
	if a.broken[a.live] {
		return v1alpha1.HealthDegraded
	}
	return v1alpha1.HealthHealthy
}

func (w *world) input() Input {
	in := Input{Steps: w.steps, Status: w.status, Now: w.now}
	for _, n := range w.names {
		m := w.apps[n]
		a := App{Name: n, Labels: map[string]string{"env": m.env}, Wanted: true, Exists: true, Fresh: true, Health: m.health(), LookedAt: m.lookedAt,
			Started: m.started.Truncate(time.Second), Mark: m.mark, Asked: m.asked, Running: m.running}
		if m.seen != "" {
			a.Revisions, a.Sync = []string{m.seen}, v1alpha1.SyncOutOfSync
			if m.seen == m.live {
				a.Sync = v1alpha1.SyncSynced
			}
		}
		in.Apps = append(in.Apps, a)
	}
	return in
}

// turn runs the controller once and checks the rules.
func (w *world) turn(t interface{ Fatalf(string, ...any) }) {
	before := map[string]string{}
	for _, s := range w.status {
		before[s.Application] = s.Status
	}
	out := Next(w.input())
	w.status = out.Status
	at := map[string]v1alpha1.RolloutStatus{}
	busy := map[int]int{}
	for _, s := range out.Status {
		at[s.Application] = s
		if s.Status == Pending || s.Status == Progressing {
			busy[w.apps[s.Application].step]++
		}
	}
	started := map[int]bool{}
	for _, n := range w.names {
		if before[n] != Pending && at[n].Status == Pending {
			started[w.apps[n].step] = true
		}
	}
	for i, s := range w.steps {
		if s.MaxUpdate != nil && started[i] {
			total := 0
			for _, n := range w.names {
				if w.apps[n].step == i {
					total++
				}
			}
			if limit := maxUpdate(s.MaxUpdate, total); busy[i] > limit {
				t.Fatalf("step %d: %d at a time, at most %d", i+1, busy[i], limit)
			}
		}
	}
	for _, n := range out.Sync {
		m := w.apps[n]
		for _, other := range w.names {
			o := w.apps[other]
			if o.step < m.step && at[other].Status != Healthy {
				t.Fatalf("%s of step %d is synced while %s of step %d is %s", n, m.step+1, other, o.step+1, at[other].Status)
			}
			if o.step < m.step && before[n] != Pending && o.head == m.head && o.live != o.head && m.seen == m.head {
				t.Fatalf("%s overtakes %s on the way to %s", n, other, m.head)
			}
		}
		m.asked, m.askedMark = true, Mark(at[n])
	}
	for _, n := range out.Look {
		m := w.apps[n]
		m.seen, m.lookedAt = m.head, w.now
	}
}

// act is what the application controller does for one Application.
func (w *world) act(n string, t interface{ Fatalf(string, ...any) }) {
	m := w.apps[n]
	switch {
	case m.seen != m.head:
		m.seen, m.lookedAt = m.head, w.now
	case m.asked && !m.running:
		m.asked, m.running, m.started, m.mark = false, true, w.now, m.askedMark
		key := n + "@" + m.head
		if w.syncs[key]++; w.syncs[key] > 1 {
			t.Fatalf("%s is synced to %s for the %d. time", n, m.head, w.syncs[key])
		}
	case m.running:
		m.running, m.live, m.lookedAt = false, m.seen, w.now
	}
}

func newWorld(perStep []int, maxUpdates []any) *world {
	w := &world{apps: map[string]*modelApp{}, now: time.Unix(1_700_000_000, 0), syncs: map[string]int{}}
	for i, n := range perStep {
		env := fmt.Sprintf("e%d", i)
		w.steps = append(w.steps, step(env, maxUpdates[i]))
		for j := range n {
			name := fmt.Sprintf("%s-%d", env, j)
			w.apps[name] = &modelApp{step: i, env: env, head: "r1", broken: map[string]bool{}}
			w.names = append(w.names, name)
		}
	}
	return w
}

func (w *world) push(rev string) {
	for _, m := range w.apps {
		m.head = rev
	}
}

func (w *world) done() bool {
	return !slices.ContainsFunc(w.status, func(s v1alpha1.RolloutStatus) bool { return s.Status != Healthy }) && len(w.status) == len(w.names) &&
		!slices.ContainsFunc(w.names, func(n string) bool { return w.apps[n].live != w.apps[n].head })
}

// settle brings everything to a revision.
func (w *world) settle(t interface{ Fatalf(string, ...any) }, rev string) {
	w.push(rev)
	for n := 0; !w.done(); n++ {
		if n > 200 {
			t.Fatalf("does not come to rest at %s: %+v", rev, w.status)
		}
		w.now = w.now.Add(300 * time.Millisecond)
		w.turn(t)
		for _, name := range w.names {
			w.act(name, t)
		}
	}
}

// TestModel lets controller, applications, pushes and failures happen in any
// order: no step overtakes another, no revision is synced twice, and in the end
// all is at the last revision.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld([]int{rapid.IntRange(1, 3).Draw(t, "first"), rapid.IntRange(1, 4).Draw(t, "second"), rapid.IntRange(0, 2).Draw(t, "third")},
			[]any{nil, rapid.SampledFrom([]any{1, 2, "50%", "1%"}).Draw(t, "max"), nil})
		w.settle(t, "r1")
		rev := 1
		for range rapid.IntRange(20, 300).Draw(t, "actions") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 40).Draw(t, "action") {
			case 0, 1:
				rev++
				w.push(fmt.Sprintf("r%d", rev))
			case 2:
				m := w.apps[rapid.SampledFrom(w.names).Draw(t, "broken")]
				m.broken[m.head] = true
			case 3, 4, 5, 6, 7, 8, 9, 10:
				w.turn(t)
			default:
				w.act(rapid.SampledFrom(w.names).Draw(t, "app"), t)
			}
		}
		w.settle(t, "good")
		before := fmt.Sprint(w.status)
		w.now = w.now.Add(time.Hour)
		w.turn(t)
		if after := fmt.Sprint(w.status); after != before {
			t.Fatalf("at rest, the status changes:\n%s\n%s", before, after)
		}
	})
}

func TestFailedAppHoldsTheNextStepUntilItIsFixed(t *testing.T) {
	w := newWorld([]int{1, 1}, []any{nil, nil})
	w.apps["e0-0"].broken["r1"] = true
	run := func(n int) {
		for range n {
			w.now = w.now.Add(time.Second)
			w.turn(t)
			for _, name := range w.names {
				w.act(name, t)
			}
		}
	}
	run(20)
	if w.apps["e1-0"].live == "r1" {
		t.Fatal("the second step went on while the first is Degraded")
	}
	if got := w.status[0].Status; got != Progressing {
		t.Fatalf("the broken one is %s", got)
	}
	w.push("r2")
	run(20)
	if !w.done() {
		t.Fatalf("not repaired: %+v", w.status)
	}
}

func TestNext(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	stamp := metav1.NewTime(now.Add(-time.Minute))
	out := func(app App) Output {
		app.Name, app.Wanted, app.LookedAt = "a", true, now
		if app.Labels == nil {
			app.Labels = map[string]string{"env": "dev"}
		}
		return Next(Input{Steps: []v1alpha1.RolloutStep{step("dev", nil)}, Apps: []App{app}, Now: now,
			Status: []v1alpha1.RolloutStatus{{Application: "a", Status: Healthy, TargetRevisions: []string{"r1"}, LastTransitionTime: &stamp}}})
	}
	r1 := []string{"r1"}
	for _, c := range []struct {
		name, want string
		app        App
		syncs      int
	}{
		{"nothing new", Healthy, App{Exists: true, Fresh: true, Revisions: r1, Sync: v1alpha1.SyncSynced, Health: v1alpha1.HealthHealthy}, 0},
		{"drift at the same revision is not for the rollout", Healthy, App{Exists: true, Fresh: true, Revisions: r1, Sync: v1alpha1.SyncOutOfSync, Health: v1alpha1.HealthHealthy}, 0},
		{"new revision without differences", Healthy, App{Exists: true, Fresh: true, Revisions: []string{"r2"}, Sync: v1alpha1.SyncSynced, Health: v1alpha1.HealthHealthy}, 0},
		{"new revision", Pending, App{Exists: true, Fresh: true, Revisions: []string{"r2"}, Sync: v1alpha1.SyncOutOfSync, Health: v1alpha1.HealthHealthy}, 1},
		{"spec to be written", Waiting, App{Exists: true, SpecChanged: true, Fresh: true, Revisions: r1, Sync: v1alpha1.SyncSynced, Health: v1alpha1.HealthHealthy}, 0},
		{"not compared with its new spec", Waiting, App{Exists: true, Revisions: []string{"r2"}, Sync: v1alpha1.SyncSynced, Health: v1alpha1.HealthHealthy}, 0},
		{"cannot be compared", Waiting, App{Exists: true, Fresh: true, Error: true, Revisions: []string{"r2"}, Sync: v1alpha1.SyncUnknown}, 0},
		{"somebody syncs already", Waiting, App{Exists: true, Fresh: true, Running: true, Revisions: []string{"r2"}, Sync: v1alpha1.SyncOutOfSync}, 0},
		{"in no step", Waiting, App{Exists: true, Fresh: true, Labels: map[string]string{"env": "other"}, Revisions: []string{"r2"}, Sync: v1alpha1.SyncOutOfSync}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := out(c.app)
			if got.Status[0].Status != c.want || len(got.Sync) != c.syncs {
				t.Errorf("%+v, syncs %v; want %s and %d syncs", got.Status[0], got.Sync, c.want, c.syncs)
			}
		})
	}
	refused := App{Exists: true, Fresh: true, Refused: true, Revisions: r1, Sync: v1alpha1.SyncOutOfSync, Name: "a", Wanted: true, Labels: map[string]string{"env": "dev"}}
	for after, want := range map[time.Duration]string{time.Second: Progressing, 2 * time.Minute: Pending} {
		got := Next(Input{Steps: []v1alpha1.RolloutStep{step("dev", nil)}, Apps: []App{refused}, Now: stamp.Add(after),
			Status: []v1alpha1.RolloutStatus{{Application: "a", Status: Progressing, TargetRevisions: r1, LastTransitionTime: &stamp}}})
		if got.Status[0].Status != want {
			t.Errorf("%s after a sync that was not carried out: %s, want %s", after, got.Status[0].Status, want)
		}
	}
	if got := out(App{}); got.Step != 1 || len(got.Status) != 0 {
		t.Errorf("one that is not created yet does not hold its step: %+v", got)
	}
}

// TestTurnIsToldFromTheLastOne has a sync that began in the same second as the
// next turn: without a time of its own, the new turn would take it for its own.
func TestTurnIsToldFromTheLastOne(t *testing.T) {
	now := time.Unix(1_700_000_000, 900_000_000)
	second := metav1.NewTime(now.Truncate(time.Second))
	app := App{Name: "a", Labels: map[string]string{"env": "dev"}, Wanted: true, Exists: true, Fresh: true, Revisions: []string{"r2"}, Sync: v1alpha1.SyncOutOfSync,
		Started: second.Time, Mark: Mark(v1alpha1.RolloutStatus{LastTransitionTime: &second})}
	in := Input{Steps: []v1alpha1.RolloutStep{step("dev", nil)}, Apps: []App{app}, Now: now,
		Status: []v1alpha1.RolloutStatus{{Application: "a", Status: Healthy, TargetRevisions: []string{"r1"}, LastTransitionTime: &second}}}
	out := Next(in)
	if out.Status[0].Status != Pending || len(out.Sync) != 1 || Mark(out.Status[0]) == app.Mark {
		t.Fatalf("%+v", out)
	}
	in.Status = out.Status
	if out = Next(in); out.Status[0].Status != Pending {
		t.Errorf("the last sync counts as that of the new turn: %+v", out)
	}
	in.Apps[0].Mark = Mark(in.Status[0])
	if out = Next(in); out.Status[0].Status != Progressing {
		t.Errorf("its own sync does not count: %+v", out)
	}
}

func TestSteps(t *testing.T) {
	steps := []v1alpha1.RolloutStep{
		{MatchExpressions: []v1alpha1.MatchExpression{{Key: "env", Operator: "In", Values: []string{"dev"}}, {Key: "region", Operator: "NotIn", Values: []string{"eu"}}}},
		{}, {MatchExpressions: []v1alpha1.MatchExpression{{Key: "env", Operator: "Exists"}}},
	}
	if got := StepsOf(steps, map[string]string{"env": "dev"}); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("%v", got)
	}
	if got := StepsOf(steps, map[string]string{"env": "dev", "region": "eu"}); !slices.Equal(got, []int{1}) {
		t.Errorf("%v", got)
	}
	if got := Check(steps); len(got) != 1 {
		t.Errorf("%v", got)
	}
	for _, c := range []struct {
		v    any
		want int
	}{{nil, 10}, {0, 0}, {3, 3}, {"25%", 2}, {"1%", 1}, {"0%", 0}, {"many", 0}} {
		if got := maxUpdate(step("x", c.v).MaxUpdate, 10); got != c.want {
			t.Errorf("maxUpdate %v: %d, want %d", c.v, got, c.want)
		}
	}
}
