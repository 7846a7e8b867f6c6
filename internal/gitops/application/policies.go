package application

import (
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/project"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

// Policies are what the administrator set, as of one moment. They are never
// changed; new ones take their place, see [Controller.PoliciesChanged].
type Policies struct {
	Settings *settings.Settings
	Plan     *plan.Policy
	Globals  []project.Global
	Keyring  *project.Keyring
	Problem  error // a setting that keeps everything from being synced, nil for none
}

// DefaultPolicies are those without any setting.
func DefaultPolicies() *Policies {
	s := settings.Default()
	return &Policies{Settings: s, Plan: plan.PolicyOf(s), Keyring: &project.Keyring{}}
}

// policies returns those that count now.
func (c *Controller) policies() *Policies {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.set
}

// PoliciesChanged puts new policies in place, and looks at every application.
func (c *Controller) PoliciesChanged(p *Policies) {
	c.mu.Lock()
	c.set = p
	clear(c.compiled)
	c.mu.Unlock()
	c.EnqueueAll()
}
