package forge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

func (f *Forge) protectRoutes(rt routes) {
	const base = "/repos/{owner}/{repo}/branches/{branch}/protection"
	rt.handle("GET "+base, scopeAdmin, f.apiProtection)
	rt.handle("PUT "+base, scopeAdmin, f.apiProtect)
	rt.handle("DELETE "+base, scopeAdmin, f.apiUnprotect)
	rt.handle("GET "+base+"/enforce_admins", scopeAdmin, f.apiProtectionPart)
	rt.handle("POST "+base+"/enforce_admins", scopeAdmin, f.apiEnforceAdmins)
	rt.handle("DELETE "+base+"/enforce_admins", scopeAdmin, f.apiEnforceAdmins)
	rt.handle("GET "+base+"/required_status_checks", scopeAdmin, f.apiProtectionPart)
	rt.handle("PATCH "+base+"/required_status_checks", scopeAdmin, f.apiProtectChecks)
	rt.handle("DELETE "+base+"/required_status_checks", scopeAdmin, f.apiUnprotectPart)
	rt.handle("GET "+base+"/required_pull_request_reviews", scopeAdmin, f.apiProtectionPart)
	rt.handle("DELETE "+base+"/required_pull_request_reviews", scopeAdmin, f.apiUnprotectPart)
	rt.handle("GET "+base+"/restrictions", scopeAdmin, f.apiProtectionPart)
	rt.handle("DELETE "+base+"/restrictions", scopeAdmin, f.apiUnprotectPart)
	rt.handle("GET "+base+"/required_signatures", scopeAdmin, f.apiSignatures)
	rt.handle("POST "+base+"/required_signatures", scopeAdmin, f.apiSignatures)
	rt.handle("DELETE "+base+"/required_signatures", scopeAdmin, f.apiSignatures)
	rt.handle("POST /repos/{owner}/{repo}/branches/{branch}/rename", scopeContents, f.apiRenameBranch)
	rt.handle("GET /repos/{owner}/{repo}/rulesets", scopeAdmin, f.apiRulesets)
	rt.handle("GET /repos/{owner}/{repo}/rules/branches/{branch...}", "", f.apiRulesets)
	rt.handle("POST /repos/{owner}/{repo}/rulesets", scopeAdmin, f.apiNoRulesets)
}

type checkInput struct {
	Context string `json:"context"`
}

type checksInput struct {
	Strict   *bool        `json:"strict"`
	Contexts []string     `json:"contexts"`
	Checks   []checkInput `json:"checks"`
}

func (c checksInput) apply(rules *branchRules) error {
	rules.RequireChecks = true
	if c.Strict != nil {
		rules.Strict = *c.Strict
	}
	if c.Contexts == nil && c.Checks == nil {
		return nil
	}
	rules.Contexts = slices.Clone(c.Contexts)
	for _, check := range c.Checks {
		rules.Contexts = append(rules.Contexts, check.Context)
	}
	slices.Sort(rules.Contexts)
	rules.Contexts = slices.Compact(rules.Contexts)
	if len(rules.Contexts) > 100 || slices.ContainsFunc(rules.Contexts, func(s string) bool { return s == "" || len(s) > 255 }) {
		return invalid("ProtectedBranch", "invalid", "required_status_checks", "name up to 100 contexts of 1 to 255 characters")
	}
	return nil
}

// protectionInput is the body of PUT …/protection. The first four must be named, if only as null.
type protectionInput struct {
	Checks       *checksInput `json:"required_status_checks"`
	EnforceAdmin *bool        `json:"enforce_admins"`
	Reviews      *struct {
		Approvals     int  `json:"required_approving_review_count"`
		DismissStale  bool `json:"dismiss_stale_reviews"`
		CodeOwners    bool `json:"require_code_owner_reviews"`
		LastPush      bool `json:"require_last_push_approval"`
		Dismissal     any  `json:"dismissal_restrictions"`
		BypassAllowed any  `json:"bypass_pull_request_allowances"`
	} `json:"required_pull_request_reviews"`
	Restrictions *struct {
		Users []string `json:"users"`
		Teams []string `json:"teams"`
		Apps  []string `json:"apps"`
	} `json:"restrictions"`
	Linear      bool  `json:"required_linear_history"`
	Force       *bool `json:"allow_force_pushes"`
	Deletions   bool  `json:"allow_deletions"`
	Creations   bool  `json:"block_creations"`
	Resolve     bool  `json:"required_conversation_resolution"`
	Lock        bool  `json:"lock_branch"`
	ForkSyncing bool  `json:"allow_fork_syncing"`
}

