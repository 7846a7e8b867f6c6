// Package manifest parses YAML and JSON files into Kubernetes objects that
// know where they were written.
//
// Input: the bytes of one file. Output: [Object] values with file and line,
// warnings about what looks wrong, or an [Error] that points at the line.
//
// Start reading at [Parse].
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sjson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// Object is one rendered object and the place it was written at. File is
// empty where a tool made the object and its place is not known.
type Object struct {
	*unstructured.Unstructured
	File string
	Line int // from 1; 0 when unknown
}

// Place is "file:line", or "" when the file is not known.
func (o Object) Place() string {
	if o.File == "" || o.Line == 0 {
		return o.File
	}
	return o.File + ":" + strconv.Itoa(o.Line)
}

// Warning is about a manifest that is read, but looks wrong.
type Warning struct {
	File    string
	Line    int
	Message string
	LeftOut bool // the document is no Kubernetes object and gives none
}

func (w Warning) String() string {
	if w.Line == 0 {
		return w.File + ": " + w.Message
	}
	return fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Message)
}

// Error is bad input: what, where, and what to try.
type Error struct {
	File    string
	Line    int // from 1; 0 when unknown
	Message string
	Hint    string
	Err     error // the cause, when a tool reported one
}

func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Message
	case e.Line == 0:
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }

const (
	maxDocuments = 10000 // in one file
	maxNesting   = 4     // of List in List
)

// Parse reads every object of a file. JSON is read as the YAML it is, except
// for files named *.json, which hold one value. A document with neither
// apiVersion nor kind gives a warning that says LeftOut.
func Parse(file string, data []byte) ([]Object, []Warning, error) {
	if strings.HasSuffix(file, ".json") {
		return parseJSON(file, data)
	}
	var objects []Object
	var warnings []Warning
	docs := split(data)
	if len(docs) > maxDocuments {
		return nil, nil, &Error{File: file, Message: fmt.Sprintf("has %d documents; at most %d are read", len(docs), maxDocuments)}
	}
	for _, d := range docs {
		raw, err := yaml.YAMLToJSONStrict(d.data)
		if err != nil {
			loose, looseErr := yaml.YAMLToJSON(d.data)
			line, msg := position(err, d.line)
			if looseErr != nil {
				line, msg = position(looseErr, d.line)
				return nil, nil, &Error{File: file, Line: line, Message: msg, Hint: yamlHint(msg), Err: looseErr}
			}
			warnings = append(warnings, Warning{File: file, Line: line, Message: msg + "; the last one counts"})
			raw = loose
		}
		objs, warns, err := decode(file, d.line, raw, 0)
		if err != nil {
			return nil, nil, err
		}
		objects = append(objects, objs...)
		warnings = append(warnings, warns...)
	}
	return objects, warnings, nil
}

func parseJSON(file string, data []byte) ([]Object, []Warning, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	var raw json.RawMessage
	err := dec.Decode(&raw)
	if errors.Is(err, io.EOF) {
		return nil, nil, nil
	}
	if err != nil {
		offset := dec.InputOffset()
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			offset = syntax.Offset
		}
		return nil, nil, &Error{File: file, Line: lineAt(data, offset), Message: "not JSON: " + err.Error(), Err: err}
	}
	if rest := bytes.TrimSpace(data[dec.InputOffset():]); len(rest) > 0 {
		return nil, nil, &Error{File: file, Line: lineAt(data, int64(len(data)-len(rest))), Message: "a JSON file holds one object, and there is more after it", Hint: "Put the objects into the items of a List, or into files of their own."}
	}
	start := len(data) - len(bytes.TrimLeft(data, " \t\r\n"))
	return decode(file, lineAt(data, int64(start)), raw, 0)
}

func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(int(offset), len(data))], []byte("\n"))
}

// Decode turns one JSON document into objects; a list gives its items. line is
// where the document starts, from 1, or 0 when that is not known.
func Decode(file string, line int, raw []byte) ([]Object, []Warning, error) {
	return decode(file, line, raw, 0)
}

