package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

// whenSpec is a condition of a rule, as it is written. All that is given must
// hold.
type whenSpec struct {
	In    string `json:"in,omitempty"`    // a list: the rest is about its items
	Every bool   `json:"every,omitempty"` // every item, and there is one; else some item

	Condition texts  `json:"condition,omitempty"`
	Status    string `json:"status,omitempty"` // of the condition; True
	Reason    texts  `json:"reason,omitempty"` // globs
	NotReason texts  `json:"notReason,omitempty"`

	Path    string `json:"path,omitempty"`
	Is      values `json:"is,omitempty"`    // one of these; "" also stands for a missing field
	IsNot   values `json:"isNot,omitempty"` // none of these
	Like    texts  `json:"like,omitempty"`  // globs
	Exists  *bool  `json:"exists,omitempty"`
	Below   any    `json:"below,omitempty"` // a number, or the path of one
	Above   any    `json:"above,omitempty"`
	Same    string `json:"same,omitempty"` // as the value of another path
	Differs string `json:"differs,omitempty"`

	Missing int64 `json:"missing,omitempty"` // what a missing number counts as, on both sides

	Not *whenSpec `json:"not,omitempty"`
	Any whens     `json:"any,omitempty"`
}

// whens may be written as its only item.
type whens []whenSpec

func (w *whens) UnmarshalJSON(data []byte) error {
	if strings.HasPrefix(string(data), "[") {
		var all []whenSpec
		err := yaml.UnmarshalStrict(data, &all)
		*w = all
		return err
	}
	var one whenSpec
	err := yaml.UnmarshalStrict(data, &one)
	*w = whens{one}
	return err
}

type values []any

func (v *values) UnmarshalJSON(data []byte) error {
	if strings.HasPrefix(string(data), "[") {
		return json.Unmarshal(data, (*[]any)(v))
	}
	var one any
	err := json.Unmarshal(data, &one)
	*v = values{one}
	return err
}

// when is a compiled condition.
type when struct {
	whenSpec
	in, path, same, differs fieldPath
	below, above            *operand
	not                     *when
	any                     []when
}

type operand struct {
	path   fieldPath
	number int64
}

func (w whenSpec) compile() (when, error) {
	out := when{whenSpec: w}
	var errs []error
	paths := map[*fieldPath]string{&out.in: w.In, &out.path: w.Path, &out.same: w.Same, &out.differs: w.Differs}
	for into, text := range paths {
		p, err := parsePath(text)
		errs = append(errs, err)
		*into = p
	}
	for into, v := range map[**operand]any{&out.below: w.Below, &out.above: w.Above} {
		switch x := v.(type) {
		case nil:
		case string:
			p, err := parsePath(x)
			errs = append(errs, err)
			*into = &operand{path: p}
		case float64:
			*into = &operand{number: int64(x)}
		default:
			errs = append(errs, fmt.Errorf("%v is neither a number nor a path", v))
		}
	}
	if w.Not != nil {
		n, err := w.Not.compile()
		errs = append(errs, err)
		out.not = &n
	}
	for _, a := range w.Any {
		c, err := a.compile()
		errs = append(errs, err)
		out.any = append(out.any, c)
	}
	value := w.Is != nil || w.IsNot != nil || w.Like != nil || w.Exists != nil || w.Below != nil || w.Above != nil || w.Same != "" || w.Differs != ""
	if value != (w.Path != "") {
		errs = append(errs, errors.New("path goes together with is, isNot, like, exists, below, above, same or differs"))
	}
	if w.Condition == nil && (w.Reason != nil || w.NotReason != nil || w.Status != "") {
		errs = append(errs, errors.New("status, reason and notReason need a condition"))
	}
	if w.Condition == nil && w.Path == "" && w.Not == nil && w.Any == nil && w.In == "" {
		errs = append(errs, errors.New("a condition that says nothing"))
	}
	return out, errors.Join(errs...)
}

