package application

import (
	"encoding/json"
	"fmt"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// specError is a fault in the Application itself.
type specError struct{ msg string }

func (e *specError) Error() string { return e.msg }

func invalid(format string, args ...any) error { return &specError{fmt.Sprintf(format, args...)} }

const localServer = "https://kubernetes.default.svc"

// sourceOf returns the one source of an application, or nil.
func sourceOf(app *v1alpha1.Application) *v1alpha1.ApplicationSource {
	if len(app.Spec.Sources) == 1 {
		return app.Spec.Sources[0]
	}
	if len(app.Spec.Sources) > 1 {
		return nil
	}
	return app.Spec.Source
}

// paramsOf names the part of the spec that a render depends on.
func paramsOf(app *v1alpha1.Application) string {
	data, err := json.Marshal([]any{app.Spec.Source, app.Spec.Sources, app.Spec.Destination, app.Spec.Project})
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// checkSpec returns the source, or says what in the spec is not carried out.
func (p *pass) checkSpec() (*v1alpha1.ApplicationSource, error) {
	spec := &p.app.Spec
	if len(spec.SourceHydrator) > 0 {
		return nil, invalid("spec.sourceHydrator is not carried out; use spec.source")
	}
	if len(spec.Sources) > 1 {
		return nil, invalid("spec.sources has %d entries; one source is rendered so far: use one, or one Application each", len(spec.Sources))
	}
	src := sourceOf(&p.app)
	if src == nil || src.RepoURL == "" {
		return nil, invalid("spec.source.repoURL is missing")
	}
	if d := spec.Destination; d.Server != "" && d.Server != localServer || d.Server == "" && d.Name != "in-cluster" {
		at := d.Server
		if at == "" {
			at = d.Name
		}
		return nil, invalid("spec.destination: cluster %q is not known; this engine writes to its own cluster: server %s or name in-cluster", at, localServer)
	}
	if policy := spec.SyncPolicy; policy != nil && policy.Retry != nil && policy.Retry.Refresh {
		p.condition(v1alpha1.ConditionUnsupportedFeatures, "spec.syncPolicy.retry.refresh is not needed: a newer commit always ends the retries of an older one")
	}
	return src, p.checkProject(src)
}
