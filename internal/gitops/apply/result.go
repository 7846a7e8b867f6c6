package apply

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// Result is what happened to one object. Later results of the same Key and
// Phase replace earlier ones.
type Result struct {
	plan.Key
	Version   string
	Action    plan.Action // None for an object that was in sync already
	Phase     plan.Phase
	Hook      bool
	Place     string
	Message   string // for people
	Err       error
	Complete  bool // false while a hook runs
	Skipped   bool // a prune that was not wanted
	HookPhase v1alpha1.Phase
	Images    []string

	unwritten bool // a hook that the server refused
}

// Record is the result as Application.status.operationState.syncResult has it.
func (r Result) Record() *v1alpha1.ResourceResult {
	out := &v1alpha1.ResourceResult{
		Group: r.Group, Version: r.Version, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name,
		Status: "Synced", Message: r.Message, HookPhase: r.HookPhase, SyncPhase: string(r.Phase), Images: r.Images,
	}
	switch {
	case r.Err != nil:
		out.Message = r.Err.Error()
		if !r.Hook || r.unwritten {
			out.Status = "SyncFailed"
		}
	case r.Skipped:
		out.Status = "PruneSkipped"
	case r.Action == plan.Prune:
		out.Status = "Pruned"
	}
	if r.Hook {
		out.HookType = string(r.Phase)
	}
	return out
}

// Error is a failed sync: the objects that failed.
type Error struct{ Failed []Result }

func (e *Error) Error() string {
	first := e.Failed[0]
	at := ""
	if first.Place != "" {
		at = " (" + first.Place + ")"
	}
	msg := fmt.Sprintf("%s%s: %v", first.Key, at, first.Err)
	if n := len(e.Failed) - 1; n > 0 {
		msg += fmt.Sprintf(" (and %d more objects)", n)
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Failed[0].Err }

// kubectlName is how kubectl's messages name an object.
func kubectlName(k plan.Key) string {
	kind := strings.ToLower(k.Kind)
	if k.Group != "" {
		kind += "." + k.Group
	}
	return kind + "/" + k.Name
}

// images are those of a pod or of a template of pods.
func images(o *unstructured.Unstructured) []string {
	if o == nil {
		return nil
	}
	spec, _ := o.Object["spec"].(map[string]any)
	if job, ok := spec["jobTemplate"].(map[string]any); ok {
		spec, _ = job["spec"].(map[string]any)
	}
	if template, ok := spec["template"].(map[string]any); ok {
		spec, _ = template["spec"].(map[string]any)
	}
	var out []string
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := spec[list].([]any)
		for _, c := range containers {
			m, _ := c.(map[string]any)
			if image, ok := m["image"].(string); ok {
				out = append(out, image)
			}
		}
	}
	return out
}
