package plan

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// goneMark is in an item of an accepted list that the server did not take.
const goneMark = ""

// Settled reports whether there is nothing to remember of the API server's
// answer to an apply of desired: it has what desired sets.
func Settled(desired, answer *unstructured.Unstructured, manager string) bool {
	w := answerWalk(desired, answer, manager)
	return w.objects(desired.Object, answer.Object, nil, ownFields(answer.Object, manager, desired.GetAPIVersion()))
}

// AcceptedOf returns what [Input].Accepted needs of the API server's answer to
// an apply of desired: the values that are not as desired sets them. It is nil
// when there are none, which is when the two are [Settled].
func AcceptedOf(desired, answer *unstructured.Unstructured, manager string) *unstructured.Unstructured {
	w := answerWalk(desired, answer, manager)
	w.collect = true
	if w.objects(desired.Object, answer.Object, nil, ownFields(answer.Object, manager, desired.GetAPIVersion())) || len(w.out) == 0 {
		return nil
	}
	root := &part{}
	for _, d := range w.out {
		root.insert(d.fields, d.Live)
	}
	out, _ := root.value().(map[string]any)
	return &unstructured.Unstructured{Object: out}
}

func answerWalk(desired, answer *unstructured.Unstructured, manager string) *walk {
	w := &walk{}
	w.reset(desired, answer, manager, nil)
	w.answers = true
	return w
}

// part is a value under construction: whole, or with fields or items.
type part struct {
	whole  bool
	at     any
	fields map[string]*part
	items  []*part
	item   any // the item of the answer that this is part of
	gone   bool
	index  int
}

func (p *part) insert(path []segment, v any) {
	if p.whole {
		return
	}
	if len(path) == 0 {
		*p = part{whole: true, at: clone(v), item: p.item, index: p.index}
		return
	}
	s := path[0]
	if !s.list {
		if p.fields == nil {
			p.fields = map[string]*part{}
		}
		sub := p.fields[s.field]
		if sub == nil {
			sub = &part{}
			p.fields[s.field] = sub
		}
		sub.insert(path[1:], v)
		return
	}
	for _, sub := range p.items {
		if sub.index == s.want {
			sub.insert(path[1:], v)
			return
		}
	}
	sub := &part{item: s.item, index: s.want, gone: s.live < 0}
	p.items = append(p.items, sub)
	if !sub.gone {
		sub.insert(path[1:], v)
	}
}

func (p *part) value() any {
	if p.whole {
		return p.at
	}
	if p.items != nil {
		out := make([]any, 0, len(p.items))
		for _, sub := range p.items {
			out = append(out, sub.value())
		}
		return out
	}
	out := make(map[string]any, len(p.fields))
	if m, ok := p.item.(map[string]any); ok {
		for k, v := range m { // the keys of an item are scalars
			switch v.(type) {
			case string, int64, bool:
				if keyLike(k) {
					out[k] = v
				}
			}
		}
	}
	if p.gone {
		out[goneMark] = true
	}
	for k, sub := range p.fields {
		out[k] = sub.value()
	}
	return out
}

// keyLike fields may name an item of a keyed list.
func keyLike(field string) bool {
	switch field {
	case "name", "mountPath", "devicePath", "ip", "containerPort", "port", "protocol", "type", "uid", "topologyKey", "whenUnsatisfiable":
		return true
	}
	return false
}
