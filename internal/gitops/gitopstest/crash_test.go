//go:build linux

package gitopstest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// childVariable holds a childConfig for the process that TestEngineProcess is.
const childVariable = "LOCKSTEP_TEST_ENGINE"

type childConfig struct {
	Host, Journal string
	Repos         map[string]string // name → directory
}

type pushed struct{ Repo, Before, Commit string }

// TestEngineProcess is not a test: it is the process that TestCrash kills. It
// takes pushes from its input, and says when they are in the journal.
func TestEngineProcess(t *testing.T) {
	text := os.Getenv(childVariable)
	if text == "" {
		t.Skip("only by TestCrash")
	}
	var c childConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), c.Journal)
	if err != nil {
		t.Fatal(err)
	}
	repos := fixed{}
	for name, dir := range c.Repos {
		if repos[name], err = git.Open(dir); err != nil {
			t.Fatal(err)
		}
	}
	engine, err := gitops.New(gitops.Config{}, gitops.Deps{
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Journal: j, Repositories: repos,
		Rest: &rest.Config{Host: c.Host, BearerToken: plane.Token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-engine.Ready()
		fmt.Println("ready")
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var p pushed
			if err := json.Unmarshal(in.Bytes(), &p); err != nil {
				panic(err)
			}
			if _, err := j.Append(context.Background(), pushEvent(p.Repo, p.Before, p.Commit)); err != nil {
				panic(err)
			}
			fmt.Println("taken")
		}
		os.Exit(0) // whoever started this is gone
	}()
	if err := engine.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}

type fixed map[string]*git.Repository

func (f fixed) Open(_ context.Context, repoURL string) (*git.Repository, string, error) {
	name := strings.TrimPrefix(repoURL, "https://github.com/")
	if r := f[name]; r != nil {
		return r, name, nil
	}
	return nil, "", fmt.Errorf("no repository %s", name)
}

// process is the engine in a process of its own.
type process struct {
	t       *testing.T
	w       *World
	journal string

	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
	log *os.File
}

// start returns when the engine is ready.
func (p *process) start() {
	p.t.Helper()
	c := childConfig{Host: p.w.Config.Host, Journal: p.journal, Repos: map[string]string{}}
	for name, r := range p.w.repos {
		c.Repos[name] = r.git.Dir()
	}
	text, err := json.Marshal(c)
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestEngineProcess$")
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = p.log
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	if !scanner.Scan() || scanner.Text() != "ready" {
		p.t.Fatalf("the process says %q", scanner.Text())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.in, p.out = cmd, in, scanner
}

// kill ends the engine in the middle of whatever it does.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
}

