package schema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
)

// Documents fetches a path of the API server, with its query, such as
// "/openapi/v3" and "/openapi/v3/apis/apps/v1?hash=…", as JSON.
type Documents interface {
	Fetch(ctx context.Context, path string) ([]byte, error)
}

// ErrUnknownKind says that the cluster's documents do not have a kind.
var ErrUnknownKind = errors.New("the cluster has no schema for this kind")

// maxDocument is the size of a document that is read, in bytes.
const maxDocument = 64 << 20

// Store keeps the compiled schemas of one cluster. It is safe for concurrent
// use.
type Store struct {
	from Documents

	mu       sync.Mutex
	index    map[string]string // "apis/apps/v1" → path with hash; nil: not read
	groups   map[string]*group // by the same names
	compiler *compiler
	serial   int // of the index
}

// group is the compiled document of one group and version.
type group struct {
	path    string // with the hash of its content
	ready   chan struct{}
	schemas map[k8sschema.GroupVersionKind]*Schema
	err     error
}

// NewStore returns a store that has fetched nothing yet.
func NewStore(from Documents) *Store {
	return &Store{from: from, groups: map[string]*group{}, compiler: newCompiler()}
}

// Reset makes the store look again at what the cluster has: call it when
// definitions changed. Documents whose hash did not change are kept.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = nil
	s.serial++
}

// Validate returns what is wrong with the object. The error is ErrUnknownKind,
// or why the document could not be had; then nothing is known.
func (s *Store) Validate(ctx context.Context, o *unstructured.Unstructured) ([]Problem, error) {
	schema, err := s.Schema(ctx, o.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	return schema.Validate(o), nil
}

// Schema returns the schema of a kind.
func (s *Store) Schema(ctx context.Context, gvk k8sschema.GroupVersionKind) (*Schema, error) {
	path, name, err := s.find(ctx, gvk.GroupVersion())
	if err != nil {
		return nil, err
	}
	if path == "" {
		return nil, fmt.Errorf("%w: %s", ErrUnknownKind, gvk)
	}
	g, err := s.load(ctx, name, path)
	if err != nil {
		return nil, fmt.Errorf("the schema of %s: %w", gvk, err)
	}
	schema, ok := g.schemas[gvk]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrUnknownKind, gvk)
	}
	return schema, nil
}

// find returns the path of the document of a group and version.
func (s *Store) find(ctx context.Context, gv k8sschema.GroupVersion) (path, name string, err error) {
	name = "apis/" + gv.Group + "/" + gv.Version
	if gv.Group == "" {
		name = "api/" + gv.Version
	}
	s.mu.Lock()
	index, serial := s.index, s.serial
	s.mu.Unlock()
	if index != nil {
		return index[name], name, nil
	}
	data, err := s.fetch(ctx, "/openapi/v3")
	if err != nil {
		return "", "", fmt.Errorf("which schemas the cluster has: %w", err)
	}
	var root struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(data, &root); err != nil {
		return "", "", fmt.Errorf("which schemas the cluster has: %w", err)
	}
	index = make(map[string]string, len(root.Paths))
	for k, v := range root.Paths {
		index[strings.Trim(k, "/")] = v.URL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if serial == s.serial {
		s.index = index
		s.forget()
	}
	return index[name], name, nil
}

// forget drops documents that changed. When some did, what is left is compiled
// anew as it is asked for, so that nodes nobody uses do not pile up.
func (s *Store) forget() {
	stale := false
	for name, g := range s.groups {
		if s.index[name] != g.path {
			stale = true
			delete(s.groups, name)
		}
	}
	if stale {
		s.compiler = newCompiler()
	}
}

// load fetches and compiles a document once, for all who ask meanwhile.
func (s *Store) load(ctx context.Context, name, path string) (*group, error) {
	for {
		s.mu.Lock()
		g, ok := s.groups[name]
		if !ok || g.path != path {
			g = &group{path: path, ready: make(chan struct{})}
			s.groups[name] = g
			s.mu.Unlock()
			s.fill(ctx, name, g)
			return g, g.err
		}
		s.mu.Unlock()
		if err := g.wait(ctx); err != nil {
			return nil, err
		}
		if g.err == nil {
			return g, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !errors.Is(g.err, context.Canceled) && !errors.Is(g.err, context.DeadlineExceeded) {
			return nil, g.err
		} // who loaded it gave up; try in turn
	}
}

// wait returns when the document is there, or an error of ctx. What is there
// needs no context.
func (g *group) wait(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	default:
	}
	select {
	case <-g.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fill completes g. Errors are told to those who wait, and not kept.
func (s *Store) fill(ctx context.Context, name string, g *group) {
	defer close(g.ready)
	data, err := s.fetch(ctx, g.path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		g.schemas, err = s.compiler.document(data)
	}
	if g.err = err; err != nil && s.groups[name] == g {
		delete(s.groups, name)
	}
}

func (s *Store) fetch(ctx context.Context, path string) ([]byte, error) {
	data, err := s.from.Fetch(ctx, path)
	if err != nil {
		return nil, err
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", path, len(data), maxDocument)
	}
	return data, nil
}
