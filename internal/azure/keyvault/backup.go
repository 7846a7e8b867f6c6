package keyvault

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
)

// backupAAD binds a backup to this installation, not to a vault: it can be
// restored into any vault of the subscription.
const backupAAD = "backup"

// backupForm is the content of a backup, sealed as a whole.
type backupForm struct {
	Name     string          `json:"name"`
	Versions []backupVersion `json:"versions"` // oldest first
}

type backupVersion struct {
	Version string `json:"version"`
	Value   []byte `json:"value"`
	Meta    meta   `json:"meta"`
}

// backup answers with all versions of a secret in a sealed blob.
func (c *call) backup(name string) error {
	if err := c.require(opBackup, name); err != nil {
		return err
	}
	if _, err := c.live(name, ""); err != nil {
		return err
	}
	list, err := versions(c.ctx, c.s.deps.DB, `where s.vault = ? and s.key = lower(?) order by s.seq`, c.vault.UID, name)
	if err != nil {
		return err
	}
	var form backupForm
	for _, v := range list {
		value, err := c.s.deps.Keyring.Open(v.sealed, aad(c.vault.UID, v.name, v.version))
		if err != nil {
			return fmt.Errorf("open secret %s/%s: %w", v.name, v.version, err)
		}
		form.Name = v.name
		form.Versions = append(form.Versions, backupVersion{Version: v.version, Value: value, Meta: v.meta})
	}
	text, err := json.Marshal(form)
	if err != nil {
		return fmt.Errorf("back up secret %s: %w", name, err)
	}
	if len(text) > maxBody/2 {
		return badParameter("The secret %s has too many versions for a backup.", name)
	}
	blob, err := c.s.deps.Keyring.Seal(text, backupAAD)
	if err != nil {
		return fmt.Errorf("back up secret %s: %w", name, err)
	}
	c.json(http.StatusOK, map[string]any{"value": base64.RawURLEncoding.EncodeToString(blob)})
	return nil
}

// restore brings a backed-up secret back with its versions.
func (c *call) restore() error {
	if err := c.require(opRestore, ""); err != nil {
		return err
	}
	var body struct {
		Value string `json:"value"`
	}
	if err := c.body(&body); err != nil {
		return err
	}
	blob, err := base64.RawURLEncoding.DecodeString(body.Value)
	if err != nil {
		return badParameter("The backup is not base64url.")
	}
	text, err := c.s.deps.Keyring.Open(blob, backupAAD)
	if err != nil {
		return badParameter("The backup is damaged, or from another Key Vault than this one.")
	}
	var form backupForm
	if err := json.Unmarshal(text, &form); err != nil || len(form.Versions) == 0 {
		return badParameter("The backup is damaged.")
	}
	var list []version
	for _, b := range form.Versions {
		v := version{name: form.Name, version: b.Version, meta: b.Meta}
		if v.sealed, err = c.s.deps.Keyring.Seal(b.Value, aad(c.vault.UID, form.Name, b.Version)); err != nil {
			return fmt.Errorf("restore secret %s: %w", form.Name, err)
		}
		list = append(list, v)
	}
	if err := c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error { return c.insertAll(tx, list) }); err != nil {
		return err
	}
	latest := list[len(list)-1]
	c.wrote("restored", latest.name, latest.version)
	c.json(http.StatusOK, c.bundle(&latest))
	return nil
}

func (c *call) insertAll(tx *sql.Tx, list []version) error {
	if err := purgeExpired(c.ctx, tx, c.vault.UID, c.now.Unix()); err != nil {
		return err
	}
	name := list[0].name
	old, err := findVersion(c.ctx, tx, c.vault.UID, name, "")
	switch {
	case err != nil:
		return err
	case old != nil && old.deleted != 0:
		return conflict("ObjectIsDeletedButRecoverable", "Secret %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged.", name)
	case old != nil:
		return conflict("", "The secret %s already exists; a backup cannot be restored over it.", name)
	}
	for _, v := range list {
		if err := insertVersion(c.ctx, tx, c.vault.UID, v); err != nil {
			return err
		}
	}
	return nil
}