func (in protectionInput) rules() (*branchRules, error) {
	rules := &branchRules{
		EnforceAdmins: in.EnforceAdmin != nil && *in.EnforceAdmin, AllowForcePushes: in.Force != nil && *in.Force,
		AllowDeletions: in.Deletions, BlockCreations: in.Creations, LockBranch: in.Lock, LinearHistory: in.Linear, ResolveConversation: in.Resolve,
	}
	if in.Checks != nil {
		if err := in.Checks.apply(rules); err != nil {
			return nil, err
		}
	}
	if p := in.Reviews; p != nil {
		if p.Approvals < 0 || p.Approvals > 6 {
			return nil, invalid("ProtectedBranch", "invalid", "required_approving_review_count", "it must be 0 to 6")
		}
		rules.RequirePull, rules.Approvals, rules.DismissStale = true, p.Approvals, p.DismissStale
		rules.CodeOwners, rules.LastPushApproval = p.CodeOwners, p.LastPush
		if p.CodeOwners {
			return nil, unsupportedRule("require_code_owner_reviews", "owners of code are not read")
		}
	}
	if p := in.Restrictions; p != nil {
		if len(p.Teams) > 0 {
			return nil, unsupportedRule("restrictions.teams", "there are no teams: name users and apps")
		}
		rules.Restricted = true
		rules.Pushers = slices.Clone(p.Users)
		for _, app := range p.Apps {
			rules.Pushers = append(rules.Pushers, app+"[bot]")
		}
	}
	return rules, nil
}

func unsupportedRule(field, why string) error {
	return invalid("ProtectedBranch", "custom", field, "Lockstep's forge doesn't support "+field+": "+why)
}

func (f *Forge) apiProtect(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	var named map[string]json.RawMessage
	var in protectionInput
	if err := errors.Join(json.Unmarshal(body, &named), json.Unmarshal(body, &in)); err != nil {
		return nil, fail(http.StatusBadRequest, "Problems parsing JSON: %s", err)
	}
	for _, field := range []string{"required_status_checks", "enforce_admins", "required_pull_request_reviews", "restrictions"} {
		if _, ok := named[field]; !ok {
			return nil, fail(http.StatusUnprocessableEntity, "Invalid request.\n\n%q wasn't supplied.", field)
		}
	}
	branch := r.PathValue("branch")
	if _, err := repo.git.Commit(r.Context(), "refs/heads/"+branch); err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Branch not found")
	}
	rules, err := in.rules()
	if err != nil {
		return nil, err
	}
	if err := f.storeRules(r.Context(), repo, branch, rules); err != nil {
		return nil, err
	}
	f.log.Info("branch protected", "repo", repo.full(), "branch", branch, "actor", IdentityFrom(r.Context()).Actor)
	return protectionJSON(r, repo, branch, rules), nil
}

// protectionOf is the repository and the rules of the branch of a request.
func (f *Forge) protectionOf(r *http.Request) (*repository, string, *branchRules, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, "", nil, err
	}
	branch := r.PathValue("branch")
	rules, err := f.rulesFor(r.Context(), repo, "refs/heads/"+branch)
	if err == nil && rules == nil {
		err = fail(http.StatusNotFound, "Branch not protected")
	}
	return repo, branch, rules, err
}

func (f *Forge) apiProtection(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, branch, rules, err := f.protectionOf(r)
	if err != nil {
		return nil, err
	}
	return protectionJSON(r, repo, branch, rules), nil
}

