package action

import (
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"go.yaml.in/yaml/v4"
)

// MaxSize bounds an action.yml, in bytes.
const MaxSize = 512 << 10

// Load reads an action.yml. file is how diagnostics call it. The action is nil
// when one of them is fatal.
func Load(file string, content []byte) (*Action, []syntax.Diagnostic) {
	l := &loader{file: file}
	if len(content) > MaxSize {
		l.fatal(nil, "", "the file has %d bytes; at most %d are read", len(content), MaxSize)
		return nil, l.diagnostics
	}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		l.fatal(nil, "check the indentation and quotes", "the file is no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil, l.diagnostics
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) == 0 {
		l.fatal(nil, "", "the file is empty")
		return nil, l.diagnostics
	}
	a := l.action(document.Content[0])
	for _, d := range l.diagnostics {
		if d.Fatal {
			return nil, l.diagnostics
		}
	}
	return a, l.diagnostics
}

func (l *loader) action(n *yaml.Node) *Action {
	a := &Action{File: l.file}
	found := false
	l.mapping(n, "an action", func(key string, k, v *yaml.Node) bool {
		switch key {
		case "name":
			a.Name = l.plain(v)
		case "description":
			a.Description = l.plain(v)
		case "author", "branding":
		case "inputs":
			l.mapping(v, "inputs", func(_ string, k, v *yaml.Node) bool {
				a.Inputs = append(a.Inputs, l.input(k, v))
				return true
			})
		case "outputs":
			l.mapping(v, "outputs", func(_ string, k, v *yaml.Node) bool {
				a.Outputs = append(a.Outputs, l.output(k, v))
				return true
			})
		case "runs":
			found = true
			a.Runs = l.runs(k, v)
		default:
			return false
		}
		return true
	})
	if !found {
		l.fatal(n, "see `runs` in GitHub's metadata syntax for actions", "the action has no `runs`")
		return a
	}
	if a.Runs.Using == Composite {
		for i, o := range a.Outputs {
			if !o.Value.IsSet() {
				l.report(o.Line, 1, false, "set `value` to an output of a step", "output %q of a composite action has no `value`: it stays empty", o.Name)
			}
			l.check(a.Outputs[i].Value, outputContexts)
		}
	}
	return a
}

func (l *loader) input(k, v *yaml.Node) Input {
	in := Input{Name: k.Value, Line: k.Line}
	if isNull(v) {
		return in
	}
	l.mapping(v, "an input", func(key string, _, v *yaml.Node) bool {
		switch key {
		case "description", "type":
		case "required":
			in.Required = strings.EqualFold(l.plain(v), "true")
		case "default":
			in.Default = l.text(v, inputContexts)
		case "deprecationmessage":
			in.Deprecated = l.plain(v)
		default:
			return false
		}
		return true
	})
	return in
}

func (l *loader) output(k, v *yaml.Node) Output {
	out := Output{Name: k.Value, Line: k.Line}
	if isNull(v) {
		return out
	}
	l.mapping(v, "an output", func(key string, _, v *yaml.Node) bool {
		switch key {
		case "description":
		case "value":
			out.Value = l.text(v, nil)
		default:
			return false
		}
		return true
	})
	return out
}

func (l *loader) runs(k, v *yaml.Node) Runs {
	r := Runs{Line: k.Line}
	var steps *yaml.Node
	l.mapping(v, "runs", func(key string, k, v *yaml.Node) bool {
		switch key {
		case "using":
			l.using(&r, v)
		case "main":
			r.Main = l.path(v)
		case "pre":
			r.Pre = l.path(v)
		case "post":
			r.Post = l.path(v)
		case "pre-if":
			r.PreIf = l.condition(v, ifContexts)
		case "post-if":
			r.PostIf = l.condition(v, ifContexts)
		case "image":
			r.Image = l.plain(v)
		case "entrypoint":
			r.Entrypoint = l.plain(v)
		case "pre-entrypoint":
			r.PreEntrypoint = l.plain(v)
		case "post-entrypoint":
			r.PostEntrypoint = l.plain(v)
		case "args":
			l.sequence(v, "args", func(v *yaml.Node) { r.Args = append(r.Args, l.text(v, containerContexts)) })
		case "env":
			r.Env = l.vars(v, "env", containerContexts)
		case "steps":
			steps = v
		default:
			return false
		}
		return true
	})
	switch {
	case r.Using == "":
		if len(l.diagnostics) == 0 || !l.failed() {
			l.report(r.Line, 1, true, "for example `using: composite`", "`runs` has no `using`")
		}
	case r.Using == Node && r.Main == "":
		l.report(r.Line, 1, true, "name the JavaScript file", "a JavaScript action needs `main`")
	case r.Using == Docker && r.Image == "":
		l.report(r.Line, 1, true, "write `image: Dockerfile` or `image: docker://name:tag`", "a Docker action needs `image`")
	case r.Using == Composite && steps == nil:
		l.report(r.Line, 1, true, "", "a composite action needs `steps`")
	}
	if r.Using == Composite && steps != nil {
		l.sequence(steps, "steps", func(v *yaml.Node) { r.Steps = append(r.Steps, l.step(v)) })
		l.uniqueIDs(r.Steps)
	}
	return r
}

