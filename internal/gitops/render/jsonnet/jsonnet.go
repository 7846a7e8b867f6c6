// Package jsonnet renders Jsonnet files.
//
// Input: a tree, the path of a .jsonnet file, and the variables, arguments and
// library folders of the source. Output: the objects that the file evaluates
// to, or a [manifest.Error] with file and line.
//
// Invariants: every import, found or not, is read through the tree, so it is an
// input; nothing outside the repository is read; an evaluation ends when its
// context ends or after [MaxDuration], endless loops included.
//
// Limits: the depth of calls and expressions, the size of a file and of the result are bounded.
// The memory of one evaluation is watched and bounded too, except for what a
// single call of a built-in function takes (std.repeat with a huge count).
//
// Start reading at [VM.Render].
package jsonnet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	gojsonnet "github.com/google/go-jsonnet"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// MaxDuration is how long one file may take to evaluate.
const MaxDuration = 20 * time.Second

const (
	maxStack  = 500       // nested calls, the default of the jsonnet command
	maxSource = 4 << 20   // bytes of one file
	maxResult = 64 << 20  // bytes of JSON
	maxMemory = 768 << 20 // bytes that the heap may grow during one evaluation
)

// VM evaluates the files of one source. It is for one goroutine.
type VM struct {
	vm       *gojsonnet.VM
	importer *importer
	limit    *limiter
	errors   *formatter
	duration time.Duration
}

// New returns a VM for the files of a source in dir. In the values of
// variables and arguments, $NAME is replaced from env.
func New(tree *source.Tree, dir string, options v1alpha1.SourceJsonnet, env environment.Environment) (*VM, error) {
	v := &VM{vm: gojsonnet.MakeVM(), limit: &limiter{}, errors: &formatter{}, duration: MaxDuration}
	v.importer = &importer{tree: tree, found: map[string]gojsonnet.Contents{}, folders: []string{dir}}
	for _, lib := range options.Libs {
		v.importer.folders = append(v.importer.folders, strings.TrimPrefix(lib, "/")) // as in Argo CD, from the root either way
	}
	v.vm.MaxStack = maxStack
	v.vm.ErrorFormatter = v.errors
	v.vm.SetTraceOut(io.Discard)
	v.vm.Importer(v.importer)
	if err := v.limit.install(v.vm); err != nil {
		return nil, err
	}
	for _, x := range options.ExtVars {
		if x.Code {
			v.vm.ExtCode(x.Name, env.Expand(x.Value))
		} else {
			v.vm.ExtVar(x.Name, env.Expand(x.Value))
		}
	}
	for _, x := range options.TLAs {
		if x.Code {
			v.vm.TLACode(x.Name, env.Expand(x.Value))
		} else {
			v.vm.TLAVar(x.Name, env.Expand(x.Value))
		}
	}
	return v, nil
}

// Render evaluates the file at p to one object or an array of objects.
func (v *VM) Render(ctx context.Context, p string) ([]manifest.Object, error) {
	out, err := v.evaluate(ctx, p)
	if err != nil {
		return nil, err
	}
	if len(out) > maxResult {
		return nil, &manifest.Error{File: p, Message: fmt.Sprintf("evaluates to %d bytes; at most %d are read", len(out), maxResult)}
	}
	return objects(p, []byte(out))
}

func (v *VM) evaluate(ctx context.Context, p string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, v.duration)
	defer cancel()
	v.importer.ctx, v.importer.failed, v.errors.last = ctx, nil, nil
	v.limit.start(ctx)
	out, err := v.vm.EvaluateFile("/" + p)
	stopped := v.limit.stop()
	switch {
	case err == nil:
		return out, nil
	case stopped == errMemory:
		return "", &manifest.Error{File: p, Line: v.limit.line(p), Message: fmt.Sprintf("takes more than %d MiB of memory to evaluate", maxMemory>>20), Hint: "Look for a recursion that builds an ever larger value.", Err: stopped}
	case stopped == errDepth:
		return "", &manifest.Error{File: p, Line: v.limit.line(p), Message: "recurses too deep", Hint: "Look for a recursion without an end.", Err: stopped}
	case stopped != nil && context.Cause(ctx) == context.DeadlineExceeded:
		return "", &manifest.Error{File: p, Line: v.limit.line(p), Message: fmt.Sprintf("does not end: stopped after %s", v.duration), Hint: "Look for a recursion without an end.", Err: stopped}
	case stopped != nil:
		return "", fmt.Errorf("%s: %w", p, stopped)
	case v.importer.failed != nil:
		return "", v.importer.place(v.errors.last, p)
	}
	return "", explain(p, err, v.errors.last)
}

// objects reads the result of an evaluation: an object, or an array of them.
func objects(p string, raw []byte) ([]manifest.Object, error) {
	items := []json.RawMessage{raw}
	text := bytes.TrimSpace(raw)
	switch {
	case string(text) == "null":
		return nil, nil
	case len(text) > 0 && text[0] == '[':
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, &manifest.Error{File: p, Message: err.Error(), Err: err}
		}
	}
	var out []manifest.Object
	for i, item := range items {
		if string(bytes.TrimSpace(item)) == "null" {
			continue
		}
		where := "the result"
		if len(items) > 1 {
			where = fmt.Sprintf("element %d of the result", i)
		}
		if text := bytes.TrimSpace(item); len(text) == 0 || text[0] != '{' {
			return nil, &manifest.Error{File: p, Message: where + " is not an object", Hint: "A Jsonnet file gives one Kubernetes object or an array of them; join nested arrays with std.flattenArrays, and turn a map of objects into an array with std.objectValues."}
		}
		found, left, err := manifest.Decode(p, 0, item)
		if err != nil {
			return nil, err
		}
		if len(left) > 0 || len(found) == 0 && string(bytes.TrimSpace(item)) == "{ }" {
			return nil, &manifest.Error{File: p, Message: where + " is not a Kubernetes object: it has neither apiVersion nor kind", Hint: "A map of objects becomes an array with std.objectValues."}
		}
		out = append(out, found...)
	}
	return out, nil
}
