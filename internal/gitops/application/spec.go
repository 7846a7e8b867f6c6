package application

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// specError is a fault in the Application itself.
type specError struct{ msg string }

func (e *specError) Error() string { return e.msg }

func invalid(format string, args ...any) error { return &specError{fmt.Sprintf(format, args...)} }

// sourcesOf returns the sources of an application; spec.sources wins.
func sourcesOf(app *v1alpha1.Application) []*v1alpha1.ApplicationSource {
	if len(app.Spec.Sources) > 0 {
		return app.Spec.Sources
	}
	if app.Spec.Source == nil {
		return nil
	}
	return []*v1alpha1.ApplicationSource{app.Spec.Source}
}

// sourceOf returns spec.source, which status repeats.
func sourceOf(app *v1alpha1.Application) *v1alpha1.ApplicationSource {
	if len(app.Spec.Sources) > 0 {
		return nil
	}
	return app.Spec.Source
}

// paramsOf names the part of the spec that sources and render depend on.
func paramsOf(app *v1alpha1.Application, hold *hold) string {
	data, err := json.Marshal([]any{app.Spec.Source, app.Spec.Sources, app.Spec.Destination, app.Spec.Project, hold.params()})
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:12])
}

// checkSpec says what in the spec is not carried out, and finds the cluster.
func (p *pass) checkSpec() error {
	spec := &p.app.Spec
	if len(spec.SourceHydrator) > 0 {
		return invalid("spec.sourceHydrator is not carried out; use spec.source")
	}
	if len(p.sources) == 0 {
		return invalid("spec.source is missing")
	}
	refs := map[string]bool{}
	for i, src := range p.sources {
		at := "spec.source"
		if len(spec.Sources) > 0 {
			at = fmt.Sprintf("spec.sources[%d]", i)
		}
		switch {
		case src == nil || src.RepoURL == "":
			return invalid("%s.repoURL is missing", at)
		case src.Ref != "" && refs[src.Ref]:
			return invalid("%s.ref: %q is used twice", at, src.Ref)
		case src.Ref != "" && len(spec.Sources) == 0:
			return invalid("%s.ref is for spec.sources only", at)
		case src.Chart != "" && src.Path != "":
			return invalid("%s has both chart and path; a source is one of the two", at)
		}
		refs[src.Ref] = src.Ref != ""
	}
	cluster, err := p.Clusters.Find(spec.Destination)
	if err != nil {
		return invalid("spec.destination: %v", err)
	}
	p.cluster = cluster
	return p.checkProject()
}
