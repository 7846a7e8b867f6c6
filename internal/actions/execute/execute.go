// Package execute runs one job in its sandbox.
//
// Input: a [Plan]: the job of a workflow with the contexts that its expressions
// see. Output: a [Result], and everything on the way to a [Reporter]: steps,
// masked log lines, annotations, summaries.
//
// Invariants: steps run one after the other, in the order of the file, then the
// post parts in reverse; nothing reaches the Reporter unmasked; when Run has
// returned, no process, mount or file of the job is left.
//
// Start reading at [Runner.Run].
package execute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Config says how jobs live on this machine.
type Config struct {
	Self      string // the lockstep binary
	JobsDir   string // one folder per running job
	CacheDir  string // one folder per repository, kept
	StateDir  string // hidden from jobs
	Masks     []string
	ServerURL string
	APIURL    string
	ProxyEnv  map[string]string
	Env       map[string]string
	Path      string // PATH of steps
	ToolDir   string // kept tools, shown as RUNNER_TOOL_CACHE; "" for none
	CAFile    string // certificates that steps trust besides the system's
	// GoBuildCache is a GOCACHE of this machine's toolchain that the cache of a
	// repository starts from; "" starts empty. Jobs get a copy, never itself.
	GoBuildCache string
	Version      string
	// KillGrace is the pause between the signals that end a step.
	KillGrace time.Duration
}

// Runner runs jobs. It is safe for concurrent use.
type Runner struct {
	Config        Config
	Builder       builtin.Builder
	RegistryProbe http.RoundTripper
}

// Plan is one job to run.
type Plan struct {
	ID       int64 // unique
	Workflow *syntax.Workflow
	Job      *syntax.Job

	Repo, Commit, Ref string
	Event             string // "push", "workflow_dispatch"
	Payload           *expr.Object
	Actor             string
	RunID             int64
	RunNumber         int64
	Attempt           int
	Token             string
	Secrets           map[string]string
	Vars              map[string]string
	Needs             *expr.Object
	Inputs            *expr.Object
	Matrix            *expr.Object // nil without one
	Strategy          *expr.Object
	// Archive writes the tree of a commit of the repository as tar.
	Archive func(ctx context.Context, commit string, w io.Writer) error
	// Hard ends when the job must end at once, without its always() steps.
	Hard context.Context
}

// Step is one line of the job as people see it.
type Step struct {
	Number     int // from 1
	Name       string
	Conclusion schedule.Result // "" while it runs
	Outcome    schedule.Result
}

// Reporter hears what happens. Text that it gets is masked.
type Reporter interface {
	StepStarted(s Step)
	StepDone(s Step)
	// Log appends a line to the log of the step that runs.
	Log(line string)
	Annotate(a command.Annotation)
	Summary(step int, markdown string)
}

// Failure is why a job failed.
type Failure struct {
	Step    int // 0: the job itself
	Name    string
	Message string
	Hint    string
	File    string
	Line    int
	Tail    []string // last lines of the step's log
}

// Result is how a job ended.
type Result struct {
	Conclusion schedule.Result
	Outputs    map[string]string
	Failure    *Failure
}

// Errors that end a job, as causes of its context.
var (
	ErrCancelled = errors.New("the run was cancelled")
	ErrTimeout   = errors.New("the job ran longer than its timeout-minutes")
)

// Contexts are the contexts that a plan gives, before any step ran.
func (p *Plan) Contexts() map[string]any {
	secrets := expr.Strings(p.Secrets)
	secrets.Set("GITHUB_TOKEN", p.Token)
	var matrix any
	if p.Matrix != nil {
		matrix = p.Matrix
	}
	return map[string]any{
		"vars": expr.Strings(p.Vars), "secrets": secrets, "needs": p.Needs, "inputs": p.Inputs,
		"matrix": matrix, "strategy": p.Strategy,
	}
}

// Preflight says why a job cannot run here: parts that are not supported, and
// actions that do not exist. Nothing was started then.
func Preflight(w *syntax.Workflow, j *syntax.Job) *Failure {
	if len(j.Unsupported) > 0 {
		d := j.Unsupported[0]
		return &Failure{Message: d.Message, Hint: d.Hint, File: d.File, Line: d.Line}
	}
	for _, s := range j.Steps {
		if !s.Uses.IsSet() {
			continue
		}
		var e *builtin.Error
		if err := builtin.Check(s.Uses.Value); errors.As(err, &e) {
			return &Failure{Message: e.Msg, Hint: e.Hint, File: w.File, Line: s.Uses.Line}
		}
	}
	return nil
}

// Run runs the job until it ended. When ctx ends, the step that runs is ended,
// steps that ask for it (always(), cancelled()) still run, and the conclusion
// is cancelled, or failure when the cause is ErrTimeout.
func (r *Runner) Run(ctx context.Context, p *Plan, report Reporter) Result {
	if p.Hard == nil {
		p.Hard = context.Background()
	}
	j := &job{Runner: r, plan: p, report: report, masker: &mask.Masker{}}
	j.masker.Add(p.Token)
	for _, v := range p.Secrets {
		j.masker.Add(v)
	}
	defer j.close()
	if f := j.setUp(ctx); f != nil {
		return Result{Conclusion: schedule.Failure, Failure: f}
	}
	return j.run(ctx)
}

// layout is where the parts of a job are on this machine.
type layout struct{ base, root, work, temp, home, tmp, scratch, cache, gopath string }

func (r *Runner) layout(p *Plan) layout {
	base := filepath.Join(r.Config.JobsDir, fmt.Sprint(p.ID))
	cache := filepath.Join(r.Config.CacheDir, strings.ReplaceAll(strings.ToLower(p.Repo), "/", "__"))
	return layout{
		base: base, root: base + "/root", work: base + "/work", temp: base + "/temp", home: base + "/home",
		tmp: base + "/tmp", scratch: base + "/scratch", cache: cache + "/cache", gopath: cache + "/go",
	}
}

func (l layout) create() error {
	if err := os.RemoveAll(l.base); err != nil {
		return err
	}
	for _, dir := range []string{l.root, l.work, l.temp, l.home, l.tmp, l.scratch, l.cache, l.gopath} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(l.tmp, 0o1777|os.ModeSticky)
}

// seed copies a Go build cache into the repository's, the first time. The copy
// appears in one step; of two jobs at once the slower one's is dropped.
func (l layout) seed(goBuildCache string) error {
	target := filepath.Join(l.cache, "go-build")
	if goBuildCache == "" {
		return nil
	}
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	partial, err := os.MkdirTemp(l.cache, ".go-build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(partial) }()
	if err := os.CopyFS(partial, os.DirFS(goBuildCache)); err != nil {
		return err
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return err
	}
	if err := os.Rename(partial, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
