// Package environment holds what Argo CD calls the build environment: the
// variables that a source may use in its parameters.
//
// Input: what is known about one rendering ([Facts]). Output: [Environment],
// which replaces $NAME and ${NAME} in a text.
//
// Invariants: nothing of the environment of this process is seen; a variable
// that does not exist gives "", as in Argo CD; "$$" gives one "$".
//
// Start reading at [Of].
package environment

import (
	"os"
	"sort"
	"strings"
)

// Facts is what the variables are made of.
type Facts struct {
	App            string // name of the Application
	Namespace      string // of the destination
	Project        string
	Revision       string // the commit, chart version or digest that is rendered
	Path           string // spec.source.path, as written
	RepoURL        string
	TargetRevision string // as written
	KubeVersion    string
	APIVersions    []string
}

// Environment maps the names of variables to their values.
type Environment map[string]string

// Of returns the build environment for facts.
func Of(f Facts) Environment {
	return Environment{
		"ARGOCD_APP_NAME":                   f.App,
		"ARGOCD_APP_NAMESPACE":              f.Namespace,
		"ARGOCD_APP_PROJECT_NAME":           f.Project,
		"ARGOCD_APP_REVISION":               f.Revision,
		"ARGOCD_APP_REVISION_SHORT":         f.Revision[:min(7, len(f.Revision))],
		"ARGOCD_APP_REVISION_SHORT_8":       f.Revision[:min(8, len(f.Revision))],
		"ARGOCD_APP_SOURCE_REPO_URL":        f.RepoURL,
		"ARGOCD_APP_SOURCE_PATH":            f.Path,
		"ARGOCD_APP_SOURCE_TARGET_REVISION": f.TargetRevision,
		"KUBE_VERSION":                      f.KubeVersion,
		"KUBE_API_VERSIONS":                 strings.Join(f.APIVersions, ","),
	}
}

// Expand replaces $NAME and ${NAME} in text; "$$" stands for "$".
func (e Environment) Expand(text string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	return os.Expand(text, func(name string) string {
		if name == "$" {
			return "$"
		}
		return e[name]
	})
}

// DependsOnRevision reports whether text changes with the commit that is
// rendered, even when no file of it does.
func DependsOnRevision(text string) bool {
	found := false
	os.Expand(text, func(name string) string {
		found = found || strings.HasPrefix(name, "ARGOCD_APP_REVISION")
		return ""
	})
	return found
}

// Names returns the names of all variables, sorted.
func (e Environment) Names() []string {
	names := make([]string, 0, len(e))
	for name := range e {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
