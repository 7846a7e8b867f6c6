package application

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/directory"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// project returns the AppProject of the application.
func (p *pass) appProject() (*v1alpha1.AppProject, error) {
	name := p.project()
	obj, ok, err := p.projects.GetStore().GetByKey(p.Namespace + "/" + name)
	if err != nil || !ok {
		return nil, invalid("spec.project: there is no AppProject %s in namespace %s", name, p.Namespace)
	}
	var project v1alpha1.AppProject
	if err := v1alpha1.Decode(obj.(*unstructured.Unstructured), &project); err != nil {
		return nil, invalid("AppProject %s: %v", name, err)
	}
	return &project, nil
}

// checkProject holds the application against its project.
func (p *pass) checkProject() error {
	project, err := p.appProject()
	if err != nil {
		return err
	}
	if p.app.Namespace != p.Namespace && !permits(project.Spec.SourceNamespaces, p.app.Namespace, false) {
		return invalid("AppProject %s does not permit Applications in namespace %s (sourceNamespaces)", project.Name, p.app.Namespace)
	}
	for _, src := range p.sources {
		if !permits(project.Spec.SourceRepos, src.RepoURL, true) {
			return invalid("AppProject %s does not permit the repository %s (sourceRepos)", project.Name, src.RepoURL)
		}
	}
	if !permitsDestination(project, p.app.Spec.Destination.Namespace) {
		return invalid("AppProject %s does not permit the destination namespace %q (destinations)", project.Name, p.app.Spec.Destination.Namespace)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"syncWindows", len(project.Spec.SyncWindows) > 0}, {"signatureKeys", len(project.Spec.SignatureKeys) > 0},
		{"sourceIntegrity", len(project.Spec.SourceIntegrity) > 0}, {"destinationServiceAccounts", len(project.Spec.DestinationServiceAccounts) > 0},
	} {
		if f.set {
			return invalid("AppProject %s sets %s, which this engine does not enforce yet; nothing is synced rather than more than the project permits", project.Name, f.name)
		}
	}
	return nil
}

// checkObjects holds rendered objects against the project.
func (p *pass) checkObjects(want *rendered) error {
	project, err := p.appProject()
	if err != nil {
		return err
	}
	for _, o := range want.objects {
		gvk := o.key
		namespaced := gvk.Namespace != ""
		bad := ""
		switch {
		case !namespaced && !patterns(project.Spec.ClusterResourceWhitelist, gvk.Group, gvk.Kind, gvk.Name):
			bad = "clusterResourceWhitelist"
		case !namespaced && patterns(project.Spec.ClusterResourceBlacklist, gvk.Group, gvk.Kind, gvk.Name):
			bad = "clusterResourceBlacklist"
		case namespaced && patterns(project.Spec.NamespaceResourceBlacklist, gvk.Group, gvk.Kind, ""):
			bad = "namespaceResourceBlacklist"
		case namespaced && project.Spec.NamespaceResourceWhitelist != nil && !patterns(project.Spec.NamespaceResourceWhitelist, gvk.Group, gvk.Kind, ""):
			bad = "namespaceResourceWhitelist"
		case namespaced && !permitsDestination(project, gvk.Namespace):
			bad = "destinations"
		default:
			continue
		}
		return &manifest.Error{File: o.file, Line: o.line, Message: "AppProject " + project.Name + " does not permit " + gvk.Kind + " " +
			strings.TrimPrefix(gvk.Namespace+"/"+gvk.Name, "/") + " (" + bad + ")", Hint: "Change the project, or take the object out of the source."}
	}
	return nil
}

func patterns(list []v1alpha1.ResourcePattern, group, kind, name string) bool {
	for _, r := range list {
		if match(r.Group, group) && match(r.Kind, kind) && (r.Name == "" || match(r.Name, name)) {
			return true
		}
	}
	return false
}

func permitsDestination(project *v1alpha1.AppProject, namespace string) bool {
	allowed := false
	for _, d := range project.Spec.Destinations {
		server, serverDenied := strings.CutPrefix(d.Server, "!")
		ns, nsDenied := strings.CutPrefix(d.Namespace, "!")
		serverMatches := server == "" && match(d.Name, "in-cluster") || match(server, LocalServer)
		if nsDenied && serverMatches && match(ns, namespace) || serverDenied && serverMatches && match(ns, namespace) {
			return false
		}
		if !nsDenied && !serverDenied && serverMatches && match(ns, namespace) {
			allowed = true
		}
	}
	return allowed
}

// permits matches a value with patterns, of which "!x" denies.
func permits(list []string, value string, urls bool) bool {
	allowed := false
	if urls {
		value = strings.TrimSuffix(value, ".git")
	}
	for _, pattern := range list {
		pattern, denied := strings.CutPrefix(pattern, "!")
		if urls {
			pattern = strings.TrimSuffix(pattern, ".git")
		}
		if match(pattern, value) {
			if denied {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

func match(pattern, value string) bool {
	if pattern == "*" || pattern == value {
		return true
	}
	re, err := directory.Glob(pattern)
	return err == nil && re != (*regexp.Regexp)(nil) && re.MatchString(value)
}

// windowOpen reports whether the project's sync windows let an automated sync
// start now.
func (p *pass) windowOpen() bool { return true }

// mayWish reports why a sync that somebody asked for may not start, nil when
// it may.
func (p *pass) mayWish(*v1alpha1.SyncOperation) error { return nil }