func decode(file string, line int, raw []byte, depth int) ([]Object, []Warning, error) {
	fail := func(msg, hint string) ([]Object, []Warning, error) {
		return nil, nil, &Error{File: file, Line: line, Message: msg, Hint: hint}
	}
	var v any
	if err := k8sjson.Unmarshal(raw, &v); err != nil {
		return fail(err.Error(), "")
	}
	m, ok := v.(map[string]any)
	if v == nil || ok && len(m) == 0 {
		return nil, nil, nil
	}
	if !ok {
		return fail("is not a Kubernetes object", "A manifest is a mapping with apiVersion, kind and metadata.")
	}
	apiVersion, _ := m["apiVersion"].(string)
	kind, _ := m["kind"].(string)
	if apiVersion == "" && kind == "" {
		return nil, []Warning{{File: file, Line: line, Message: "has neither apiVersion nor kind and is left out", LeftOut: true}}, nil
	}
	if apiVersion == "" || kind == "" {
		return fail("is not a Kubernetes object: apiVersion or kind is missing", "Both are required.")
	}
	o := &unstructured.Unstructured{Object: m}
	if items, has := m["items"]; has {
		if list, isList := items.([]any); isList {
			return decodeItems(file, line, list, depth)
		}
		if items == nil && m["spec"] == nil && m["status"] == nil {
			return nil, nil, nil // a list of nothing
		}
	}
	if md, has := m["metadata"]; has {
		if _, ok := md.(map[string]any); !ok {
			return fail(kind+": metadata is not a mapping", "")
		}
	}
	if name, has := metadataValue(m, "name"); has {
		if _, ok := name.(string); !ok {
			return fail(fmt.Sprintf("%s: metadata.name is %v, which YAML does not read as a string", kind, name), "Put the name in quotes.")
		}
	}
	if o.GetName() == "" && o.GetGenerateName() == "" {
		return fail(kind+" has no metadata.name", "Give the object a name.")
	}
	for _, field := range []string{"labels", "annotations"} {
		if bad := notStrings(m, field); bad != "" {
			return fail(fmt.Sprintf("%s %s: metadata.%s.%s is not a string", kind, o.GetName(), field, bad), "Put the value in quotes.")
		}
	}
	return []Object{{o, file, line}}, nil, nil
}

func decodeItems(file string, line int, items []any, depth int) ([]Object, []Warning, error) {
	if depth >= maxNesting {
		return nil, nil, &Error{File: file, Line: line, Message: "lists are nested too deep"}
	}
	var objects []Object
	var warnings []Warning
	for _, item := range items {
		raw, err := json.Marshal(item)
		if err != nil {
			return nil, nil, &Error{File: file, Line: line, Message: err.Error(), Err: err}
		}
		objs, warns, err := decode(file, line, raw, depth+1)
		if err != nil {
			return nil, nil, err
		}
		objects, warnings = append(objects, objs...), append(warnings, warns...)
	}
	return objects, warnings, nil
}

func metadataValue(m map[string]any, field string) (any, bool) {
	md, _ := m["metadata"].(map[string]any)
	v, ok := md[field]
	return v, ok
}

func notStrings(m map[string]any, field string) string {
	md, _ := m["metadata"].(map[string]any)
	values, _ := md[field].(map[string]any)
	for k, v := range values {
		if _, ok := v.(string); !ok && v != nil {
			return k
		}
	}
	return ""
}

type document struct {
	data []byte
	line int // line of the first content, from 1
	base int // lines before data
}

// split cuts a stream at its document markers. A marker inside a block scalar
// cannot stand at the first column, so lines are enough.
func split(data []byte) []document {
	var docs []document
	var cur document
	flush := func() {
		if cur.line > 0 {
			docs = append(docs, cur)
		}
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || strings.ContainsRune(" \t\r\n", rune(line[3]))) {
			flush()
			rest := bytes.TrimSpace(line[3:])
			cur = document{base: n}
			if len(rest) > 0 && rest[0] != '#' && rest[0] != '%' {
				cur = document{base: n - 1, line: n, data: bytes.Clone(line[3:])}
			}
			continue
		}
		if cur.line == 0 {
			text := bytes.TrimSpace(line)
			if len(text) == 0 || text[0] == '#' || text[0] == '%' || string(text) == "..." {
				cur.base = n
				continue
			}
			cur.line, cur.base = n, n-1
		}
		cur.data = append(cur.data, line...)
	}
	flush()
	return docs
}

var lineInError = regexp.MustCompile(`line (\d+): ?`)

// position takes the line out of a YAML error and makes it one of the file.
func position(err error, first int) (line int, msg string) {
	msg = strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	m := lineInError.FindStringSubmatchIndex(msg)
	if m == nil {
		return first, msg
	}
	n, convErr := strconv.Atoi(msg[m[2]:m[3]])
	if convErr != nil {
		return first, msg
	}
	msg = strings.TrimSpace(msg[:m[0]] + msg[m[1]:])
	return first + n - 1, strings.ReplaceAll(strings.ReplaceAll(msg, "\n ", ""), "yaml: unmarshal errors: ", "yaml: ")
}

func yamlHint(msg string) string {
	switch {
	case strings.Contains(msg, "found character that cannot start any token"), strings.Contains(msg, "tab character"):
		return "YAML is indented with spaces: look for a tab."
	case strings.Contains(msg, "mapping values are not allowed"):
		return "Look for wrong indentation or a value with \": \" that needs quotes."
	case strings.Contains(msg, "could not find expected ':'"):
		return "Look for a missing colon or an unclosed quote on the line or above it."
	case strings.Contains(msg, "did not find expected"):
		return "Look for wrong indentation on the line or above it."
	}
	return ""
}
