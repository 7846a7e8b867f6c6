package execute

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// Containers runs images for jobs.
type Containers interface {
	// Pull makes an image available and returns its digest. Progress goes to
	// out as text. The error says how to import it when it cannot be had.
	Pull(ctx context.Context, image string, login builtin.Credential, out io.Writer) (digest string, err error)
	// Run runs a container to its end. box is the job's sandbox: the container
	// shares its network.
	Run(ctx context.Context, box *sandbox.Session, c ContainerSpec, out io.Writer) (sandbox.Exit, error)
	// Start starts a container that goes on until Stop. out gets its log.
	Start(ctx context.Context, box *sandbox.Session, c ContainerSpec, out io.Writer) (Container, error)
}

// ContainerSpec is one container.
type ContainerSpec struct {
	Name       string // unique in the job; of services their host name too
	Image      string
	Entrypoint string   // instead of the image's, when not empty
	Args       []string // instead of the image's command, when not nil
	Env        []string // "NAME=value", over the image's
	Dir        string   // instead of the image's, when not empty
	Binds      []sandbox.Bind
	Ports      []string // as `docker run -p` takes them
	Volumes    []string // as `docker run -v` takes them, with the job's paths
	Options    []string // of `docker create`; one that is not known is an error
	// Idle runs nothing but waits for Exec, whatever the image's command is.
	Idle bool
}

// Container is one that was started.
type Container interface {
	ID() string
	// Ports are the addresses of the container's ports: "5432" to a port that
	// the job reaches at localhost.
	Ports() map[string]string
	// Healthy waits until the container's health check passes. Without one it
	// returns at once. The error carries the last output of the check.
	Healthy(ctx context.Context) error
	// Exec runs a program in the container. Its variables are laid over the
	// image's and those of the ContainerSpec.
	Exec(ctx context.Context, c sandbox.Command) (sandbox.Exit, error)
	// Stop ends it and removes what is left of it.
	Stop(ctx context.Context) error
}

func noContainers(what string) error {
	return &action.Error{Msg: what + " needs containers, which cannot be run here",
		Hint: "run lockstep as root on Linux with overlayfs; `lockstep doctor` checks the machine"}
}

// Where a Docker action finds the job's folders, as on GitHub.
const (
	dockerWork     = "/github/workspace"
	dockerHome     = "/github/home"
	dockerWorkflow = "/github/workflow"
	dockerCommands = "/github/file_commands"
	dockerTemp     = "/github/runner_temp"
)

// exec runs a program where the job's steps run: in its container, or in the
// sandbox itself.
func (j *job) exec(ctx context.Context, c sandbox.Command) (sandbox.Exit, error) {
	if j.container == nil {
		return j.box.Exec(ctx, c)
	}
	machine := "PATH=" + j.machinePath()
	c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name != "PATH" && slices.Contains(fromMachine, name) || kv == machine
	})
	return j.container.Exec(ctx, c)
}

// runImage runs a step with `uses: docker://image`.
func (j *job) runImage(ctx context.Context, st *running, ref action.Reference) error {
	u := &use{ref: ref, act: &action.Action{File: st.frame.file, Runs: action.Runs{Using: action.Docker, Image: ref.Text, Line: st.Line}}, state: st.state}
	return j.runUse(ctx, st, u)
}

// runDocker runs a Docker action and leaves its post part to do.
func (j *job) runDocker(ctx context.Context, st *running, f *frame, u *use) error {
	if r := u.act.Runs; r.PostEntrypoint != "" {
		st.addPost(r.PostIf, func(ctx context.Context) error { return j.dockerPart(ctx, st, f, u, r.PostEntrypoint) })
	}
	return j.dockerPart(ctx, st, f, u, "")
}

// dockerPart runs an image: its main part, or another entrypoint of it.
func (j *job) dockerPart(ctx context.Context, st *running, f *frame, u *use, entrypoint string) error {
	if j.Containers == nil {
		return noContainers(fmt.Sprintf("%q", u.ref.Text))
	}
	out := j.output(st)
	defer out.Flush()
	image, err := j.imageOf(ctx, u, out)
	if err != nil {
		return err
	}
	c := ContainerSpec{Name: "action-" + strings.Trim(st.id, "_"), Image: image, Dir: dockerWork, Entrypoint: entrypoint, Binds: j.dockerBinds()}
	if err := j.dockerCommand(&c, st, f, u); err != nil {
		return err
	}
	files, err := j.newFileCommands()
	if err != nil {
		return err
	}
	extra, err := j.dockerEnv(f, u)
	if err != nil {
		return err
	}
	env := j.processEnv(f, st.env, j.plan.ServiceEnv, extra, inputEnv(f.inputs), stateEnv(st.state), files.env())
	c.Env = containerEnv(env, st.env)
	exit, err := j.Containers.Run(ctx, j.box, c, out)
	out.Flush()
	return j.ended(st, exit, err, j.takeFiles(files, st.outputs, st.state))
}

