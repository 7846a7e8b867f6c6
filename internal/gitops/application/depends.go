package application

import (
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// ConditionWaiting says what an automated sync waits for before it starts.
const ConditionWaiting = "SyncWaiting"

// dependenciesReady reports whether the applications that this one depends on
// are in sync and healthy; if not, a condition says which one is not, and a
// change of it brings the next pass.
func (p *pass) dependenciesReady() bool {
	names := p.app.Annotations[AnnotationDependsOn]
	if names == "" {
		return true
	}
	var keys []string
	waits := ""
	for name := range strings.SplitSeq(names, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		key := name
		if !strings.Contains(name, "/") {
			key = p.app.Namespace + "/" + name
		}
		keys = append(keys, key)
		if why := p.notReady(key); why != "" && waits == "" {
			waits = why
		}
	}
	p.dependOn(keys)
	if waits == "" {
		return true
	}
	p.condition(ConditionWaiting, "waits for "+waits+" ("+AnnotationDependsOn+")")
	return false
}

func (p *pass) notReady(key string) string {
	if key == p.key {
		return "itself: an application cannot depend on itself"
	}
	app, st := p.application(key)
	switch {
	case app == nil:
		return fmt.Sprintf("application %s, which does not exist", key)
	case app.Status.Sync.Status != v1alpha1.SyncSynced:
		return fmt.Sprintf("application %s to be in sync (now %s)", key, app.Status.Sync.Status)
	case app.Status.Health.Status != v1alpha1.HealthHealthy:
		return fmt.Sprintf("application %s to be healthy (now %s)", key, app.Status.Health.Status)
	}
	if st != nil {
		st.mu.Lock()
		busy := st.dirty || st.looking || st.op != nil
		st.mu.Unlock()
		if busy {
			return fmt.Sprintf("application %s, which is being synced", key)
		}
	}
	return ""
}

// dependOn registers for changes of other applications.
func (p *pass) dependOn(keys []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		if p.dependents[k] == nil {
			p.dependents[k] = map[string]bool{}
		}
		p.dependents[k][p.key] = true
	}
}

// wakeDependents looks again at those that wait for an application.
func (c *Controller) wakeDependents(key string) {
	c.mu.Lock()
	waiting := c.dependents[key]
	delete(c.dependents, key)
	c.mu.Unlock()
	for k := range waiting {
		c.queue.Add(k)
	}
}
