package keyvault

import (
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"time"
	"unicode/utf8"
)

const (
	maxValue       = 25 << 10 // bytes
	maxTags        = 15
	maxTagBytes    = 256
	maxContentType = 255
	maxVersions    = 500 // of one secret; backups are refused above it in the service
)

// attributes are what a client may set. Absent ones stay as they are.
type attributes struct {
	Enabled   *bool  `json:"enabled"`
	NotBefore *int64 `json:"nbf"`
	Expires   *int64 `json:"exp"`
}

// secretBody is the body of PUT and PATCH.
type secretBody struct {
	Value       *string            `json:"value"`
	ContentType *string            `json:"contentType"`
	Attributes  attributes         `json:"attributes"`
	Tags        map[string]*string `json:"tags"`
}

// check refuses what the service would.
func (b *secretBody) check() error {
	if len(b.Tags) > maxTags {
		return badParameter("A secret has at most %d tags, not %d.", maxTags, len(b.Tags))
	}
	for name, v := range b.Tags {
		if len(name) > maxTagBytes || (v != nil && len(*v) > maxTagBytes) {
			return badParameter("The name and the value of a tag have at most %d characters.", maxTagBytes)
		}
	}
	if b.ContentType != nil && len(*b.ContentType) > maxContentType {
		return badParameter("The content type has at most %d characters.", maxContentType)
	}
	if n, e := b.Attributes.NotBefore, b.Attributes.Expires; n != nil && e != nil && *e <= *n {
		return badParameter("The expiry date (exp) must be after the activation date (nbf).")
	}
	return nil
}

// apply lays the body over m.
func (b *secretBody) apply(m *meta) {
	if b.ContentType != nil {
		m.ContentType = b.ContentType
	}
	if b.Attributes.Enabled != nil {
		m.Enabled = *b.Attributes.Enabled
	}
	if b.Attributes.NotBefore != nil {
		m.NotBefore = b.Attributes.NotBefore
	}
	if b.Attributes.Expires != nil {
		m.Expires = b.Attributes.Expires
	}
	if b.Tags != nil {
		m.Tags = map[string]string{}
		for name, v := range b.Tags {
			if v != nil {
				m.Tags[name] = *v
			}
		}
	}
}

// setSecret adds a version.
func (c *call) setSecret(name string) error {
	if err := c.require(opSet, name); err != nil {
		return err
	}
	var body secretBody
	if err := c.body(&body); err != nil {
		return err
	}
	if body.Value == nil {
		return badParameter("Property  value  is required: the request body needs the secret's value.")
	}
	if len(*body.Value) > maxValue {
		return badParameter("The secret value is %d bytes long; at most %d are allowed.", len(*body.Value), maxValue)
	}
	if !utf8.ValidString(*body.Value) {
		return badParameter("The secret value is not valid UTF-8; encode binary values as base64.")
	}
	if err := body.check(); err != nil {
		return err
	}
	v := version{name: name, version: newVersion(), meta: meta{Enabled: true, Created: c.now.Unix(), Updated: c.now.Unix()}}
	body.apply(&v.meta)
	var err error
	if v.sealed, err = c.s.deps.Keyring.Seal([]byte(*body.Value), aad(c.vault.UID, name, v.version)); err != nil {
		return fmt.Errorf("seal secret %s: %w", name, err)
	}
	if err := c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error { return c.addVersion(tx, &v) }); err != nil {
		return err
	}
	c.wrote("set", v.name, v.version)
	out := c.bundle(&v)
	out["value"] = *body.Value
	c.json(http.StatusOK, out)
	return nil
}

// addVersion is the transaction of setSecret.
func (c *call) addVersion(tx *sql.Tx, v *version) error {
	if err := purgeExpired(c.ctx, tx, c.vault.UID, c.now.Unix()); err != nil {
		return err
	}
	latest, err := findVersion(c.ctx, tx, c.vault.UID, v.name, "")
	if err != nil {
		return err
	}
	if latest != nil {
		if latest.deleted != 0 {
			return conflict("ObjectIsDeletedButRecoverable", "Secret %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged.", latest.name)
		}
		v.name = latest.name // the case of its first version
		var n int
		if err := tx.QueryRowContext(c.ctx, `select count(*) from kv_secret where vault = ? and key = lower(?)`, c.vault.UID, v.name).Scan(&n); err != nil {
			return fmt.Errorf("count versions of %s: %w", v.name, err)
		}
		if n >= maxVersions {
			// The oldest go: rotation must never stop by itself.
			if _, err := tx.ExecContext(c.ctx, `delete from kv_secret where seq in (select seq from kv_secret where vault = ? and key = lower(?) order by seq limit ?)`, c.vault.UID, v.name, n-maxVersions+1); err != nil {
				return fmt.Errorf("trim versions of %s: %w", v.name, err)
			}
		}
	}
	return insertVersion(c.ctx, tx, c.vault.UID, *v)
}