// scope is what conditions and messages are about.
type scope struct {
	root, item object
	found      condition // the condition that matched last
	fresh      bool      // conditions of an older generation do not count
}

func (s *scope) all(ws []when) bool {
	for i := range ws {
		if !s.holds(&ws[i]) {
			return false
		}
	}
	return true
}

func (s *scope) holds(w *when) bool {
	if len(w.in) > 0 {
		return s.items(w)
	}
	return s.holdsHere(w)
}

// items looks at the items of a list. The item that decides stays the subject,
// so that the message can name it.
func (s *scope) items(w *when) bool {
	outer := s.item
	list, _ := w.in.in(s.item).([]any)
	for _, v := range list {
		s.item, _ = v.(map[string]any)
		holds := s.item != nil && s.holdsHere(w)
		if holds && !w.Every {
			return true
		}
		if !holds && w.Every {
			s.item = outer
			return false
		}
	}
	s.item = outer
	return w.Every && len(list) > 0
}

func (s *scope) holdsHere(w *when) bool {
	if len(w.Condition) > 0 && !s.hasCondition(w) {
		return false
	}
	if len(w.path) > 0 && !s.hasValue(w) {
		return false
	}
	if w.not != nil && s.holds(w.not) {
		return false
	}
	if len(w.any) == 0 {
		return true
	}
	for i := range w.any {
		if s.holds(&w.any[i]) {
			return true
		}
	}
	return false
}

func (s *scope) hasCondition(w *when) bool {
	list := s.item.list("conditions")
	if !s.nested() {
		list = s.root.list("status", "conditions")
	}
	want := w.Status
	if want == "" {
		want = "True"
	}
	for _, item := range list {
		m, _ := item.(map[string]any)
		c := conditionOf(m)
		if s.fresh && c.observed != 0 && c.observed < s.root.generation() {
			continue
		}
		if oneOf(w.Condition, c.kind) && (want == c.status || want == "*") &&
			(len(w.Reason) == 0 || oneOf(w.Reason, c.reason)) && !oneOf(w.NotReason, c.reason) {
			s.found = c
			return true
		}
	}
	return false
}

// nested reports whether the subject is an item of a list.
func (s *scope) nested() bool {
	_, kind := s.item["kind"]
	_, version := s.item["apiVersion"]
	return !(kind && version)
}

func oneOf(globs []string, text string) bool {
	for _, g := range globs {
		if settings.Glob(g, text) {
			return true
		}
	}
	return false
}

func (s *scope) hasValue(w *when) bool {
	v := w.path.in(s.item)
	switch {
	case w.Exists != nil && *w.Exists != (v != nil):
		return false
	case w.Is != nil && !among(w.Is, v):
		return false
	case w.IsNot != nil && among(w.IsNot, v):
		return false
	case w.Like != nil && !oneOf(w.Like, textOf(v)):
		return false
	case w.below != nil && numberOf(v, w.Missing) >= s.value(w.below, w.Missing):
		return false
	case w.above != nil && numberOf(v, w.Missing) <= s.value(w.above, w.Missing):
		return false
	case w.Same != "" && textOf(v) != textOf(w.same.in(s.item)):
		return false
	case w.Differs != "" && textOf(v) == textOf(w.differs.in(s.item)):
		return false
	}
	return true
}

func (s *scope) value(o *operand, missing int64) int64 {
	if len(o.path) == 0 {
		return o.number
	}
	return numberOf(o.path.in(s.item), missing)
}

func numberOf(v any, missing int64) int64 {
	if n, ok := integer(v); ok {
		return n
	}
	return missing
}

func among(list values, v any) bool {
	for _, want := range list {
		switch x := want.(type) {
		case string:
			if text, ok := v.(string); (ok && text == x) || (v == nil && x == "") {
				return true
			}
		case bool:
			if b, ok := v.(bool); ok && b == x {
				return true
			}
		case float64:
			if n, ok := integer(v); ok && n == int64(x) {
				return true
			}
		}
	}
	return false
}
