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

// shell is a command line of GitHub's runner; {0} is the script.
type shell struct {
	line, extension string
	instead         string // when the program is not there
	hint            string
}

var shells = map[string]shell{
	"":       {line: "bash -e {0}", extension: ".sh", instead: "sh -e {0}"},
	"bash":   {line: "bash --noprofile --norc -e -o pipefail {0}", extension: ".sh", instead: "sh -e {0}"},
	"sh":     {line: "sh -e {0}", extension: ".sh"},
	"python": {line: "python {0}", extension: ".py", instead: "python3 {0}", hint: "install Python on this machine, or use actions/setup-python"},
	"pwsh":   {line: `pwsh -command ". '{0}'"`, extension: ".ps1", hint: "install PowerShell on this machine, or use `shell: bash`"},
}

// runScript runs a `run` step.
func (j *job) runScript(ctx context.Context, st *running) error {
	env := j.exprEnv(st.frame, st.env)
	script, err := env.Interpolate(st.Run.Value)
	if err != nil {
		return &builtin.Error{File: st.frame.file, Line: lineOf(st.Run, err), Msg: "bad expression: " + err.Error()}
	}
	name, dir, err := j.shellAndDir(st, env)
	if err != nil {
		return err
	}
	sh, known := shells[name]
	if !known {
		sh = shell{line: name}
		if !strings.Contains(name, "{0}") {
			return &builtin.Error{File: st.frame.file, Line: max(st.Shell.Line, st.Line), Msg: fmt.Sprintf("shell %q is not known", name),
				Hint: "use bash, sh, python, pwsh, or a command line with {0} where the script's path goes"}
		}
	}
	file := rand.Text() + sh.extension
	if err := j.temp.WriteFile(file, []byte(prepare(name, script)), 0o755); err != nil {
		return fmt.Errorf("write the script: %w", err)
	}
	defer func() { _ = j.temp.Remove(file) }()
	files, err := j.newFileCommands()
	if err != nil {
		return err
	}
	j.logRun(script, sh.line, st.env)
	out := j.output(st)
	c := sandbox.Command{Env: j.processEnv(st.frame, st.env, files.env()), Dir: dir, Output: out, Grace: j.Config.KillGrace}
	if c.Args, err = commandLine(sh.line, path.Join(tempDir, file)); err != nil {
		return &builtin.Error{File: st.frame.file, Line: max(st.Shell.Line, st.Line), Msg: err.Error()}
	}
	exit, err := j.exec(ctx, c)
	if err != nil && ctx.Err() == nil && sh.instead != "" && notFound(err, c.Args[0]) {
		if c.Args, err = commandLine(sh.instead, path.Join(tempDir, file)); err == nil {
			exit, err = j.exec(ctx, c)
		}
	}
	out.Flush()
	if err != nil && sh.hint != "" && notFound(err, c.Args[0]) {
		err = &builtin.Error{Msg: err.Error(), Hint: sh.hint, Err: err}
	}
	return j.ended(st, exit, err, j.takeFiles(files, st.outputs, nil))
}

// ended turns the end of a step's process into its error, in GitHub's words.
func (j *job) ended(st *running, exit sandbox.Exit, err, filesErr error) error {
	switch {
	case err != nil:
		return err
	case !exit.OK() && (exit.Signal != "" || exit.Why != ""):
		return fmt.Errorf("Process completed with exit code %d (%s).", exit.Code, exit) //nolint:staticcheck // GitHub's words
	case !exit.OK():
		return fmt.Errorf("Process completed with exit code %d.", exit.Code) //nolint:staticcheck // GitHub's words
	}
	return cmpError(st.problem, filesErr)
}

func notFound(err error, program string) bool {
	return strings.HasPrefix(err.Error(), program+": command not found")
}

// prepare adds what the runner adds to scripts of a shell.
func prepare(shell, script string) string {
	if shell == "pwsh" {
		return "$ErrorActionPreference = 'stop'\n" + script + "\nif ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) { exit $LASTEXITCODE }\n"
	}
	return script
}

// commandLine splits a shell's command line at spaces outside of double quotes
// and puts the script's path in.
func commandLine(line, script string) ([]string, error) {
	var args []string
	var word strings.Builder
	quoted, open := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted, open = !quoted, true
		case (r == ' ' || r == '\t') && !quoted:
			if open {
				args = append(args, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("shell %q has an opening quote without a closing one", line)
	}
	if open {
		args = append(args, word.String())
	}
	if len(args) == 0 {
		return nil, errors.New("the shell is empty")
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{0}", script)
	}
	return args, nil
}

// shellAndDir looks at the step, then the job's defaults, then the workflow's.
// Steps of composite actions have no defaults.
func (j *job) shellAndDir(st *running, env expr.Env) (shell, dir string, err error) {
	pick := func(texts ...syntax.Text) (string, error) {
		for _, t := range texts {
			if t.IsSet() {
				return env.Interpolate(t.Value)
			}
		}
		return "", nil
	}
	var job, workflow syntax.Defaults
	if st.frame.parent == nil {
		job, workflow = j.plan.Job.Defaults, j.plan.Workflow.Defaults
	}
	if shell, err = pick(st.Shell, job.Shell, workflow.Shell); err != nil {
		return "", "", err
	}
	if dir, err = pick(st.Dir, job.Dir, workflow.Dir); err != nil {
		return "", "", err
	}
	if shell == "" && j.container != nil {
		shell = "sh" // GitHub's default in containers
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
