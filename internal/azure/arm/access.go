package arm

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
)

// Allowed reports whether a role assignment at the scope or above it gives the
// principal an action ("Microsoft.KeyVault/vaults/read"), or with data a data
// action of a service.
func (s *Server) Allowed(ctx context.Context, principalID, action, scope string, data bool) (bool, error) {
	rows, err := s.deps.DB.QueryContext(ctx, `select scope_key, role from arm_role_assignment where principal = ?`, strings.ToLower(principalID))
	if err != nil {
		return false, fmt.Errorf("read role assignments: %w", err)
	}
	defer func() { _ = rows.Close() }()
	target, ok := key(scope), false
	for rows.Next() {
		var at, id string
		if err := rows.Scan(&at, &id); err != nil {
			return false, fmt.Errorf("read role assignments: %w", err)
		}
		if r := roleByID(id); r != nil && within(target, at) && r.allows(action, data) {
			ok = true
		}
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("read role assignments: %w", err)
	}
	return ok, nil
}

// assignment is a stored role assignment.
type assignment struct {
	ID, Scope, PrincipalID, RoleID string
	Body                           map[string]any
}

// GrantOwner gives a principal the role Owner on the subscription. The platform's
// own service principal gets its rights so.
func (s *Server) GrantOwner(ctx context.Context, principalID string) error {
	scope := "/subscriptions/" + s.cfg.SubscriptionID
	owner := roles[0]
	a := assignment{
		ID:    scope + "/providers/Microsoft.Authorization/roleAssignments/" + entra.StableID(s.cfg.TenantID, "owner assignment", principalID),
		Scope: scope, PrincipalID: principalID, RoleID: owner.ID,
	}
	return s.deps.DB.Write(ctx, func(tx *sql.Tx) error {
		if old, err := findAssignment(ctx, tx, a.ID); err != nil || old != nil {
			return err
		}
		a.Body = s.assignmentBody(a, map[string]any{"principalType": "ServicePrincipal"}, principalID, s.deps.Now().UTC().Format("2006-01-02T15:04:05.0000000Z"))
		return saveAssignment(ctx, tx, a)
	})
}

// assignmentBody writes the resource that clients see.
func (s *Server) assignmentBody(a assignment, props map[string]any, by, stamp string) map[string]any {
	return map[string]any{
		"id": a.ID, "name": a.ID[strings.LastIndexByte(a.ID, '/')+1:], "type": "Microsoft.Authorization/roleAssignments",
		"properties": map[string]any{
			"roleDefinitionId": "/subscriptions/" + s.cfg.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/" + a.RoleID,
			"principalId":      a.PrincipalID, "principalType": props["principalType"], "scope": a.Scope,
			"description": props["description"], "condition": nil, "conditionVersion": nil, "delegatedManagedIdentityResourceId": nil,
			"createdOn": stamp, "updatedOn": stamp, "createdBy": by, "updatedBy": by,
		},
	}
}

func saveAssignment(ctx context.Context, tx *sql.Tx, a assignment) error {
	body, err := json.Marshal(a.Body)
	if err != nil {
		return fmt.Errorf("store role assignment: %w", err)
	}
	scopeKey := key(a.Scope)
	_, err = tx.ExecContext(ctx, `insert into arm_role_assignment (key, scope, scope_key, principal, role, body) values (?,?,?,?,?,?)`,
		key(a.ID), a.Scope, scopeKey, strings.ToLower(a.PrincipalID), strings.ToLower(a.RoleID), string(body))
	if err != nil {
		return fmt.Errorf("store role assignment: %w", err)
	}
	return nil
}

func findAssignment(ctx context.Context, q interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, id string) (*assignment, error) {
	var a assignment
	var body string
	err := q.QueryRowContext(ctx, `select scope, principal, role, body from arm_role_assignment where key = ?`, key(id)).
		Scan(&a.Scope, &a.PrincipalID, &a.RoleID, &body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read role assignment: %w", err)
	}
	if a.Body, err = decodeBody(body); err != nil {
		return nil, err
	}
	a.ID = text(a.Body["id"])
	return &a, nil
}
