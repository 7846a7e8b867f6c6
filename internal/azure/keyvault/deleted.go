package keyvault

import (
	"database/sql"
	"fmt"
	"net/http"
	"strings"
)

// deleteSecret marks a secret deleted; it can be recovered until its purge date.
func (c *call) deleteSecret(name string) error {
	if err := c.require(opDelete, name); err != nil {
		return err
	}
	var v *version
	err := c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		if err := purgeExpired(c.ctx, tx, c.vault.UID, c.now.Unix()); err != nil {
			return err
		}
		var err error
		if v, err = findVersion(c.ctx, tx, c.vault.UID, name, ""); err != nil {
			return err
		}
		if v == nil || v.deleted != 0 {
			return secretNotFound(name)
		}
		v.deleted, v.purgeAt = c.now.Unix(), c.purgeTime().Unix()
		_, err = tx.ExecContext(c.ctx, `insert into kv_deleted_secret (vault, key, deleted, purge_at) values (?,?,?,?)`,
			c.vault.UID, strings.ToLower(name), v.deleted, v.purgeAt)
		if err != nil {
			return fmt.Errorf("delete secret %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.wrote("deleted", v.name, "")
	c.json(http.StatusOK, c.bundle(v))
	return nil
}

// deleted is the latest version of a deleted secret that is not due for purging.
func (c *call) deletedVersion(name string) (*version, error) {
	v, err := findVersion(c.ctx, c.s.deps.DB, c.vault.UID, name, "")
	if err != nil {
		return nil, err
	}
	if v == nil || v.deleted == 0 || v.purgeAt <= c.now.Unix() {
		return nil, &apiError{status: http.StatusNotFound, code: "SecretNotFound", message: fmt.Sprintf("Deleted Secret not found: %s", name)}
	}
	return v, nil
}

func (c *call) getDeleted(name string) error {
	if err := c.require(opGetDeleted, name); err != nil {
		return err
	}
	v, err := c.deletedVersion(name)
	if err != nil {
		return err
	}
	c.json(http.StatusOK, c.bundle(v))
	return nil
}

func (c *call) recoverSecret(name string) error {
	if err := c.require(opRecover, name); err != nil {
		return err
	}
	v, err := c.deletedVersion(name)
	if err != nil {
		return err
	}
	err = c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(c.ctx, `delete from kv_deleted_secret where vault = ? and key = ?`, c.vault.UID, strings.ToLower(name)); err != nil {
			return fmt.Errorf("recover secret %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.deleted, v.purgeAt = 0, 0
	c.wrote("recovered", v.name, v.version)
	c.json(http.StatusOK, c.bundle(v))
	return nil
}

func (c *call) purgeSecret(name string) error {
	if err := c.require(opPurge, name); err != nil {
		return err
	}
	v, err := c.deletedVersion(name)
	if err != nil {
		return err
	}
	if c.vault.PurgeProtection {
		return forbidden("ForbiddenByPurgeProtection", "Operation \"purge\" is not allowed because purge protection is enabled for this vault. Key Vault service will automatically purge it after the retention period has passed.")
	}
	err = c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		// Recovered in the meantime means not deleted any more.
		now, err := findVersion(c.ctx, tx, c.vault.UID, name, "")
		if err != nil {
			return err
		}
		if now == nil || now.deleted == 0 {
			return &apiError{status: http.StatusNotFound, code: "SecretNotFound", message: fmt.Sprintf("Deleted Secret not found: %s", name)}
		}
		return removeSecret(c.ctx, tx, c.vault.UID, name)
	})
	if err != nil {
		return err
	}
	c.wrote("purged", v.name, "")
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