func (l *loader) using(r *Runs, v *yaml.Node) {
	using := strings.ToLower(l.plain(v))
	switch using {
	case Composite, Docker:
		r.Using = using
	case "node12", "node16", "node20", "node24":
		r.Using, r.NodeVersion = Node, strings.TrimPrefix(using, Node)
	default:
		l.fatal(v, "composite, node20, node24 and docker are known", "`using: %s` is not known", l.plain(v))
	}
}

// path reads the name of a file of the action.
func (l *loader) path(v *yaml.Node) string {
	name := l.plain(v)
	if name != "" && (strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0)) {
		l.fatal(v, "", "%q must be a path in the action's folder", name)
	}
	return name
}

func (l *loader) step(n *yaml.Node) *syntax.Step {
	s := &syntax.Step{Line: n.Line}
	l.mapping(n, "a step", func(key string, _, v *yaml.Node) bool {
		switch key {
		case "id":
			s.ID = l.text(v, nil)
		case "name":
			s.Name = l.text(v, stepContexts)
		case "if":
			s.If = l.condition(v, stepContexts)
		case "env":
			s.Env = l.env(v)
		case "continue-on-error":
			s.ContinueOnError = l.text(v, stepContexts)
		case "run":
			s.Run = l.text(v, stepContexts)
		case "shell":
			s.Shell = l.text(v, stepContexts)
		case "working-directory":
			s.Dir = l.text(v, stepContexts)
		case "uses":
			s.Uses = l.text(v, nil)
		case "with":
			s.With = l.vars(v, "with", stepContexts)
		case "timeout-minutes": // GitHub refuses it
			l.fatal(v, "set timeout-minutes at the step that uses the action", "`timeout-minutes` cannot be used in a composite action")
		default:
			return false
		}
		return true
	})
	switch {
	case s.Run.IsSet() && s.Uses.IsSet():
		l.fatal(n, "make two steps of it", "a step has `run` or `uses`, not both")
	case s.Uses.IsSet():
		if strings.Contains(s.Uses.Value, "${{") {
			l.report(s.Uses.Line, s.Uses.Col, true, "write the action's name out", "`uses` cannot hold an expression")
		} else if _, err := Parse(s.Uses.Value); err != nil {
			l.report(s.Uses.Line, s.Uses.Col, true, "", "%v", err)
		}
	case !s.Run.IsSet():
		l.fatal(n, "", "a step needs `run` or `uses`")
	case !s.Shell.IsSet():
		l.fatal(n, "add `shell: bash`", "a `run` step of a composite action needs `shell`")
	}
	return s
}

func (l *loader) uniqueIDs(steps []*syntax.Step) {
	seen := map[string]bool{}
	for _, s := range steps {
		id := strings.ToLower(s.ID.Value)
		if id == "" {
			continue
		}
		if seen[id] {
			l.report(s.ID.Line, s.ID.Col, true, "give each step an id of its own", "two steps have the id %q", s.ID.Value)
		}
		seen[id] = true
	}
}

func (l *loader) fatal(n *yaml.Node, hint, format string, args ...any) {
	line, col := 1, 1
	if n != nil {
		line, col = n.Line, n.Column
	}
	l.report(line, col, true, hint, format, args...)
}

func (l *loader) report(line, col int, fatal bool, hint, format string, args ...any) {
	l.diagnostics = append(l.diagnostics, syntax.Diagnostic{File: l.file, Line: max(line, 1), Col: max(col, 1), Message: fmt.Sprintf(format, args...), Hint: hint, Fatal: fatal})
}
