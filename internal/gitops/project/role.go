package project

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

type role struct {
	name     string
	subject  string // "proj:<project>:<role>"
	groups   []string
	policies []policy
}

type policy struct {
	resource, action, object matcher
	deny                     bool
}

// resources and actions that policies of a project may name.
var (
	policyResources = []string{"applications", "applicationsets", "repositories", "clusters", "logs", "exec", "projects"}
	policyAction    = regexp.MustCompile(`^(get|create|update|delete|sync|override|rollback|invoke|\*|(action|update|delete)/.*)$`)
)

// roles compiles roles. One with a malformed policy grants nothing, for the
// policy may have been meant to deny.
func (c *compiler) roles(project string, from []v1alpha1.ProjectRole) []role {
	var out []role
	for i, r := range from {
		compiled := role{name: r.Name, subject: "proj:" + project + ":" + r.Name, groups: r.Groups}
		compiled.policies = append(compiled.policies, policy{resource: matcher{text: "projects"}, action: matcher{text: "get"}, object: matcher{text: project}})
		good := true
		for j, text := range r.Policies {
			p, err := parsePolicy(project, compiled.subject, text)
			if err != nil {
				c.warnings = append(c.warnings, fmt.Sprintf("spec.roles[%d].policies[%d]: %v; role %s grants nothing", i, j, err, r.Name))
				good = false
				continue
			}
			compiled.policies = append(compiled.policies, p)
		}
		if good {
			out = append(out, compiled)
		}
	}
	return out
}

// parsePolicy reads "p, subject, resource, action, object, effect".
func parsePolicy(project, subject, text string) (policy, error) {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if len(parts) != 6 || parts[0] != "p" {
		return policy{}, fmt.Errorf(`%q is not of the form "p, subject, resource, action, object, effect"`, text)
	}
	if parts[1] != subject {
		return policy{}, fmt.Errorf("subject %q must be %q", parts[1], subject)
	}
	if parts[2] != "*" && !slices.Contains(policyResources, parts[2]) {
		return policy{}, fmt.Errorf("resource %q is none of %s", parts[2], strings.Join(policyResources, ", "))
	}
	if !policyAction.MatchString(parts[3]) {
		return policy{}, fmt.Errorf("there is no action %q", parts[3])
	}
	if parts[4] != project && !strings.HasPrefix(parts[4], project+"/") {
		return policy{}, fmt.Errorf("object %q must begin with %q", parts[4], project+"/")
	}
	if parts[5] != "allow" && parts[5] != "deny" {
		return policy{}, fmt.Errorf("effect %q is neither allow nor deny", parts[5])
	}
	p := policy{deny: parts[5] == "deny"}
	var err error
	for into, pattern := range map[*matcher]string{&p.resource: parts[2], &p.action: parts[3], &p.object: parts[4]} {
		if *into, err = glob(pattern, 0); err != nil {
			return policy{}, err
		}
	}
	return p, nil
}

// Allows reports whether somebody may do an action on an object, such as
// "sync" on "applications" "project/app". subject is a role's own name
// ("proj:<project>:<role>", by a token) or any other; groups are those of the
// person. One policy must allow and none may deny.
func (p *Project) Allows(subject string, groups []string, resource, action, object string) bool {
	allowed := false
	for _, r := range p.roles {
		member := subject == r.subject || slices.ContainsFunc(r.groups, func(g string) bool { return g == subject || slices.Contains(groups, g) })
		if !member {
			continue
		}
		for _, rule := range r.policies {
			if !rule.resource.match(resource) || !rule.action.match(action) || !rule.object.match(object) {
				continue
			}
			if rule.deny {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

// Roles returns the names of the roles that somebody has by their groups.
func (p *Project) Roles(groups []string) []string {
	var out []string
	for _, r := range p.roles {
		if slices.ContainsFunc(r.groups, func(g string) bool { return slices.Contains(groups, g) }) {
			out = append(out, r.name)
		}
	}
	return out
}
