package schema

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
)

// raw is what is read of a schema in a document.
type raw struct {
	Ref        string          `json:"$ref"`
	Type       string          `json:"type"`
	Format     string          `json:"format"`
	Properties map[string]*raw `json:"properties"`
	Required   []string        `json:"required"`
	Items      *raw            `json:"items"`
	Additional *orBool         `json:"additionalProperties"`
	AllOf      []*raw          `json:"allOf"`
	OneOf      []*raw          `json:"oneOf"`
	Default    json.RawMessage `json:"default"`

	Open        bool `json:"x-kubernetes-preserve-unknown-fields"`
	IntOrString bool `json:"x-kubernetes-int-or-string"`
	Embedded    bool `json:"x-kubernetes-embedded-resource"`
	Kinds       []struct {
		Group, Version, Kind string
	} `json:"x-kubernetes-group-version-kind"`
}

// orBool is a schema, or true for anything, or false for nothing.
type orBool struct {
	*raw
	any bool
}

func (o *orBool) UnmarshalJSON(data []byte) error {
	switch string(data) {
	case "true":
		o.any = true
		return nil
	case "false", "null":
		return nil
	}
	o.raw = &raw{}
	return json.Unmarshal(data, o.raw)
}

const refPrefix = "#/components/schemas/"

// compiler turns documents into nodes. It keeps one node for each different
// schema, whatever document it is from.
type compiler struct {
	nodes map[[16]byte]*node
	ids   map[*node]uint32
	names map[string]string
}

func newCompiler() *compiler {
	return &compiler{nodes: map[[16]byte]*node{}, ids: map[*node]uint32{}, names: map[string]string{}}
}

