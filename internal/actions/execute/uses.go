package execute

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// actionsDir is where actions from repositories lie, as the job sees it.
const actionsDir = workDir + "/_actions"

// Builtin stands for the commit of an action that is part of the engine.
const Builtin = "builtin"

// maxUses bounds how many actions one job may come to, nested ones included.
const maxUses = 1000

// use is one `uses` whose action is known.
type use struct {
	ref action.Reference
	act *action.Action
	dir string // of the action, as the job sees it
	// files and inside are the same folder on this machine.
	files    *os.Root
	inside   string
	host     string                // path of files on this machine
	children map[*syntax.Step]*use // of a composite action
	state    map[string]string
	commit   string
	image    string // of a Docker action, once it is there
}

// resolveUses finds the actions of steps, and those that they use in turn, and
// puts them into the job's folders. outer is the line of the `uses` of the
// workflow that leads to them, 0 for the workflow's own steps. It is done before the sandbox starts.
func (j *job) resolveUses(ctx context.Context, steps []*syntax.Step, file string, self origin, outer, depth int) (map[*syntax.Step]*use, error) {
	out := map[*syntax.Step]*use{}
	for _, s := range steps {
		if !s.Uses.IsSet() {
			continue
		}
		if _, ok := builtin.Find(s.Uses.Value); ok {
			j.reportUse(Use{Ref: s.Uses.Value, Commit: Builtin, File: j.top.file, Line: line(s, outer)})
			continue
		}
		ref, err := action.Parse(s.Uses.Value)
		if err != nil {
			return nil, j.usesError(file, s, err)
		}
		if ref.Kind == action.Self {
			ref = ref.Of(self.repo, self.rev)
		}
		if ref.Kind != action.Repository {
			continue // local ones are read when their step runs
		}
		u, err := j.resolveUse(ctx, ref, line(s, outer), depth)
		if err != nil {
			return nil, j.usesError(file, s, err)
		}
		out[s] = u
	}
	return out, nil
}

// origin is the repository and revision of a file.
type origin struct{ repo, rev string }

// origin is where the workflow file is from: the job's repository, or that of
// the reusable workflow.
func (j *job) origin() origin {
	if ref, sha := j.plan.GitHub["job_workflow_ref"], j.plan.GitHub["job_workflow_sha"]; ref != "" && sha != "" {
		if owner, rest, ok := strings.Cut(ref, "/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			return origin{owner + "/" + name, sha}
		}
	}
	return origin{j.plan.Repo, j.plan.Commit}
}

// line is where the workflow file says `uses`, also for what an action uses.
func line(s *syntax.Step, outer int) int {
	if outer > 0 {
		return outer
	}
	return s.Uses.Line
}

// usedAt is an error of an action that a line of the workflow leads to.
type usedAt struct {
	error
	line int
}

func (e usedAt) Unwrap() error { return e.error }

// usesError gives an error of resolving the place of the `uses`.
func (j *job) usesError(file string, s *syntax.Step, err error) error {
	if f, _ := placeOf(err); f != "" {
		return usedAt{err, s.Uses.Line}
	}
	return &action.Error{File: file, Line: s.Uses.Line, Msg: err.Error(), Hint: hintOf(err), Err: err}
}