func (f *Forge) apiUnprotect(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, branch, _, err := f.protectionOf(r)
	if err != nil {
		return nil, err
	}
	if err := f.storeRules(r.Context(), repo, branch, nil); err != nil {
		return nil, err
	}
	f.log.Info("branch no longer protected", "repo", repo.full(), "branch", branch, "actor", IdentityFrom(r.Context()).Actor)
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

// lastPart is the part of the protection that the path of a request names.
func lastPart(r *http.Request) string {
	return r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
}

func (f *Forge) apiProtectionPart(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, branch, rules, err := f.protectionOf(r)
	if err != nil {
		return nil, err
	}
	part, ok := protectionJSON(r, repo, branch, rules)[lastPart(r)]
	if !ok {
		return nil, ErrNotFound
	}
	return part, nil
}

func (f *Forge) apiEnforceAdmins(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, branch, rules, err := f.protectionOf(r)
	if err != nil {
		return nil, err
	}
	rules.EnforceAdmins = r.Method == http.MethodPost
	if err := f.storeRules(r.Context(), repo, branch, rules); err != nil {
		return nil, err
	}
	if !rules.EnforceAdmins {
		w.WriteHeader(http.StatusNoContent)
		return nil, nil
	}
	return protectionJSON(r, repo, branch, rules)["enforce_admins"], nil
}

func (f *Forge) apiProtectChecks(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, branch, rules, err := f.protectionOf(r)
	if err != nil {
		return nil, err
	}
	var in checksInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := in.apply(rules); err != nil {
		return nil, err
	}
	if err := f.storeRules(r.Context(), repo, branch, rules); err != nil {
		return nil, err
	}
	return protectionJSON(r, repo, branch, rules)["required_status_checks"], nil
}

func (f *Forge) apiUnprotectPart(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, branch, rules, err := f.protectionOf(r)
	if err != nil {
		return nil, err
	}
	switch lastPart(r) {
	case "required_status_checks":
		rules.RequireChecks, rules.Contexts, rules.Strict = false, nil, false
	case "required_pull_request_reviews":
		rules.RequirePull, rules.Approvals, rules.DismissStale, rules.LastPushApproval = false, 0, false, false
	case "restrictions":
		rules.Restricted, rules.Pushers = false, nil
	}
	if err := f.storeRules(r.Context(), repo, branch, rules); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

func (f *Forge) apiSignatures(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, _, _, err := f.protectionOf(r); err != nil {
		return nil, err
	}
	if r.Method == http.MethodPost {
		return nil, unsupportedRule("required_signatures", "signatures of commits are kept and not checked")
	}
	return map[string]any{"url": apiBase(r) + r.URL.Path, "enabled": false}, nil
}

func (f *Forge) apiRulesets(_ http.ResponseWriter, r *http.Request) (any, error) {
	_, err := f.target(r)
	return []any{}, err
}

func (f *Forge) apiNoRulesets(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := f.administered(r); err != nil {
		return nil, err
	}
	return nil, fail(http.StatusUnprocessableEntity, "Lockstep's forge has no rulesets: protect the branch with PUT /repos/{owner}/{repo}/branches/{branch}/protection")
}

// protectionJSON describes rules as GitHub does: what is not required is left out.
func protectionJSON(r *http.Request, repo *repository, branch string, rules *branchRules) map[string]any {
	url := apiBase(r) + "/repos/" + repo.full() + "/branches/" + strings.ReplaceAll(branch, "/", "%2F") + "/protection"
	on := func(enabled bool) map[string]any { return map[string]any{"enabled": enabled} }
	j := map[string]any{
		"url": url, "enforce_admins": map[string]any{"url": url + "/enforce_admins", "enabled": rules.EnforceAdmins},
		"required_linear_history": on(rules.LinearHistory), "allow_force_pushes": on(rules.AllowForcePushes), "allow_deletions": on(rules.AllowDeletions),
		"block_creations": on(rules.BlockCreations), "required_conversation_resolution": on(rules.ResolveConversation), "lock_branch": on(rules.LockBranch),
		"allow_fork_syncing": on(false), "required_signatures": map[string]any{"url": url + "/required_signatures", "enabled": false},
	}
	if rules.RequireChecks {
		checks := []map[string]any{}
		for _, name := range rules.Contexts {
			checks = append(checks, map[string]any{"context": name, "app_id": nil})
		}
		j["required_status_checks"] = map[string]any{
			"url": url + "/required_status_checks", "strict": rules.Strict, "contexts": append([]string{}, rules.Contexts...),
			"contexts_url": url + "/required_status_checks/contexts", "checks": checks,
		}
	}
	if rules.RequirePull {
		j["required_pull_request_reviews"] = map[string]any{
			"url": url + "/required_pull_request_reviews", "dismiss_stale_reviews": rules.DismissStale, "require_code_owner_reviews": rules.CodeOwners,
			"required_approving_review_count": rules.Approvals, "require_last_push_approval": rules.LastPushApproval,
		}
	}
	if rules.Restricted {
		users, apps := []map[string]any{}, []map[string]any{}
		for _, login := range rules.Pushers {
			if name, ok := strings.CutSuffix(login, "[bot]"); ok {
				apps = append(apps, map[string]any{"slug": name, "name": name})
			} else {
				users = append(users, map[string]any{"login": login, "type": "User"})
			}
		}
		j["restrictions"] = map[string]any{"url": url + "/restrictions", "users": users, "teams": []any{}, "apps": apps}
	}
	return j
}