// document compiles the kinds of one OpenAPI v3 document.
func (c *compiler) document(data []byte) (map[k8sschema.GroupVersionKind]*Schema, error) {
	var doc struct {
		Components struct {
			Schemas map[string]*raw `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	if doc.Components.Schemas == nil {
		return nil, errors.New("read the OpenAPI document: it has no components.schemas; is it version 3?")
	}
	d := &definitions{compiler: c, raw: doc.Components.Schemas, done: map[string]*node{}, cyclic: map[string]*node{}}
	out := map[k8sschema.GroupVersionKind]*Schema{}
	for name, r := range doc.Components.Schemas {
		if r == nil || len(r.Kinds) != 1 || strings.HasSuffix(r.Kinds[0].Kind, "List") && r.Properties["items"] != nil {
			continue // not an object, or one of all groups such as DeleteOptions
		}
		k := r.Kinds[0]
		out[k8sschema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}] = &Schema{d.named(name)}
	}
	return out, nil
}

// definitions are the schemas of one document under their names.
type definitions struct {
	*compiler
	raw    map[string]*raw
	done   map[string]*node
	cyclic map[string]*node // under construction
	depth  int
}

const maxDepth = 100

var anything = &node{}

func (d *definitions) named(name string) *node {
	if n, ok := d.done[name]; ok {
		return n
	}
	r, ok := d.raw[name]
	if !ok || d.depth > maxDepth {
		return anything
	}
	if n, open := d.cyclic[name]; open {
		if n == nil { // it names itself: it gets a node of its own, not shared
			n = &node{}
			d.cyclic[name] = n
		}
		return n
	}
	d.cyclic[name] = nil
	n := d.compile(r, ofKubernetes(name))
	if own := d.cyclic[name]; own != nil {
		*own = *n
		n = own
	}
	delete(d.cyclic, name)
	d.done[name] = n
	return n
}

// compile makes a node of a schema. builtin schemas require fields whose zero
// value is allowed.
func (d *definitions) compile(r *raw, builtin bool) *node {
	d.depth++
	defer func() { d.depth-- }()
	if r == nil || d.depth > maxDepth {
		return anything
	}
	if name, ok := strings.CutPrefix(r.Ref, refPrefix); ok {
		return d.named(name)
	}
	if len(r.AllOf) > 0 && r.Type == "" && r.Properties == nil {
		return d.compile(r.AllOf[0], builtin)
	}
	n := node{open: r.Open, embedded: r.Embedded}
	switch {
	case r.IntOrString, r.Format == "int-or-string", r.Type == "" && len(r.OneOf) > 0 && scalars(r.OneOf):
		n.kind = scalarKind
	case r.Type == "string":
		n.kind = stringKind
	case r.Type == "integer":
		n.kind = integerKind
	case r.Type == "number":
		n.kind = numberKind
	case r.Type == "boolean":
		n.kind = booleanKind
	case r.Type == "array":
		n.kind = listKind
		if r.Items != nil {
			n.items = d.compile(r.Items, builtin)
		}
	case r.Type == "object", r.Properties != nil:
		d.object(&n, r, builtin)
	}
	return d.share(n)
}

// ofKubernetes reports whether a definition is made from Go types of
// Kubernetes: their zero values are published as defaults.
func ofKubernetes(name string) bool {
	return strings.HasPrefix(name, "io.k8s.api.") || strings.HasPrefix(name, "io.k8s.") && strings.Contains(name, ".pkg.")
}

func scalars(of []*raw) bool {
	return !slices.ContainsFunc(of, func(r *raw) bool { return r == nil || r.Type != "string" && r.Type != "number" && r.Type != "integer" })
}

func (d *definitions) object(n *node, r *raw, builtin bool) {
	n.kind = objectKind
	for name, sub := range r.Properties {
		if sub == nil {
			continue
		}
		f := field{name: d.intern(name), node: d.compile(sub, builtin)}
		if slices.Contains(r.Required, name) {
			f.required = !builtin && sub.Default == nil || builtin && !zeroAllowed(name, sub)
			f.implied = !f.required && builtin && string(sub.Default) == "{}"
		}
		n.fields = append(n.fields, f)
	}
	slices.SortFunc(n.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	switch {
	case r.Additional != nil && r.Additional.raw != nil:
		n.values = d.compile(r.Additional.raw, builtin)
	case r.Additional != nil && r.Additional.any:
		n.open = true
	case len(r.Properties) == 0 && r.Additional == nil:
		n.open = n.open || builtin // such as FieldsV1; a custom resource drops the fields
	}
}

// zeroAllowed reports whether the server takes an object of a built-in kind
// without a field that its schema requires: absent is the zero value, and the
// zero value is valid.
func zeroAllowed(name string, r *raw) bool {
	if r.Default == nil && r.Type != "array" {
		return false
	}
	switch r.Type {
	case "array":
		switch name {
		case "containers", "versions", "verbs", "paths", "nodeSelectorTerms", "values", "admissionReviewVersions", "validationActions":
			return false
		}
	case "string":
		switch name {
		case "name", "key", "kind", "mountPath", "path", "fieldPath", "topologyKey", "operator", "schedule", "image", "resource",
			"driver", "volumeHandle", "claimName", "provisioner", "policyName", "handler", "plural", "group", "scope", "devicePath", "ip", "cidr":
			return false
		}
		return true
	case "integer":
		switch name {
		case "port", "containerPort", "maxReplicas", "maxSkew", "groupPriorityMinimum", "versionPriority":
			return false
		}
		return true
	}
	return true
}

func (c *compiler) intern(s string) string {
	if have, ok := c.names[s]; ok {
		return have
	}
	s = strings.Clone(s)
	c.names[s] = s
	return s
}

// share returns the one node for all schemas that are the same.
func (c *compiler) share(n node) *node {
	h := sha256.New()
	flag := func(b bool) byte {
		if b {
			return 1
		}
		return 0
	}
	ref := func(n *node) {
		var id uint32
		if n != nil {
			id = c.id(n)
		}
		_ = binary.Write(h, binary.LittleEndian, id)
	}
	h.Write([]byte{byte(n.kind), flag(n.open), flag(n.embedded)})
	ref(n.values)
	ref(n.items)
	for _, f := range n.fields {
		h.Write([]byte(f.name))
		h.Write([]byte{0, flag(f.required), flag(f.implied)})
		ref(f.node)
	}
	key := [16]byte(h.Sum(nil)[:16])
	if have, ok := c.nodes[key]; ok {
		return have
	}
	own := &node{kind: n.kind, open: n.open, embedded: n.embedded, fields: slices.Clip(n.fields), values: n.values, items: n.items}
	c.nodes[key] = own
	c.id(own)
	return own
}

func (c *compiler) id(n *node) uint32 {
	id, ok := c.ids[n]
	if !ok {
		id = uint32(len(c.ids) + 1)
		c.ids[n] = id
	}
	return id
}