// told hands a push to the process; a process that is not there learns of it
// when it starts, as from a forge that is another process.
func (p *process) told(r *Repo, before string) {
	text, err := json.Marshal(pushed{r.Name, before, r.head})
	if err != nil {
		p.t.Error(err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	if _, err := fmt.Fprintf(p.in, "%s\n", text); err == nil {
		p.out.Scan()
	}
}

func TestCrash(t *testing.T) {
	w := NewWorld(t) // its engine has made the kinds and the project
	w.StopEngine()
	log, err := os.Create(filepath.Join(t.TempDir(), "engine.log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, w: w, journal: filepath.Join(t.TempDir(), "journal.db"), log: log}
	w.told = p.told
	t.Cleanup(func() {
		p.kill()
		_ = log.Close()
		if data, err := os.ReadFile(log.Name()); err == nil && t.Failed() && len(data) > 0 {
			t.Logf("the engine's log ends with\n%s", data[max(0, len(data)-4000):])
		}
	})
	for _, s := range []struct {
		name string
		run  func(*testing.T, *World, *process)
	}{
		{"in a wave", crashInWave},
		{"in a hook before the sync", crashInPreSync},
		{"in a hook after the sync", crashInPostSync},
		{"a finished sync is not repeated", crashAfter},
		{"in a storm of pushes", crashInStorm},
		{"a wish survives", crashWithWish},
	} {
		t.Run(s.name, func(t *testing.T) {
			outer := w.T
			w.T, p.t = t, t
			defer func() { w.T = outer }()
			defer p.kill()
			defer w.logApplications()
			s.run(t, w, p)
		})
	}
}

// logApplications shows the Applications when the test failed.
func (w *World) logApplications() {
	if !w.T.Failed() {
		return
	}
	list, err := w.in(v1alpha1.ApplicationResource, "argocd").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		w.T.Log(err)
		return
	}
	for _, o := range list.Items {
		o.SetManagedFields(nil)
		text, _ := json.Marshal(o.Object)
		w.T.Logf("%s", text)
	}
}

// status reads an Application as the API server has it.
func status(w *World, name string) *v1alpha1.Application {
	app := &v1alpha1.Application{}
	if o := w.Get(v1alpha1.ApplicationResource, "argocd", name); o != nil {
		if err := v1alpha1.Decode(o, app); err != nil {
			w.T.Fatal(err)
		}
	}
	return app
}

func synced(w *World, name, commit string) func() bool {
	return func() bool {
		s := status(w, name).Status
		return s.Sync.Status == v1alpha1.SyncSynced && s.Sync.Revision == commit && s.OperationState != nil && s.OperationState.Phase == v1alpha1.PhaseSucceeded
	}
}

func running(w *World, name, what string) func() bool {
	return func() bool {
		s := status(w, name).Status.OperationState
		return s != nil && s.Phase == v1alpha1.PhaseRunning && strings.Contains(s.Message, what)
	}
}

func crashInWave(t *testing.T, w *World, p *process) {
	r := w.NewRepo("contoso/crash-wave")
	commit := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:1", wave(-1)), "k8s/z.yaml": configMap("z", "1", wave(5))})
	w.Application("crash-wave", r, "k8s", "")
	p.start()
	w.Eventually("the wait", running(w, "crash-wave", "wave -1 waits"))
	p.kill()
	generation := w.Get(deployments, "crash-wave", "d").GetGeneration()
	if w.Get(configMaps, "crash-wave", "z") != nil {
		t.Fatal("the second wave did not wait")
	}
	p.start()
	w.Eventually("the wait of the next process", running(w, "crash-wave", "wave -1 waits"))
	if w.Get(configMaps, "crash-wave", "z") != nil {
		t.Error("the next process did not wait")
	}
	rollout(t, w, "crash-wave", "d")
	w.Eventually("the sync", synced(w, "crash-wave", commit))
	if got := w.Get(deployments, "crash-wave", "d").GetGeneration(); got != generation {
		t.Errorf("the deployment was written again: generation %d, then %d", generation, got)
	}
	if n := len(status(w, "crash-wave").Status.History); n != 1 {
		t.Errorf("the history has %d entries", n)
	}
}

func hookJob(name, phase string) string {
	return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: %s\n  annotations: {argocd.argoproj.io/hook: %s}\nspec:\n  template:\n    spec: {restartPolicy: Never, containers: [{name: m, image: m}]}\n", name, phase)
}

func crashInPreSync(t *testing.T, w *World, p *process) {
	r := w.NewRepo("contoso/crash-pre")
	commit := r.Push(map[string]string{"k8s/j.yaml": hookJob("migrate", "PreSync"), "k8s/a.yaml": configMap("a", "1")})
	w.Application("crash-pre", r, "k8s", "")
	p.start()
	w.Eventually("the wait", running(w, "crash-pre", "PreSync waits"))
	p.kill()
	before := w.Get(jobs, "crash-pre", "migrate").GetUID()
	p.start()
	w.Eventually("the wait of the next process", func() bool {
		return w.Get(jobs, "crash-pre", "migrate") != nil && running(w, "crash-pre", "PreSync waits")()
	})
	time.Sleep(time.Second)
	if w.Get(configMaps, "crash-pre", "a") != nil {
		t.Error("the next process did not wait for the hook")
	}
	if after := w.Get(jobs, "crash-pre", "migrate").GetUID(); after != before {
		t.Errorf("a hook that was running was deleted and started anew")
	}
	complete(t, w, "crash-pre", "migrate")
	w.Eventually("the sync", synced(w, "crash-pre", commit))
	if n := len(status(w, "crash-pre").Status.History); n != 1 {
		t.Errorf("the history has %d entries", n)
	}
}

func crashInPostSync(t *testing.T, w *World, p *process) {
	r := w.NewRepo("contoso/crash-post")
	commit := r.Push(map[string]string{"k8s/j.yaml": hookJob("tell", "PostSync"), "k8s/a.yaml": configMap("a", "1")})
	w.Application("crash-post", r, "k8s", "")
	p.start()
	w.Eventually("the wait", running(w, "crash-post", "PostSync waits"))
	p.kill()
	version := w.Get(configMaps, "crash-post", "a").GetResourceVersion()
	p.start()
	w.Eventually("the wait of the next process", running(w, "crash-post", "PostSync waits"))
	complete(t, w, "crash-post", "tell")
	w.Eventually("the sync", synced(w, "crash-post", commit))
	if got := w.Get(configMaps, "crash-post", "a").GetResourceVersion(); got != version {
		t.Error("the object was written again")
	}
}

func crashAfter(t *testing.T, w *World, p *process) {
	r := w.NewRepo("contoso/crash-after")
	commit := r.Push(map[string]string{"k8s/j.yaml": hookJob("tell", "PostSync"), "k8s/a.yaml": configMap("a", "1")})
	w.Application("crash-after", r, "k8s", "")
	p.start()
	w.Eventually("the hook", running(w, "crash-after", "PostSync waits"))
	complete(t, w, "crash-after", "tell")
	w.Eventually("the sync", synced(w, "crash-after", commit))
	time.Sleep(300 * time.Millisecond)
	p.kill()
	app := w.Get(v1alpha1.ApplicationResource, "argocd", "crash-after")
	object, job := w.Get(configMaps, "crash-after", "a"), w.Get(jobs, "crash-after", "tell")
	p.start()
	time.Sleep(1500 * time.Millisecond)
	if got := w.Get(configMaps, "crash-after", "a").GetResourceVersion(); got != object.GetResourceVersion() {
		t.Error("the object was written again")
	}
	if got := w.Get(jobs, "crash-after", "tell"); got == nil || got.GetUID() != job.GetUID() {
		t.Error("the hook ran again")
	}
	if got := w.Get(v1alpha1.ApplicationResource, "argocd", "crash-after"); got.GetResourceVersion() != app.GetResourceVersion() {
		t.Errorf("the Application was written: %v, then %v", app.Object["status"], got.Object["status"])
	}
}

// crashInStorm kills the engine again and again while commits come.
func crashInStorm(t *testing.T, w *World, p *process) {
	r := w.NewRepo("contoso/crash-storm")
	const apps = 4
	values := map[string]bool{}
	next := func(i int) (commit string) {
		files := map[string]string{}
		for a := range apps {
			if i == 0 || rand.IntN(2) == 0 {
				value := fmt.Sprintf("%d-%d", a, i)
				values[value] = true
				files[fmt.Sprintf("app%d/a.yaml", a)] = configMap("a", value)
			}
		}
		files["README.md"] = fmt.Sprint(i)
		return r.Push(files)
	}
	next(0)
	for a := range apps {
		w.Application(fmt.Sprintf("crash-storm-%d", a), r, fmt.Sprintf("app%d", a), "")
	}
	n := 0
	for range 4 {
		p.start()
		for range 8 {
			n++
			next(n)
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		}
		p.kill()
		for a := range apps {
			if v, there, _ := unstructuredString(w, fmt.Sprintf("crash-storm-%d", a), "a"); there && !values[v] {
				t.Errorf("no commit names %q", v)
			}
		}
		n++
		next(n) // while nobody listens
	}
	p.start()
	for a := range apps {
		name := fmt.Sprintf("crash-storm-%d", a)
		w.Eventually("the last commit of "+name, func() bool {
			v, _, _ := unstructuredString(w, name, "a")
			return strings.Contains(r.files[fmt.Sprintf("app%d/a.yaml", a)], fmt.Sprintf("v: %q", v)) && status(w, name).Status.Sync.Status == v1alpha1.SyncSynced
		})
	}
}

func wish(t *testing.T, w *World, name string) {
	t.Helper()
	if _, err := w.in(v1alpha1.ApplicationResource, "argocd").Patch(context.Background(), name, types.MergePatchType,
		[]byte(`{"operation":{"initiatedBy":{"username":"ada"},"sync":{"prune":true}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func crashWithWish(t *testing.T, w *World, p *process) {
	r := w.NewRepo("contoso/crash-wish")
	commit := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:1", wave(-1)), "k8s/z.yaml": configMap("z", "1", wave(5)), "one/a.yaml": configMap("a", "1")})
	manual := "syncPolicy: {syncOptions: [CreateNamespace=true]}"
	w.Application("crash-wish", r, "k8s", manual)
	// Asked for while nobody listens, taken up, and interrupted.
	wish(t, w, "crash-wish")
	p.start()
	w.Eventually("the wait", running(w, "crash-wish", "wave -1 waits"))
	p.kill()
	p.start()
	w.Eventually("the wait of the next process", running(w, "crash-wish", "wave -1 waits"))
	rollout(t, w, "crash-wish", "d")
	w.Eventually("the sync", func() bool {
		return synced(w, "crash-wish", commit)() && status(w, "crash-wish").Operation == nil
	})
	if s := status(w, "crash-wish").Status; s.OperationState.Operation.InitiatedBy.Username != "ada" || len(s.History) != 1 {
		t.Errorf("operation %+v, %d entries of history", s.OperationState.Operation, len(s.History))
	}
	// Asked for right before the end, at different distances.
	for i := range 3 {
		name := fmt.Sprintf("crash-wish-%d", i)
		w.Application(name, r, "one", manual)
		w.Eventually("the comparison", func() bool { return status(w, name).Status.Sync.Status == v1alpha1.SyncOutOfSync })
		wish(t, w, name)
		time.Sleep(time.Duration(i*15) * time.Millisecond)
		p.kill()
		p.start()
		w.Eventually("the wish", synced(w, name, commit))
		if status(w, name).Operation != nil {
			t.Error("the wish is still there")
		}
	}
}
