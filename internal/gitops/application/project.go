package application

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/project"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// compiled is a project, or why it cannot be used.
type compiled struct {
	project *project.Project
	err     error
}

// compile returns the project of a name, compiled once until a project or a
// setting changes.
func (c *Controller) compile(name string) compiled {
	c.mu.Lock()
	known, ok := c.compiled[name]
	set := c.set
	c.mu.Unlock()
	if ok {
		return known
	}
	next := compiled{}
	next.project, next.err = c.compileAnew(name, set)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set == set {
		c.compiled[name] = next
	}
	return next
}

func (c *Controller) compileAnew(name string, set *Policies) (*project.Project, error) {
	from, ok := c.findProject(name)
	if !ok {
		return nil, fmt.Errorf("spec.project: there is no AppProject %s in namespace %s", name, c.Namespace)
	}
	merged, err := project.Merge(from, set.Globals, c.findProject)
	if err != nil {
		return nil, err
	}
	return project.Compile(merged)
}

func (c *Controller) findProject(name string) (*v1alpha1.AppProject, bool) {
	obj, ok, err := c.projects.GetStore().GetByKey(c.Namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	p := &v1alpha1.AppProject{}
	if err := v1alpha1.Decode(obj.(*unstructured.Unstructured), p); err != nil {
		c.Log.Error("read a project", "project", name, "error", err)
		return nil, false
	}
	return p, true
}

func (c *Controller) projectsChanged() {
	c.mu.Lock()
	clear(c.compiled)
	c.mu.Unlock()
	c.EnqueueAll()
}

// checkProject holds the application against its project, which it leaves in
// p.rules.
func (p *pass) checkProject() error {
	if err := p.set.Problem; err != nil {
		return invalid("%v", err)
	}
	c := p.compile(p.project())
	if c.err != nil {
		return invalid("%v", c.err)
	}
	p.rules = c.project
	for _, w := range p.rules.Warnings() {
		p.condition(v1alpha1.ConditionUnsupportedFeatures, w)
	}
	checked := p.app
	checked.Spec.Sources, checked.Spec.Source = p.sources, nil
	for _, v := range p.rules.CheckApplication(&checked, p.cluster.project(), p.Namespace) {
		return invalid("%v. %s", v, v.Hint)
	}
	return nil
}

// project is the cluster as projects select it.
func (c *Cluster) project() project.Cluster {
	return project.Cluster{Name: c.Name, Server: c.Server, Project: c.Project}
}

// checkObjects holds rendered objects against the project and the cluster.
func (p *pass) checkObjects(want *rendered) error {
	for _, d := range want.objects {
		gvk := schema.GroupVersionKind{Group: d.key.Group, Version: d.version, Kind: d.key.Kind}
		if v := p.rules.CheckObject(gvk, d.key.Namespace, d.key.Name, p.cluster.project()); v != nil {
			return &manifest.Error{File: d.file, Line: d.line, Message: v.Error(), Hint: v.Hint}
		}
		if p.set.Settings.Excluded(d.key.Group, d.key.Kind, p.cluster.Server) {
			p.condition(v1alpha1.ConditionExcludedResource, fmt.Sprintf("%s is excluded by the settings (resource.exclusions) and left out", d.key))
		}
		if p.cluster.Permits != nil && !p.cluster.Permits(d.key.Namespace) {
			return &manifest.Error{File: d.file, Line: d.line, Message: fmt.Sprintf("%s is outside the namespaces that cluster %s is registered with", d.key, p.cluster.title()),
				Hint: "Add the namespace to the cluster's Secret, or take the object out of the source."}
		}
	}
	return nil
}

// target is the application as sync windows select it.
func (p *pass) target() project.Target {
	return project.Target{Application: p.app.Name, Namespace: p.app.Spec.Destination.Namespace, Cluster: p.cluster.project()}
}

// windowOpen reports whether the project's sync windows let an automated sync
// start now; if not, a condition says so, and a pass comes when that changes.
func (p *pass) windowOpen() bool {
	now := p.Now()
	d := p.rules.Windows(now, p.target())
	if d.Automated {
		return true
	}
	p.condition(ConditionWaiting, "waits for a sync window: "+d.Why)
	if !d.Until.IsZero() {
		p.queue.AddAfter(p.key, d.Until.Sub(now))
	}
	return false
}

// mayWish reports why a sync that somebody asked for may not start, nil when
// it may.
func (p *pass) mayWish() error {
	if p.rules == nil {
		return p.failure
	}
	if d := p.rules.Windows(p.Now(), p.target()); !d.Manual {
		return fmt.Errorf("no sync now: %s", d.Why)
	}
	return nil
}

// overrun reports why the sync under way may not go on, "" when it may.
func (p *pass) overrun(op *operation) string {
	if p.rules == nil {
		return ""
	}
	now, manual := p.Now(), !op.wish.InitiatedBy.Automated
	d := p.rules.Continues(now, op.started, p.target(), manual)
	if d.Automated || manual && d.Manual {
		return ""
	}
	return d.Why
}

// checkSignatures verifies the commits of sources whose repositories must be
// signed.
func (p *pass) checkSignatures(ctx context.Context) error {
	for i, r := range p.revs {
		keys, required, err := p.rules.Signatures(p.sources[i].RepoURL)
		if err != nil {
			return invalid("%v", err)
		}
		if !required || r.Git == nil {
			continue
		}
		name := r.Repo + " " + r.ID + " " + strings.Join(keys, ",")
		if p.st.signed[i] == name {
			continue
		}
		raw, err := r.Git.Object(ctx, r.ID)
		if err != nil {
			return fmt.Errorf("read commit %s: %w", short(r.ID), err)
		}
		if err := p.set.Keyring.Verify(raw.Data, keys); err != nil {
			return invalid("commit %s of %s is not synced: %v", short(r.ID), r.Repo, err)
		}
		if p.st.signed == nil {
			p.st.signed = map[int]string{}
		}
		p.st.signed[i] = name
	}
	return nil
}

const maxOrphansTold = 10

// findOrphans puts a condition on the application when its project wants to
// know of objects that no application holds. They are looked for among the
// kinds that applications use.
func (p *pass) findOrphans() {
	look, warn := p.rules.Monitored()
	if !look || !warn || p.plan == nil {
		return
	}
	var live []project.Key
	for _, o := range p.cluster.Live.Loose(p.app.Spec.Destination.Namespace) {
		live = append(live, project.Key{Group: o.Key.Group, Kind: o.Key.Kind, Namespace: o.Key.Namespace, Name: o.Key.Name})
	}
	orphans := p.rules.Orphans(live, func(project.Key) bool { return false })
	if len(orphans) == 0 {
		return
	}
	var names []string
	for _, k := range orphans[:min(len(orphans), maxOrphansTold)] {
		names = append(names, plan.Key{Group: k.Group, Kind: k.Kind, Name: k.Name}.String())
	}
	if len(orphans) > maxOrphansTold {
		names = append(names, "…")
	}
	p.condition(v1alpha1.ConditionOrphanedResource, fmt.Sprintf("namespace %s has %s that no application holds: %s",
		p.app.Spec.Destination.Namespace, plural(len(orphans), "object"), strings.Join(names, ", ")))
}
