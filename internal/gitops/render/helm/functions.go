package helm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/template"

	"github.com/BurntSushi/toml"
	"github.com/Masterminds/sprig/v3"
	"sigs.k8s.io/yaml"
	goyaml "sigs.k8s.io/yaml/goyaml.v3"
)

// unstableFunctions give another result each time they are called.
var unstableFunctions = map[string]bool{
	"now": true, "ago": true, "randAlphaNum": true, "randAlpha": true, "randAscii": true, "randNumeric": true, "randBytes": true,
	"randInt": true, "shuffle": true, "uuidv4": true, "bcrypt": true, "htpasswd": true, "encryptAES": true,
	"genPrivateKey": true, "genCA": true, "genCAWithKey": true, "genSelfSignedCert": true, "genSelfSignedCertWithKey": true,
	"genSignedCert": true, "genSignedCertWithKey": true,
}

const (
	maxString = 32 << 20 // bytes of one string that a function makes
	maxList   = 1 << 20  // entries of one list that a function makes
)

// placeholders stand for the functions that a run brings, so that templates
// can be parsed without one.
var placeholders = template.FuncMap{
	"include": func(string, any) (string, error) { return "", errors.ErrUnsupported },
	"tpl":     func(string, any) (string, error) { return "", errors.ErrUnsupported },
}

// functions is what charts may call: the sprig library without the environment,
// and what Helm adds. Functions that could fill the memory are bounded, and
// those that walk a map do it sorted.
func functions() template.FuncMap {
	f := sprig.TxtFuncMap()
	delete(f, "env")
	delete(f, "expandenv")
	for name, own := range helmFunctions {
		f[name] = own
	}
	for name, own := range durationFunctions {
		f[name] = own
	}
	for name, own := range boundedFunctions(f) {
		f[name] = own
	}
	return f
}

// stop is the error of a chart's author, shown as it is.
type stop struct{ message string }

func (s *stop) Error() string { return s.message }

var helmFunctions = template.FuncMap{
	"toYaml":        quietly(yamlText),
	"mustToYaml":    yamlText,
	"toYamlPretty":  quietly(prettyYAML),
	"fromYaml":      fromText(func(s string, v any) error { return yaml.Unmarshal([]byte(s), v) }),
	"fromYamlArray": fromListText(func(s string, v any) error { return yaml.Unmarshal([]byte(s), v) }),
	"toJson":        quietly(jsonText),
	"mustToJson":    jsonText,
	"fromJson":      fromText(func(s string, v any) error { return json.Unmarshal([]byte(s), v) }),
	"fromJsonArray": fromListText(func(s string, v any) error { return json.Unmarshal([]byte(s), v) }),
	"toToml": func(v any) (string, error) {
		text, err := tomlText(v)
		if _, limit := err.(*limitError); err == nil || limit {
			return text, err
		}
		return err.Error(), nil
	},
	"mustToToml": tomlText,
	"fromToml":   fromText(func(s string, v any) error { return toml.Unmarshal([]byte(s), v) }),
	"required": func(message string, v any) (any, error) {
		if v == nil || v == "" {
			return v, &stop{message}
		}
		return v, nil
	},
	"fail":          func(message string) (string, error) { return "", &stop{message} },
	"lookup":        func(string, string, string, string) (map[string]any, error) { return map[string]any{}, nil },
	"getHostByName": func(string) string { return "" },
	"keys": func(dicts ...map[string]any) []string {
		keys := []string{}
		for _, d := range dicts {
			keys = append(keys, sortedKeys(d)...)
		}
		return keys
	},
	"values": func(d map[string]any) []any {
		values := []any{}
		for _, k := range sortedKeys(d) {
			values = append(values, d[k])
		}
		return values
	},
}

