package keyvault

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const maxPage = 25

// page reads $skiptoken and maxresults. The token is an opaque form of the last
// key of the page before.
func (c *call) page() (after string, limit int, err error) {
	q := c.r.URL.Query()
	limit = maxPage
	if text := q.Get("maxresults"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			return "", 0, badParameter("maxresults must be a whole number from 1 to %d.", maxPage)
		}
	}
	if token := q.Get("$skiptoken"); token != "" {
		b, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(b) > 200 {
			return "", 0, badParameter("The $skiptoken is not one of this vault.")
		}
		after = string(b)
	}
	return after, limit, nil
}

// answer writes a page. keyOf gives the key after which the next page starts.
func (c *call) answer(list []version, limit int, show func(*version) map[string]any, keyOf func(*version) string) error {
	var next any
	if len(list) > limit {
		list = list[:limit]
		q := url.Values{"api-version": {c.r.URL.Query().Get("api-version")}, "maxresults": {strconv.Itoa(limit)},
			"$skiptoken": {base64.RawURLEncoding.EncodeToString([]byte(keyOf(&list[limit-1])))}}
		next = "https://" + c.r.Host + "/" + strings.Trim(c.r.URL.EscapedPath(), "/") + "?" + q.Encode()
	}
	value := make([]any, 0, len(list))
	for i := range list {
		value = append(value, show(&list[i]))
	}
	c.json(http.StatusOK, map[string]any{"value": value, "nextLink": next})
	return nil
}

const latestOnly = `and s.seq = (select max(l.seq) from kv_secret l where l.vault = s.vault and l.key = s.key) `

// listSecrets lists the secrets by name, without versions and values.
func (c *call) listSecrets() error {
	if err := c.require(opList, ""); err != nil {
		return err
	}
	after, limit, err := c.page()
	if err != nil {
		return err
	}
	list, err := versions(c.ctx, c.s.deps.DB, `where s.vault = ? and d.key is null and s.key > ? `+latestOnly+`order by s.key limit ?`, c.vault.UID, after, limit+1)
	if err != nil {
		return err
	}
	return c.answer(list, limit, c.item, nameKey)
}

func nameKey(v *version) string { return strings.ToLower(v.name) }

// listVersions lists all versions of one secret, oldest first.
func (c *call) listVersions(name string) error {
	if err := c.require(opList, name); err != nil {
		return err
	}
	after, limit, err := c.page()
	if err != nil {
		return err
	}
	seq := int64(0)
	if after != "" {
		if seq, err = strconv.ParseInt(after, 10, 64); err != nil {
			return badParameter("The $skiptoken is not one of this secret.")
		}
	}
	list, err := versions(c.ctx, c.s.deps.DB, `where s.vault = ? and s.key = ? and d.key is null and s.seq > ? order by s.seq limit ?`,
		c.vault.UID, strings.ToLower(name), seq, limit+1)
	if err != nil {
		return err
	}
	if len(list) == 0 && after == "" {
		return secretNotFound(name)
	}
	return c.answer(list, limit, c.bundle, func(v *version) string { return strconv.FormatInt(v.seq, 10) })
}

// listDeleted lists the deleted secrets by name.
func (c *call) listDeleted() error {
	if err := c.require(opList, ""); err != nil {
		return err
	}
	after, limit, err := c.page()
	if err != nil {
		return err
	}
	list, err := versions(c.ctx, c.s.deps.DB, `where s.vault = ? and d.purge_at > ? and s.key > ? `+latestOnly+`order by s.key limit ?`,
		c.vault.UID, c.now.Unix(), after, limit+1)
	if err != nil {
		return err
	}
	return c.answer(list, limit, c.item, nameKey)
}
