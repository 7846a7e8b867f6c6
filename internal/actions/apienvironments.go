package actions

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
)

// Bounds of GitHub's protection rules.
const (
	maxWaitTimer = 43_200 // minutes: 30 days
	maxReviewers = 6
	maxPolicies  = 200
)

func (a *Actions) environmentRoutes(r routes) {
	r.read("", a.apiEnvironments)
	r.read("/{environment}", a.apiEnvironment)
	r.write("PUT", "/{environment}", a.apiSetEnvironment)
	r.write("DELETE", "/{environment}", a.apiDeleteEnvironment)
	r.read("/{environment}/deployment-branch-policies", a.apiPolicies)
	r.write("POST", "/{environment}/deployment-branch-policies", a.apiCreatePolicy)
	r.read("/{environment}/deployment-branch-policies/{id}", a.apiPolicy)
	r.write("PUT", "/{environment}/deployment-branch-policies/{id}", a.apiUpdatePolicy)
	r.write("DELETE", "/{environment}/deployment-branch-policies/{id}", a.apiDeletePolicy)
	r.read("/{environment}/deployment_protection_rules", a.apiProtectionRules)
}

func (a *Actions) environmentJSON(e store.Environment) map[string]any {
	rules := []any{}
	node := func(kind string) string { return fmt.Sprintf("GA_%d_%s", e.ID, kind) }
	if e.WaitTimer > 0 {
		rules = append(rules, map[string]any{"id": e.ID*4 + 1, "node_id": node("timer"), "type": "wait_timer", "wait_timer": e.WaitTimer})
	}
	if len(e.Reviewers) > 0 {
		rules = append(rules, map[string]any{"id": e.ID*4 + 2, "node_id": node("reviewers"), "type": "required_reviewers", "prevent_self_review": e.PreventSelfReview,
			"reviewers": a.reviewersJSON(e.Reviewers)})
	}
	var policy any
	if e.Branches != "" {
		rules = append(rules, map[string]any{"id": e.ID*4 + 3, "node_id": node("branches"), "type": "branch_policy"})
		policy = map[string]any{"protected_branches": e.Branches == "protected", "custom_branch_policies": e.Branches == "custom"}
	}
	return map[string]any{"id": e.ID, "node_id": fmt.Sprintf("EN_%d", e.ID), "name": e.Name, "url": a.apiURL(e.Repo, "/environments/%s", e.Name),
		"html_url":   fmt.Sprintf("%s/%s/deployments/activity_log?environments_filter=%s", a.cfg.ServerURL, e.Repo, e.Name),
		"created_at": stamp(e.Created), "updated_at": stamp(e.Updated), "protection_rules": rules, "deployment_branch_policy": policy, "can_admins_bypass": !e.NoBypass}
}

func (a *Actions) reviewersJSON(list []store.Reviewer) []any {
	out := []any{}
	for _, v := range list {
		out = append(out, map[string]any{"type": v.Type, "reviewer": a.userJSON(v.Login)})
	}
	return out
}

func (a *Actions) apiEnvironments(c *call) (any, error) {
	list, err := a.store.Environments(c.Context(), c.repo)
	if err != nil {
		return nil, err
	}
	limit, offset := c.page()
	c.links(len(list), limit)
	items := []any{}
	for _, e := range cut(list, limit, offset) {
		items = append(items, a.environmentJSON(e))
	}
	return map[string]any{"total_count": len(list), "environments": items}, nil
}

func (a *Actions) theEnvironment(c *call) (store.Environment, error) {
	return a.store.Environment(c.Context(), c.repo, c.PathValue("environment"))
}

func (a *Actions) apiEnvironment(c *call) (any, error) {
	e, err := a.theEnvironment(c)
	if err != nil {
		return nil, err
	}
	return a.environmentJSON(e), nil
}

// environmentBody is the body of PUT. A key that is absent or null takes its
// rule away, as on GitHub.
type environmentBody struct {
	WaitTimer         int  `json:"wait_timer"`
	PreventSelfReview bool `json:"prevent_self_review"`
	Reviewers         []struct {
		Type  string `json:"type"`
		ID    int64  `json:"id"`
		Login string `json:"login"` // beyond GitHub: instead of id
	} `json:"reviewers"`
	Policy *struct {
		Protected bool `json:"protected_branches"`
		Custom    bool `json:"custom_branch_policies"`
	} `json:"deployment_branch_policy"`
	CanAdminsBypass *bool `json:"can_admins_bypass"`
}

