package execute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Where things are inside of a sandbox.
const (
	homeDir  = "/home/runner"
	workDir  = homeDir + "/work"
	tempDir  = workDir + "/_temp"
	toolDir  = "/opt/hostedtoolcache"
	ownDir   = "/opt/lockstep"
	shimDir  = ownDir + "/bin"
	firstDir = ownDir + "/first"
	caBundle = ownDir + "/ca.pem"
)

// defaultTimeout is GitHub's for a job without timeout-minutes.
const defaultTimeout = 360 * time.Minute

// lateSteps bounds what runs after a cancellation.
const lateSteps = 5 * time.Minute

// stopContainers bounds how long the job's containers may take to end.
const stopContainers = 30 * time.Second

// maxOutputs bounds the outputs of one job together, in bytes, as on GitHub.
const maxOutputs = 1 << 20

// tailLines is how many last lines a failure carries.
const tailLines = 10

// job is one job while it runs.
type job struct {
	*Runner
	plan   *Plan
	report Reporter
	masker *mask.Masker
	layout layout
	box    *sandbox.Session
	files  *os.Root // the workspace
	home   *os.Root
	temp   *os.Root

	actions   *os.Root     // the folders of actions
	top       *frame       // of the job's own steps
	env       *expr.Object // of workflow, job and GITHUB_ENV
	paths     []string     // from GITHUB_PATH, newest first
	status    schedule.Result
	failure   *Failure
	number    int             // of the last step that was started
	deadline  context.Context // ends with the job's timeout or its cancellation
	after     context.Context // of the steps after that
	stopAfter context.CancelFunc
	stopHard  func() bool
	tail      []string
	place     command.Annotation // first ::error:: of the step
	debug     bool
	matchers  command.Matchers
	foreign   map[string]bool // files of actions from elsewhere
	extracted map[string]bool // folders below actions that are there
	used      int             // actions that were resolved
	container Container       // of job.container; nil without one
	jobInfo   *expr.Object    // `job.container` and `job.services`
	services  []Container
	closers   []func()                        // of sockets
	started   atomic.Pointer[sandbox.Session] // box, for other goroutines
}

// workspace is the checkout as the job sees it.
func (j *job) workspace() string {
	_, name, _ := strings.Cut(j.plan.Repo, "/")
	return path.Join(workDir, name, name)
}

// setUp makes the sandbox. It is shown as the step "Set up job".
func (j *job) setUp(ctx context.Context) *Failure {
	j.begin("Set up job")
	err := j.prepare(ctx)
	if err != nil {
		j.log("##[error]" + err.Error())
		line := j.plan.Job.Line
		var used usedAt
		if errors.As(err, &used) {
			line = used.line
		}
		j.fail(1, "Set up job", err, line)
		f := j.failure
		if errors.Is(err, sandbox.ErrUnavailable) {
			f.Hint = "run lockstep as root on Linux; `lockstep doctor` checks the machine"
		}
		ended := schedule.Failure
		if errors.Is(context.Cause(ctx), ErrCancelled) {
			ended = schedule.Cancelled
		}
		j.finish(Step{Number: 1, Name: "Set up job", Conclusion: ended, Outcome: ended})
		return f
	}
	j.log("##[group]Runner\nLockstep " + j.Config.Version + " on this machine\nOverlay of the machine's programs; own files, processes and environment; " + j.networkNote() + "\n##[endgroup]")
	for _, w := range j.box.Warnings() {
		j.log("##[warning]" + w)
	}
	j.finish(Step{Number: 1, Name: "Set up job", Conclusion: schedule.Success, Outcome: schedule.Success})
	return nil
}

func (j *job) prepare(ctx context.Context) error {
	j.layout = j.Runner.layout(j.plan)
	if err := j.layout.create(); err != nil {
		return fmt.Errorf("make the job's folders: %w", err)
	}
	if mayCompileGo(j.plan.Job) {
		if err := j.layout.seed(j.Config.GoBuildCache); err != nil {
			return fmt.Errorf("copy the Go build cache %s: %w", j.Config.GoBuildCache, err)
		}
	}
	var err error
	for dir, root := range map[string]**os.Root{j.layout.work: &j.files, j.layout.home: &j.home, j.layout.temp: &j.temp, j.layout.actions: &j.actions} {
		if *root, err = os.OpenRoot(dir); err != nil {
			return fmt.Errorf("open the job's folders: %w", err)
		}
	}
	if err := j.temp.MkdirAll("_runner_file_commands", 0o755); err != nil {
		return fmt.Errorf("make the job's folders: %w", err)
	}
	if err := j.writeEvent(); err != nil {
		return err
	}
	j.status, j.env, j.debug = schedule.Success, expr.NewObject(), j.plan.debug()
	j.top = j.newTop()
	for _, block := range []syntax.Env{j.plan.Workflow.Env, j.plan.Job.Env} {
		if err := j.addEnv(j.top, j.env, block, nil); err != nil {
			return err
		}
	}
	if j.top.uses, err = j.resolveUses(ctx, j.plan.Job.Steps, j.top.file, j.origin(), 0, 0); err != nil {
		return err
	}
	if err := j.serveSockets(); err != nil {
		return err
	}
	if j.box, err = sandbox.Start(ctx, cmp.Or(j.Config.Init, j.Config.Self), j.spec()); err != nil {
		return err
	}
	j.started.Store(j.box)
	j.stopHard = context.AfterFunc(j.plan.Hard, j.box.Close)
	return nil
}

