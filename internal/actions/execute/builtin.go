package execute

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// runBuiltin calls an action that is part of the engine.
func (j *job) runBuiltin(ctx context.Context, st *running, b builtin.Action) error {
	call, err := j.newCall(ctx, st)
	if err != nil {
		return err
	}
	lines := map[string]int{}
	j.log("##[group]Run " + st.Uses.Value)
	if len(st.With) > 0 {
		j.log("with:")
	}
	for _, in := range st.With {
		lines[strings.ToLower(in.Name)] = in.Value.Line
		j.log("  " + in.Name + ": " + call.With[strings.ToLower(in.Name)])
	}
	j.logEnv(st.env)
	j.log("##[endgroup]")
	b.Prepare(call, lines)
	err = b.Run(ctx, call)
	flush(call.Out)
	if b.Post != nil {
		st.addPost(syntax.Text{}, func(ctx context.Context) error {
			call.Out = j.output(st)
			call.Env = j.processEnv(st.frame, st.env, j.plan.ServiceEnv)
			defer flush(call.Out)
			return b.Post(ctx, call)
		})
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func flush(w io.Writer) {
	if f, ok := w.(interface{ Flush() }); ok {
		f.Flush()
	}
}

func (j *job) newCall(ctx context.Context, st *running) (*builtin.Call, error) {
	env := j.exprEnv(st.frame, st.env)
	with := map[string]string{}
	for _, in := range st.With {
		v, err := env.Interpolate(in.Value.Value)
		if err != nil {
			return nil, &builtin.Error{File: st.frame.file, Line: in.Value.Line, Msg: fmt.Sprintf("input %s: %v", in.Name, err)}
		}
		with[strings.ToLower(in.Name)] = v
	}
	return &builtin.Call{
		Job: j.builtinJob(), Uses: st.Uses.Value, File: st.frame.file, Line: st.Line, With: with,
		Env: j.processEnv(st.frame, st.env, j.plan.ServiceEnv), Out: j.output(st), State: st.state,
		SetOutput: func(name, value string) { st.outputs.Set(name, value) },
		SetEnv: func(name, value string) {
			if err := j.setEnv(name, value); err != nil {
				j.log("##[warning]" + err.Error())
			}
		},
		AddPath: j.addPath,
		Summary: func(markdown string) { j.report.Summary(j.number, j.masker.Text(markdown)) },
		Annotate: func(a command.Annotation) {
			j.annotate(a)
			j.log(fmt.Sprintf("##[%s]%s:%d: %s", a.Level, a.File, a.Line, a.Message))
		},
	}, nil
}

func (j *job) builtinJob() *builtin.Job {
	p := j.plan
	return &builtin.Job{
		Repo: p.Repo, Commit: p.Commit, Ref: p.Ref, Run: p.RunID, Workflow: p.Workflow.File, ServerURL: j.Config.ServerURL, Token: p.Token,
		Workspace: j.workspace(), WorkspaceDir: j.layout.work, Files: j.files, HomePath: homeDir, Home: j.home,
		TempPath: tempDir, Temp: j.temp, ScratchDir: j.layout.scratch, Builder: j.Builder, RegistryProbe: j.RegistryProbe,
		HTTP: j.HTTP, Store: p.Store, Scans: p.Scans,
		Succeeded:    func() bool { return j.currentStatus() == schedule.Success },
		GoCandidates: []string{"/usr/local/go/bin/go", "/usr/lib/go/bin/go"},
		Archive:      p.Archive, Mask: j.masker.Add,
		Exec: func(ctx context.Context, dir string, env, args []string, out io.Writer) (int, error) {
			exit, err := j.box.Exec(ctx, sandbox.Command{Args: args, Env: env, Dir: dir, Output: out, Grace: j.Config.KillGrace})
			return exit.Code, err
		},
	}
}
