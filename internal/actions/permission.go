package actions

import (
	"fmt"
	"maps"
	"slices"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

const (
	readLevel  = "read"
	writeLevel = "write"
)

// scopes are the permissions that a job's token can have.
var scopes = []string{
	"actions", "artifact-metadata", "attestations", "checks", "contents", "deployments", "discussions", "id-token", "issues", "models", "packages",
	"pages", "pull-requests", "repository-projects", "security-events", "statuses",
}

// defaultPermissions are those of a file that says nothing: GitHub's restricted
// default.
func defaultPermissions() map[string]string {
	return map[string]string{"contents": readLevel, "packages": readLevel, "metadata": readLevel}
}

// granted are the permissions that a `permissions` block gives.
func granted(p *syntax.Permissions) map[string]string {
	out := map[string]string{"metadata": readLevel}
	for _, s := range scopes {
		switch level := p.Level(s); {
		case level == writeLevel, level == readLevel && s != "id-token": // there is no reading of it
			out[s] = level
		}
	}
	return out
}

// permissionsOf are the permissions of a job. ceiling is what the caller of a
// reusable workflow has, nil for nobody; from forks nothing is written.
func permissionsOf(w *syntax.Workflow, j *syntax.Job, ceiling map[string]string, fork bool) map[string]string {
	p := j.Permissions
	if p == nil {
		p = w.Permissions
	}
	var out map[string]string
	switch {
	case p != nil:
		out = granted(p)
		if ceiling != nil {
			out = narrow(out, ceiling)
		}
	case ceiling != nil:
		out = maps.Clone(ceiling)
	default:
		out = defaultPermissions()
	}
	if fork {
		delete(out, "id-token")
		for s := range out {
			out[s] = readLevel
		}
	}
	return out
}

func narrow(p, ceiling map[string]string) map[string]string {
	out := map[string]string{}
	for s, level := range p {
		switch c := ceiling[s]; {
		case c == "":
		case c == readLevel:
			out[s] = readLevel
		default:
			out[s] = level
		}
	}
	return out
}

// exceeds names the first scope of a called job that its caller may not pass on,
// as GitHub refuses it.
func exceeds(name string, p *syntax.Permissions, ceiling map[string]string) string {
	if p == nil {
		return ""
	}
	wanted := granted(p)
	for _, s := range slices.Sorted(maps.Keys(wanted)) {
		have := ceiling[s]
		if have == "" {
			have = "none"
		}
		if have == writeLevel || have == wanted[s] {
			continue
		}
		return fmt.Sprintf("the nested job %q is requesting '%s: %s', but is only allowed '%s: %s'", name, s, wanted[s], s, have)
	}
	return ""
}
