// Package generate turns an ApplicationSet into the Applications that it asks
// for.
//
// Input: an ApplicationSet, and narrow interfaces to repositories, clusters,
// objects and HTTP. Output: [Result]: the Applications as they should be, and
// what was read for them. It writes nothing.
//
// How it works: each generator gives sets of parameters (params.go leads to
// one file for each kind); each set fills the template once.
//
// Invariants: all or nothing: an error of one generator or of the template for
// one set gives no Applications, so that nobody takes a failure for an empty
// result; the same inputs give the same Applications in the same order; errors
// name the generator and the set, never a token.
//
// Start reading at [Run].
package generate

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const (
	maxSets  = 20_000 // parameter sets of one ApplicationSet
	maxFiles = 20_000 // files that one git generator reads
)

// Repositories gives the files of repositories.
type Repositories interface {
	// Tree returns a fresh tree of a repository at a revision ("" means HEAD),
	// with the rights of a project; "" are the rights that everybody has.
	Tree(ctx context.Context, project, repoURL, revision string) (*source.Tree, error)
	// Name is what moves of the repository are announced under, the same for
	// each spelling of its URL.
	Name(repoURL string) string
}

// Cluster is one that Applications may go to.
type Cluster struct {
	Name, Server, Project string
	Labels, Annotations   map[string]string
	Local                 bool // known without a Secret: the engine's own
}

// Clusters lists the clusters, in any order.
type Clusters interface {
	List(ctx context.Context) ([]Cluster, error)
}

// Objects reads objects of the engine's cluster.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (map[string]string, error)
	ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error)
	// List returns objects by name, or by label selector when name is "".
	List(ctx context.Context, resource schema.GroupVersionResource, namespace, name, selector string) ([]*unstructured.Unstructured, error)
}

// Config is what the operator of the engine decides.
type Config struct {
	Namespace           string   // the engine's; cluster Secrets and ConfigMaps are there
	StrictFileGlobs     bool     // file patterns as doublestar has them, not as git ls-files
	AllowedSCMProviders []string // API addresses; empty allows every one
}

// Deps is what generators read from.
type Deps struct {
	Repositories Repositories
	Clusters     Clusters
	Objects      Objects
	Forge        Forge // nil for none
	HTTP         *http.Client
}

// Forge is a Git host of this machine, which stands for github.com where it has
// a repository.
type Forge interface {
	// PullRequests says where the pull requests of a repository are listed, nil
	// when another host is meant. api is what the generator names, "" for
	// github.com.
	PullRequests(ctx context.Context, api, owner, repo string) (*ForgeAPI, error)
}

// ForgeAPI is GitHub's REST API of a [Forge].
type ForgeAPI struct {
	HTTP  *http.Client
	Base  string // "http://api.github.localhost"
	Token string // that may read the pull requests
}

// Read is what was read of one repository at one revision.
type Read struct {
	Project, RepoURL, Revision string
	Commit                     string
	Inputs                     source.Inputs
}

// Result is what an ApplicationSet gives.
type Result struct {
	Applications []*unstructured.Unstructured // share parts; copy before a change
	Reads        []Read
	UsesClusters bool
	Pulls        []string      // repositories, "owner/name", whose pull requests were listed
	Remote       bool          // something was asked that does not announce changes
	Requeue      time.Duration // after which to generate again; 0 for never
}

// Error says which stage failed; Reason is that of the condition.
type Error struct {
	Reason string
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// The reasons of errors.
const (
	ReasonParams   = "ApplicationGenerationFromParamsError"
	ReasonTemplate = "RenderTemplateParamsError"
)

// Run generates. The result is not nil even with an error: it says what was
// read, so that a change of that brings the next attempt.
func Run(ctx context.Context, cfg Config, deps Deps, set *v1alpha1.ApplicationSet) (*Result, error) {
	r := &run{Config: cfg, Deps: deps, set: set, trees: map[treeKey]*tree{}}
	r.result.Requeue = requeue(set.Spec.Generators)
	apps, err := r.applications(ctx)
	r.finish()
	if err != nil {
		return &r.result, err
	}
	r.result.Applications = apps
	return &r.result, nil
}

// run is one generation.
type run struct {
	Config
	Deps
	set      *v1alpha1.ApplicationSet
	engine   *template.Engine
	trees    map[treeKey]*tree
	clusters []Cluster
	result   Result
	sets     int
}

func (r *run) applications(ctx context.Context) ([]*unstructured.Unstructured, error) {
	engine, err := template.New(r.set.Spec.GoTemplate, r.set.Spec.GoTemplateOptions)
	if err != nil {
		return nil, &Error{ReasonTemplate, err}
	}
	r.engine = engine
	var apps []*unstructured.Unstructured
	for i := range r.set.Spec.Generators {
		g := &r.set.Spec.Generators[i]
		at := fmt.Sprintf("spec.generators[%d]", i)
		kinds := kindsOf(g)
		if err := checkKinds(g, kinds); err != nil {
			return nil, &Error{ReasonParams, fmt.Errorf("%s: %w", at, err)}
		}
		for _, k := range kinds {
			params, err := r.params(ctx, k, g, nil, 0)
			if err != nil {
				return nil, &Error{ReasonParams, fmt.Errorf("%s (%s): %w", at, k, err)}
			}
			made, err := r.fill(ctx, template.Override(templateOf(k, g), r.set.Spec.Template), params)
			if err != nil {
				return nil, &Error{ReasonTemplate, fmt.Errorf("%s (%s), %w", at, k, err)}
			}
			apps = append(apps, made...)
		}
	}
	return apps, nil
}

// fill makes one Application of each set of parameters.
func (r *run) fill(ctx context.Context, tmpl map[string]any, params []map[string]any) ([]*unstructured.Unstructured, error) {
	program, err := r.engine.Compile("spec.template", tmpl)
	if err != nil {
		return nil, err
	}
	apps := make([]*unstructured.Unstructured, 0, len(params))
	for i, p := range params {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		app, err := r.application(program, p)
		if err != nil {
			return nil, fmt.Errorf("set %d%s: %w", i+1, describe(p), err)
		}
		apps = append(apps, app)
	}
	return apps, nil
}

// describe names a set by what most likely names it for people.
func describe(p map[string]any) string {
	for _, key := range []string{"name", "cluster", "number", "path", "repository"} {
		switch v := p[key].(type) {
		case string:
			return fmt.Sprintf(" (%s %s)", key, v)
		case map[string]any:
			if s, ok := v[key].(string); ok {
				return fmt.Sprintf(" (%s %s)", key, s)
			}
		}
	}
	return ""
}

// finish notes what was read.
func (r *run) finish() {
	for key, t := range r.trees {
		read := Read{Project: key.project, RepoURL: key.repoURL, Revision: key.revision}
		if t.err == nil {
			read.Commit, read.Inputs = t.Commit(), t.Inputs()
		}
		r.result.Reads = append(r.result.Reads, read)
	}
}
