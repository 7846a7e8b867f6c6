package arm

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/uuid"
)

const (
	vaultType       = "Microsoft.KeyVault/vaults"
	maxPolicies     = 1024
	timeLayoutVault = "2006-01-02T15:04:05Z"
	// Newer versions of the API create vaults with RBAC unless told otherwise.
	rbacByDefault = "2026-02-01"
)

var vaultKind = &kind{
	Type: vaultType, Versions: []string{"2026-02-01", "2025-05-01", "2024-11-01", "2023-07-01", "2022-07-01"},
	Name:     regexp.MustCompile(`^[a-zA-Z](-?[a-zA-Z0-9]){2,23}$`),
	NameRule: "3 to 24 letters, digits and single '-', beginning with a letter, ending with a letter or digit",
	Prepare:  prepareVault,
	Removed:  softDeleteVault,
	Lists:    []string{"privateEndpointConnections", "privateLinkResources", "keys", "secrets"},
}

func prepareVault(ctx context.Context, u *update) error {
	if len(u.name()) > 24 {
		return badRequest("VaultNameNotValid", "The vault name '%s' is longer than 24 characters.", u.name())
	}
	props, err := u.props()
	if err != nil {
		return err
	}
	if u.old == nil {
		if err := claimVaultName(ctx, u, props); err != nil {
			return err
		}
		if props, err = u.props(); err != nil { // recovering replaced the body
			return err
		}
	}
	delete(props, "createMode")
	if t := text(props["tenantId"]); !strings.EqualFold(t, u.s.cfg.TenantID) {
		return badRequest("BadRequest", "'properties.tenantId' of the vault '%s' is '%s'; this local Azure has the one tenant '%s'.", u.name(), t, u.s.cfg.TenantID)
	}
	sku, _ := props["sku"].(map[string]any)
	tier := strings.ToLower(text(sku["name"]))
	if tier != "standard" && tier != "premium" {
		return badRequest("BadRequest", "'properties.sku.name' of the vault '%s' must be standard or premium.", u.name())
	}
	props["sku"] = map[string]any{"family": "A", "name": tier}
	if err := vaultFlags(u, props); err != nil {
		return err
	}
	if err := checkPolicies(u.name(), props); err != nil {
		return err
	}
	setDefault(props, "publicNetworkAccess", "Enabled")
	props["vaultUri"] = "https://" + strings.ToLower(u.name()) + ".vault.azure.net/"
	props["provisioningState"] = "Succeeded"
	return nil
}

// vaultFlags checks the switches and numbers, and gives them their defaults.
func vaultFlags(u *update, props map[string]any) error {
	rbac := u.ver >= rbacByDefault
	if u.old != nil {
		rbac = u.oldProp("enableRbacAuthorization") == true
	}
	for name, missing := range map[string]bool{
		"enableRbacAuthorization": rbac, "enabledForDeployment": false, "enabledForDiskEncryption": false,
		"enabledForTemplateDeployment": false, "enableSoftDelete": true,
	} {
		v, err := wantBool(props, name, missing)
		if err != nil {
			return err
		}
		props[name] = v
	}
	if props["enableSoftDelete"] == false {
		return badRequest("BadRequest", "The property \"enableSoftDelete\" can only be set to true: soft delete cannot be switched off.")
	}
	was := u.oldProp("enablePurgeProtection") == true
	protected, err := wantBool(props, "enablePurgeProtection", was)
	if err != nil {
		return err
	}
	if was && !protected {
		return badRequest("BadRequest", "The property \"enablePurgeProtection\" cannot be set to false. Enabling the purge protection for a vault is an irreversible action.")
	}
	delete(props, "enablePurgeProtection") // absent means off, as the service shows it
	if protected {
		props["enablePurgeProtection"] = true
	}
	days, err := wantInt(props, "softDeleteRetentionInDays", storedInt(u.oldProp("softDeleteRetentionInDays"), 90), 7, 90)
	if err != nil {
		return err
	}
	props["softDeleteRetentionInDays"] = days
	return nil
}

func storedInt(v any, missing int) int {
	if n, ok := v.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return int(i)
		}
	}
	return missing
}

// checkPolicies refuses access policies that name no one, and fills in the tenant.
func checkPolicies(vault string, props map[string]any) error {
	if props["accessPolicies"] == nil {
		props["accessPolicies"] = []any{}
	}
	list, ok := props["accessPolicies"].([]any)
	if !ok || len(list) > maxPolicies {
		return badRequest("BadRequest", "'accessPolicies' of the vault '%s' must be a list of at most %d policies.", vault, maxPolicies)
	}
	for _, item := range list {
		policy, _ := item.(map[string]any)
		if uuid.Validate(text(policy["objectId"])) != nil {
			return badRequest("BadRequest", "An access policy of the vault '%s' has no valid objectId.", vault)
		}
		if _, ok := policy["permissions"].(map[string]any); !ok {
			return badRequest("BadRequest", "The access policy of '%s' in the vault '%s' has no permissions.", text(policy["objectId"]), vault)
		}
	}
	return nil
}

