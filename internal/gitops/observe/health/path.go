package health

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// fieldPath leads to a value: fields, ["fields with.dots"], [0] of a list, or
// [key=value] for the first item of a list whose field has that text.
type fieldPath []step

type step struct {
	field      string
	index      int    // when field is "" and key is ""
	key, value string // of an item
}

func parsePath(text string) (fieldPath, error) {
	var out fieldPath
	rest := text
	for rest != "" {
		rest = strings.TrimPrefix(rest, ".")
		if !strings.HasPrefix(rest, "[") {
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, fmt.Errorf("the path %q has an empty part", text)
			}
			out, rest = append(out, step{field: rest[:end]}), rest[end:]
			continue
		}
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			return nil, fmt.Errorf("the path %q has a bracket that is not closed", text)
		}
		inner := rest[1:end]
		rest = rest[end+1:]
		key, value, item := strings.Cut(inner, "=")
		switch {
		case len(inner) > 2 && inner[0] == '"' && inner[len(inner)-1] == '"':
			out = append(out, step{field: inner[1 : len(inner)-1]})
		case item && key != "":
			out = append(out, step{key: key, value: value})
		default:
			n, err := strconv.Atoi(inner)
			if err != nil || n < 0 {
				return nil, fmt.Errorf("the path %q: [%s] is no number, no [key=value] and no [\"field\"]", text, inner)
			}
			out = append(out, step{index: n})
		}
	}
	return out, nil
}

func (p fieldPath) in(o object) any {
	var v any = map[string]any(o)
	for i := range p {
		s := &p[i]
		switch {
		case s.field != "":
			m, ok := v.(map[string]any)
			if !ok {
				return nil
			}
			v = m[s.field]
		case s.key != "":
			v = itemWith(v, s.key, s.value)
		default:
			list, _ := v.([]any)
			if s.index >= len(list) {
				return nil
			}
			v = list[s.index]
		}
	}
	return v
}

func itemWith(v any, key, value string) any {
	list, _ := v.([]any)
	for _, item := range list {
		if m, ok := item.(map[string]any); ok && textOf(m[key]) == value {
			return m
		}
	}
	return nil
}

func textOf(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case bool:
		return strconv.FormatBool(x)
	case int64:
		return strconv.FormatInt(x, 10)
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(data)
}

// template is text with {paths}. {reason}, {message}, {type} and {why} are of
// the condition that matched, {item.path} of the item of a list.
type template []piece

type piece struct {
	text string
	name string // of the condition
	path fieldPath
	item bool
}

func parseTemplate(text string) (template, error) {
	var out template
	for text != "" {
		before, after, ok := strings.Cut(text, "{")
		if before != "" {
			out = append(out, piece{text: before})
		}
		if !ok {
			break
		}
		inner, rest, ok := strings.Cut(after, "}")
		if !ok {
			return nil, fmt.Errorf("the message has a { without }")
		}
		text = rest
		switch inner {
		case "reason", "message", "type", "why":
			out = append(out, piece{name: inner})
			continue
		}
		path, item := strings.CutPrefix(inner, "item.")
		p, err := parsePath(path)
		if err != nil {
			return nil, err
		}
		out = append(out, piece{path: p, item: item})
	}
	return out, nil
}

const maxMessage = 1024

func (t template) fill(s *scope) string {
	if len(t) == 0 {
		return ""
	}
	if len(t) == 1 && t[0].text != "" {
		return t[0].text
	}
	var b strings.Builder
	for i := range t {
		p := &t[i]
		switch {
		case p.text != "":
			b.WriteString(p.text)
		case p.name != "":
			b.WriteString(s.found.part(p.name))
		case p.item:
			b.WriteString(textOf(p.path.in(s.item)))
		default:
			b.WriteString(textOf(p.path.in(s.root)))
		}
	}
	text := strings.TrimSuffix(strings.TrimSpace(b.String()), ":")
	return strings.ToValidUTF8(text[:min(len(text), maxMessage)], "")
}

func (c condition) part(name string) string {
	switch name {
	case "reason":
		return c.reason
	case "message":
		return c.message
	case "type":
		return c.kind
	}
	return c.why()
}
