// Package template fills templates of ApplicationSets with parameters.
//
// Input: a JSON value (map[string]any, []any, string, …) of which every
// string and every key may be a template, and parameters. Output: the value
// with the templates replaced. Two languages: "{{name}}" (parameters that are
// not there are left as they are), and Go's text/template with sprig's
// functions except those that see the environment or the network.
//
// Invariants: pure; the input is never changed; parts without a template are
// shared between results, so a result must be copied before it is changed; the
// output of one template and of its list functions is bounded.
//
// Start reading at [Engine.Compile].
package template

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

const maxOutput = 1 << 20 // bytes of one template's output

// Engine is one of the two languages with its options.
type Engine struct {
	base    *template.Template // nil for "{{name}}"
	options []string
}

// New returns the language that goTemplate and goTemplateOptions ask for.
func New(goTemplate bool, options []string) (*Engine, error) {
	if !goTemplate {
		return &Engine{}, nil
	}
	for _, o := range options {
		switch o {
		case "missingkey=default", "missingkey=invalid", "missingkey=zero", "missingkey=error":
		default:
			return nil, fmt.Errorf("spec.goTemplateOptions: %q is not an option of Go templates; missingkey=error is", o)
		}
	}
	return &Engine{base: template.New("").Funcs(functions()).Option(options...), options: options}, nil
}

// Go reports whether the language is that of Go.
func (e *Engine) Go() bool { return e.base != nil }

// Error is a template that cannot be parsed or filled.
type Error struct {
	Field string // "spec.source.path"
	Err   error
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return e.Field + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Program is a value whose templates were parsed. It is safe for concurrent
// use.
type Program struct{ root node }

// node is one value: a constant, a text, an object or a list.
type node struct {
	constant any
	text     text
	fields   []field
	items    []node
	isObject bool
	isList   bool
	path     string
}

type field struct {
	name  string
	key   text // nil when the name is no template
	value node
}

type text interface {
	fill(params map[string]any) (string, error)
}

// Compile parses the templates in v. field names v in errors.
func (e *Engine) Compile(fieldName string, v any) (*Program, error) {
	root, err := e.compile(fieldName, v)
	if err != nil {
		return nil, err
	}
	return &Program{root}, nil
}

func (e *Engine) compile(path string, v any) (node, error) {
	switch v := v.(type) {
	case string:
		t, err := e.parse(v)
		if err != nil {
			return node{}, &Error{path, err}
		}
		if t == nil {
			return node{constant: v}, nil
		}
		return node{text: t, path: path}, nil
	case map[string]any:
		n := node{isObject: true, path: path}
		constant := true
		for _, name := range slices.Sorted(maps.Keys(v)) {
			value, err := e.compile(join(path, name), v[name])
			if err != nil {
				return node{}, err
			}
			key, err := e.parse(name)
			if err != nil {
				return node{}, &Error{path, fmt.Errorf("the key %q: %w", name, err)}
			}
			constant = constant && key == nil && value.isConstant()
			n.fields = append(n.fields, field{name, key, value})
		}
		if constant {
			return node{constant: v}, nil
		}
		return n, nil
	case []any:
		n := node{isList: true, path: path}
		constant := true
		for i, item := range v {
			value, err := e.compile(path+"["+strconv.Itoa(i)+"]", item)
			if err != nil {
				return node{}, err
			}
			constant = constant && value.isConstant()
			n.items = append(n.items, value)
		}
		if constant {
			return node{constant: v}, nil
		}
		return n, nil
	}
	return node{constant: v}, nil
}

func (n *node) isConstant() bool { return n.text == nil && !n.isObject && !n.isList }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Constant reports whether no template was found.
func (p *Program) Constant() bool { return p.root.isConstant() }

// Fill returns the value for one set of parameters.
func (p *Program) Fill(params map[string]any) (any, error) { return p.root.fill(params) }

func (n *node) fill(params map[string]any) (any, error) {
	switch {
	case n.text != nil:
		s, err := n.text.fill(params)
		if err != nil {
			return nil, &Error{n.path, err}
		}
		return s, nil
	case n.isObject:
		return n.fillObject(params)
	case n.isList:
		out := make([]any, len(n.items))
		for i := range n.items {
			v, err := n.items[i].fill(params)
			if err != nil {
				return nil, err
			}
			out[i] = v
		}
		return out, nil
	}
	return n.constant, nil
}

func (n *node) fillObject(params map[string]any) (any, error) {
	out := make(map[string]any, len(n.fields))
	for i := range n.fields {
		f := &n.fields[i]
		v, err := f.value.fill(params)
		if err != nil {
			return nil, err
		}
		name := f.name
		if f.key != nil {
			if name, err = f.key.fill(params); err != nil {
				return nil, &Error{n.path, fmt.Errorf("the key %q: %w", f.name, err)}
			}
		}
		if _, twice := out[name]; twice {
			return nil, &Error{n.path, fmt.Errorf("the key %q is there twice after the templates are filled", name)}
		}
		out[name] = v
	}
	return out, nil
}

// Text fills one template.
func (e *Engine) Text(s string, params map[string]any) (string, error) {
	t, err := e.parse(s)
	if err != nil {
		return "", err
	}
	if t == nil {
		return s, nil
	}
	return t.fill(params)
}

// parse returns nil for a string that holds no template.
func (e *Engine) parse(s string) (text, error) {
	if !e.Go() {
		return parseFast(s)
	}
	if !strings.Contains(s, "{{") {
		return nil, nil
	}
	t, err := e.base.Clone()
	if err != nil {
		return nil, fmt.Errorf("prepare the template: %w", err)
	}
	if t, err = t.Parse(s); err != nil {
		return nil, goError(s, err)
	}
	return goText{t, s}, nil
}

type goText struct {
	t      *template.Template
	source string
}

func (g goText) fill(params map[string]any) (string, error) {
	out := bounded{limit: maxOutput}
	if params == nil {
		params = map[string]any{}
	}
	if err := g.t.Execute(&out, params); err != nil {
		return "", goError(g.source, err)
	}
	return out.String(), nil
}

// goError drops what text/template says about names of templates, which are
// empty here.
func goError(source string, err error) error {
	msg := err.Error()
	msg = strings.TrimPrefix(msg, "template: ")
	msg = strings.Replace(msg, `executing "" at `, "at ", 1)
	msg = strings.TrimLeft(msg, ":")
	if len(source) > 80 {
		source = strings.ToValidUTF8(source[:80], "") + "…"
	}
	return fmt.Errorf("template %q: %s", source, msg)
}

var errTooLong = errors.New("its output is longer than 1 MiB")

type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}
