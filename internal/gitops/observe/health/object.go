package health

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// object is the content of an object, as it was read from JSON. Reading it
// copies nothing, and gives the zero value for what is missing or of another
// type.
type object map[string]any

func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, field := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[field]
	}
	return v
}

func (o object) text(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

func (o object) flag(path ...string) bool {
	b, _ := o.at(path...).(bool)
	return b
}

func (o object) list(path ...string) []any {
	l, _ := o.at(path...).([]any)
	return l
}

// number is missing when there is none.
func (o object) number(missing int64, path ...string) int64 {
	n, ok := integer(o.at(path...))
	if !ok {
		return missing
	}
	return n
}

func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), true
	case int:
		return int64(n), true
	}
	return 0, false
}

// seen reports whether the controller of o has seen its newest generation.
func (o object) seen() bool {
	return o.number(0, "status", "observedGeneration") >= o.generation()
}

func (o object) generation() int64 { return o.number(0, "metadata", "generation") }

type condition struct {
	kind, status, reason, message string
	observed                      int64 // the generation it is about; 0 when it does not say
}

// condition finds one by its type in status.conditions; its status is "" when
// there is none.
func (o object) condition(kind string) condition {
	c, _ := conditionIn(o.list("status", "conditions"), kind)
	return c
}

func conditionIn(list []any, kind string) (condition, bool) {
	for _, item := range list {
		if m, ok := item.(map[string]any); ok && m["type"] == kind {
			return conditionOf(m), true
		}
	}
	return condition{}, false
}

func conditionOf(m object) condition {
	return condition{m.text("type"), m.text("status"), m.text("reason"), m.text("message"), m.number(0, "observedGeneration")}
}

// generic reads the conditions that most controllers keep: Stalled and
// Reconciling, which are True when something is the matter, and Ready or
// Available, which are True when all is well. An object with none of them has
// no health.
func generic(u *unstructured.Unstructured) (Status, bool) {
	o := object(u.Object)
	list := o.list("status", "conditions")
	if list == nil && o.at("status", "observedGeneration") == nil {
		return Status{}, false
	}
	if g := o.number(0, "status", "observedGeneration"); g != 0 && g < o.generation() {
		return progressing("waiting for generation %d to be observed", o.generation()), true
	}
	if c, ok := conditionIn(list, "Stalled"); ok && c.status == "True" {
		return degraded("%s", c.why()), true
	}
	if c, ok := conditionIn(list, "Reconciling"); ok && c.status == "True" {
		return progressing("%s", c.why()), true
	}
	for _, kind := range []string{"Ready", "Available", "Succeeded"} {
		c, ok := conditionIn(list, kind)
		switch {
		case !ok:
			continue
		case c.observed != 0 && c.observed < o.generation():
			return progressing("waiting for generation %d to be observed", o.generation()), true
		case c.status == "True":
			return healthy(c.message), true
		case c.status == "False":
			return degraded("%s", c.why()), true
		}
		return progressing("%s", c.why()), true
	}
	return Status{}, false
}

func (c condition) why() string {
	switch {
	case c.message == "":
		return c.reason
	case c.reason == "":
		return c.message
	}
	return c.reason + ": " + c.message
}
