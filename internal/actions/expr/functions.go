package expr

import (
	"fmt"
	"strconv"
	"strings"
)

func (e Env) call(n *node) (any, error) {
	switch n.name {
	case "success", "failure", "always", "cancelled":
		if e.Status == nil {
			return nil, errorAt(n.offset, "%s() can be called only in an if", n.name)
		}
		if len(n.args) > 0 {
			return e.statusOf(n)
		}
		return e.Status(n.name), nil
	case "case":
		return e.chooseCase(n)
	}
	args, err := e.evalAll(n.args)
	if err != nil {
		return nil, err
	}
	for i := range args {
		args[i] = plain(args[i])
	}
	switch n.name {
	case "contains":
		return contains(args[0], args[1]), nil
	case "startswith":
		return primitive(args[0]) && primitive(args[1]) && strings.HasPrefix(fold(Text(args[0])), fold(Text(args[1]))), nil
	case "endswith":
		return primitive(args[0]) && primitive(args[1]) && strings.HasSuffix(fold(Text(args[0])), fold(Text(args[1]))), nil
	case "format":
		return format(n, Text(args[0]), args[1:])
	case "join":
		return join(args), nil
	case "tojson":
		return ToJSON(args[0]), nil
	case "fromjson":
		text := Text(args[0])
		if strings.TrimSpace(text) == "" {
			return nil, &Error{Offset: n.offset, Msg: "Error parsing fromJson: Error reading JToken from JsonReader. Path '', line 0, position 0.", Hint: "the text is empty"}
		}
		v, err := FromJSON(text)
		if err != nil {
			return nil, errorAt(n.offset, "Error parsing fromJson: %v", err)
		}
		return v, nil
	case "hashfiles":
		return e.hashFiles(n, args)
	}
	return nil, errorAt(n.offset, "unknown function %q", n.name)
}

// statusOf is success('a', 'b'), which looks at these needed jobs alone: whether
// all of them succeeded, or for failure one of them failed.
func (e Env) statusOf(n *node) (any, error) {
	args, err := e.evalAll(n.args)
	if err != nil || e.Status("cancelled") {
		return false, err
	}
	wanted := n.name == "failure"
	for _, a := range args {
		result := Text(Index(Index(e.Contexts["needs"], Text(plain(a))), "result"))
		if n.name == "failure" && result == "failure" || n.name == "success" && result != "success" {
			return wanted, nil
		}
	}
	return !wanted, nil
}

// chooseCase evaluates conditions in order and only the value it returns.
func (e Env) chooseCase(n *node) (any, error) {
	for i := 0; i+1 < len(n.args); i += 2 {
		v, err := e.eval(n.args[i])
		if err != nil {
			return nil, err
		}
		cond, ok := plain(v).(bool)
		if !ok {
			return nil, &Error{Offset: n.args[i].offset, Msg: "case predicate must evaluate to a boolean value", Hint: fmt.Sprintf("condition %d does not", i/2+1)}
		}
		if cond {
			return e.eval(n.args[i+1])
		}
	}
	return e.eval(n.args[len(n.args)-1])
}

func contains(where, what any) bool {
	if list, ok := where.(Array); ok {
		for _, v := range list {
			if equal(v, what) {
				return true
			}
		}
		return false
	}
	return primitive(where) && primitive(what) && strings.Contains(fold(Text(where)), fold(Text(what)))
}

func join(args []any) string {
	separator := ","
	if len(args) == 2 && primitive(args[1]) {
		separator = Text(args[1])
	}
	list, ok := args[0].(Array)
	if !ok {
		if primitive(args[0]) {
			return Text(args[0])
		}
		return ""
	}
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = Text(v)
	}
	return strings.Join(texts, separator)
}

// format replaces {0}, {1}, …; {{ and }} stand for single braces.
func format(n *node, pattern string, args []any) (string, error) {
	invalid := func() (string, error) {
		return "", errorAt(n.offset, "The following format string is invalid: %s", shorten(pattern))
	}
	var b strings.Builder
	for i := 0; i < len(pattern); {
		c := pattern[i]
		switch {
		case strings.HasPrefix(pattern[i:], "{{"), strings.HasPrefix(pattern[i:], "}}"):
			b.WriteByte(c)
			i += 2
		case c == '{':
			digits, _, ok := strings.Cut(pattern[i+1:], "}")
			arg, err := strconv.ParseUint(digits, 10, 8)
			if !ok || err != nil {
				return invalid()
			}
			if int(arg) >= len(args) {
				return "", errorAt(n.offset, "The following format string references more arguments than were supplied: %s", shorten(pattern))
			}
			b.WriteString(Text(args[arg]))
			i += len(digits) + 2
		case c == '}':
			return invalid()
		default:
			b.WriteByte(c)
			i++
		}
		if b.Len() > maxResult {
			return "", errorAt(n.offset, "format: the result is longer than %d bytes", maxResult)
		}
	}
	return b.String(), nil
}

func (e Env) hashFiles(n *node, args []any) (any, error) {
	if e.HashFiles == nil {
		return nil, errorAt(n.offset, "hashFiles() can be called only in the steps of a job")
	}
	patterns := make([]string, len(args))
	for i, a := range args {
		patterns[i] = Text(a)
	}
	sum, err := e.HashFiles(patterns)
	if err != nil {
		return nil, errorAt(n.offset, "hashFiles: %v", err)
	}
	return sum, nil
}
