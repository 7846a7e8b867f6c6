package arm

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// softDeleteVault keeps a deleted vault for its retention time.
func softDeleteVault(ctx context.Context, s *Server, tx *sql.Tx, r *resource) error {
	body, err := json.Marshal(r.body)
	if err != nil {
		return fmt.Errorf("delete vault %s: %w", r.name, err)
	}
	now := s.deps.Now().UTC()
	days := storedInt(r.prop("softDeleteRetentionInDays"), 90)
	_, err = tx.ExecContext(ctx, `insert into arm_deleted_vault (name, uid, body, deleted, purge_at) values (?,?,?,?,?)`,
		r.name, r.uid, string(body), now.Unix(), now.AddDate(0, 0, days).Unix())
	if err != nil {
		return fmt.Errorf("delete vault %s: %w", r.name, err)
	}
	return nil
}

// purgeExpired removes the deleted vaults whose retention time is over.
func (s *Server) purgeExpired(ctx context.Context, tx *sql.Tx, now time.Time) error {
	rows, err := tx.QueryContext(ctx, `select name, uid from arm_deleted_vault where purge_at <= ?`, now.Unix())
	if err != nil {
		return fmt.Errorf("purge expired vaults: %w", err)
	}
	expired := map[string]string{}
	for rows.Next() {
		var name, uid string
		if err := rows.Scan(&name, &uid); err != nil {
			return errors.Join(fmt.Errorf("purge expired vaults: %w", err), rows.Close())
		}
		expired[name] = uid
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("purge expired vaults: %w", err)
	}
	for name, uid := range expired {
		if err := s.purge(ctx, tx, name, uid); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) purge(ctx context.Context, tx *sql.Tx, name, uid string) error {
	if _, err := tx.ExecContext(ctx, `delete from arm_deleted_vault where name = ?`, name); err != nil {
		return fmt.Errorf("purge vault %s: %w", name, err)
	}
	return s.deps.VaultPurged(ctx, tx, uid)
}

// vaultsOfSubscription serves the deleted vaults and the name check:
// locations/{l}/deletedVaults/{n}, …/{n}/purge, deletedVaults, checkNameAvailability.
func (c *call) vaultsOfSubscription(p path) error {
	const action = "Microsoft.KeyVault/locations/deletedVaults/"
	types := strings.ToLower(strings.Join(p.Types, "/"))
	switch {
	case types == "checknameavailability":
		return c.checkName(p)
	case types == "deletedvaults" && c.r.Method == http.MethodGet:
		if err := c.require("Microsoft.KeyVault/deletedVaults/read", p.Scope); err != nil {
			return err
		}
		return c.deletedVaults()
	case types == "locations/deletedvaults" && len(p.Names) == 2 && c.r.Method == http.MethodGet:
		if err := c.require(action+"read", p.Scope); err != nil {
			return err
		}
		v, err := c.liveDeletedVault(p.Names[0], p.Names[1])
		if err != nil {
			return err
		}
		writeJSON(c.w, http.StatusOK, c.deletedVaultBody(v))
		return nil
	case types == "locations/deletedvaults/purge" && len(p.Names) == 2 && c.r.Method == http.MethodPost:
		if err := c.require(action+"purge/action", p.Scope); err != nil {
			return err
		}
		return c.purgeVault(p.Names[0], p.Names[1])
	}
	return c.unknownType(p)
}

// liveDeletedVault finds a deleted vault that is not yet due for purging.
func (c *call) liveDeletedVault(location, name string) (*deletedVault, error) {
	v, err := findDeletedVault(c.ctx, c.s.deps.DB, name)
	if err != nil {
		return nil, err
	}
	if v == nil || v.purgeAt <= c.now.Unix() || text(v.body["location"]) != normalizeLocation(location) {
		return nil, refuse(http.StatusNotFound, "DeletedVaultNotFound", "The specified deleted vault '%s' does not exist in the location '%s'.", name, location)
	}
	return v, nil
}

func (c *call) deletedVaultBody(v *deletedVault) map[string]any {
	id := fmt.Sprintf("/subscriptions/%s/providers/Microsoft.KeyVault/locations/%s/deletedVaults/%s", c.s.cfg.SubscriptionID, text(v.body["location"]), text(v.body["name"]))
	props := map[string]any{
		"vaultId": v.body["id"], "location": v.body["location"], "tags": v.body["tags"],
		"deletionDate":       time.Unix(v.deleted, 0).UTC().Format(timeLayoutVault),
		"scheduledPurgeDate": time.Unix(v.purgeAt, 0).UTC().Format(timeLayoutVault),
	}
	if old, _ := v.body["properties"].(map[string]any); old["enablePurgeProtection"] == true {
		props["purgeProtectionEnabled"] = true
	}
	return map[string]any{"id": id, "name": v.body["name"], "type": "Microsoft.KeyVault/deletedVaults", "properties": props}
}

func (c *call) deletedVaults() error {
	rows, err := c.s.deps.DB.QueryContext(c.ctx, `select name from arm_deleted_vault where purge_at > ? order by name limit 1000`, c.now.Unix())
	if err != nil {
		return fmt.Errorf("list deleted vaults: %w", err)
	}
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return errors.Join(fmt.Errorf("list deleted vaults: %w", err), rows.Close())
		}
		names = append(names, name)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("list deleted vaults: %w", err)
	}
	var items []any
	for _, name := range names {
		v, err := findDeletedVault(c.ctx, c.s.deps.DB, name)
		if err != nil {
			return err
		}
		if v != nil {
			items = append(items, c.deletedVaultBody(v))
		}
	}
	return c.list(items)
}

func (c *call) purgeVault(location, name string) error {
	v, err := c.liveDeletedVault(location, name)
	if err != nil {
		return err
	}
	if props, _ := v.body["properties"].(map[string]any); props["enablePurgeProtection"] == true {
		return refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "Operation 'DeletedVaultPurge' is not allowed: the vault '%s' has purge protection until %s.", name, time.Unix(v.purgeAt, 0).UTC().Format(timeLayoutVault))
	}
	if err := c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error { return c.s.purge(c.ctx, tx, v.name, v.uid) }); err != nil {
		return err
	}
	c.s.deps.Log.Info("vault purged", "vault", v.name, "by", c.who.Name)
	c.w.WriteHeader(http.StatusOK)
	return nil
}
