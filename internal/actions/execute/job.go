package execute

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
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
	caBundle = ownDir + "/ca.pem"
)

// defaultTimeout is GitHub's for a job without timeout-minutes.
const defaultTimeout = 360 * time.Minute

// lateSteps bounds what runs after a cancellation.
const lateSteps = 5 * time.Minute

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

	github    *expr.Object
	env       *expr.Object // of workflow, job and GITHUB_ENV
	steps     *expr.Object
	paths     []string // from GITHUB_PATH, newest first
	status    schedule.Result
	failure   *Failure
	number    int // of the last step that was started
	posts     []func(ctx context.Context)
	deadline  context.Context // ends with the job's timeout or its cancellation
	after     context.Context // of the steps after that
	stopAfter context.CancelFunc
	stopHard  func() bool
	tail      []string
	place     command.Annotation // first ::error:: of the step
	stopped   string             // token of ::stop-commands::
	debug     bool
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
		f := &Failure{Step: 1, Name: "Set up job", Message: j.masker.Text(err.Error()), File: j.plan.Workflow.File, Line: j.plan.Job.Line}
		if errors.Is(err, sandbox.ErrUnavailable) {
			f.Hint = "run lockstep as root on Linux; `lockstep doctor` checks the machine"
		}
		j.finish(Step{Number: 1, Name: "Set up job", Conclusion: schedule.Failure, Outcome: schedule.Failure})
		return f
	}
	j.log("##[group]Runner\nLockstep " + j.Config.Version + " on this machine\nOverlay of the machine's programs; own files, processes and environment; the machine's network\n##[endgroup]")
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
	if err := j.layout.seed(j.Config.GoBuildCache); err != nil {
		return fmt.Errorf("copy the Go build cache %s: %w", j.Config.GoBuildCache, err)
	}
	var err error
	for dir, root := range map[string]**os.Root{j.layout.work: &j.files, j.layout.home: &j.home, j.layout.temp: &j.temp} {
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
	if j.box, err = sandbox.Start(ctx, j.Config.Self, j.spec()); err != nil {
		return err
	}
	j.stopHard = context.AfterFunc(j.plan.Hard, j.box.Close)
	j.steps, j.status = expr.NewObject(), schedule.Success
	j.github = j.githubContext()
	j.env = expr.NewObject()
	for _, block := range []syntax.Env{j.plan.Workflow.Env, j.plan.Job.Env} {
		if err := j.addEnv(j.env, block, nil); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) spec() sandbox.Spec {
	l, c := j.layout, j.Config
	binds := []sandbox.Bind{
		{Source: l.tmp, Target: "/tmp"},
		{Source: l.home, Target: homeDir},
		{Source: l.work, Target: j.workspace()},
		{Source: l.temp, Target: tempDir},
		{Source: l.cache, Target: homeDir + "/.cache"},
		{Source: l.gopath, Target: homeDir + "/go"},
		{Source: c.Self, Target: ownDir + "/lockstep", ReadOnly: true},
	}
	if c.ToolDir != "" {
		binds = append(binds, sandbox.Bind{Source: c.ToolDir, Target: toolDir})
	}
	if c.CAFile != "" {
		binds = append(binds, sandbox.Bind{Source: c.CAFile, Target: caBundle, ReadOnly: true})
	}
	return sandbox.Spec{
		Root: l.root, Hostname: "lockstep-runner", Binds: binds, Masks: append([]string{c.StateDir}, c.Masks...),
		Hosts: []string{"127.0.0.1 github.localhost api.github.localhost"},
		Links: []sandbox.Link{{Path: shimDir + "/kustomize", To: "../lockstep"}},
	}
}

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
	for i, s := range j.plan.Job.Steps {
		j.step(i, s)
	}
	for _, post := range slices.Backward(j.posts) {
		post(j.late())
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
	env := j.exprEnv(nil)
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
		res.Outputs[o.Name] = v
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
	if j.box != nil {
		j.box.Close()
	}
	for _, r := range []*os.Root{j.files, j.home, j.temp} {
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
	var e *builtin.Error
	if errors.As(err, &e) {
		f.Hint = e.Hint
		if e.File != "" {
			f.File, f.Line = e.File, e.Line
			f.Message = strings.TrimPrefix(f.Message, fmt.Sprintf("%s:%d: ", e.File, e.Line))
		}
	}
	if j.place.File != "" && j.place.Line > 0 {
		f.File, f.Line = j.place.File, j.place.Line
	}
	j.failure = f
}

func (j *job) minutes(t syntax.Text, extra *expr.Object) (time.Duration, error) {
	v, err := j.exprEnv(extra).Interpolate(t.Value)
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	if err != nil || f <= 0 {
		return 0, fmt.Errorf("timeout-minutes must be a number above 0, not %q", v)
	}
	return time.Duration(f * float64(time.Minute)), nil
}