func (j *job) resolveUse(ctx context.Context, ref action.Reference, line, depth int) (*use, error) {
	if j.Actions == nil {
		return nil, builtin.Check(ref.Text)
	}
	if j.used++; j.used > maxUses {
		return nil, fmt.Errorf("the job comes to more than %d actions", maxUses)
	}
	source, err := j.Actions.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	for _, name := range append(slices.Clone(action.FileNames), "Dockerfile") {
		j.foreign[ref.Name()+"/"+name] = true
	}
	act, _, err := source.Load(ctx)
	if err != nil {
		return nil, err
	}
	rel := path.Join(ref.Repo, strings.ReplaceAll(ref.Rev, "/", "_")) // as deep as on GitHub
	if !j.extracted[rel] {
		if err := source.Extract(ctx, j.actions, rel); err != nil {
			return nil, err
		}
		j.extracted[rel] = true
	}
	note := ""
	if source.Stale != "" {
		note = ", as it was last seen: " + source.Stale
	}
	j.log(fmt.Sprintf("Action %s is commit %s (from %s%s)", ref.Text, source.Commit, source.From, note))
	j.reportUse(Use{Ref: ref.Text, Commit: source.Commit, From: source.From, File: j.top.file, Line: line})
	u := &use{
		ref: ref, act: act, dir: path.Join(actionsDir, rel, ref.Path), files: j.actions, inside: path.Join(rel, ref.Path),
		host: j.layout.actions, state: map[string]string{}, commit: source.Commit,
	}
	return u, j.resolveChildren(ctx, u, line, depth)
}

func (j *job) resolveChildren(ctx context.Context, u *use, line, depth int) error {
	if u.act.Runs.Using != action.Composite {
		return nil
	}
	if depth >= action.MaxDepth {
		return fmt.Errorf("composite actions are nested deeper than %d", action.MaxDepth)
	}
	var err error
	self := j.origin()
	if u.ref.Kind == action.Repository {
		self = origin{u.ref.Repo, u.ref.Rev}
	}
	u.children, err = j.resolveUses(ctx, u.act.Runs.Steps, u.act.File, self, line, depth+1)
	return err
}

func (j *job) reportUse(u Use) {
	if r, ok := j.report.(UseReporter); ok {
		r.Used(u)
	}
}

// runAction runs a step that uses an action.
func (j *job) runAction(ctx context.Context, st *running) error {
	if b, ok := builtin.Find(st.Uses.Value); ok {
		return j.runBuiltin(ctx, st, b)
	}
	ref, err := action.Parse(st.Uses.Value)
	if err != nil {
		return err
	}
	switch ref.Kind {
	case action.Image:
		return j.runImage(ctx, st, ref)
	case action.Local:
		return j.runLocal(ctx, st, ref)
	}
	u := st.frame.uses[st.Step]
	if u == nil {
		return builtin.Check(st.Uses.Value)
	}
	return j.runUse(ctx, st, u)
}

// runLocal reads an action of the workspace and runs it.
func (j *job) runLocal(ctx context.Context, st *running, ref action.Reference) error {
	act, err := j.loadLocal(ref)
	if err != nil {
		return err
	}
	u := &use{
		ref: ref, act: act, dir: path.Join(j.workspace(), ref.Path), files: j.files, inside: ref.Path, host: j.layout.work,
		state: st.state,
	}
	if err := j.resolveChildren(ctx, u, st.Uses.Line, st.frame.depth); err != nil {
		return err
	}
	return j.runUse(ctx, st, u)
}

