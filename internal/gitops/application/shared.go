package application

import (
	"fmt"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// tellShared says which objects another application holds as well. Two that
// take an object from each other own it in turn, so what was seen once is told
// until the other no longer lists the object.
func (p *pass) tellShared(want *rendered, pl *plan.Plan) {
	for _, c := range pl.Changes {
		if c.SharedWith == "" {
			continue
		}
		if p.st.shared == nil {
			p.st.shared = map[plan.Key]string{}
		}
		p.st.shared[c.Key] = c.SharedWith
	}
	if len(p.st.shared) == 0 {
		return
	}
	wanted := map[plan.Key]bool{}
	for _, d := range want.objects {
		wanted[d.key] = true
	}
	for key, other := range p.st.shared {
		otherKey := p.keyOf(other)
		if !wanted[key] || !p.lists(otherKey, key) {
			delete(p.st.shared, key)
			continue
		}
		p.condition(v1alpha1.ConditionSharedResource, fmt.Sprintf("%s is part of application %s too; the two will overwrite each other", key, other))
		p.dependOn([]string{otherKey}) // its next status brings a pass
	}
}

// lists reports whether the status of an application has an object that it
// does not want to be rid of.
func (c *Controller) lists(application string, key plan.Key) bool {
	app, _ := c.application(application)
	if app == nil {
		return false
	}
	for _, r := range app.Status.Resources {
		if r.Group == key.Group && r.Kind == key.Kind && r.Namespace == key.Namespace && r.Name == key.Name {
			return !r.RequiresPruning
		}
	}
	return false
}
