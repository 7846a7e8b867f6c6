package execute

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// shells are the command lines of GitHub's runner; {0} is the script.
var shells = map[string]struct{ line, extension string }{
	"":       {"bash -e {0}", ".sh"},
	"bash":   {"bash --noprofile --norc -eo pipefail {0}", ".sh"},
	"sh":     {"sh -e {0}", ".sh"},
	"python": {"python {0}", ".py"},
	"pwsh":   {"pwsh -command . '{0}'", ".ps1"},
}

// runScript runs a `run` step.
func (j *job) runScript(ctx context.Context, st *running) error {
	env := j.exprEnv(st.env)
	script, err := env.Interpolate(st.Run.Value)
	if err != nil {
		return &builtin.Error{File: j.plan.Workflow.File, Line: lineOf(st.Run, err), Msg: "bad expression: " + err.Error()}
	}
	shell, dir, err := j.shellAndDir(st, env)
	if err != nil {
		return err
	}
	line, extension := shell, ".sh"
	if known, ok := shells[shell]; ok {
		line, extension = known.line, known.extension
	} else if !strings.Contains(shell, "{0}") {
		return &builtin.Error{File: j.plan.Workflow.File, Line: max(st.Shell.Line, st.Line), Msg: fmt.Sprintf("shell %q is not known", shell),
			Hint: "use bash, sh, python, or a command line with {0} where the script's path goes"}
	}
	name := rand.Text() + extension
	if err := j.temp.WriteFile(name, []byte(script), 0o755); err != nil {
		return fmt.Errorf("write the script: %w", err)
	}
	defer func() { _ = j.temp.Remove(name) }()
	files, err := j.newFileCommands()
	if err != nil {
		return err
	}
	j.logRun(script, line, st.env)
	args := strings.Fields(line)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{0}", path.Join(tempDir, name))
	}
	out := j.output(st.onCommand)
	exit, err := j.box.Exec(ctx, sandbox.Command{Args: args, Env: j.processEnv(st.env, files.env()), Dir: dir, Output: out, Grace: j.Config.KillGrace})
	out.Flush()
	fileErr := j.takeFiles(files, st.outputs, st.state)
	switch {
	case err != nil:
		return err
	case !exit.OK() && exit.Signal != "":
		return fmt.Errorf("Process completed with exit code %d (%s).", exit.Code, exit) //nolint:staticcheck // GitHub's words
	case !exit.OK():
		return fmt.Errorf("Process completed with exit code %d.", exit.Code) //nolint:staticcheck // GitHub's words
	}
	return fileErr
}

// shellAndDir looks at the step, then the job's defaults, then the workflow's.
func (j *job) shellAndDir(st *running, env expr.Env) (shell, dir string, err error) {
	pick := func(texts ...syntax.Text) (string, error) {
		for _, t := range texts {
			if t.IsSet() {
				return env.Interpolate(t.Value)
			}
		}
		return "", nil
	}
	job, workflow := j.plan.Job.Defaults, j.plan.Workflow.Defaults
	if shell, err = pick(st.Shell, job.Shell, workflow.Shell); err != nil {
		return "", "", err
	}
	if dir, err = pick(st.Dir, job.Dir, workflow.Dir); err != nil {
		return "", "", err
	}
	if !path.IsAbs(dir) {
		dir = path.Join(j.workspace(), dir)
	}
	return shell, dir, nil
}

// lineOf is where in a text an expression failed.
func lineOf(t syntax.Text, err error) int {
	var e *expr.Error
	if errors.As(err, &e) {
		return t.LineAt(e.Offset)
	}
	return t.Line
}

// logRun shows what is about to run, folded.
func (j *job) logRun(script, shell string, env *expr.Object) {
	script = strings.TrimRight(script, "\n")
	first, _, _ := strings.Cut(script, "\n")
	j.log("##[group]Run " + first)
	j.log(script)
	j.log("shell: " + shell)
	j.logEnv(env)
	j.log("##[endgroup]")
	j.tail = nil // only the step's own output explains a failure
}

func (j *job) logEnv(env *expr.Object) {
	if env.Len() == 0 {
		return
	}
	j.log("env:")
	for _, k := range env.Keys() {
		v, _ := env.Get(k)
		j.log("  " + k + ": " + expr.Text(v))
	}
}