func (a *Actions) apiSetEnvironment(c *call) (any, error) {
	var body environmentBody
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	unprocessable := func(format string, args ...any) (any, error) {
		return nil, refuse(http.StatusUnprocessableEntity, format, args...)
	}
	name := c.PathValue("environment")
	if err := store.CheckEnvironment(name); err != nil {
		return unprocessable("%v", err)
	}
	switch {
	case body.WaitTimer < 0 || body.WaitTimer > maxWaitTimer:
		return unprocessable("wait_timer must be 0 to %d minutes", maxWaitTimer)
	case len(body.Reviewers) > maxReviewers:
		return unprocessable("at most %d reviewers are allowed", maxReviewers)
	case body.Policy != nil && body.Policy.Protected == body.Policy.Custom:
		return unprocessable("protected_branches and custom_branch_policies cannot have the same value")
	}
	var reviewers []store.Reviewer
	for _, v := range body.Reviewers {
		if v.Type != "" && v.Type != "User" {
			return unprocessable("reviewers of type %s are not supported here: there are no teams; name users", v.Type)
		}
		login, err := a.login(c, v.ID, v.Login)
		if err != nil {
			return nil, err
		}
		if login == "" {
			return unprocessable("no user has the id %d; give \"login\" instead", v.ID)
		}
		reviewers = append(reviewers, store.Reviewer{Type: "User", ID: accountID(login), Login: login})
	}
	e, _, err := a.store.ChangeEnvironment(c.Context(), c.repo, name, func(e *store.Environment) error {
		e.WaitTimer, e.PreventSelfReview, e.Reviewers, e.Branches = body.WaitTimer, body.PreventSelfReview, reviewers, ""
		if body.Policy != nil && body.Policy.Protected {
			e.Branches = "protected"
		}
		if body.Policy != nil && body.Policy.Custom {
			e.Branches = "custom"
		}
		if body.CanAdminsBypass != nil {
			e.NoBypass = !*body.CanAdminsBypass
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.environmentJSON(e), nil
}

// login finds who has a number: the forge knows, or it is the number of
// somebody who is near.
func (a *Actions) login(c *call, id int64, login string) (string, error) {
	if login != "" {
		return login, nil
	}
	if a.deps.Users != nil {
		return a.deps.Users.Login(c.Context(), id)
	}
	owner, _, _ := strings.Cut(c.repo, "/")
	for _, near := range []string{c.actor, owner} {
		if near != "" && accountID(near) == id {
			return near, nil
		}
	}
	return "", nil
}

func (a *Actions) apiDeleteEnvironment(c *call) (any, error) {
	return done(http.StatusNoContent), a.store.DeleteEnvironment(c.Context(), c.repo, c.PathValue("environment"))
}

func (a *Actions) apiProtectionRules(c *call) (any, error) {
	if _, err := a.theEnvironment(c); err != nil {
		return nil, err
	}
	return map[string]any{"total_count": 0, "custom_deployment_protection_rules": []any{}}, nil
}

func policyJSON(p store.RefPolicy) map[string]any {
	return map[string]any{"id": p.ID, "node_id": fmt.Sprintf("DBP_%d", p.ID), "name": p.Name, "type": p.Type}
}

func (a *Actions) apiPolicies(c *call) (any, error) {
	e, err := a.theEnvironment(c)
	if err != nil {
		return nil, err
	}
	limit, offset := c.page()
	items := []any{}
	for _, p := range cut(e.Policies, limit, offset) {
		items = append(items, policyJSON(p))
	}
	return map[string]any{"total_count": len(e.Policies), "branch_policies": items}, nil
}

func (a *Actions) apiPolicy(c *call) (any, error) {
	e, err := a.theEnvironment(c)
	if err != nil {
		return nil, err
	}
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	for _, p := range e.Policies {
		if p.ID == id {
			return policyJSON(p), nil
		}
	}
	return nil, fmt.Errorf("deployment branch policy %d: %w", id, ErrNotFound)
}

// changePolicies changes the policies of an environment that exists.
func (a *Actions) changePolicies(c *call, f func(*store.Environment) error) error {
	if _, err := a.theEnvironment(c); err != nil {
		return err
	}
	_, _, err := a.store.ChangeEnvironment(c.Context(), c.repo, c.PathValue("environment"), f)
	return err
}

func (a *Actions) apiCreatePolicy(c *call) (any, error) {
	var body struct{ Name, Type string }
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	if body.Type == "" {
		body.Type = "branch"
	}
	if body.Name == "" || body.Type != "branch" && body.Type != "tag" {
		return nil, refuse(http.StatusUnprocessableEntity, "name is needed, and type must be branch or tag")
	}
	p := store.RefPolicy{Name: body.Name, Type: body.Type}
	err := a.changePolicies(c, func(e *store.Environment) error {
		switch {
		case e.Branches != "custom":
			return refuse(http.StatusNotFound, "Not Found: environment %s has no custom branch policies; set deployment_branch_policy.custom_branch_policies", e.Name)
		case len(e.Policies) >= maxPolicies:
			return refuse(http.StatusUnprocessableEntity, "environment %s has %d policies already", e.Name, len(e.Policies))
		}
		for _, old := range e.Policies {
			if old.Name == p.Name && old.Type == p.Type {
				p = old
				return nil
			}
		}
		e.NextID++
		p.ID = e.ID*1000 + e.NextID
		e.Policies = append(e.Policies, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return policyJSON(p), nil
}

func (a *Actions) apiUpdatePolicy(c *call) (any, error) {
	var body struct{ Name string }
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	if body.Name == "" {
		return nil, refuse(http.StatusUnprocessableEntity, "name is needed")
	}
	err = a.changePolicies(c, func(e *store.Environment) error {
		for i := range e.Policies {
			if e.Policies[i].ID == id {
				e.Policies[i].Name = body.Name
				return nil
			}
		}
		return fmt.Errorf("deployment branch policy %d: %w", id, ErrNotFound)
	})
	if err != nil {
		return nil, err
	}
	return a.apiPolicy(c)
}

func (a *Actions) apiDeletePolicy(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	return done(http.StatusNoContent), a.changePolicies(c, func(e *store.Environment) error {
		n := len(e.Policies)
		if e.Policies = slices.DeleteFunc(e.Policies, func(p store.RefPolicy) bool { return p.ID == id }); len(e.Policies) == n {
			return fmt.Errorf("deployment branch policy %d: %w", id, ErrNotFound)
		}
		return nil
	})
}

func (a *Actions) apiPendingDeployments(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	items, seen := []any{}, map[int64]bool{}
	for _, j := range r.Jobs {
		if j.Status != store.Waiting || j.Gate == nil || seen[j.Gate.EnvironmentID] {
			continue
		}
		seen[j.Gate.EnvironmentID] = true
		e, err := a.store.Environment(c.Context(), r.Repo, j.Gate.Environment)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		may := a.mayReview(c.Context(), r, j, &ReviewOptions{User: c.actor}) == nil
		items = append(items, map[string]any{
			"environment": map[string]any{"id": j.Gate.EnvironmentID, "node_id": fmt.Sprintf("EN_%d", j.Gate.EnvironmentID), "name": j.Gate.Environment,
				"url": a.apiURL(r.Repo, "/environments/%s", j.Gate.Environment), "html_url": a.cfg.ServerURL + "/" + r.Repo + "/deployments"},
			"wait_timer": e.WaitTimer, "wait_timer_started_at": stamp(j.Gate.Since), "current_user_can_approve": may, "reviewers": a.reviewersJSON(j.Gate.Reviewers)})
	}
	return items, nil
}

func (a *Actions) apiReview(c *call) (any, error) {
	var body struct {
		Environments []json.Number `json:"environment_ids"`
		State        string        `json:"state"`
		Comment      string        `json:"comment"`
	}
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	if body.State != "approved" && body.State != "rejected" || len(body.Environments) == 0 {
		return nil, refuse(http.StatusUnprocessableEntity, "environment_ids are needed, and state must be approved or rejected")
	}
	o := ReviewOptions{Approve: body.State == "approved", Comment: body.Comment, User: c.actor}
	for _, n := range body.Environments {
		id, err := strconv.ParseInt(n.String(), 10, 64)
		if err != nil {
			return nil, refuse(http.StatusUnprocessableEntity, "environment_ids: %q is no number", n)
		}
		o.Environments = append(o.Environments, id)
	}
	jobs, err := a.Review(c.Context(), r.ID, o)
	if errors.Is(err, errConflict) {
		return nil, refuse(http.StatusUnprocessableEntity, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, j := range jobs {
		out = append(out, map[string]any{"id": j.Gate.Deployment, "node_id": fmt.Sprintf("DE_%d", j.Gate.Deployment), "ref": branch(r), "sha": r.Head(), "task": "deploy",
			"environment": j.Gate.Environment, "original_environment": j.Gate.Environment, "creator": a.userJSON(r.Actor), "payload": map[string]any{}, "description": nil,
			"created_at": stamp(j.Gate.Since), "updated_at": stamp(a.deps.Now()), "url": a.apiURL(r.Repo, "/deployments/%d", j.Gate.Deployment),
			"statuses_url": a.apiURL(r.Repo, "/deployments/%d/statuses", j.Gate.Deployment), "repository_url": a.apiURL(r.Repo, "")})
	}
	return out, nil
}

func (a *Actions) apiApprovals(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	reviews, err := a.store.Reviews(c.Context(), r.ID)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, v := range reviews {
		environments := []any{}
		for _, name := range v.Environments {
			shown := map[string]any{"name": name, "url": a.apiURL(r.Repo, "/environments/%s", name)}
			if e, err := a.store.Environment(c.Context(), r.Repo, name); err == nil {
				shown["id"], shown["node_id"], shown["created_at"], shown["updated_at"] = e.ID, fmt.Sprintf("EN_%d", e.ID), stamp(e.Created), stamp(e.Updated)
				shown["html_url"] = a.cfg.ServerURL + "/" + r.Repo + "/deployments"
			}
			environments = append(environments, shown)
		}
		out = append(out, map[string]any{"state": v.State, "comment": v.Comment, "user": a.userJSON(v.User), "environments": environments})
	}
	return out, nil
}
