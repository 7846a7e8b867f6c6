package applicationset

import (
	"fmt"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
)

// desired is what was generated, after validation. It is not changed.
type desired struct {
	apps    []*unstructured.Unstructured // valid ones, in order
	named   map[string]bool              // all, also invalid ones: they are not deleted
	invalid []string                     // why, one text for each
	prune   map[string]bool              // rolling sync: whose sync prunes
}

// message is what the condition says of invalid Applications.
func (d *desired) message() string {
	if n := len(d.invalid); n > 1 {
		return fmt.Sprintf("%s (and %d more)", d.invalid[0], n-1)
	}
	return d.invalid[0]
}

// desiredOf validates the Applications. One that is not valid does not hold up
// the others.
func (p *pass) desiredOf(apps []*unstructured.Unstructured) *desired {
	d := &desired{named: map[string]bool{}, prune: map[string]bool{}}
	projects := map[string]error{}
	for _, app := range apps {
		name := app.GetName()
		if err := p.validate(app, d.named, projects); err != nil {
			d.invalid = append(d.invalid, fmt.Sprintf("Application %s: %v", name, err))
			d.named[name] = true
			continue
		}
		d.named[name] = true
		if rolling(&p.set) {
			app = withoutAutomated(app, d.prune, p.set.Spec.Strategy.RollingSync.DefaultPrune)
		}
		d.apps = append(d.apps, app)
	}
	return d
}

func (p *pass) validate(app *unstructured.Unstructured, seen map[string]bool, projects map[string]error) error {
	name := app.GetName()
	if seen[name] {
		return fmt.Errorf("the name is generated twice; the first counts. Put a parameter into spec.template.metadata.name that tells them apart")
	}
	if msgs := validation.IsDNS1123Subdomain(name); len(msgs) > 0 {
		return fmt.Errorf("the name is not valid: %s. Use normalize or slugify", msgs[0])
	}
	project, _, _ := unstructured.NestedString(app.Object, "spec", "project")
	err, checked := projects[project]
	if !checked {
		err = p.checkProject(project)
		projects[project] = err
	}
	if err != nil {
		return err
	}
	if owner := p.otherOwner(name); owner != "" {
		return fmt.Errorf("an Application of this name belongs to %s", owner)
	}
	return nil
}

func (p *pass) checkProject(name string) error {
	obj, ok, err := p.projects.GetStore().GetByKey(p.Namespace + "/" + name)
	if err != nil || !ok {
		return fmt.Errorf("spec.project: there is no AppProject %s in namespace %s", name, p.Namespace)
	}
	if p.set.Namespace == p.Namespace {
		return nil
	}
	patterns, _, _ := unstructured.NestedStringSlice(obj.(*unstructured.Unstructured).Object, "spec", "sourceNamespaces")
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, p.set.Namespace); err == nil && ok {
			return nil
		}
	}
	return fmt.Errorf("spec.project: AppProject %s does not permit Applications in namespace %s; add it to its sourceNamespaces", name, p.set.Namespace)
}

// otherOwner names the controller that an existing Application belongs to,
// when that is not this set.
func (p *pass) otherOwner(name string) string {
	obj, ok, err := p.apps.GetStore().GetByKey(p.set.Namespace + "/" + name)
	if err != nil || !ok {
		return ""
	}
	ref := controllerOf(obj.(*unstructured.Unstructured))
	if ref == nil || ref.UID == p.set.UID {
		return ""
	}
	return strings.TrimSpace(ref.Kind + " " + ref.Name)
}

// withoutAutomated takes automated sync out of an Application, for the rollout
// triggers its syncs, and notes whether they prune.
func withoutAutomated(app *unstructured.Unstructured, prune map[string]bool, byDefault bool) *unstructured.Unstructured {
	prune[app.GetName()] = byDefault
	policy, ok, _ := unstructured.NestedFieldNoCopy(app.Object, "spec", "syncPolicy")
	from, isMap := policy.(map[string]any)
	if !ok || !isMap || from["automated"] == nil {
		return app
	}
	if automated, ok := from["automated"].(map[string]any); ok {
		if b, ok := automated["prune"].(bool); ok {
			prune[app.GetName()] = b
		}
	}
	spec := app.Object["spec"].(map[string]any)
	spec, from = shallow(spec), shallow(from)
	delete(from, "automated")
	if len(from) == 0 {
		delete(spec, "syncPolicy")
	} else {
		spec["syncPolicy"] = from
	}
	object := shallow(app.Object)
	object["spec"] = spec
	return &unstructured.Unstructured{Object: object}
}

func shallow(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// wishOf is the operation that syncs an Application in its turn.
func (p *pass) wishOf(app *unstructured.Unstructured, prune bool, mark string) map[string]any {
	sync := map[string]any{}
	if prune {
		sync["prune"] = true
	}
	wish := map[string]any{
		"sync":        sync,
		"initiatedBy": map[string]any{"username": "applicationset-controller", "automated": true},
		"info": []any{
			map[string]any{"name": "Reason", "value": "ApplicationSet RollingSync triggered a sync of this Application resource"},
			map[string]any{"name": markName, "value": mark},
		},
	}
	policy, _, _ := unstructured.NestedMap(app.Object, "spec", "syncPolicy")
	if options, ok := policy["syncOptions"]; ok {
		sync["syncOptions"] = options
	}
	if retry, ok := policy["retry"]; ok {
		wish["retry"] = retry
	}
	return wish
}

// markName is the info of an operation that tells which turn it is of.
const markName = "RollingSync turn"
