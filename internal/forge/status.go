package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is a commit status: what one context ("ci/build") says of a commit.
type Status struct {
	ID          int64     // assigned by SetStatus
	Context     string    // default "default"
	State       string    // "error", "failure", "pending" or "success"
	Description string    // one line
	TargetURL   string    // where to look further, http or https
	Creator     string    // login; default Config.User
	Created     time.Time // assigned by SetStatus
}

// maxStatuses is GitHub's limit of statuses per commit and context.
const maxStatuses = 1000

var errInvalidStatus = errors.New("invalid status")

// SetStatus adds a status to a commit of "owner/name". The newest of each context
// counts. It returns ErrNotFound without such a repository, and an error that
// matches git.ErrNotFound without such a commit.
func (f *Forge) SetStatus(ctx context.Context, full, sha string, s Status) error {
	repo, err := f.find(ctx, full)
	if err != nil {
		return fmt.Errorf("set status: %w", err)
	}
	if _, err := f.addStatus(ctx, repo, sha, s); err != nil {
		return fmt.Errorf("set status of %s: %w", full, err)
	}
	return nil
}

func (f *Forge) addStatus(ctx context.Context, repo *repository, sha string, s Status) (Status, error) {
	if s.Context == "" {
		s.Context = "default"
	}
	if s.Creator == "" {
		s.Creator = f.cfg.User
	}
	if !slices.Contains([]string{"error", "failure", "pending", "success"}, s.State) {
		return s, fmt.Errorf("%w: state %q is not error, failure, pending or success", errInvalidStatus, s.State)
	}
	if s.TargetURL != "" && !strings.HasPrefix(s.TargetURL, "http://") && !strings.HasPrefix(s.TargetURL, "https://") {
		return s, fmt.Errorf("%w: target_url %q must begin with http:// or https://", errInvalidStatus, s.TargetURL)
	}
	if len(s.Context) > 255 || len(s.Description) > 1000 || len(s.TargetURL) > 2000 {
		return s, fmt.Errorf("%w: context, description or target_url is too long", errInvalidStatus)
	}
	sha, err := repo.git.Resolve(ctx, sha)
	if err != nil {
		return s, err
	}
	s.Created = f.deps.Now().UTC()
	err = f.transact(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `select count(*) from status where repo = ? and sha = ? and context = ?`, repo.key, sha, s.Context).Scan(&n); err != nil {
			return err
		}
		if n >= maxStatuses {
			return fmt.Errorf("%w: this commit and context have %d statuses already", errInvalidStatus, n)
		}
		result, err := tx.ExecContext(ctx, `insert into status (repo, sha, context, state, description, target_url, creator, created) values (?,?,?,?,?,?,?,?)`,
			repo.key, sha, s.Context, s.State, s.Description, s.TargetURL, s.Creator, s.Created.UnixMicro())
		if err == nil {
			s.ID, err = result.LastInsertId()
		}
		return err
	})
	return s, err
}

// Statuses returns the newest status of each context of a commit, newest first.
func (f *Forge) Statuses(ctx context.Context, full, sha string) ([]Status, error) {
	repo, err := f.find(ctx, full)
	if err != nil {
		return nil, err
	}
	sha, err = repo.git.Resolve(ctx, sha)
	if err != nil {
		return nil, err
	}
	return f.statuses(ctx, repo, sha, true)
}

// statuses returns the statuses of a commit, newest first; latest leaves out
// those that a newer one of the same context replaced.
func (f *Forge) statuses(ctx context.Context, repo *repository, sha string, latest bool) ([]Status, error) {
	rows, err := f.db.QueryContext(ctx, `select id, context, state, description, target_url, creator, created
		from status s where repo = ?1 and sha = ?2
		and (not ?3 or id = (select max(id) from status t where t.repo = ?1 and t.sha = ?2 and t.context = s.context))
		order by id desc limit 10000`, repo.key, sha, latest)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []Status
	for rows.Next() {
		var s Status
		var created int64
		if err := rows.Scan(&s.ID, &s.Context, &s.State, &s.Description, &s.TargetURL, &s.Creator, &created); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		s.Created = time.UnixMicro(created).UTC()
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// combined is the state of all contexts together, as GitHub gives it.
func combined(latest []Status) string {
	state := "success"
	if len(latest) == 0 {
		state = "pending"
	}
	for _, s := range latest {
		switch {
		case s.State == "error" || s.State == "failure":
			return "failure"
		case s.State == "pending":
			state = "pending"
		}
	}
	return state
}
