//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// bench is one run.
type bench struct {
	options
	dir      string
	progress io.Writer
	report   report

	repo     *monorepo
	cluster  *plane.Cluster
	watcher  *watcher
	engine   *child
	idleRate float64 // CPU-seconds per second
	serial   int     // of the values that commits write
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// measure runs the phases in order.
func (b *bench) measure(ctx context.Context) (err error) {
	b.say("making a repository of %d applications", b.n)
	if b.repo, err = newMonorepo(ctx, filepath.Join(b.dir, "repo.git"), b.n, b.perNamespace, strings.Split(b.shape, ",")); err != nil {
		return err
	}
	defer b.repo.git.Close()
	b.report.Objects = len(manifests) * b.n
	if slices.Contains(b.phases, "limit") {
		if err := b.measureLimit(ctx); err != nil {
			return fmt.Errorf("limit: %w", err)
		}
	}
	b.say("starting a control plane for the engine")
	if b.cluster, err = b.startCluster(ctx, "plane"); err != nil {
		return err
	}
	defer b.cluster.Stop()
	ctx, cancel := context.WithCancel(ctx) // ends the watches before the control plane
	defer cancel()
	defer func() {
		if b.engine != nil {
			err = errors.Join(err, b.engine.stop())
		}
	}()
	run := map[string]func(context.Context) error{
		"cold": b.cold, "idle": b.idlePhase, "noop": b.noop, "one": b.commitOne, "all": b.commitAll, "drift": b.drift, "restart": b.restart,
	}
	for _, phase := range phases[1:] {
		if !slices.Contains(b.phases, phase) {
			continue
		}
		b.say("%s", phase)
		if err := b.profiled(phase, func() error { return run[phase](ctx) }); err != nil {
			return fmt.Errorf("%s: %w", phase, err)
		}
	}
	return nil
}

// profiled runs a phase under the CPU profile that was asked for. The two that
// start the engine give it the file then.
func (b *bench) profiled(phase string, run func() error) error {
	file := b.profiles[phase]
	if file != "" && phase != "cold" && phase != "restart" {
		if _, err := b.engine.ask(command{Do: "profile", Path: file}); err != nil {
			return err
		}
	}
	if err := run(); err != nil || file == "" {
		return err
	}
	_, err := b.engine.ask(command{Do: "profile"})
	return err
}

func (b *bench) measureLimit(ctx context.Context) error {
	b.say("limit: starting a control plane for the bare loop")
	cluster, err := b.startCluster(ctx, "limit")
	if err != nil {
		return err
	}
	defer cluster.Stop()
	all, changed := filepath.Join(b.dir, "all.json"), filepath.Join(b.dir, "changed.json")
	if err := writeObjects(all, b.repo.apps, func(wire) bool { return true }); err != nil {
		return err
	}
	for _, a := range b.repo.apps {
		a.config = "limit"
	}
	err = writeObjects(changed, b.repo.apps, func(w wire) bool { return w.Resource == resources["configmap"] })
	for _, a := range b.repo.apps {
		a.config = "0"
	}
	if err != nil {
		return err
	}
	b.say("limit: applying")
	plane := cpuOf(cluster)
	took, err := bareLoop(ctx, limitOptions{accessTo(cluster), b.parallel}, all, changed)
	if err != nil {
		return err
	}
	b.report.Limit = &limit{took[0].Seconds, took[0].CPU, took[1].Seconds, took[1].CPU, cpuOf(cluster) - plane}
	return nil
}

// start starts the engine's process.
func (b *bench) start(ctx context.Context, phase string) (err error) {
	b.engine, err = startEngine(ctx, engineOptions{
		Access: accessTo(b.cluster), Repository: b.repo.git.Dir(), Journal: filepath.Join(b.dir, "journal.db"),
		Parallel: b.parallel, Profile: b.profiles[phase], Verbose: b.verbose,
	})
	return err
}

// facts are the same fact of every application.
func (b *bench) facts(prefix, value string) map[string]string {
	out := make(map[string]string, b.n)
	for _, a := range b.repo.apps {
		name := a.name
		if prefix == "configmap/" {
			name = a.object()
		}
		out[prefix+name] = value
	}
	return out
}

const inSync = "Synced Succeeded"

// cold: the Applications exist, the engine's process starts.
func (b *bench) cold(ctx context.Context) (err error) {
	if err := b.createApplications(ctx); err != nil {
		return err
	}
	if b.watcher, err = newWatcher(b.cluster.Config); err != nil {
		return err
	}
	if err := b.watcher.watch(ctx, applicationsPath); err != nil {
		return err
	}
	if err := calm(ctx, b.cluster); err != nil {
		return err
	}
	plane, begin := b.planeCPU(), time.Now()
	want := b.watcher.expect(b.facts("app/", inSync))
	if err := b.start(ctx, "cold"); err != nil {
		return err
	}
	at, err := b.watcher.wait(ctx, want, b.limit)
	if err != nil {
		return err
	}
	f := &fleet{Wall: at.Sub(begin).Seconds(), Synced: at.Sub(begin).Seconds()}
	if err := b.engine.quiet(ctx, 30*time.Second); err != nil {
		return err
	}
	if err := b.account(f, answer{}, plane); err != nil {
		return err
	}
	if b.report.Limit != nil {
		f.Ratio = f.Wall / b.report.Limit.ColdSeconds
	}
	b.report.Cold = f
	if err := b.checkLive(ctx); err != nil {
		return err
	}
	for _, path := range []string{configMapsPath, deploymentsPath} {
		if err := b.watcher.watch(ctx, path); err != nil {
			return err
		}
	}
	_, err = b.watcher.wait(ctx, b.watcher.expect(b.facts("configmap/", "0")), time.Minute)
	return err
}

// account fills in what the engine and the control plane used since before.
func (b *bench) account(f *fleet, before answer, plane float64) error {
	now, err := b.engine.ask(command{Do: "stats", Reset: true})
	if err != nil {
		return err
	}
	f.CPU, f.Plane = now.CPU-before.CPU, b.planeCPU()-plane
	f.Total, f.Writes = now.Requests.Total-before.Requests.Total, now.Requests.Writes-before.Requests.Writes
	f.DryRuns, f.Status = now.Requests.DryRun-before.Requests.DryRun, now.Requests.Status-before.Requests.Status
	m := memoryOf(b.engine.cmd.Process.Pid)
	f.RSS, f.Peak = m.resident, m.peak
	return nil
}

func (b *bench) idlePhase(ctx context.Context) error {
	before, err := b.engine.ask(command{Do: "stats"})
	if err != nil {
		return err
	}
	plane, begin := b.planeCPU(), time.Now()
	if err := pause(ctx, b.idle); err != nil {
		return err
	}
	after, err := b.engine.ask(command{Do: "stats"})
	if err != nil {
		return err
	}
	seconds := time.Since(begin).Seconds()
	pid := b.engine.cmd.Process.Pid
	m := memoryOf(pid)
	b.idleRate = (after.CPU - before.CPU) / seconds
	i := &idle{
		CPUPercent: 100 * b.idleRate, RSS: m.resident, PSS: m.proportional, Peak: m.peak, Heap: after.HeapMiB, PerApp: after.HeapMiB * 1024 / float64(b.n),
		Goroutines: after.Goroutines, Requests: after.Requests.Total - before.Requests.Total, Seconds: seconds, PlanePercent: 100 * (b.planeCPU() - plane) / seconds,
	}
	for _, child := range childrenOf(pid) {
		i.Children += memoryOf(child).resident
	}
	b.report.Idle = i
	if b.heap == "" {
		return nil
	}
	file, err := filepath.Abs(b.heap)
	if err != nil {
		return err
	}
	_, err = b.engine.ask(command{Do: "heap", Path: file})
	return err
}

// push commits files and tells the engine, as the forge would. It returns the
// time just before the journal hears of it.
func (b *bench) push(ctx context.Context, files map[string]string) (time.Time, string, error) {
	before, after, err := b.repo.commit(ctx, files)
	if err != nil {
		return time.Time{}, "", err
	}
	begin := time.Now()
	_, err = b.engine.ask(command{Do: "push", Event: &journal.Event{
		Stage: journal.StagePush, Status: journal.StatusSucceeded, Subject: "refs/heads/main", Repo: repoName, Commit: after,
		Data: map[string]string{journal.DataActor: "ada", journal.DataRef: "refs/heads/main", journal.DataBefore: before},
	}})
	return begin, after, err
}

func (b *bench) noop(ctx context.Context) error {
	before, err := b.engine.ask(command{Do: "stats", Reset: true})
	if err != nil {
		return err
	}
	_, commit, err := b.push(ctx, map[string]string{"README.md": "The applications of Contoso, once more.\n"})
	if err != nil {
		return err
	}
	const window = 3 * time.Second
	if err := pause(ctx, window); err != nil {
		return err
	}
	after, err := b.engine.ask(command{Do: "stats", Reset: true})
	if err != nil {
		return err
	}
	events, err := b.engine.ask(command{Do: "touched", Commit: commit})
	if err != nil {
		return err
	}
	r := &noopCommit{CPU: max(0, after.CPU-before.CPU-b.idleRate*window.Seconds()), Requests: after.Requests.Total - before.Requests.Total}
	touched := maps.Clone(after.Requests.Apps)
	if touched == nil {
		touched = map[string]int{}
	}
	for subject, n := range events.Touched {
		r.Events += n
		touched[subject[strings.LastIndexByte(subject, '/')+1:]]++
	}
	r.Touched = len(touched)
	b.report.NoopCommit = r
	return b.engine.quiet(ctx, 30*time.Second)
}

// change gives an application a new value in its ConfigMap or its Deployment
// and returns the fact that shows it.
func (b *bench) change(a *app, config bool) (key, value string) {
	b.serial++
	value = fmt.Sprintf("v%d", b.serial)
	if config {
		a.config = value
		return "configmap/" + a.object(), value
	}
	a.version = value
	return "deployment/" + a.object(), value
}

// gap is the pause between repetitions: time to write status.
const gap = 250 * time.Millisecond

func (b *bench) commitOne(ctx context.Context) error {
	return b.repeat(ctx, &b.report.CommitOne, func(a *app, i int) (float64, error) {
		key, value := b.change(a, i%2 == 0)
		want := b.watcher.expect(map[string]string{key: value})
		begin, _, err := b.push(ctx, a.files())
		if err != nil {
			return 0, err
		}
		at, err := b.watcher.wait(ctx, want, time.Minute)
		return at.Sub(begin).Seconds() * 1000, err
	})
}

// repeat measures a step on applications all over the monorepo.
func (b *bench) repeat(ctx context.Context, into **single, step func(a *app, i int) (ms float64, err error)) error {
	before, err := b.engine.ask(command{Do: "stats", Reset: true})
	if err != nil {
		return err
	}
	plane, begin := b.planeCPU(), time.Now()
	s := &single{Reps: b.reps}
	var took []float64
	for i := range b.reps {
		a := b.repo.apps[(i*b.n/b.reps+i)%b.n] // spread over namespaces and shapes
		ms, err := step(a, i)
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		took = append(took, ms)
		if err := pause(ctx, gap); err != nil {
			return err
		}
		got, err := b.engine.ask(command{Do: "stats", Reset: true})
		if err != nil {
			return err
		}
		for name, n := range got.Requests.Apps {
			if name != a.name {
				s.Others += n
			}
		}
	}
	after, err := b.engine.ask(command{Do: "stats"})
	if err != nil {
		return err
	}
	n := float64(b.reps)
	s.Median, s.P95, s.Max = quantile(took, 0.5), quantile(took, 0.95), slices.Max(took)
	s.CPU = max(0, after.CPU-before.CPU-b.idleRate*time.Since(begin).Seconds()) / n
	s.Plane = (b.planeCPU() - plane) / n
	s.Writes, s.DryRuns = float64(after.Requests.Writes-before.Requests.Writes)/n, float64(after.Requests.DryRun-before.Requests.DryRun)/n
	s.Requests = float64(after.Requests.Total-before.Requests.Total) / n
	*into = s
	return b.engine.quiet(ctx, 30*time.Second)
}

func (b *bench) commitAll(ctx context.Context) error {
	before, err := b.engine.ask(command{Do: "stats"})
	if err != nil {
		return err
	}
	b.serial++
	value := fmt.Sprintf("v%d", b.serial)
	files := map[string]string{}
	for _, a := range b.repo.apps {
		a.config = value
		maps.Copy(files, a.files())
	}
	live := b.watcher.expect(b.facts("configmap/", value))
	plane := b.planeCPU()
	begin, commit, err := b.push(ctx, files)
	if err != nil {
		return err
	}
	synced := b.watcher.expect(b.facts("revision/", commit))
	f := &fleet{}
	at, err := b.watcher.wait(ctx, live, b.limit)
	if err != nil {
		return err
	}
	f.Wall = at.Sub(begin).Seconds()
	if _, err = b.watcher.wait(ctx, synced, b.limit); err != nil {
		return err
	}
	if at, err = b.watcher.wait(ctx, b.watcher.expect(b.facts("app/", inSync)), b.limit); err != nil {
		return err
	}
	f.Synced = at.Sub(begin).Seconds()
	if err := b.engine.quiet(ctx, 30*time.Second); err != nil {
		return err
	}
	if err := b.account(f, before, plane); err != nil {
		return err
	}
	if b.report.Limit != nil {
		f.Ratio = f.Wall / b.report.Limit.AllSeconds
	}
	b.report.CommitAll = f
	return nil
}

// drift: somebody edits a live object; the clock starts before the edit.
func (b *bench) drift(ctx context.Context) error {
	return b.repeat(ctx, &b.report.Drift, func(a *app, i int) (float64, error) {
		kind, healthy, patch := "configmap", a.config, `{"data":{"value":"drift"}}`
		if i%2 == 1 {
			kind, healthy = "deployment", a.version
			patch = `{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"VERSION","value":"drift"}]}]}}}}`
		}
		key := kind + "/" + a.object()
		drifted := b.watcher.expect(map[string]string{key: "drift"})
		begin := time.Now()
		_, err := b.cluster.Client.Resource(resources[kind]).Namespace(a.namespace).Patch(ctx, a.object(), types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl-edit"})
		if err != nil {
			return 0, err
		}
		if _, err := b.watcher.wait(ctx, drifted, time.Minute); err != nil {
			return 0, err
		}
		at, err := b.watcher.wait(ctx, b.watcher.expect(map[string]string{key: healthy}), time.Minute)
		return at.Sub(begin).Seconds() * 1000, err
	})
}

func (b *bench) restart(ctx context.Context) error {
	if err := b.engine.stop(); err != nil {
		return err
	}
	begin := time.Now()
	if err := b.start(ctx, "restart"); err != nil {
		return err
	}
	if _, err := b.engine.ask(command{Do: "settled", Commit: b.repo.head}); err != nil {
		return err
	}
	r := &restart{InSync: time.Since(begin).Seconds()}
	if err := b.engine.quiet(ctx, 30*time.Second); err != nil {
		return err
	}
	got, err := b.engine.ask(command{Do: "stats"})
	if err != nil {
		return err
	}
	r.CPU, r.Rendered, r.RenderEvents = got.CPU, got.Renders, got.RenderEvents
	r.Requests, r.Writes, r.DryRuns = got.Requests.Total, got.Requests.Writes, got.Requests.DryRun
	r.RSS = memoryOf(b.engine.cmd.Process.Pid).resident
	b.report.Restart = r
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