func sortedKeys(d map[string]any) []string {
	keys := make([]string, 0, len(d))
	for k := range d {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// quietly makes "" of an error, as Helm does, except of a limit.
func quietly(f func(any) (string, error)) func(any) (string, error) {
	return func(v any) (string, error) {
		text, err := f(v)
		if _, limit := err.(*limitError); err == nil || limit {
			return text, err
		}
		return "", nil
	}
}

func yamlText(v any) (string, error) {
	if err := weigh(v); err != nil {
		return "", err
	}
	data, err := yaml.Marshal(v)
	return strings.TrimSuffix(string(data), "\n"), err
}

func prettyYAML(v any) (string, error) {
	if err := weigh(v); err != nil {
		return "", err
	}
	var b bytes.Buffer
	e := goyaml.NewEncoder(&b)
	e.SetIndent(2)
	err := e.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func jsonText(v any) (string, error) {
	if err := weigh(v); err != nil {
		return "", err
	}
	data, err := json.Marshal(v)
	return string(data), err
}

func tomlText(v any) (string, error) {
	if err := weigh(v); err != nil {
		return "", err
	}
	var b bytes.Buffer
	err := toml.NewEncoder(&b).Encode(v)
	return b.String(), err
}

// fromText makes a function that reads a mapping; an error is its "Error".
func fromText(read func(string, any) error) func(string) map[string]any {
	return func(s string) map[string]any {
		m := map[string]any{}
		if err := read(s, &m); err != nil {
			m["Error"] = err.Error()
		}
		return m
	}
}

// fromListText makes a function that reads a list; an error is its only entry.
func fromListText(read func(string, any) error) func(string) []any {
	return func(s string) []any {
		l := []any{}
		if err := read(s, &l); err != nil {
			l = []any{err.Error()}
		}
		return l
	}
}

// weigh refuses a value that unfolds to very much: lists that hold the same
// list again and again are small in memory only.
func weigh(v any) error {
	left := maxList
	var walk func(any) bool
	walk = func(v any) bool {
		if left--; left < 0 {
			return false
		}
		switch v := v.(type) {
		case map[string]any:
			for _, e := range v {
				if !walk(e) {
					return false
				}
			}
		case []any:
			for _, e := range v {
				if !walk(e) {
					return false
				}
			}
		}
		return true
	}
	if !walk(v) {
		return &limitError{fmt.Sprintf("a value has more than %d entries", maxList)}
	}
	return nil
}

// boundedFunctions wraps those functions of f whose result can be much larger
// than what they are given.
func boundedFunctions(f template.FuncMap) template.FuncMap {
	repeat := f["repeat"].(func(int, string) string)
	out := template.FuncMap{
		"repeat": func(n int, s string) (string, error) {
			if n < 0 {
				return "", errors.New("repeat: the count is negative")
			}
			if len(s) > 0 && n > maxString/len(s) {
				return "", tooLong("repeat")
			}
			return repeat(n, s), nil
		},
		"indent":  indented("indent", f["indent"].(func(int, string) string)),
		"nindent": indented("nindent", f["nindent"].(func(int, string) string)),
		"print":   func(args ...any) (string, error) { return short("print", args, fmt.Sprint) },
		"println": func(args ...any) (string, error) { return short("println", args, fmt.Sprintln) },
		"printf": func(format string, args ...any) (string, error) {
			return short("printf", args, func(a ...any) string { return fmt.Sprintf(format, a...) })
		},
	}
	for _, name := range []string{"until", "untilStep", "seq"} {
		out[name] = boundedCount(name, f[name])
	}
	for _, name := range []string{"randAlphaNum", "randAlpha", "randAscii", "randNumeric", "randBytes"} {
		out[name] = boundedCount(name, f[name])
	}
	for _, name := range []string{"cat", "join", "replace", "concat"} {
		out[name] = boundedResult(name, f[name])
	}
	return out
}

func indented(name string, f func(int, string) string) any {
	return func(n int, s string) (string, error) {
		if n < 0 {
			return "", fmt.Errorf("%s: the count is negative", name)
		}
		if n > maxString/(1+strings.Count(s, "\n")) {
			return "", tooLong(name)
		}
		return f(n, s), nil
	}
}

func tooLong(name string) error {
	return &limitError{fmt.Sprintf("%s: the result is too large", name)}
}

func short(name string, args []any, format func(...any) string) (string, error) {
	for _, a := range args {
		if err := weigh(a); err != nil {
			return "", err
		}
	}
	s := format(args...)
	if len(s) > maxString {
		return "", tooLong(name)
	}
	return s, nil
}

// boundedCount refuses calls whose numbers are very large.
func boundedCount(name string, f any) any {
	fn := reflect.ValueOf(f)
	return wrap(fn, func(args []reflect.Value) error {
		for _, a := range args {
			if a.Kind() == reflect.Slice && a.Type().Elem().Kind() == reflect.Int {
				for i := range a.Len() {
					if n := a.Index(i).Int(); n > maxList || n < -maxList {
						return tooLong(name)
					}
				}
			}
			if a.Kind() == reflect.Int && (a.Int() > maxList || a.Int() < -maxList) {
				return tooLong(name)
			}
		}
		return nil
	}, nil)
}

func boundedResult(name string, f any) any {
	return wrap(reflect.ValueOf(f), nil, func(v reflect.Value) error {
		if v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		if v.Kind() == reflect.String && v.Len() > maxString || v.Kind() == reflect.Slice && v.Len() > maxList {
			return tooLong(name)
		}
		return nil
	})
}

// watched returns f, calling seen before each call.
func watched(f any, seen func()) any {
	fn := reflect.ValueOf(f)
	return reflect.MakeFunc(fn.Type(), func(args []reflect.Value) []reflect.Value {
		seen()
		if fn.Type().IsVariadic() {
			return fn.CallSlice(args)
		}
		return fn.Call(args)
	}).Interface()
}

// wrap returns a function of the same arguments that checks before and after.
func wrap(fn reflect.Value, before func([]reflect.Value) error, after func(reflect.Value) error) any {
	t := fn.Type()
	var in []reflect.Type
	for i := range t.NumIn() {
		in = append(in, t.In(i))
	}
	failure := reflect.TypeFor[error]()
	wrapped := reflect.FuncOf(in, []reflect.Type{t.Out(0), failure}, t.IsVariadic())
	return reflect.MakeFunc(wrapped, func(args []reflect.Value) []reflect.Value {
		fail := func(err error) []reflect.Value {
			return []reflect.Value{reflect.Zero(t.Out(0)), reflect.ValueOf(&err).Elem()}
		}
		if before != nil {
			if err := before(args); err != nil {
				return fail(err)
			}
		}
		call := fn.Call
		if t.IsVariadic() {
			call = fn.CallSlice
		}
		out := call(args)
		if len(out) == 2 && !out[1].IsNil() {
			return out
		}
		if after != nil {
			if err := after(out[0]); err != nil {
				return fail(err)
			}
		}
		return []reflect.Value{out[0], reflect.Zero(failure)}
	}).Interface()
}
