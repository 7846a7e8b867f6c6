package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Environment is what jobs deploy to, with its protection rules.
type Environment struct {
	ID                int64      `json:"id"`
	Repo              string     `json:"repo"`
	Name              string     `json:"name"`
	Created           time.Time  `json:"created"`
	Updated           time.Time  `json:"updated"`
	WaitTimer         int        `json:"wait_timer,omitempty"` // minutes
	Reviewers         []Reviewer `json:"reviewers,omitempty"`
	PreventSelfReview bool       `json:"prevent_self_review,omitempty"`
	NoBypass          bool       `json:"no_bypass,omitempty"` // administrators may not bypass the rules
	// Branches: "" lets every ref deploy, "protected" the protected branches,
	// "custom" what Policies name.
	Branches string      `json:"branches,omitempty"`
	Policies []RefPolicy `json:"policies,omitempty"`
	NextID   int64       `json:"next_id,omitempty"` // of Policies
}

// Reviewer may approve deployments.
type Reviewer struct {
	Type  string `json:"type"` // User, Team
	ID    int64  `json:"id"`
	Login string `json:"login,omitempty"`
}

// RefPolicy names refs that may deploy.
type RefPolicy struct {
	ID   int64  `json:"id"`
	Name string `json:"name"` // pattern
	Type string `json:"type"` // branch, tag
}

// Scope is where an environment's secrets and variables are stored, in place
// of a repository.
func Scope(repo, environment string) string {
	return strings.ToLower(repo) + environmentMark + strings.ToLower(environment)
}

// environmentMark cannot be in the name of a repository.
const environmentMark = ":environment:"

// Bounds of environments.
const (
	maxEnvironments = 100
	maxEnvironment  = 255 // bytes of a name
)

// CheckEnvironment says why a name of an environment is not allowed.
func CheckEnvironment(name string) error {
	if name == "" || len(name) > maxEnvironment || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) ||
		strings.ContainsAny(name, "'\"`,;\\") {
		return fmt.Errorf("environment name %q must have 1 to %d characters, none of them a quote, comma, semicolon, backslash or control character", name, maxEnvironment)
	}
	return nil
}

// Environment returns one environment, or ErrNotFound.
func (s *Store) Environment(ctx context.Context, repo, name string) (Environment, error) {
	return one[Environment](ctx, s.read, fmt.Sprintf("environment %q of %s", name, repo), `select body from environment where repo = ? and name = ?`, repo, name)
}

// Environments lists the environments of a repository by name.
func (s *Store) Environments(ctx context.Context, repo string) ([]Environment, error) {
	return queryBodies[Environment](ctx, s.read, `select body from environment where repo = ? order by name`, repo)
}

// ChangeEnvironment creates an environment or changes it by f, which may refuse.
// A nil f only creates.
func (s *Store) ChangeEnvironment(ctx context.Context, repo, name string, f func(*Environment) error) (e Environment, created bool, err error) {
	if err := CheckEnvironment(name); err != nil {
		return e, false, err
	}
	err = s.update(ctx, func(tx *sql.Tx) error {
		var body []byte
		now := s.now().UTC()
		switch err := tx.QueryRowContext(ctx, `select body from environment where repo = ? and name = ?`, repo, name).Scan(&body); {
		case errors.Is(err, sql.ErrNoRows):
			var n int
			if err := tx.QueryRowContext(ctx, `select count(*) from environment where repo = ?`, repo).Scan(&n); err != nil {
				return err
			}
			if n >= maxEnvironments {
				return fmt.Errorf("%s has %d environments already, which is the most", repo, n)
			}
			res, err := tx.ExecContext(ctx, `insert into environment (repo, name, body) values (?,?,'{}')`, repo, name)
			if err != nil {
				return err
			}
			created, e = true, Environment{Repo: repo, Name: name, Created: now}
			if e.ID, err = res.LastInsertId(); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			if err := json.Unmarshal(body, &e); err != nil {
				return err
			}
			if f == nil {
				return nil
			}
		}
		if f != nil {
			if err := f(&e); err != nil {
				return err
			}
		}
		e.Updated = now
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `update environment set body = ? where id = ?`, string(data), e.ID)
		return err
	})
	if err != nil {
		return Environment{}, false, fmt.Errorf("store environment %q: %w", name, err)
	}
	return e, created, nil
}

// DeleteEnvironment removes an environment with its secrets and variables.
func (s *Store) DeleteEnvironment(ctx context.Context, repo, name string) error {
	err := s.update(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `delete from environment where repo = ? and name = ?`, repo, name)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNotFound)
		}
		for _, table := range []string{"secret", "variable"} {
			if _, err := tx.ExecContext(ctx, `delete from `+table+` where repo = ?`, Scope(repo, name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete environment %q of %s: %w", name, repo, err)
	}
	return nil
}