// claimVaultName checks that the name is free in the world. With createMode
// "recover" it brings a soft-deleted vault back instead.
func claimVaultName(ctx context.Context, u *update, props map[string]any) error {
	taken, err := resources(ctx, u.tx, `where type = ? and name = ?`, strings.ToLower(vaultType), strings.ToLower(u.name()))
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		return refuse(http.StatusConflict, "VaultAlreadyExists", "The vault name '%s' is already in use. Vault names are globally unique so it is possible that the name is already taken.", u.name())
	}
	if err := u.s.purgeExpired(ctx, u.tx, u.now); err != nil {
		return err
	}
	gone, err := findDeletedVault(ctx, u.tx, u.name())
	if err != nil {
		return err
	}
	recover := strings.EqualFold(text(props["createMode"]), "recover")
	switch {
	case gone == nil && recover:
		return refuse(http.StatusNotFound, "DeletedVaultNotFound", "There is no deleted vault '%s' to recover.", u.name())
	case gone == nil:
		return nil
	case !recover:
		return refuse(http.StatusConflict, "ConflictError", "A vault with the same name already exists in deleted state. You need to either recover or purge existing key vault. Follow this link https://go.microsoft.com/fwlink/?linkid=2149745 for more information on soft delete.")
	}
	if !strings.EqualFold(text(gone.body["id"]), u.id) {
		return refuse(http.StatusConflict, "ConflictError", "The deleted vault '%s' was '%s'; it can only be recovered there.", u.name(), text(gone.body["id"]))
	}
	u.uid = gone.uid
	u.body = gone.body
	if _, err := u.tx.ExecContext(ctx, `delete from arm_deleted_vault where name = ?`, gone.name); err != nil {
		return fmt.Errorf("recover vault %s: %w", gone.name, err)
	}
	return nil
}

// checkName answers whether a vault's or registry's name is free.
func (c *call) checkName(p path) error {
	if c.r.Method != http.MethodPost {
		return c.methodNotAllowed()
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	name, taken := text(body["name"]), false
	k := map[string]*kind{"microsoft.keyvault": vaultKind, "microsoft.containerregistry": registryKind}[strings.ToLower(p.Namespace)]
	if k == nil {
		return c.unknownType(p)
	}
	answer := map[string]any{"nameAvailable": true}
	if !k.Name.MatchString(name) {
		answer = map[string]any{"nameAvailable": false, "reason": "Invalid", "message": k.NameRule}
	}
	list, err := resources(c.ctx, c.s.deps.DB, `where type = ? and name = ?`, strings.ToLower(k.Type), strings.ToLower(name))
	if err != nil {
		return err
	}
	taken = len(list) > 0
	if k == vaultKind && !taken {
		v, err := findDeletedVault(c.ctx, c.s.deps.DB, name)
		if err != nil {
			return err
		}
		taken = v != nil && v.purgeAt > c.now.Unix()
	}
	if taken {
		answer = map[string]any{"nameAvailable": false, "reason": "AlreadyExists", "message": fmt.Sprintf("The name '%s' is already in use.", name)}
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}

// accessPolicies serves PUT …/vaults/{n}/accessPolicies/{add|replace|remove}.
func (c *call) accessPolicies(p path) error {
	if c.r.Method != http.MethodPut || len(p.Names) != 2 {
		return c.methodNotAllowed()
	}
	op := strings.ToLower(p.Names[1])
	if op != "add" && op != "replace" && op != "remove" {
		return badRequest("BadRequest", "The access policy operation '%s' must be add, replace or remove.", p.Names[1])
	}
	vault := p.parent()
	if err := c.require(vaultType+"/accessPolicies/write", vault.id()); err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	given, _ := body["properties"].(map[string]any)
	if given == nil {
		given = map[string]any{}
	}
	if err := checkPolicies(vault.Names[0], given); err != nil {
		return err
	}
	if _, err := c.mustFind(vaultKind, vault); err != nil {
		return err
	}
	var r *resource
	err = c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		if r, err = find(c.ctx, tx, vault.id()); err != nil {
			return err
		}
		if r == nil {
			return notFound(vaultKind, vault)
		}
		props, _ := r.body["properties"].(map[string]any)
		props = maps.Clone(props)
		props["accessPolicies"] = changePolicies(op, props["accessPolicies"], given["accessPolicies"])
		if err := checkPolicies(r.name, props); err != nil {
			return err
		}
		r.body["properties"] = props
		return save(c.ctx, tx, r, false)
	})
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, map[string]any{
		"id": r.id() + "/accessPolicies/", "type": vaultType + "/accessPolicies",
		"properties": map[string]any{"accessPolicies": r.prop("accessPolicies")},
	})
	return nil
}