func (j *job) loadLocal(ref action.Reference) (*action.Action, error) {
	for _, name := range append(slices.Clone(action.FileNames), "Dockerfile") {
		file := path.Join(ref.Path, name)
		if _, err := j.files.Stat(file); err != nil {
			continue
		}
		if name == "Dockerfile" {
			return &action.Action{File: file, Runs: action.Runs{Using: action.Docker, Image: name, Line: 1}}, nil
		}
		content, err := readTemp(j.files, file, action.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		act, diagnostics := action.Load(file, []byte(content))
		if err := action.FirstFatal(diagnostics); err != nil {
			return nil, err
		}
		for _, d := range diagnostics {
			j.annotate(command.Annotation{Level: "warning", Message: d.Message, File: d.File, Line: d.Line})
		}
		return act, nil
	}
	return nil, &action.Error{Msg: fmt.Sprintf("there is no action.yml, action.yaml or Dockerfile in %s of the workspace", ref.Text),
		Hint: "check the path, and that a step with actions/checkout runs before"}
}

// runUse runs the main part of an action.
func (j *job) runUse(ctx context.Context, st *running, u *use) error {
	inputs, err := j.inputs(st, u)
	if err != nil {
		return err
	}
	j.logUse(st, u, inputs)
	f := j.newFrame(st, u, inputs)
	switch u.act.Runs.Using {
	case action.Composite:
		return j.runComposite(ctx, st, f, u)
	case action.Node:
		return j.runNode(ctx, st, f, u)
	}
	return j.runDocker(ctx, st, f, u)
}

// newFrame is the frame of an action: of its steps, or of its program.
func (j *job) newFrame(st *running, u *use, inputs *expr.Object) *frame {
	f := &frame{
		parent: st.frame, depth: st.frame.depth + 1, file: u.act.File, shown: u.ref.Kind == action.Local, inputs: inputs, steps: expr.NewObject(),
		github: copyObject(st.frame.github), over: merged(st.frame.over, st.own), uses: u.children, names: map[string]int{},
	}
	if f.uses == nil {
		f.uses = map[*syntax.Step]*use{}
	}
	repo, rev := u.ref.Repo, u.ref.Rev
	if u.ref.Kind == action.Local {
		repo, rev = "", ""
	}
	f.github.Set("action_repository", repo).Set("action_ref", rev)
	if u.act.Runs.Using == action.Composite {
		f.github.Set("action_path", u.dir)
	}
	return f
}

// inputs are the values of an action's inputs: what the step gives, then the
// defaults.
func (j *job) inputs(st *running, u *use) (*expr.Object, error) {
	env := j.exprEnv(st.frame, st.env)
	out := expr.NewObject()
	given := map[string]bool{}
	var unknown []string
	for _, in := range st.With {
		v, err := env.Interpolate(in.Value.Value)
		if err != nil {
			return nil, &builtin.Error{File: st.frame.file, Line: in.Value.Line, Msg: fmt.Sprintf("input %s: %v", in.Name, err)}
		}
		out.Set(in.Name, v)
		given[strings.ToLower(in.Name)] = true
		declared := u.act.Input(in.Name)
		switch {
		case declared == nil:
			if u.act.Runs.Using != action.Docker || !strings.EqualFold(in.Name, "args") && !strings.EqualFold(in.Name, "entrypoint") {
				unknown = append(unknown, in.Name)
			}
		case declared.Deprecated != "":
			j.warn(st, in.Value.Line, fmt.Sprintf("Input '%s' has been deprecated with message: %s", in.Name, declared.Deprecated))
		}
	}
	if len(unknown) > 0 {
		var valid []string
		for _, in := range u.act.Inputs {
			valid = append(valid, "'"+in.Name+"'")
		}
		j.warn(st, st.Line, fmt.Sprintf("Unexpected input(s) '%s', valid inputs are [%s]", strings.Join(unknown, "', '"), strings.Join(valid, ", ")))
	}
	for _, in := range u.act.Inputs {
		if given[strings.ToLower(in.Name)] {
			continue
		}
		v, err := env.Interpolate(in.Default.Value)
		if err != nil {
			return nil, &action.Error{File: u.act.File, Line: in.Default.Line, Msg: fmt.Sprintf("default of input %s: %v", in.Name, err), Err: err}
		}
		out.Set(in.Name, v)
	}
	return out, nil
}

// warn annotates the step that uses an action, and logs it.
func (j *job) warn(st *running, line int, message string) {
	j.log("##[warning]" + message)
	if st.frame.shown {
		j.annotate(command.Annotation{Level: "warning", Message: message, File: st.frame.file, Line: line})
	}
}

func (j *job) logUse(st *running, u *use, inputs *expr.Object) {
	j.log("##[group]Run " + st.Uses.Value)
	if inputs.Len() > 0 {
		j.log("with:")
	}
	for _, k := range inputs.Keys() {
		v, _ := inputs.Get(k)
		if text := expr.Text(v); text != "" {
			j.log("  " + k + ": " + text)
		}
	}
	j.logEnv(st.env)
	j.log("##[endgroup]")
	j.tail = nil
}