func (j *job) spec() sandbox.Spec {
	l, c := j.layout, j.Config
	binds := []sandbox.Bind{
		{Source: l.tmp, Target: "/tmp"},
		{Source: l.home, Target: homeDir},
		{Source: l.work, Target: j.workspace()},
		{Source: l.temp, Target: tempDir},
		{Source: l.actions, Target: actionsDir},
		{Source: l.cache, Target: homeDir + "/.cache"},
		{Source: l.gopath, Target: homeDir + "/go"},
		{Source: c.Self, Target: ownDir + "/lockstep", ReadOnly: true},
	}
	if len(j.Sockets) > 0 {
		binds = append(binds, sandbox.Bind{Source: l.sockets, Target: socketsDir})
	}
	if c.ToolDir != "" {
		binds = append(binds, sandbox.Bind{Source: c.ToolDir, Target: toolDir})
	}
	if c.CAFile != "" {
		binds = append(binds, sandbox.Bind{Source: c.CAFile, Target: caBundle, ReadOnly: true})
	}
	spec := sandbox.Spec{
		Root: l.root, Hostname: "lockstep-runner", Binds: binds, Masks: append([]string{c.StateDir}, c.Masks...),
		Hosts:   []string{"127.0.0.1 " + strings.Join(slices.Concat(localNames, c.Hosts), " ")},
		Network: c.Network, Relays: c.Relays, Limits: c.Limits, Untrusted: j.plan.Untrusted,
	}
	if spec.Network == "" && len(c.Relays) == 0 && !j.plan.Untrusted {
		spec.Network = sandbox.HostNetwork
	}
	if spec.Network == sandbox.HostNetwork {
		spec.Relays = nil
	}
	if c.Group != "" {
		spec.Group = fmt.Sprintf("%s/%d", c.Group, j.plan.ID)
	}
	shims := c.Shims
	if shims == nil {
		shims = []string{"kustomize"}
	}
	for _, name := range shims {
		dir := shimDir
		if name == "docker" { // the machine's has no engine to talk to in here
			dir = firstDir
		}
		spec.Links = append(spec.Links, sandbox.Link{Path: dir + "/" + name, To: "../lockstep"})
	}
	return spec
}

func (j *job) networkNote() string {
	if j.spec().Network == sandbox.HostNetwork {
		return "the machine's network"
	}
	return "a network of its own"
}

// localNames are the forge's hosts, and those of the runner's services.
var localNames = []string{"github.localhost", "api.github.localhost", "results.github.localhost", "uploads.github.localhost"}

func (j *job) writeEvent() error {
	payload := j.plan.Payload
	if payload == nil {
		payload = expr.NewObject()
	}
	if err := j.temp.MkdirAll("_github_workflow", 0o755); err != nil {
		return fmt.Errorf("write event.json: %w", err)
	}
	if err := j.temp.WriteFile("_github_workflow/event.json", []byte(expr.ToJSON(payload)+"\n"), 0o644); err != nil {
		return fmt.Errorf("write event.json: %w", err)
	}
	return nil
}

// run goes through the steps.
func (j *job) run(ctx context.Context) Result {
	timeout := defaultTimeout
	if t := j.plan.Job.TimeoutMinutes; t.IsSet() {
		minutes, err := j.minutes(t, nil)
		if err != nil {
			j.fail(0, "", err, t.Line)
			return j.result()
		}
		timeout = minutes
	}
	deadline, cancel := context.WithTimeoutCause(ctx, timeout, ErrTimeout)
	defer cancel()
	j.deadline = deadline
	if j.startContainers() {
		j.preSteps()
		for _, s := range j.plan.Job.Steps {
			j.step(j.top, s)
		}
		j.postSteps()
	}
	if j.plan.Hard.Err() == nil {
		j.begin("Complete job")
		j.finish(Step{Number: j.number, Name: "Complete job", Conclusion: schedule.Success, Outcome: schedule.Success})
	}
	return j.result()
}

