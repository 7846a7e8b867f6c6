package health

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

//go:embed rules/*.yaml
var files embed.FS

// embedded are the rules of all files below rules/. They are tested; one that
// cannot be read is a mistake in this program.
var embedded = sync.OnceValue(func() []*rule {
	rules, err := load(files)
	if err != nil {
		panic(err)
	}
	return rules
})

// The notation of a file below rules/; rules/README.md describes it.
type (
	fileSpec struct {
		Project string     `json:"project"`
		Docs    string     `json:"docs"`
		Rules   []ruleSpec `json:"rules"`
	}
	ruleSpec struct {
		Match     texts       `json:"match"`
		Observed  string      `json:"observed,omitempty"`
		Function  string      `json:"function,omitempty"`
		Checks    []checkSpec `json:"checks,omitempty"`
		Ready     *readySpec  `json:"ready,omitempty"`
		Phases    *phaseSpec  `json:"phases,omitempty"`
		Otherwise *resultSpec `json:"otherwise,omitempty"`
	}
	resultSpec struct {
		Health      string `json:"health"`
		Message     string `json:"message,omitempty"`
		AggregateAs string `json:"aggregateAs,omitempty"`
	}
	checkSpec struct {
		When        whens  `json:"when"`
		Health      string `json:"health"`
		Message     string `json:"message,omitempty"`
		AggregateAs string `json:"aggregateAs,omitempty"`
	}
	readySpec struct {
		Condition texts  `json:"condition"`
		Waiting   texts  `json:"waiting,omitempty"` // reasons of False that pass by themselves
		False     string `json:"false,omitempty"`   // the health of False; Degraded
		Message   string `json:"message,omitempty"` // of healthy objects; the condition's
	}
	phaseSpec struct {
		Path        string `json:"path"`
		Healthy     texts  `json:"Healthy,omitempty"`
		Progressing texts  `json:"Progressing,omitempty"`
		Degraded    texts  `json:"Degraded,omitempty"`
		Suspended   texts  `json:"Suspended,omitempty"`
		Unknown     texts  `json:"Unknown,omitempty"`
		Message     string `json:"message,omitempty"`
	}
)

// texts is a list that may be written as its only item.
type texts []string

func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if yaml.Unmarshal(data, &one) == nil && !strings.HasPrefix(string(data), "[") {
		*t = texts{one}
		return nil
	}
	var all []string
	if err := yaml.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("neither a text nor a list of texts: %s", data)
	}
	*t = all
	return nil
}

// rule is the health of some kinds.
type rule struct {
	match     []settings.Pattern
	observed  string
	function  func(object) Status
	checks    []ruleCheck
	otherwise *outcome
}

type ruleCheck struct {
	when    []when
	outcome outcome
}

// outcome with the code "none" means that the object has no health.
type outcome struct {
	code, as v1alpha1.HealthCode
	message  template
}

// functions are for kinds that a list of checks cannot judge.
var functions = map[string]func(object) Status{"rollout": rollout}

// load reads the rules of all YAML files. What follows the first line "---" of
// a file are its tests.
func load(fsys fs.FS) ([]*rule, error) {
	names, err := fs.Glob(fsys, "rules/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the rules: %w", err)
	}
	var out []*rule
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read a rule: %w", err)
		}
		text, _, _ := strings.Cut(string(data), "\n---\n")
		var f fileSpec
		if err := yaml.UnmarshalStrict([]byte(text), &f); err != nil {
			return nil, fmt.Errorf("%s: %w", path.Base(name), err)
		}
		for i, spec := range f.Rules {
			r, err := compile(spec)
			if err != nil {
				return nil, fmt.Errorf("%s: rule %d, %v: %w", path.Base(name), i+1, spec.Match, err)
			}
			out = append(out, r)
		}
	}
	return out, nil
}

