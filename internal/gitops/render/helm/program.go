package helm

import (
	"path"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// unit is one template of a chart tree.
type unit struct {
	name     string // "chart/templates/a.yaml", as templates are told
	basePath string
	chart    *chart.Chart
	data     []byte
}

// units lists the templates of a chart and its subcharts in the order in which
// Helm parses and runs them: deeper paths first, then by name from the end. A
// later definition of a name replaces an earlier one.
func units(c *chart.Chart) []unit {
	var out []unit
	var add func(*chart.Chart)
	add = func(c *chart.Chart) {
		for _, sub := range c.Dependencies() {
			add(sub)
		}
		full := c.ChartFullPath()
		library := strings.EqualFold(c.Metadata.Type, "library")
		for _, t := range c.Templates {
			if t == nil || library && !strings.HasPrefix(path.Base(t.Name), "_") {
				continue
			}
			out = append(out, unit{path.Join(full, t.Name), path.Join(full, "templates"), c, t.Data})
		}
	}
	add(c)
	slices.SortStableFunc(out, func(a, b unit) int {
		if d := strings.Count(b.name, "/") - strings.Count(a.name, "/"); d != 0 {
			return d
		}
		return strings.Compare(b.name, a.name)
	})
	// Two charts of one name: the last one read counts, as in Helm.
	kept := out[:0]
	for i, u := range out {
		if i+1 < len(out) && out[i+1].name == u.name {
			continue
		}
		kept = append(kept, u)
	}
	return kept
}

// position is a place in a template.
type position struct {
	unit string
	line int
}

// program is the parsed templates of a chart tree. It is never executed
// itself, and never changes.
type program struct {
	set      *template.Template
	funcs    template.FuncMap
	text     map[*byte]position // where each text of the templates is written
	unstable map[string][]position
	allFiles bool // a template uses .Files in another way than by its methods
	size     int  // bytes that it takes, about
}

// compile parses templates. tick is added wherever a template can repeat, so
// that a run can be stopped.
func compile(all []unit, funcs template.FuncMap) (*program, error) {
	p := &program{set: newSet(), funcs: funcs, text: map[*byte]position{}, unstable: map[string][]position{}, size: emptyProgram}
	p.set.Funcs(funcs).Funcs(placeholders)
	lines := map[string][]int{}
	for _, u := range all {
		text := string(u.data)
		if _, err := p.set.New(u.name).Parse(text); err != nil {
			return nil, err
		}
		lines[u.name] = lineStarts(text)
		p.size += parsedFactor * len(text)
	}
	for _, t := range p.set.Templates() {
		if t.Tree == nil || t.Root == nil {
			continue
		}
		starts := lines[t.ParseName]
		at := func(n parse.Node) position { return position{t.ParseName, lineOf(starts, int(n.Position()))} }
		visit(t.Root, func(n parse.Node) {
			switch n := n.(type) {
			case *parse.TextNode:
				if len(n.Text) > 0 {
					p.text[&n.Text[0]] = at(n)
				}
			case *parse.IdentifierNode:
				if unstableFunctions[n.Ident] {
					p.unstable[n.Ident] = append(p.unstable[n.Ident], at(n))
				}
			}
			p.allFiles = p.allFiles || usesAllFiles(n)
		})
		instrument(t.Root)
	}
	for _, places := range p.unstable {
		slices.SortFunc(places, func(a, b position) int {
			if a.unit != b.unit {
				return strings.Compare(a.unit, b.unit)
			}
			return a.line - b.line
		})
	}
	return p, nil
}

func newSet() *template.Template {
	return template.New("gotpl").Option("missingkey=zero")
}

func lineStarts(text string) []int {
	starts := []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

func lineOf(starts []int, offset int) int {
	i, found := slices.BinarySearch(starts, offset)
	if found {
		return i + 1
	}
	return i
}

// usesAllFiles reports whether a node takes .Files as a whole.
func usesAllFiles(n parse.Node) bool {
	var names []string
	switch n := n.(type) {
	case *parse.FieldNode:
		names = n.Ident
	case *parse.VariableNode:
		names = n.Ident
	case *parse.ChainNode:
		names = n.Field
	case *parse.StringNode:
		return n.Text == "Files"
	}
	return len(names) > 0 && names[len(names)-1] == "Files"
}

// instrument puts an empty text at the start of each body that can run more
// than once. Writing it is where a run notices that it must end.
func instrument(root *parse.ListNode) {
	tick := func(l *parse.ListNode) {
		l.Nodes = append([]parse.Node{&parse.TextNode{NodeType: parse.NodeText, Pos: l.Pos}}, l.Nodes...)
	}
	visit(root, func(n parse.Node) {
		if r, ok := n.(*parse.RangeNode); ok && r.List != nil {
			tick(r.List)
		}
	})
	tick(root)
}

// visit calls f for every node below n.
func visit(n parse.Node, f func(parse.Node)) {
	branch := func(b *parse.BranchNode) {
		visit(b.Pipe, f)
		visit(b.List, f)
		if b.ElseList != nil {
			visit(b.ElseList, f)
		}
	}
	f(n)
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, sub := range n.Nodes {
				visit(sub, f)
			}
		}
	case *parse.ActionNode:
		visit(n.Pipe, f)
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			visit(n.Pipe, f)
		}
	case *parse.PipeNode:
		if n != nil {
			for _, c := range n.Cmds {
				for _, arg := range c.Args {
					visit(arg, f)
				}
			}
		}
	case *parse.ChainNode:
		visit(n.Node, f)
	}
}
