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
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Config says how jobs live on this machine.
type Config struct {
	Self      string // the lockstep binary
	Init      string // the program that starts sandboxes; "" means Self
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
	// Network is which network jobs have; "" is the machine's own unless there
	// are Relays, then one of their own in which only Relays lead out.
	Network sandbox.Network
	Relays  []sandbox.Relay
	Limits  sandbox.Limits
	// Group is the first part of the jobs' cgroups; "" sets no limits.
	Group string
	// Hosts are further names of 127.0.0.1 in jobs.
	Hosts []string
	// Shims are the names of the programs that the lockstep binary stands in
	// for, behind the machine's in PATH (docker before them); nil means kustomize.
	Shims []string
	// KillGrace is the pause between the signals that end a step.
	KillGrace time.Duration
}

// Runner runs jobs. It is safe for concurrent use.
type Runner struct {
	Config        Config
	Builder       builtin.Builder
	RegistryProbe http.RoundTripper
	HTTP          http.RoundTripper // what built-in actions reach; nil means RegistryProbe
	// Actions finds the actions that are not built in; nil: there are none.
	Actions *action.Resolver
	// Containers runs Docker actions, job containers and services; nil: it
	// cannot be done here.
	Containers Containers
	// Sockets are served to each job.
	Sockets []Socket

	node nodeProgram
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
	TriggeringActor   string // of a re-run; "" means Actor
	RefProtected      bool
	Untrusted         bool // code of strangers: a fork's pull request
	// ServiceEnv are the runner services' variables: all of them for actions,
	// those of the ID token for run steps too. Values of names that end in
	// _TOKEN are secret.
	ServiceEnv map[string]string
	RunID      int64
	RunNumber  int64
	Attempt    int
	Token      string
	Secrets    map[string]string
	Vars       map[string]string
	Needs      *expr.Object
	Inputs     *expr.Object
	Matrix     *expr.Object // nil without one
	Strategy   *expr.Object
	// GitHub are values of the github context beyond the ones made of the fields
	// above, or in their place: head_ref, base_ref, workflow, workflow_ref,
	// job_workflow_ref, triggering_actor.
	GitHub map[string]string
	Store  builtin.Store // artifacts and caches for built-in actions; nil: none
	Scans  builtin.Scans
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

// Use is an action that a job uses, and what stands behind its name.
type Use struct {
	Ref    string // as written
	Commit string // full; "builtin" for a part of the engine
	From   string // "the forge", the URL of a remote, "" for a part of the engine
	// File and Line are where the workflow says `uses`, also for what an
	// action uses in turn.
	File string
	Line int
}

// UseReporter is a Reporter that hears of actions too, before the steps.
type UseReporter interface{ Used(u Use) }

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
	// EnvironmentURL is `environment.url`, evaluated after the last step.
	EnvironmentURL string
}

// Errors that end a job, as causes of its context.
var (
	ErrCancelled = errors.New("the run was cancelled")
	ErrTimeout   = errors.New("the job ran longer than its timeout-minutes")
)

// debug reports whether the repository asks for debug logs.
func (p *Plan) debug() bool {
	return p.Secrets["ACTIONS_STEP_DEBUG"] == "true" || p.Vars["ACTIONS_STEP_DEBUG"] == "true"
}

// isSwitch reports whether a secret is one of GitHub's switches for debugging:
// masking its value would make every "true" unreadable.
func isSwitch(name, value string) bool {
	return (name == "ACTIONS_STEP_DEBUG" || name == "ACTIONS_RUNNER_DEBUG") && (value == "true" || value == "false")
}

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

// Run runs the job until it ended. When ctx ends, the step that runs is ended,
// steps that ask for it (always(), cancelled()) still run, and the conclusion
// is cancelled, or failure when the cause is ErrTimeout.
func (r *Runner) Run(ctx context.Context, p *Plan, report Reporter) Result {
	if p.Hard == nil {
		p.Hard = context.Background()
	}
	j := &job{Runner: r, plan: p, report: report, masker: &mask.Masker{}, foreign: map[string]bool{}, extracted: map[string]bool{}}
	j.masker.Add(p.Token)
	for k, v := range p.Secrets {
		if !isSwitch(k, v) {
			j.masker.Add(v)
		}
	}
	for k, v := range p.ServiceEnv {
		if strings.HasSuffix(k, "_TOKEN") {
			j.masker.Add(v)
		}
	}
	defer j.close()
	if f := j.setUp(ctx); f != nil {
		if errors.Is(context.Cause(ctx), ErrCancelled) {
			return Result{Conclusion: schedule.Cancelled}
		}
		return Result{Conclusion: schedule.Failure, Failure: f}
	}
	return j.run(ctx)
}

// layout is where the parts of a job are on this machine.
type layout struct{ base, root, work, temp, home, tmp, actions, scratch, sockets, cache, gopath string }

func (r *Runner) layout(p *Plan) layout {
	base := filepath.Join(r.Config.JobsDir, fmt.Sprint(p.ID))
	cache := filepath.Join(r.Config.CacheDir, strings.ReplaceAll(strings.ToLower(p.Repo), "/", "__"))
	if p.Untrusted { // what strangers leave is no repository's to find
		cache = base + "/kept"
	}
	return layout{
		base: base, root: base + "/root", work: base + "/work", temp: base + "/temp", home: base + "/home",
		tmp: base + "/tmp", actions: base + "/actions", scratch: base + "/scratch", sockets: base + "/sockets", cache: cache + "/cache", gopath: cache + "/go",
	}
}

func (l layout) create() error {
	if err := os.RemoveAll(l.base); err != nil {
		return err
	}
	for _, dir := range []string{l.root, l.work, l.temp, l.home, l.tmp, l.actions, l.scratch, l.sockets, l.cache, l.gopath} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(l.tmp, 0o1777|os.ModeSticky)
}
