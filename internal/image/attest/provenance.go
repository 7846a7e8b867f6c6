package attest

import (
	"encoding/json"
	"fmt"
	"time"
)

// Build is what is known of how an image was made.
type Build struct {
	Builder    string // URI of who built: the forge's runner
	Type       string // URI of the kind of build
	Invocation string // URI of the workflow run
	Repository string // URI of the source, "git+http://github.localhost/contoso/shop"
	Ref        string // "refs/heads/main"
	Commit     string // its Git object id
	Workflow   string // ".github/workflows/ci.yaml"
	// Parameters are what the workflow asked for: Dockerfile, target, platforms.
	Parameters map[string]any
	Materials  []Material // base images
	Started    time.Time
	Finished   time.Time
}

// Material is something that went into a build.
type Material struct {
	URI    string            // "pkg:docker/golang@1.26"
	Digest map[string]string // algorithm → hex
}

// BuildType is what Build.Type says of an image built by BuildKit.
const BuildType = "https://actions.github.io/buildtypes/workflow/v1"

type resource struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// Provenance is the SLSA v1.0 predicate of a build.
func (b Build) Provenance() ([]byte, error) {
	dependencies := []resource{}
	if b.Repository != "" {
		uri := b.Repository
		if b.Ref != "" {
			uri += "@" + b.Ref
		}
		dependencies = append(dependencies, resource{URI: uri, Digest: map[string]string{"gitCommit": b.Commit}})
	}
	for _, m := range b.Materials {
		dependencies = append(dependencies, resource(m))
	}
	external := map[string]any{"workflow": map[string]any{"ref": b.Ref, "repository": b.Repository, "path": b.Workflow}}
	if len(b.Parameters) > 0 {
		external["build"] = b.Parameters
	}
	metadata := map[string]any{"invocationId": b.Invocation}
	if !b.Started.IsZero() {
		metadata["startedOn"] = b.Started.UTC().Format(time.RFC3339)
	}
	if !b.Finished.IsZero() {
		metadata["finishedOn"] = b.Finished.UTC().Format(time.RFC3339)
	}
	text, err := json.Marshal(map[string]any{
		"buildDefinition": map[string]any{"buildType": b.Type, "externalParameters": external, "internalParameters": map[string]any{}, "resolvedDependencies": dependencies},
		"runDetails":      map[string]any{"builder": map[string]any{"id": b.Builder}, "metadata": metadata},
	})
	if err != nil {
		return nil, fmt.Errorf("write the provenance: %w", err)
	}
	return text, nil
}
