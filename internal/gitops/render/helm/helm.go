// Package helm renders a Helm chart.
//
// Input: a tree, the folder of the chart in it, the Helm part of an
// Application's source and what the cluster can do. Output: the objects that
// `helm template` gives, with the template and line each was written at,
// without the program, a work tree or a cluster.
//
// Invariants:
//   - Every file that shaped the output was read through a tree, so it is an
//     input. Files that only a template could ask for (.Files) are read when a
//     template asks.
//   - The same inputs give the same objects in the same order: definitions of
//     crds/ first, then Helm's install order, then hooks; maps are walked
//     sorted. The exceptions are the functions that Helm itself makes random
//     or reads the clock with; each use is a warning with its place.
//   - Nothing is asked of a cluster (lookup is empty), of DNS or of the
//     environment; the network is reached through [Remote] only.
//   - A render ends: output, steps and time are bounded, and a panic is an
//     error of that chart.
//
// Charts, values, dependencies and capabilities are Helm's own packages. Only
// the loop that runs the templates is written here, because Helm's can neither
// be stopped nor say which line of a template an object came from; a test
// compares the two.
//
// Start reading at [Renderer.Render].
package helm

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/util"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Remote fetches what a chart names outside its repository.
type Remote interface {
	// Chart returns the archive (.tgz) of the newest version of a chart that
	// the constraint allows. repoURL is https:// or oci://.
	Chart(ctx context.Context, repoURL, name, constraint string) (archive []byte, version string, err error)
	// File returns a file by its URL.
	File(ctx context.Context, url string) ([]byte, error)
}

// Request is one rendering.
type Request struct {
	App       string // name of the Application, the default name of the release
	Namespace string // of the destination
	// Dir is the folder of the chart in the tree. With Archive, the tree is an
	// unpacked chart: Chart.yaml is in Dir or in its only folder.
	Dir     string
	Archive bool
	Helm    *v1alpha1.SourceHelm // may be nil
	// Environment is what $NAME in parameters and paths stands for.
	Environment environment.Environment
	// Refs are the trees that "$ref/path" reads.
	Refs map[string]*source.Tree
	// KubeVersion and APIVersions are what the cluster has; both may be empty.
	KubeVersion string
	APIVersions []string
	Remote      Remote // may be nil
}

// The bounds of one render.
const (
	maxOutput = 32 << 20  // bytes of all manifests
	maxWork   = 512 << 20 // bytes written by all templates, nested ones included
	maxTime   = 30 * time.Second
)

// Renderer renders charts. The zero value is ready. It is safe for concurrent
// use; renders share the parsed templates of charts.
type Renderer struct{ programs programCache }

// Render returns the objects of a chart.
func (r *Renderer) Render(ctx context.Context, tree *source.Tree, req Request) (objects []manifest.Object, warnings []manifest.Warning, err error) {
	defer func() { // one chart must not end all
		if p := recover(); p != nil {
			objects, warnings = nil, nil
			err = &manifest.Error{File: path.Join(req.Dir, chartFile), Message: fmt.Sprintf("Helm gave up: %v", p)}
		}
	}()
	if req.Helm == nil {
		req.Helm = &v1alpha1.SourceHelm{}
	}
	if err := check(&req); err != nil {
		return nil, nil, err
	}
	l := &chartLoader{ctx: ctx, tree: tree, places: map[*byte]string{}, lazy: map[*byte]string{}}
	if req.Dir, err = l.find(req.Dir, req.Archive); err != nil {
		return nil, nil, err
	}
	l.dir = req.Dir
	c, err := l.chart(req.Dir)
	if err != nil {
		return nil, nil, err
	}
	if err := installable(c, req); err != nil {
		return nil, nil, err
	}
	values, err := (&valueReader{ctx: ctx, tree: tree, req: &req, root: rootOf(req)}).values()
	if err != nil {
		return nil, nil, err
	}
	if err := l.dependencies(c, req); err != nil {
		return nil, nil, err
	}
	scope, err := l.scope(c, values, req)
	if err != nil {
		return nil, nil, err
	}
	out, err := r.execute(l, c, scope)
	if err != nil {
		return nil, nil, err
	}
	objects, warnings, err = l.objects(c, out, req)
	return objects, append(l.warnings, append(out.warnings, warnings...)...), err
}

