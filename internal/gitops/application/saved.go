package application

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Saved keeps renders across restarts. It is a cache: what it loses is
// rendered again. Its methods do not block on the disk.
type Saved interface {
	Load(key string) (SavedRender, bool)
	Save(key string, r SavedRender)
	Delete(key string)
}

// SavedRender is a rendering as it is kept on disk.
type SavedRender struct {
	Format    int // of this type; another one is not used
	Params    string
	Revisions []string // at which its inputs were looked at
	Inputs    []source.Inputs
	Tools     []render.Tool
	Objects   []SavedObject
	Warnings  []manifest.Warning
	Repeated  []manifest.Warning
	Unsure    bool
	Volatile  bool
	Announced string // the commit whose render the journal has
}

// SavedObject is one object of a rendering.
type SavedObject struct {
	Group, Version, Kind, Namespace, Name string
	Hook                                  bool
	File                                  string
	Line                                  int
	Digest                                plan.Digest
	Raw                                   []byte // compressed JSON
}

const savedFormat = 1

func (r *rendered) saved(announced string) SavedRender {
	s := SavedRender{
		Format: savedFormat, Params: r.params, Revisions: r.verified, Inputs: r.inputs, Tools: r.tools,
		Warnings: r.warnings, Repeated: r.repeated, Unsure: r.unsure, Volatile: r.volatile, Announced: announced,
	}
	for _, d := range r.objects {
		s.Objects = append(s.Objects, SavedObject{
			Group: d.key.Group, Version: d.version, Kind: d.key.Kind, Namespace: d.key.Namespace, Name: d.key.Name,
			Hook: d.hook, File: d.file, Line: d.line, Digest: d.digest, Raw: d.raw,
		})
	}
	return s
}

// load returns what an earlier process rendered, if it is of use.
func (p *pass) load() *rendered {
	if p.Saved == nil {
		return nil
	}
	s, ok := p.Saved.Load(p.key)
	if !ok || s.Format != savedFormat || s.Params != p.st.params {
		return nil
	}
	p.st.serial++
	r := &rendered{
		params: s.Params, revisions: s.Revisions, verified: s.Revisions, told: s.Revisions, inputs: s.Inputs, tools: s.Tools,
		warnings: s.Warnings, repeated: s.Repeated, unsure: s.Unsure, volatile: s.Volatile, serial: p.st.serial,
	}
	for _, o := range s.Objects {
		r.objects = append(r.objects, desired{
			key: plan.Key{Group: o.Group, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}, version: o.Version,
			file: o.File, line: o.Line, hook: o.Hook, digest: o.Digest, raw: o.Raw,
		})
	}
	if s.Announced != "" && strings.Contains(strings.Join(s.Revisions, ","), s.Announced) {
		p.st.announced = s.Announced
	}
	return r
}

// noted is a mapper that remembers whether a kind was not known.
type noted struct {
	*observe.Mapper
	unknown bool
}

// Namespaced implements render.Scoper.
func (n *noted) Namespaced(gvk schema.GroupVersionKind) (namespaced, known bool, err error) {
	namespaced, known, err = n.Mapper.Namespaced(gvk)
	n.unknown = n.unknown || err == nil && !known
	return namespaced, known, err
}

// stub stands for an object whose content nobody needs.
func stub(k plan.Key, version string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: k.Group, Version: version, Kind: k.Kind})
	o.SetNamespace(k.Namespace)
	o.SetName(k.Name)
	return o
}