// newVersion is 32 random hexadecimal digits.
func newVersion() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// live finds a version of a secret that is not deleted.
func (c *call) live(name, ver string) (*version, error) {
	v, err := findVersion(c.ctx, c.s.deps.DB, c.vault.UID, name, ver)
	if err != nil {
		return nil, err
	}
	if v == nil || v.deleted != 0 {
		id := name
		if ver != "" {
			id += "/" + ver
		}
		return nil, secretNotFound(id)
	}
	return v, nil
}

// getSecret answers with a value.
func (c *call) getSecret(name, ver string) error {
	if err := c.require(opGet, name); err != nil {
		return err
	}
	v, err := c.live(name, ver)
	if err != nil {
		return err
	}
	if !v.meta.Enabled {
		return forbidden("SecretDisabled", "Operation get is not allowed on a disabled secret.")
	}
	value, err := c.s.deps.Keyring.Open(v.sealed, aad(c.vault.UID, v.name, v.version))
	if err != nil {
		return fmt.Errorf("open secret %s/%s: %w", v.name, v.version, err)
	}
	out := c.bundle(v)
	out["value"] = string(value)
	c.json(http.StatusOK, out)
	return nil
}

// updateSecret changes everything about a version but its value.
func (c *call) updateSecret(name, ver string) error {
	if err := c.require(opUpdate, name); err != nil {
		return err
	}
	var body secretBody
	if err := c.body(&body); err != nil {
		return err
	}
	if body.Value != nil {
		return badParameter("A secret's value cannot be changed; set a new version instead.")
	}
	if err := body.check(); err != nil {
		return err
	}
	var v *version
	err := c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		var err error
		if v, err = findVersion(c.ctx, tx, c.vault.UID, name, ver); err != nil {
			return err
		}
		if v == nil || v.deleted != 0 {
			return secretNotFound(name)
		}
		body.apply(&v.meta)
		v.meta.Updated = c.now.Unix()
		return updateMeta(c.ctx, tx, v)
	})
	if err != nil {
		return err
	}
	c.wrote("updated", v.name, v.version)
	c.json(http.StatusOK, c.bundle(v))
	return nil
}

// id is a version's URL, with the host that the client used.
func (c *call) id(collection, name, ver string) string {
	id := "https://" + c.r.Host + "/" + collection + "/" + name
	if ver != "" {
		id += "/" + ver
	}
	return id
}

// bundle shows a version without its value.
func (c *call) bundle(v *version) map[string]any {
	out := c.item(v)
	out["id"] = c.id("secrets", v.name, v.version)
	return out
}

// item shows a version without value and with the id of its secret.
func (c *call) item(v *version) map[string]any {
	level := "Recoverable+Purgeable"
	if c.vault.PurgeProtection {
		level = "Recoverable"
	}
	if c.vault.RetentionDays < 90 {
		level = "Customized" + level
	}
	attrs := map[string]any{
		"enabled": v.meta.Enabled, "created": v.meta.Created, "updated": v.meta.Updated,
		"recoveryLevel": level, "recoverableDays": c.vault.RetentionDays,
	}
	if v.meta.NotBefore != nil {
		attrs["nbf"] = *v.meta.NotBefore
	}
	if v.meta.Expires != nil {
		attrs["exp"] = *v.meta.Expires
	}
	tags := v.meta.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	out := map[string]any{"id": c.id("secrets", v.name, ""), "attributes": attrs, "tags": maps.Clone(tags)}
	if v.meta.ContentType != nil {
		out["contentType"] = *v.meta.ContentType
	}
	if v.deleted != 0 {
		out["recoveryId"] = c.id("deletedsecrets", v.name, "")
		out["deletedDate"] = v.deleted
		out["scheduledPurgeDate"] = v.purgeAt
	}
	return out
}

// purgeTime is when a secret that is deleted now goes for good.
func (c *call) purgeTime() time.Time { return c.now.AddDate(0, 0, c.vault.RetentionDays) }
