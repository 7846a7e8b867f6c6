package helm

import (
	"errors"
	"fmt"
	"path"
	"strings"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/util"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

const maxDependencies = 200 // that are fetched for one chart

// dependencies adds what Chart.yaml names and charts/ does not have, as
// `helm dependency build` would.
func (l *chartLoader) dependencies(c *chart.Chart, req Request) error {
	file := l.declaredIn(c, req.Dir)
	fetched := 0
	for _, dep := range c.Metadata.Dependencies {
		if dep == nil || has(c, dep.Name) {
			continue
		}
		if fetched++; fetched > maxDependencies {
			return &manifest.Error{File: file, Message: fmt.Sprintf("has more than %d dependencies that charts/ lacks", maxDependencies)}
		}
		version, err := locked(c, dep, file)
		if err != nil {
			return err
		}
		at := &manifest.Error{File: file, Line: l.lineOf(file, "name: "+dep.Name)}
		sub, err := l.fetch(dep, version, req, at)
		if err != nil {
			return err
		}
		c.AddDependency(sub)
	}
	for _, sub := range c.Dependencies() {
		l.warnIncomplete(sub, req.Dir)
	}
	return nil
}

func (l *chartLoader) declaredIn(c *chart.Chart, dir string) string {
	if c.Metadata.APIVersion == chart.APIVersionV1 {
		for _, f := range c.Raw {
			if f.Name == "requirements.yaml" {
				return path.Join(dir, f.Name)
			}
		}
	}
	return path.Join(dir, chartFile)
}

func has(c *chart.Chart, name string) bool {
	for _, sub := range c.Dependencies() {
		if sub.Name() == name {
			return true
		}
	}
	return false
}

// locked is the version of a dependency: that of Chart.lock, or the
// constraint when there is no lock. A chart of the repository is what it is.
func locked(c *chart.Chart, dep *chart.Dependency, file string) (string, error) {
	if c.Lock == nil || dep.Repository == "" || strings.HasPrefix(dep.Repository, "file://") {
		return dep.Version, nil
	}
	for _, l := range c.Lock.Dependencies {
		if l != nil && l.Name == dep.Name && (dep.Version == "" || util.IsCompatibleRange(dep.Version, l.Version)) {
			return l.Version, nil
		}
	}
	return "", &manifest.Error{
		File: file, Message: fmt.Sprintf("Chart.lock has no version of dependency %s that %q allows", dep.Name, dep.Version),
		Hint: "Run `helm dependency update` and commit Chart.lock.",
	}
}

// fetch loads one dependency. at names the place that asks for it.
func (l *chartLoader) fetch(dep *chart.Dependency, version string, req Request, at *manifest.Error) (*chart.Chart, error) {
	fail := func(err error, hint, format string, args ...any) (*chart.Chart, error) {
		at.Message = fmt.Sprintf("dependency %s: ", dep.Name) + fmt.Sprintf(format, args...)
		at.Hint, at.Err = hint, err
		return nil, at
	}
	repo := dep.Repository
	switch {
	case repo == "":
		return fail(nil, "Commit it to charts/, or give its repository.", "is not in charts/ and names no repository")
	case strings.HasPrefix(repo, "@"), strings.HasPrefix(repo, "alias:"):
		return fail(nil, "Write the URL of the repository.", "repository %q is an alias of somebody's computer", repo)
	case strings.HasPrefix(repo, "file://"):
		local := strings.TrimPrefix(repo, "file://")
		if path.IsAbs(local) {
			return fail(nil, "Write a path relative to the chart.", "%s leads out of the repository", repo)
		}
		dir := path.Join(req.Dir, local)
		if _, err := l.tree.ReadFile(l.ctx, path.Join(dir, chartFile)); err != nil {
			if errors.Is(err, git.ErrNotFound) {
				return fail(err, "Check the path; it is relative to the chart.", "%s has no Chart.yaml", repo)
			}
			return fail(err, "", "%v", err)
		}
		sub, err := l.chart(dir)
		if err != nil {
			return nil, err
		}
		if dep.Version != "" && !util.IsCompatibleRange(dep.Version, sub.Metadata.Version) {
			return fail(nil, "Change one of the two.", "version %q is wanted, and %s has %s", dep.Version, repo, sub.Metadata.Version)
		}
		return sub, nil
	}
	if req.Remote == nil {
		return fail(nil, "Commit the output of `helm dependency build` in charts/.", "is not in charts/, and %s cannot be reached from here", repo)
	}
	data, got, err := req.Remote.Chart(l.ctx, repo, dep.Name, version)
	if err != nil {
		if ctxErr := l.ctx.Err(); ctxErr != nil {
			return nil, fmt.Errorf("fetch chart %s: %w", dep.Name, ctxErr)
		}
		return fail(err, "Check the repository and version, or commit the chart to charts/.", "%v", err)
	}
	if req.Helm.PassCredentials {
		l.warnings = append(l.warnings, manifest.Warning{File: at.File, Line: at.Line, Message: "passCredentials has no effect: credentials are only sent to the host they are for"})
	}
	files, err := l.unpack(path.Join(req.Dir, "charts", dep.Name+"-"+got+".tgz"), data)
	if err != nil {
		return nil, err
	}
	return l.build(path.Join(req.Dir, "charts", dep.Name+"-"+got+".tgz"), files)
}

// warnIncomplete names what Helm leaves out without a word: dependencies of
// subcharts that are not packed with them.
func (l *chartLoader) warnIncomplete(c *chart.Chart, dir string) {
	for _, dep := range c.Metadata.Dependencies {
		if dep != nil && !has(c, dep.Name) {
			l.warnings = append(l.warnings, manifest.Warning{
				File: path.Join(dir, chartFile), Line: 1,
				Message: fmt.Sprintf("subchart %s needs %s, which its charts/ lacks; it is left out, as Helm does", c.Name(), dep.Name),
			})
		}
	}
	for _, sub := range c.Dependencies() {
		l.warnIncomplete(sub, dir)
	}
}

func (l *chartLoader) lineOf(file, text string) int {
	data, err := l.tree.ReadFile(l.ctx, file)
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		if strings.TrimLeft(strings.TrimRight(line, " \r\n"), " -") == text {
			return n
		}
	}
	return 0
}
