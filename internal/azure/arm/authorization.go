package arm

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/uuid"
)

// authorization serves Microsoft.Authorization at any scope.
func (c *call) authorization(p path) error {
	if len(p.Types) == 0 {
		return c.provider(p)
	}
	if len(p.Types) > 1 {
		return c.unknownType(p)
	}
	switch strings.ToLower(p.Types[0]) {
	case "roledefinitions":
		return c.roleDefinitions(p)
	case "roleassignments":
		if len(p.Names) == 1 {
			return c.roleAssignment(p)
		}
		return c.roleAssignments(p)
	case "register":
		return c.provider(p)
	}
	return c.unknownType(p)
}

var roleNameFilter = regexp.MustCompile(`(?i)^\s*roleName\s+eq\s+'([^']*)'\s*$`)

// roleDefinitions lists or reads the built-in roles.
func (c *call) roleDefinitions(p path) error {
	if c.r.Method != http.MethodGet {
		return badRequest("OperationNotSupported", "This local Azure has the built-in roles only; role definitions cannot be written.")
	}
	if len(p.Names) == 1 {
		r := roleByID(p.Names[0])
		if r == nil {
			return refuse(http.StatusNotFound, "RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist.", p.Names[0])
		}
		writeJSON(c.w, http.StatusOK, r.body(c.s.cfg.SubscriptionID))
		return nil
	}
	filter := c.query("$filter")
	m := roleNameFilter.FindStringSubmatch(filter)
	if filter != "" && m == nil && !strings.HasPrefix(strings.ToLower(strings.TrimSpace(filter)), "type eq") && !strings.EqualFold(filter, "atScopeAndBelow()") {
		return badRequest("InvalidFilterInQueryString", "The filter '%s' is not supported by this local Azure; it takes roleName eq '…'.", filter)
	}
	var items []any
	for i := range roles {
		if m == nil || strings.EqualFold(roles[i].Name, m[1]) {
			items = append(items, roles[i].body(c.s.cfg.SubscriptionID))
		}
	}
	return c.list(items)
}

// assignmentID is the canonical id: the scope as it was created, if it is a
// resource of ours.
func (c *call) assignmentID(p path) (id, scope string, err error) {
	scope = p.Scope
	if r, err := find(c.ctx, c.s.deps.DB, scope); err != nil {
		return "", "", err
	} else if r != nil {
		scope = r.id()
	} else if scope != "" && strings.Count(scope, "/") == 2 {
		scope = "/subscriptions/" + c.s.cfg.SubscriptionID
	}
	return scope + "/providers/Microsoft.Authorization/roleAssignments/" + p.Names[0], scope, nil
}

// roleAssignment serves one assignment.
func (c *call) roleAssignment(p path) error {
	id, scope, err := c.assignmentID(p)
	if err != nil {
		return err
	}
	const typ = "Microsoft.Authorization/roleAssignments/"
	switch c.r.Method {
	case http.MethodGet:
		if err := c.require(typ+"read", scope); err != nil {
			return err
		}
		a, err := findAssignment(c.ctx, c.s.deps.DB, id)
		if err != nil {
			return err
		}
		if a == nil {
			return refuse(http.StatusNotFound, "RoleAssignmentNotFound", "The role assignment '%s' is not found.", p.Names[0])
		}
		writeJSON(c.w, http.StatusOK, a.Body)
		return nil
	case http.MethodPut:
		if err := c.require(typ+"write", scope); err != nil {
			return err
		}
		return c.assign(p, id, scope)
	case http.MethodDelete:
		if err := c.require(typ+"delete", scope); err != nil {
			return err
		}
		return c.unassign(id)
	}
	return c.methodNotAllowed()
}