var releaseName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// check validates the request and fills in its defaults.
func check(req *Request) error {
	h := *req.Helm
	if h.Version != "" && h.Version != "v3" {
		return &manifest.Error{Message: fmt.Sprintf("spec.source.helm.version: %q is not supported; charts are rendered as Helm 3 does", h.Version), Hint: "Remove the field or write v3."}
	}
	if h.ReleaseName == "" {
		h.ReleaseName = req.App
	}
	if len(h.ReleaseName) > 53 || !releaseName.MatchString(h.ReleaseName) {
		return &manifest.Error{
			Message: fmt.Sprintf("%q is not a release name that Helm allows: lower case letters, digits, \"-\" and \".\", at most 53", h.ReleaseName),
			Hint:    "Set spec.source.helm.releaseName.",
		}
	}
	if h.Namespace == "" {
		h.Namespace = req.Namespace
	}
	if h.Namespace == "" {
		h.Namespace = "default"
	}
	if h.KubeVersion == "" {
		h.KubeVersion = req.KubeVersion
	}
	if len(h.APIVersions) == 0 {
		h.APIVersions = req.APIVersions
	}
	req.Helm = &h
	return nil
}

// rootOf is the folder that "/path" starts at: the repository's root, or the
// chart when there is no repository.
func rootOf(req Request) string {
	if req.Archive {
		return req.Dir
	}
	return ""
}

// DependsOnRevision reports whether the output changes with the commit even if
// no file does: a parameter or path uses $ARGOCD_APP_REVISION.
func DependsOnRevision(h *v1alpha1.SourceHelm) bool {
	if h == nil {
		return false
	}
	for _, p := range h.Parameters {
		if environment.DependsOnRevision(p.Value) {
			return true
		}
	}
	for _, p := range h.FileParameters {
		if environment.DependsOnRevision(p.Path) {
			return true
		}
	}
	return slices.ContainsFunc(h.ValueFiles, environment.DependsOnRevision)
}

// installable refuses what `helm template` refuses.
func installable(c *chart.Chart, req Request) error {
	file := path.Join(req.Dir, chartFile)
	if strings.EqualFold(c.Metadata.Type, "library") {
		return &manifest.Error{File: file, Message: fmt.Sprintf("%s is a library chart, which has nothing to install", c.Name()), Hint: "Point the source to a chart that depends on it."}
	}
	if v := c.Metadata.APIVersion; v != chart.APIVersionV1 && v != chart.APIVersionV2 {
		return &manifest.Error{File: file, Message: fmt.Sprintf("charts of apiVersion %s are not rendered", v), Hint: "Write apiVersion: v2."}
	}
	caps, err := capabilities(req)
	if err != nil {
		return err
	}
	if want := c.Metadata.KubeVersion; want != "" && !util.IsCompatibleRange(want, caps.KubeVersion.String()) {
		return &manifest.Error{File: file, Message: fmt.Sprintf("the chart wants Kubernetes %s; the cluster has %s", want, caps.KubeVersion.Version), Hint: "Use another version of the chart."}
	}
	return nil
}

func capabilities(req Request) (*common.Capabilities, error) {
	caps := common.DefaultCapabilities.Copy()
	if v := req.Helm.KubeVersion; v != "" {
		parsed, err := common.ParseKubeVersion(v)
		if err != nil {
			return nil, &manifest.Error{Message: fmt.Sprintf("%q is not a version of Kubernetes", v), Hint: "Check spec.source.helm.kubeVersion.", Err: err}
		}
		caps.KubeVersion = *parsed
	}
	caps.APIVersions = slices.Concat(caps.APIVersions, req.Helm.APIVersions)
	return caps, nil
}
