package execute

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == sandbox.Name {
		os.Exit(sandbox.Main())
	}
	os.Exit(m.Run())
}

// world is a runner with a forge of real repositories.
type world struct {
	t      testing.TB
	dir    string
	runner *Runner
	repos  map[string]*git.Repository
	next   int64
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("jobs need root for their sandbox")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir(), repos: map[string]*git.Repository{}}
	w.runner = &Runner{Config: Config{
		Self: self, JobsDir: filepath.Join(w.dir, "jobs"), CacheDir: filepath.Join(w.dir, "cache"), StateDir: w.dir,
		ServerURL: "http://github.localhost", APIURL: "http://api.github.localhost", Path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		Version: "test", KillGrace: 200 * time.Millisecond,
	}, Actions: action.NewResolver(action.Config{}, w)}
	t.Cleanup(func() {
		if left, _ := filepath.Glob(filepath.Join(w.dir, "jobs", "*")); len(left) > 0 {
			t.Errorf("jobs left %v", left)
		}
	})
	return w
}

func (w *world) Repository(_ context.Context, name string) (*git.Repository, error) {
	if r := w.repos[name]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%s: %w", name, git.ErrNotFound)
}

// publish makes a repository of the forge with one commit at tag v1, and
// returns the commit.
func (w *world) publish(name string, files map[string]string) string {
	w.t.Helper()
	dir := w.t.TempDir()
	for file, content := range files {
		w.write(filepath.Join(dir, file), content)
	}
	bare := filepath.Join(w.dir, "repos", strings.ReplaceAll(name, "/", "__"))
	run := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = dir, append(git.Env(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			w.t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "--quiet", "--initial-branch=main")
	run("add", "--all")
	run("commit", "--quiet", "-m", "x")
	run("tag", "-a", "v1", "-m", "v1")
	run("clone", "--quiet", "--bare", dir, bare)
	repo, err := git.Open(bare)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(repo.Close)
	w.repos[name] = repo
	return run("rev-parse", "HEAD")
}

func (w *world) write(file, content string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// outcome is what a job did.
type outcome struct {
	Result
	mu          sync.Mutex
	t           testing.TB
	steps       []Step
	lines       []string
	annotations []command.Annotation
	summary     string
	uses        []string
	onLog       func(string)
}

func (o *outcome) StepStarted(s Step) {
	o.mu.Lock()
	o.lines = append(o.lines, "== "+s.Name)
	o.mu.Unlock()
}
func (o *outcome) StepDone(s Step) { o.mu.Lock(); o.steps = append(o.steps, s); o.mu.Unlock() }
func (o *outcome) Log(line string) {
	o.mu.Lock()
	o.lines = append(o.lines, line)
	o.mu.Unlock()
	if o.onLog != nil {
		o.onLog(line)
	}
}
func (o *outcome) Annotate(a command.Annotation) {
	o.mu.Lock()
	o.annotations = append(o.annotations, a)
	o.mu.Unlock()
}
func (o *outcome) Summary(_ int, markdown string) { o.summary += markdown }
func (o *outcome) Used(u Use) {
	o.uses = append(o.uses, fmt.Sprintf("%s %s %d", u.Ref, u.Commit, u.Line))
}

func (o *outcome) log() string { return strings.Join(o.lines, "\n") + "\n" }

// wants checks that the log holds each text.
func (o *outcome) wants(texts ...string) {
	o.t.Helper()
	log := o.log()
	for _, want := range texts {
		if !strings.Contains(log, want) {
			o.t.Errorf("the log lacks %q", want)
		}
	}
	if o.t.Failed() {
		o.t.Log(log)
	}
}

func (o *outcome) names() string {
	var out []string
	for _, s := range o.steps {
		out = append(out, s.Name+": "+string(s.Conclusion))
	}
	return strings.Join(out, "\n")
}

// plan makes a plan of the only job of a workflow whose first step writes files.
func (w *world) plan(files map[string]string, workflow string) *Plan {
	w.t.Helper()
	if len(files) > 0 {
		var script strings.Builder
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Fprintf(&script, "          mkdir -p '%s' && echo %s | base64 -d > '%s'\n", filepath.Dir(name), base64.StdEncoding.EncodeToString([]byte(files[name])), name)
		}
		workflow = strings.Replace(workflow, "    steps:\n", "    steps:\n      - name: Files\n        run: |\n"+script.String(), 1)
	}
	parsed, diagnostics := syntax.Load(".github/workflows/ci.yml", []byte(workflow))
	if parsed == nil {
		w.t.Fatalf("workflow: %v", diagnostics)
	}
	w.next++
	return &Plan{
		ID: w.next, Workflow: parsed, Job: parsed.Jobs[0], Repo: "o/r", Commit: strings.Repeat("a", 40), Ref: "refs/heads/main", Event: "push",
		Actor: "ann", RunID: 1, RunNumber: 1, Attempt: 1, Token: "ghs_token", Needs: expr.NewObject(), Inputs: expr.NewObject(),
		Secrets: map[string]string{"PASSWORD": "hunter2-hunter2"}, Vars: map[string]string{"COLOR": "blue"},
	}
}

func (w *world) run(p *Plan) *outcome { return w.runCtx(w.t.Context(), p, nil) }

func (w *world) runCtx(ctx context.Context, p *Plan, onLog func(string)) *outcome {
	w.t.Helper()
	o := &outcome{t: w.t, onLog: onLog}
	o.Result = w.runner.Run(ctx, p, o)
	return o
}