func (c *call) unassign(id string) error {
	var a *assignment
	err := c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		var err error
		if a, err = findAssignment(c.ctx, tx, id); err != nil || a == nil {
			return err
		}
		if _, err := tx.ExecContext(c.ctx, `delete from arm_role_assignment where key = ?`, key(id)); err != nil {
			return fmt.Errorf("delete role assignment: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a == nil {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	writeJSON(c.w, http.StatusOK, a.Body)
	return nil
}

// wanted reads and checks the body of an assignment.
func (c *call) wanted(p path, id, scope string) (assignment, map[string]any, error) {
	body, err := c.body()
	if err != nil {
		return assignment{}, nil, err
	}
	if uuid.Validate(p.Names[0]) != nil {
		return assignment{}, nil, badRequest("InvalidRoleAssignmentId", "The role assignment ID '%s' is not valid. The role assignment ID must be a GUID.", p.Names[0])
	}
	props, _ := body["properties"].(map[string]any)
	roleID := text(props["roleDefinitionId"])
	r := roleByID(roleID[strings.LastIndexByte(roleID, '/')+1:])
	if r == nil {
		return assignment{}, nil, badRequest("RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist. This local Azure has the built-in roles that GET …/roleDefinitions lists.", roleID)
	}
	principal := strings.ToLower(text(props["principalId"]))
	if uuid.Validate(principal) != nil {
		return assignment{}, nil, badRequest("InvalidPrincipalId", "The principal ID '%s' is not valid. Principal ID must be a GUID.", text(props["principalId"]))
	}
	if text(props["condition"]) != "" {
		return assignment{}, nil, badRequest("OperationNotSupported", "Conditions on role assignments are not supported by this local Azure.")
	}
	if text(props["principalType"]) == "" {
		known, err := c.s.principals.ByObjectID(c.ctx, principal)
		if err != nil {
			return assignment{}, nil, err
		}
		if known == nil {
			return assignment{}, nil, badRequest("PrincipalNotFound", "Principal %s does not exist in the directory %s. Check that you have the correct principal ID. If you are creating this principal and then immediately assigning a role, this error might be related to a replication delay. In this case, set the role assignment principalType property to a value, such as ServicePrincipal, User, or Group.", strings.ReplaceAll(principal, "-", ""), c.s.cfg.TenantID)
		}
		props["principalType"] = "ServicePrincipal"
	}
	return assignment{ID: id, Scope: scope, PrincipalID: principal, RoleID: r.ID}, props, nil
}

// assign creates an assignment. The same one again is answered with what is there.
func (c *call) assign(p path, id, scope string) error {
	a, props, err := c.wanted(p, id, scope)
	if err != nil {
		return err
	}
	if strings.Count(scope, "/") >= 4 {
		// At a resource, or at an object inside one ("…/vaults/kv/secrets/name").
		if err := c.scopeExists(scope); err != nil {
			return err
		}
	}
	status := http.StatusCreated
	err = c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		old, err := findAssignment(c.ctx, tx, id)
		if err != nil {
			return err
		}
		if old != nil {
			if old.PrincipalID != a.PrincipalID || old.RoleID != a.RoleID {
				return badRequest("RoleAssignmentUpdateNotPermitted", "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.")
			}
			a, status = *old, http.StatusOK
			return nil
		}
		var twin string
		err = tx.QueryRowContext(c.ctx, `select key from arm_role_assignment where scope_key = ? and principal = ? and role = ?`, key(scope), a.PrincipalID, a.RoleID).Scan(&twin)
		if err == nil {
			return refuse(http.StatusConflict, "RoleAssignmentExists", "The role assignment already exists. The ID of the existing role assignment is %s.", strings.ReplaceAll(twin[strings.LastIndexByte(twin, '/')+1:], "-", ""))
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("read role assignments: %w", err)
		}
		a.Body = c.s.assignmentBody(a, props, c.who.ObjectID, c.now.Format("2006-01-02T15:04:05.0000000Z"))
		return saveAssignment(c.ctx, tx, a)
	})
	if err != nil {
		return err
	}
	c.s.deps.Log.Info("role assigned", "id", a.ID, "principal", a.PrincipalID, "role", a.RoleID, "by", c.who.Name)
	writeJSON(c.w, status, a.Body)
	return nil
}

// scopeExists fails when neither the scope nor the resource around it is there.
func (c *call) scopeExists(scope string) error {
	for s := scope; strings.Count(s, "/") >= 4; s = s[:strings.LastIndexByte(s, '/')] {
		r, err := find(c.ctx, c.s.deps.DB, s)
		if err != nil {
			return err
		}
		if r != nil && (s == scope || r.typeKey != strings.ToLower(groupType)) {
			return nil
		}
	}
	p, _ := parsePath(scope)
	if len(p.Names) == 0 {
		return noGroup(p.Group)
	}
	return refuse(http.StatusNotFound, "ResourceNotFound", "The Resource '%s/%s/%s' under resource group '%s' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
		p.Namespace, strings.Join(p.Types, "/"), strings.Join(p.Names, "/"), p.Group)
}

var assignmentFilter = regexp.MustCompile(`(?i)^\s*(?:atScope\(\)\s*(?:and\s+)?)?(?:(?:principalId\s+eq|assignedTo\()\s*'([^']*)'\)?)?\s*$`)

// roleAssignments lists those at the scope, above and below it.
func (c *call) roleAssignments(p path) error {
	if c.r.Method != http.MethodGet {
		return c.methodNotAllowed()
	}
	if err := c.require("Microsoft.Authorization/roleAssignments/read", p.Scope); err != nil {
		return err
	}
	m := assignmentFilter.FindStringSubmatch(c.query("$filter"))
	if m == nil {
		return badRequest("InvalidFilterInQueryString", "The filter '%s' is not supported by this local Azure; it takes atScope() and principalId eq '…'.", c.query("$filter"))
	}
	rows, err := c.s.deps.DB.QueryContext(c.ctx, `select scope_key, principal, body from arm_role_assignment order by key`)
	if err != nil {
		return fmt.Errorf("list role assignments: %w", err)
	}
	defer func() { _ = rows.Close() }()
	atScope := strings.Contains(strings.ToLower(c.query("$filter")), "atscope()")
	var items []any
	for rows.Next() {
		var at, principal, body string
		if err := rows.Scan(&at, &principal, &body); err != nil {
			return fmt.Errorf("list role assignments: %w", err)
		}
		here := within(key(p.Scope), at) || (!atScope && within(at, key(p.Scope)))
		if !here || (m[1] != "" && !strings.EqualFold(m[1], principal)) {
			continue
		}
		decoded, err := decodeBody(body)
		if err != nil {
			return err
		}
		items = append(items, decoded)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list role assignments: %w", err)
	}
	return c.list(items)
}