// late is the context of steps: the job's own, or after a cancellation a short
// one of its own, so that always() steps can run.
func (j *job) late() context.Context {
	if j.deadline.Err() == nil {
		return j.deadline
	}
	if j.after == nil {
		j.after, j.stopAfter = context.WithTimeoutCause(j.plan.Hard, lateSteps, errors.New("the steps after a cancellation took longer than 5 minutes"))
	}
	return j.after
}

func (j *job) result() Result {
	res := Result{Conclusion: j.status, Failure: j.failure, Outputs: map[string]string{}}
	if j.deadline != nil && j.deadline.Err() != nil {
		res.Conclusion = schedule.Cancelled
		if errors.Is(context.Cause(j.deadline), ErrTimeout) {
			res.Conclusion = schedule.Failure
			if j.failure == nil || j.failure.Step > 0 {
				j.failure = &Failure{Message: ErrTimeout.Error(), File: j.plan.Workflow.File, Line: max(j.plan.Job.TimeoutMinutes.Line, j.plan.Job.Line),
					Hint: "raise timeout-minutes, or find out in the log what the last step waited for"}
				res.Failure = j.failure
			}
		}
	}
	env := j.exprEnv(j.top, nil)
	size := 0
	for _, o := range j.plan.Job.Outputs {
		v, err := env.Interpolate(o.Value.Value)
		if err != nil {
			j.annotate(command.Annotation{Level: "error", Message: fmt.Sprintf("output %s of the job: %v", o.Name, err), File: j.plan.Workflow.File, Line: o.Value.Line})
			continue
		}
		if j.masker.Text(v) != v {
			j.annotate(command.Annotation{Level: "warning", Message: fmt.Sprintf("output %s of the job is not passed on: it may contain a secret", o.Name), File: j.plan.Workflow.File, Line: o.Value.Line})
			continue
		}
		if size += len(v); size > maxOutputs {
			j.annotate(command.Annotation{Level: "error", Message: fmt.Sprintf("output %s of the job is not passed on: the outputs of a job may have %d bytes", o.Name, maxOutputs), File: j.plan.Workflow.File, Line: o.Value.Line})
			size -= len(v)
			continue
		}
		res.Outputs[o.Name] = v
	}
	if e := j.plan.Job.Environment; e != nil && e.URL.IsSet() {
		v, err := env.Interpolate(e.URL.Value)
		switch {
		case err != nil:
			j.annotate(command.Annotation{Level: "error", Message: "environment url: " + err.Error(), File: j.plan.Workflow.File, Line: e.URL.Line})
		case j.masker.Text(v) == v:
			res.EnvironmentURL = v
		}
	}
	return res
}

// close ends the sandbox and removes the job's files.
func (j *job) close() {
	if j.stopAfter != nil {
		j.stopAfter()
	}
	if j.stopHard != nil {
		j.stopHard()
	}
	j.stopContainers()
	if j.box != nil {
		j.box.Close()
	}
	for _, f := range slices.Backward(j.closers) {
		f()
	}
	for _, r := range []*os.Root{j.files, j.home, j.temp, j.actions} {
		if r != nil {
			_ = r.Close()
		}
	}
	if j.layout.base != "" {
		_ = os.RemoveAll(j.layout.base)
	}
}

func (j *job) annotate(a command.Annotation) {
	a.Message, a.Title = j.masker.Text(a.Message), j.masker.Text(a.Title)
	if a.Step == 0 {
		a.Step = j.number
	}
	j.report.Annotate(a)
}

// fail remembers the first failure of the job.
func (j *job) fail(step int, name string, err error, line int) {
	j.status = schedule.Failure
	if j.failure != nil {
		return
	}
	f := &Failure{Step: step, Name: name, Message: j.masker.Text(err.Error()), File: j.plan.Workflow.File, Line: line, Tail: slices.Clone(j.tail)}
	f.Hint = hintOf(err)
	if file, at := placeOf(err); file != "" && j.inRepo(file) {
		f.File, f.Line = file, at
		f.Message = strings.TrimPrefix(f.Message, fmt.Sprintf("%s:%d: ", file, at))
	}
	if j.place.File != "" && j.place.Line > 0 {
		f.File, f.Line = j.place.File, j.place.Line
	}
	j.failure = f
}

func (j *job) minutes(t syntax.Text, extra *expr.Object) (time.Duration, error) {
	v, err := j.exprEnv(j.top, extra).Interpolate(t.Value)
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	if err != nil || f <= 0 {
		return 0, fmt.Errorf("timeout-minutes must be a number above 0, not %q", v)
	}
	return time.Duration(f * float64(time.Minute)), nil
}