// imageOf pulls the action's image, or builds it from its Dockerfile.
func (j *job) imageOf(ctx context.Context, u *use, out io.Writer) (string, error) {
	if u.image != "" {
		return u.image, nil
	}
	r := u.act.Runs
	if name, ok := strings.CutPrefix(r.Image, "docker://"); ok {
		_, err := j.Containers.Pull(ctx, name, builtin.Credential{}, out)
		if err == nil {
			u.image = name
		}
		return name, err
	}
	if j.Builder == nil {
		return "", &action.Error{File: u.act.File, Line: r.Line, Msg: "the action's image must be built, and images cannot be built here"}
	}
	file := path.Join(u.inside, r.Image)
	if fi, err := u.files.Stat(file); err != nil || !fi.Mode().IsRegular() {
		return "", &action.Error{File: u.act.File, Line: r.Line, Msg: fmt.Sprintf("the action has no %s", r.Image)}
	}
	key := sha256.Sum256([]byte(u.ref.Text + "\x00" + u.commit + "\x00" + j.plan.Repo))
	tag := "lockstep.localhost/action/" + hex.EncodeToString(key[:8]) + ":latest"
	_, err := j.Builder.Build(ctx, builtin.BuildRequest{
		Repo: j.plan.Repo, Commit: j.plan.Commit, ContextDir: filepath.Join(u.host, filepath.FromSlash(u.inside)), Dockerfile: r.Image, Tags: []string{tag}, Load: true,
	}, out)
	if err != nil {
		return "", fmt.Errorf("build the action's image: %w", err)
	}
	u.image = tag
	return tag, nil
}

func (j *job) dockerBinds() []sandbox.Bind {
	l := j.layout
	binds := []sandbox.Bind{
		{Source: l.work, Target: dockerWork}, {Source: l.home, Target: dockerHome}, {Source: l.temp, Target: dockerTemp},
		{Source: l.temp + "/_github_workflow", Target: dockerWorkflow}, {Source: l.temp + "/_runner_file_commands", Target: dockerCommands},
	}
	if j.Config.CAFile != "" {
		binds = append(binds, sandbox.Bind{Source: j.Config.CAFile, Target: caBundle, ReadOnly: true})
	}
	return binds
}

// dockerCommand sets the entrypoint and arguments: those of the step go before
// those of the action.
func (j *job) dockerCommand(c *ContainerSpec, st *running, f *frame, u *use) error {
	input := func(name string) string {
		o, _ := f.inputs.(*expr.Object)
		return expr.Text(at(o, name))
	}
	if c.Entrypoint == "" {
		if c.Entrypoint = u.act.Runs.Entrypoint; u.act.Input("entrypoint") == nil && input("entrypoint") != "" {
			c.Entrypoint = input("entrypoint")
		}
	}
	if args := input("args"); args != "" && u.act.Input("args") == nil {
		var err error
		c.Args, err = splitWords(args)
		return err
	}
	env := j.exprEnv(f, st.env)
	for _, a := range u.act.Runs.Args {
		v, err := env.Interpolate(a.Value)
		if err != nil {
			return &action.Error{File: u.act.File, Line: a.Line, Msg: "args: " + err.Error(), Err: err}
		}
		c.Args = append(c.Args, v)
	}
	return nil
}

func (j *job) dockerEnv(f *frame, u *use) (map[string]string, error) {
	env := j.exprEnv(f, nil)
	out := map[string]string{}
	for _, v := range u.act.Runs.Env {
		value, err := env.Interpolate(v.Value.Value)
		if err != nil {
			return nil, &action.Error{File: u.act.File, Line: v.Value.Line, Msg: fmt.Sprintf("env %s: %v", v.Name, err), Err: err}
		}
		out[v.Name] = value
	}
	return out, nil
}

// fromMachine are variables that describe this machine, not the image's.
var fromMachine = []string{"PATH", "SHELL", "USER", "LOGNAME", "LANG", "XDG_CACHE_HOME"}

// containerEnv is a step's environment as a Docker action gets it: paths are
// the container's, and what the image says of itself stays.
func containerEnv(env []string, stepEnv *expr.Object) []string {
	translate := strings.NewReplacer(
		tempDir+"/_runner_file_commands", dockerCommands, tempDir+"/_github_workflow", dockerWorkflow, tempDir, dockerTemp)
	var out []string
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if _, given := stepEnv.Get(name); !given && slices.Contains(fromMachine, name) {
			continue
		}
		switch {
		case name == "HOME":
			value = dockerHome
		case name == "GITHUB_WORKSPACE":
			value = dockerWork
		case strings.HasPrefix(name, "GITHUB_") || strings.HasPrefix(name, "RUNNER_"):
			value = translate.Replace(value)
		}
		out = append(out, name+"="+value)
	}
	return out
}

// splitWords splits arguments at spaces, with single and double quotes and
// backslashes as a shell reads them.
func splitWords(s string) ([]string, error) {
	var out []string
	var word strings.Builder
	var quote rune
	open, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, open = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, open = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if open {
				out = append(out, word.String())
				word.Reset()
			}
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("args: a quote is not closed")
	}
	if open {
		out = append(out, word.String())
	}
	return out, nil
}

// stopContainers ends services and the job's container.
func (j *job) stopContainers() {
	ctx, cancel := context.WithTimeout(context.Background(), stopContainers)
	defer cancel()
	for _, c := range slices.Backward(slices.Concat(j.services, toSlice(j.container))) {
		if err := c.Stop(ctx); err != nil {
			j.log("##[warning]stop container " + c.ID() + ": " + err.Error())
		}
	}
	j.services, j.container = nil, nil
}

func toSlice(c Container) []Container {
	if c == nil {
		return nil
	}
	return []Container{c}
}
