package execute

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// nodeProgram is what is known of this machine's node.
type nodeProgram struct {
	mu      sync.Mutex
	stamp   string // path, size and time of the program that version is of
	version string // "v20.20.2"
}

// runNode runs a JavaScript action and leaves its post part to do.
func (j *job) runNode(ctx context.Context, st *running, f *frame, u *use) error {
	if r := u.act.Runs; r.Post != "" {
		st.addPost(r.PostIf, func(ctx context.Context) error { return j.nodePart(ctx, st, f, u, r.Post) })
	}
	return j.nodePart(ctx, st, f, u, u.act.Runs.Main)
}

// nodePart runs one file of a JavaScript action with this machine's node, also
// when the job has a container: the folders are the same, and the container may
// have no node or another C library.
func (j *job) nodePart(ctx context.Context, st *running, f *frame, u *use, file string) error {
	program, err := j.findNode(u)
	if err != nil {
		return err
	}
	if version, err := j.nodeVersion(ctx, program); err != nil {
		return err
	} else if major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "."); major != u.act.Runs.NodeVersion {
		j.log(fmt.Sprintf("The action asks for node%s; it runs with this machine's node %s.", u.act.Runs.NodeVersion, version))
	}
	if _, err := u.files.Stat(path.Join(u.inside, file)); err != nil {
		return &action.Error{File: u.act.File, Line: u.act.Runs.Line, Msg: fmt.Sprintf("the action has no file %s", file),
			Hint: "the version in `uses` must hold the built files, often in dist/"}
	}
	f.github.Set("action", st.id)
	files, err := j.newFileCommands()
	if err != nil {
		return err
	}
	out := j.output(st)
	exit, err := j.box.Exec(ctx, sandbox.Command{
		Args: []string{program, path.Join(u.dir, file)}, Dir: j.workspace(), Output: out, Grace: j.Config.KillGrace,
		Env: j.processEnv(f, st.env, j.plan.ServiceEnv, inputEnv(f.inputs), stateEnv(st.state), files.env()),
	})
	out.Flush()
	return j.ended(st, exit, err, j.takeFiles(files, st.outputs, st.state))
}

// inputEnv is how JavaScript and Docker actions get their inputs.
func inputEnv(inputs any) map[string]string {
	out := map[string]string{}
	if o, ok := inputs.(*expr.Object); ok && o != nil {
		for _, k := range o.Keys() {
			v, _ := o.Get(k)
			out["INPUT_"+strings.ToUpper(strings.ReplaceAll(k, " ", "_"))] = expr.Text(v)
		}
	}
	return out
}

func stateEnv(state map[string]string) map[string]string {
	out := make(map[string]string, len(state))
	for k, v := range state {
		out["STATE_"+k] = v
	}
	return out
}

// findNode looks for node where steps find it, not where steps put it.
func (j *job) findNode(u *use) (string, error) {
	for _, dir := range strings.Split(j.Config.Path, ":") {
		file := filepath.Join(dir, "node")
		if fi, err := os.Stat(file); filepath.IsAbs(dir) && err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &action.Error{Msg: fmt.Sprintf("JavaScript actions need node, which this machine does not have in %s", j.Config.Path),
		Hint: fmt.Sprintf("install Node.js %s (Debian: apt install nodejs)", u.act.Runs.NodeVersion)}
}

// nodeVersion asks node once, and again when the program changed.
func (j *job) nodeVersion(ctx context.Context, program string) (string, error) {
	fi, err := os.Stat(program)
	if err != nil {
		return "", fmt.Errorf("look for node: %w", err)
	}
	stamp := fmt.Sprint(program, fi.Size(), fi.ModTime().UnixNano())
	n := &j.Runner.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stamp == stamp {
		return n.version, nil
	}
	var out strings.Builder
	exit, err := j.box.Exec(ctx, sandbox.Command{Args: []string{program, "--version"}, Dir: "/", Output: &out, Env: []string{"PATH=" + j.Config.Path}})
	if err == nil && !exit.OK() {
		err = errors.New(exit.String())
	}
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", program, err)
	}
	n.stamp, n.version = stamp, strings.TrimSpace(out.String())
	return n.version, nil
}
