package forge

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

const webhookSchema = `
create table if not exists hook (
  id integer primary key autoincrement,
  repo text not null, url text not null, form integer not null, insecure integer not null,
  secret blob not null, -- sealed; empty without one
  events text not null, active integer not null, created integer not null, updated integer not null,
  last_code integer not null default 0, last_message text not null default ''
);
create index if not exists hook_repo on hook (repo);
create table if not exists hook_cursor (source text primary key, id integer not null) without rowid;
create table if not exists delivery (
  id integer primary key autoincrement,
  repo text not null, hook integer not null, guid text not null, event text not null, action text not null,
  created integer not null, redelivery integer not null,
  pending integer not null, attempts integer not null, due integer not null, -- microseconds
  code integer not null, message text not null, took integer not null,       -- of the last attempt; milliseconds
  payload blob not null, request text not null, response text not null, body text not null
);
create index if not exists delivery_hook on delivery (hook, id);
create index if not exists delivery_due on delivery (due) where pending = 1;
`

const (
	maxHooks      = 20   // of a repository, as on GitHub
	maxPending    = 1000 // deliveries of a hook that wait
	maxDeliveries = 200  // finished deliveries of a hook that are kept
	maxAttempts   = 5    // of one delivery
)

// hook is a webhook of a repository. Its secret is only opened to sign.
type hook struct {
	id               int64
	repo             string // key
	url              string
	form, insecure   bool
	secret           []byte // sealed
	events           []string
	active           bool
	created, updated time.Time
	lastCode         int
	lastMessage      string
}

// wants reports whether the hook is for an event.
func (h *hook) wants(event string) bool {
	return h.active && (slices.Contains(h.events, "*") || slices.Contains(h.events, event) || event == "ping")
}

const hookColumns = `id, repo, url, form, insecure, secret, events, active, created, updated, last_code, last_message`

func (f *Forge) hooksOf(ctx context.Context, where string, args ...any) ([]*hook, error) {
	rows, err := f.db.QueryContext(ctx, `select `+hookColumns+` from hook where `+where+` order by id`, args...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*hook
	for rows.Next() {
		h := &hook{}
		var events string
		var created, updated int64
		if err := rows.Scan(&h.id, &h.repo, &h.url, &h.form, &h.insecure, &h.secret, &events, &h.active, &created, &updated, &h.lastCode, &h.lastMessage); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		if err := json.Unmarshal([]byte(events), &h.events); err != nil {
			return nil, fmt.Errorf("events of a hook: %w", err)
		}
		h.created, h.updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		all = append(all, h)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// storeHook inserts a hook without id, or replaces the one with it.
func (f *Forge) storeHook(ctx context.Context, h *hook) error {
	events, err := json.Marshal(h.events)
	if err != nil {
		return fmt.Errorf("store hook: %w", err)
	}
	h.updated = f.deps.Now().UTC()
	if h.secret == nil {
		h.secret = []byte{}
	}
	return f.transact(ctx, func(tx *sql.Tx) error {
		if h.id != 0 {
			_, err := tx.ExecContext(ctx, `update hook set url = ?, form = ?, insecure = ?, secret = ?, events = ?, active = ?, updated = ? where id = ?`,
				h.url, h.form, h.insecure, h.secret, string(events), h.active, h.updated.UnixMicro(), h.id)
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `select count(*) from hook where repo = ?`, h.repo).Scan(&n); err != nil {
			return err
		}
		if n >= maxHooks {
			return invalid("Hook", "custom", "", fmt.Sprintf("The repository already has %d hooks, which is the limit", n))
		}
		h.created = h.updated
		result, err := tx.ExecContext(ctx, `insert into hook (repo, url, form, insecure, secret, events, active, created, updated) values (?,?,?,?,?,?,?,?,?)`,
			h.repo, h.url, h.form, h.insecure, h.secret, string(events), h.active, h.created.UnixMicro(), h.updated.UnixMicro())
		if err != nil {
			return err
		}
		h.id, err = result.LastInsertId()
		return err
	})
}

// checkSink refuses addresses that no hook may have: those without http, and
// Lockstep's own.
func (f *Forge) checkSink(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return invalid("Hook", "custom", "url", "url must be like https://example.com/hook, without a user")
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	own, _ := url.Parse(f.cfg.URL)
	if host == own.Hostname() || host == "api."+own.Hostname() || slices.Contains(f.cfg.PrivateHosts, host) {
		return invalid("Hook", "custom", "url", "url is of Lockstep itself, which hears of pushes without a hook")
	}
	return nil
}

// sealer keeps the secrets of hooks unreadable in the database. Its key is in a
// file beside it.
func (f *Forge) sealer() (cipher.AEAD, error) {
	f.create.Lock()
	defer f.create.Unlock()
	file := filepath.Join(f.cfg.Dir, "hook-key")
	text, err := os.ReadFile(file)
	key, decodeErr := hex.DecodeString(strings.TrimSpace(string(text)))
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		_, _ = rand.Read(key)
		err, decodeErr = durable.WriteFile(file, []byte(hex.EncodeToString(key)+"\n"), 0o600), nil
	}
	if err := errors.Join(err, decodeErr); err != nil {
		return nil, fmt.Errorf("key of the hooks' secrets: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key of the hooks' secrets in %s: %w", file, err)
	}
	return cipher.NewGCM(block)
}

func (f *Forge) seal(secret string) ([]byte, error) {
	if secret == "" {
		return []byte{}, nil
	}
	box, err := f.sealer()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	_, _ = rand.Read(nonce)
	return box.Seal(nonce, nonce, []byte(secret), nil), nil
}

func (f *Forge) unseal(sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, nil
	}
	box, err := f.sealer()
	if err != nil {
		return nil, err
	}
	if len(sealed) < box.NonceSize() {
		return nil, errors.New("the secret of a hook is damaged")
	}
	secret, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], nil)
	if err != nil {
		return nil, fmt.Errorf("open the secret of a hook: %w", err)
	}
	return secret, nil
}