func compile(spec ruleSpec) (*rule, error) {
	r := &rule{observed: spec.Observed}
	for _, text := range spec.Match {
		for _, one := range expand(text) {
			p, err := settings.ParsePattern(one)
			if err != nil {
				return nil, err
			}
			r.match = append(r.match, p)
		}
	}
	switch spec.Observed {
	case "", "required", "ignore", "conditions":
	default:
		return nil, fmt.Errorf("observed: %q is none of required, conditions and ignore", spec.Observed)
	}
	if spec.Function != "" {
		if r.function = functions[spec.Function]; r.function == nil {
			return nil, fmt.Errorf("function: there is no %q", spec.Function)
		}
		return r, nil
	}
	checks := spec.Checks
	if spec.Ready != nil {
		checks = append(checks, spec.Ready.checks()...)
	}
	if spec.Phases != nil {
		checks = append(checks, spec.Phases.checks()...)
	}
	for i, c := range checks {
		out, err := compileOutcome(resultSpec{c.Health, c.Message, c.AggregateAs})
		if err != nil {
			return nil, fmt.Errorf("check %d: %w", i+1, err)
		}
		compiled := ruleCheck{outcome: *out}
		for _, w := range c.When {
			one, err := w.compile()
			if err != nil {
				return nil, fmt.Errorf("check %d: %w", i+1, err)
			}
			compiled.when = append(compiled.when, one)
		}
		r.checks = append(r.checks, compiled)
	}
	if spec.Otherwise == nil {
		spec.Otherwise = &resultSpec{Health: "Progressing", Message: "waiting for its controller to report"}
	}
	var err error
	r.otherwise, err = compileOutcome(*spec.Otherwise)
	return r, err
}

// expand writes {a,b} out, so that each kind is found by its name.
func expand(pattern string) []string {
	before, rest, ok := strings.Cut(pattern, "{")
	inner, after, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		return []string{pattern}
	}
	var out []string
	for alternative := range strings.SplitSeq(inner, ",") {
		out = append(out, expand(before+alternative+after)...)
	}
	return out
}

func compileOutcome(s resultSpec) (*outcome, error) {
	o := &outcome{code: codeOf(s.Health), as: codeOf(s.AggregateAs)}
	if (!known(o.code) && s.Health != "none") || (s.AggregateAs != "" && !known(o.as)) {
		return nil, fmt.Errorf("health: %q is none of %v and none", s.Health, order)
	}
	var err error
	o.message, err = parseTemplate(s.Message)
	return o, err
}

func codeOf(s string) v1alpha1.HealthCode { return v1alpha1.HealthCode(s) }

// checks of a condition that is True when all is well.
func (r *readySpec) checks() []checkSpec {
	message := r.Message
	if message == "" {
		message = "{message}"
	}
	bad := r.False
	if bad == "" {
		bad = "Degraded"
	}
	var out []checkSpec
	if len(r.Waiting) > 0 {
		out = append(out, checkSpec{When: whens{{Condition: r.Condition, Status: "False", Reason: r.Waiting}}, Health: "Progressing", Message: "{why}"})
	}
	for _, c := range r.Condition {
		one := texts{c}
		out = append(out,
			checkSpec{When: whens{{Condition: one, Status: "False"}}, Health: bad, Message: "{why}"},
			checkSpec{When: whens{{Condition: one, Status: "Unknown"}}, Health: "Progressing", Message: "{why}"})
	}
	var all whens
	for _, c := range r.Condition {
		all = append(all, whenSpec{Condition: texts{c}})
	}
	return append(out, checkSpec{When: all, Health: "Healthy", Message: message})
}

func (p *phaseSpec) checks() []checkSpec {
	var out []checkSpec
	for _, c := range []struct {
		health string
		values texts
	}{{"Degraded", p.Degraded}, {"Suspended", p.Suspended}, {"Progressing", p.Progressing}, {"Healthy", p.Healthy}, {"Unknown", p.Unknown}} {
		if len(c.values) == 0 {
			continue
		}
		message := p.Message
		if message == "" && c.health != "Healthy" {
			message = "{" + p.Path + "}"
		}
		var values []any
		for _, v := range c.values {
			values = append(values, v)
		}
		out = append(out, checkSpec{When: whens{{Path: p.Path, Is: values}}, Health: c.health, Message: message})
	}
	return out
}

// of judges one object.
func (r *rule) of(u *unstructured.Unstructured) (Status, bool) {
	if r.function != nil {
		return r.function(u.Object), true
	}
	s := scope{root: u.Object, item: u.Object, fresh: r.observed == "conditions"}
	if r.observed != "ignore" {
		seen, ok := integer(s.root.at("status", "observedGeneration"))
		if !ok && r.observed == "required" {
			seen, ok = 0, true
		}
		if ok && seen < s.root.generation() {
			return progressing("waiting for generation %d to be observed", s.root.generation()), true
		}
	}
	for i := range r.checks {
		c := &r.checks[i]
		s.found, s.item = condition{}, s.root
		if s.all(c.when) {
			return c.outcome.status(&s)
		}
	}
	s.found, s.item = condition{}, s.root
	return r.otherwise.status(&s)
}

func (o *outcome) status(s *scope) (Status, bool) {
	if o.code == "none" {
		return Status{}, false
	}
	return Status{Code: o.code, AggregateAs: o.as, Message: o.message.fill(s)}, true
}
