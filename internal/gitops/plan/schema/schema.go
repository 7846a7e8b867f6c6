// Package schema checks objects against the cluster's own schemas, without a
// request per object.
//
// Input: the OpenAPI v3 documents of an API server, fetched when a kind of
// their group and version is first asked for, and objects. Output: [Problem]
// values: unknown fields with what was probably meant, wrong types, missing
// required fields.
//
// The verdict is that of the API server's strict field validation, and a
// little more lenient where the two could differ: an object that the server
// takes has no problems here. Formats, bounds, enumerations, patterns and
// rules between fields are left to the server.
//
// Invariants: no message holds a value of the object; compiled schemas hold no
// descriptions and are shared between kinds, versions and documents wherever
// they are the same; a [Schema] does not change and is safe for concurrent use.
//
// Start reading at [Store.Validate] and [Schema.Validate].
package schema

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Problem is one thing that the server would not take.
type Problem struct {
	Path       string // "spec.template.spec.containers[0].image"
	Message    string
	Suggestion string // what was probably meant, "" when nothing is close
}

func (p Problem) String() string {
	s := p.Path + ": " + p.Message
	if p.Suggestion != "" {
		s += "; did you mean " + p.Suggestion + "?"
	}
	return s
}

// maxProblems of one object are told.
const maxProblems = 20

type kind uint8

const (
	anyKind kind = iota
	objectKind
	listKind
	stringKind
	integerKind
	numberKind
	booleanKind
	scalarKind // a string or a number
)

func (k kind) String() string {
	return [...]string{"anything", "object", "list", "string", "integer", "number", "boolean", "string or number"}[k]
}

// node is one compiled schema. It is not changed once it is shared.
type node struct {
	kind     kind
	open     bool // fields that are not named are kept
	embedded bool // a whole object: apiVersion, kind and metadata are its own
	fields   []field
	values   *node // of fields that are not named; nil: there are none
	items    *node // nil: anything
}

type field struct {
	name     string
	node     *node
	required bool
	implied  bool // an object that is there even if it is not written: its own required fields count
}

func (n *node) field(name string) (*node, bool) {
	i, ok := slices.BinarySearchFunc(n.fields, name, func(f field, name string) int { return cmp.Compare(f.name, name) })
	if !ok {
		return nil, false
	}
	return n.fields[i].node, true
}

// Schema is that of one kind.
type Schema struct{ root *node }

// Validate returns what is wrong with the object, sorted by path; nil when
// nothing is.
func (s *Schema) Validate(o *unstructured.Unstructured) []Problem {
	c := check{}
	c.object(s.root, o.Object, true)
	slices.SortStableFunc(c.problems, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return c.problems
}
