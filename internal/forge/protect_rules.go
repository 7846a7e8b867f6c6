package forge

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const protectSchema = `
create table if not exists protection (
  repo text not null, branch text not null, rules text not null, -- JSON of branchRules
  primary key (repo, branch)
) without rowid;
`

// branchRules is the protection of a branch.
type branchRules struct {
	EnforceAdmins    bool `json:"enforce_admins,omitempty"`
	AllowForcePushes bool `json:"allow_force_pushes,omitempty"`
	AllowDeletions   bool `json:"allow_deletions,omitempty"`
	BlockCreations   bool `json:"block_creations,omitempty"`
	LockBranch       bool `json:"lock_branch,omitempty"`
	LinearHistory    bool `json:"linear_history,omitempty"`

	RequirePull         bool `json:"require_pull,omitempty"`
	Approvals           int  `json:"approvals,omitempty"`
	DismissStale        bool `json:"dismiss_stale,omitempty"`
	CodeOwners          bool `json:"code_owners,omitempty"`
	LastPushApproval    bool `json:"last_push_approval,omitempty"`
	ResolveConversation bool `json:"resolve_conversation,omitempty"`

	RequireChecks bool     `json:"require_checks,omitempty"`
	Strict        bool     `json:"strict,omitempty"` // the branch must be up to date
	Contexts      []string `json:"contexts,omitempty"`

	Restricted bool     `json:"restricted,omitempty"`
	Pushers    []string `json:"pushers,omitempty"`
}

// rulesFor are the rules of a ref, nil without any.
func (f *Forge) rulesFor(ctx context.Context, repo *repository, ref string) (*branchRules, error) {
	branch, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok {
		return nil, nil
	}
	var text string
	err := f.db.QueryRowContext(ctx, `select rules from protection where repo = ? and branch = ?`, repo.key, branch).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	rules := &branchRules{}
	if err := json.Unmarshal([]byte(text), rules); err != nil {
		return nil, fmt.Errorf("protection of %s: %w", branch, err)
	}
	return rules, nil
}

// storeRules replaces the protection of a branch; nil removes it.
func (f *Forge) storeRules(ctx context.Context, repo *repository, branch string, rules *branchRules) error {
	statement, args := `delete from protection where repo = ? and branch = ?`, []any{repo.key, branch}
	if rules != nil {
		data, err := json.Marshal(rules)
		if err != nil {
			return fmt.Errorf("protection of %s: %w", branch, err)
		}
		statement, args = `insert or replace into protection (repo, branch, rules) values (?,?,?)`, append(args, string(data))
	}
	if _, err := f.db.ExecContext(ctx, statement, args...); err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	return nil
}

// protectedBranches are the names of the branches with rules.
func (f *Forge) protectedBranches(ctx context.Context, repo *repository) (map[string]bool, error) {
	rows, err := f.db.QueryContext(ctx, `select branch from protection where repo = ?`, repo.key)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	names, err := scanStrings(rows)
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set, nil
}
