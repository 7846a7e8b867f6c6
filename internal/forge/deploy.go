package forge

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

const deploySchema = `
create table if not exists deployment (
  id integer primary key autoincrement,
  repo text not null, sha text not null, ref text not null, task text not null, environment text not null, description text not null,
  payload text not null, creator text not null, transient integer not null, production integer not null, created integer not null, updated integer not null
);
create index if not exists deployment_repo on deployment (repo, id);
create table if not exists deployment_status (
  id integer primary key autoincrement,
  repo text not null, deployment integer not null, state text not null, description text not null, environment text not null,
  log_url text not null, environment_url text not null, creator text not null, created integer not null
);
create index if not exists deployment_status_of on deployment_status (deployment, id);
`

// Deployment is a request to bring a commit to an environment.
type Deployment struct {
	ID                    int64  // assigned by CreateDeployment
	Ref                   string // branch, tag or commit, as it was asked for
	SHA                   string // found from Ref when empty
	Task                  string // default "deploy"
	Environment           string // default "production"
	Description           string
	Payload               json.RawMessage // any JSON
	Creator               string          // login; default Config.User
	Cause                 string          // commit whose workflow run made it
	TransientEnvironment  bool
	ProductionEnvironment bool
	Created, Updated      time.Time // assigned
}

// DeploymentStatus says how far a deployment is.
type DeploymentStatus struct {
	ID             int64  // assigned by SetDeploymentStatus
	State          string // error, failure, inactive, in_progress, queued, pending, success
	Description    string
	Environment    string // default that of the deployment
	LogURL         string
	EnvironmentURL string
	Creator        string // login; default Config.User
	Cause          string // commit whose workflow run set it
	Created        time.Time
}

// CreateDeployment records a deployment of "owner/name" and tells of it. It
// returns ErrNotFound, or an error that matches git.ErrNotFound without such a ref.
func (f *Forge) CreateDeployment(ctx context.Context, full string, d Deployment) (int64, error) {
	repo, err := f.find(ctx, full)
	if err != nil {
		return 0, fmt.Errorf("create deployment: %w", err)
	}
	if err := f.addDeployment(ctx, repo, &d); err != nil {
		return 0, fmt.Errorf("create deployment of %s: %w", full, err)
	}
	return d.ID, nil
}

func (f *Forge) addDeployment(ctx context.Context, repo *repository, d *Deployment) error {
	rev := d.Ref
	if d.SHA != "" {
		rev = d.SHA
	}
	sha, err := repo.git.Resolve(ctx, rev)
	if err != nil {
		return err
	}
	d.SHA, d.Created = sha, f.deps.Now().UTC()
	d.Updated = d.Created
	for _, field := range []struct {
		to    *string
		value string
	}{{&d.Task, "deploy"}, {&d.Environment, "production"}, {&d.Creator, f.cfg.User}, {&d.Ref, sha}} {
		if *field.to == "" {
			*field.to = field.value
		}
	}
	if len(d.Payload) == 0 {
		d.Payload = json.RawMessage(`{}`)
	}
	return f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		result, err := tx.ExecContext(ctx, `insert into deployment (repo, sha, ref, task, environment, description, payload, creator, transient, production, created, updated) values (?,?,?,?,?,?,?,?,?,?,?,?)`,
			repo.key, d.SHA, d.Ref, d.Task, d.Environment, d.Description, string(d.Payload), d.Creator, d.TransientEnvironment, d.ProductionEnvironment, d.Created.UnixMicro(), d.Created.UnixMicro())
		if err != nil {
			return err
		}
		if d.ID, err = result.LastInsertId(); err != nil {
			return err
		}
		payload, err := f.payload(ctx, repo, d.Creator, "created", map[string]any{"deployment": f.deploymentJSON(f.asEvent(ctx), repo, d), "workflow": nil, "workflow_run": nil})
		if err != nil {
			return err
		}
		return out.add(Event{Repo: repo.full(), Name: "deployment", Action: "created", Ref: deployedRef(ctx, repo, d.Ref), Commit: d.SHA, Actor: d.Creator, Cause: d.Cause, Payload: payload})
	})
}

// deployedRef is the full name of the branch or tag that was asked for, "" for a commit.
func deployedRef(ctx context.Context, repo *repository, ref string) string {
	for _, full := range []string{"refs/heads/" + ref, "refs/tags/" + ref} {
		if _, err := repo.git.Resolve(ctx, full); err == nil {
			return full
		}
	}
	return ""
}

var deploymentStates = []string{"error", "failure", "inactive", "in_progress", "queued", "pending", "success"}

// SetDeploymentStatus adds a status to a deployment of "owner/name" and tells of
// it. After "success" the other deployments of the environment become inactive, unless
// theirs is production or transient.
func (f *Forge) SetDeploymentStatus(ctx context.Context, full string, id int64, s DeploymentStatus) error {
	repo, err := f.find(ctx, full)
	if err != nil {
		return fmt.Errorf("set deployment status: %w", err)
	}
	if err := f.addDeploymentStatus(ctx, repo, id, &s, true); err != nil {
		return fmt.Errorf("set status of deployment %d of %s: %w", id, full, err)
	}
	return nil
}

var errInvalidState = errors.New("state is not error, failure, inactive, in_progress, queued, pending or success")

func (f *Forge) addDeploymentStatus(ctx context.Context, repo *repository, id int64, s *DeploymentStatus, autoInactive bool) error {
	if !slices.Contains(deploymentStates, s.State) {
		return fmt.Errorf("%.30q: %w", s.State, errInvalidState)
	}
	d, err := f.deployment(ctx, repo, id)
	if err != nil {
		return err
	}
	if s.Environment == "" {
		s.Environment = d.Environment
	}
	if s.Creator == "" {
		s.Creator = f.cfg.User
	}
	s.Created = f.deps.Now().UTC()
	return f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		if s.State == "success" && autoInactive {
			_, err := tx.ExecContext(ctx, `insert into deployment_status (repo, deployment, state, description, environment, log_url, environment_url, creator, created)
				select repo, id, 'inactive', '', environment, '', '', ?1, ?2 from deployment d where repo = ?3 and environment = ?4 and id != ?5 and production = 0 and transient = 0
				and 'success' = (select state from deployment_status s where s.deployment = d.id order by s.id desc limit 1)`,
				s.Creator, s.Created.UnixMicro(), repo.key, s.Environment, id)
			if err != nil {
				return err
			}
		}
		result, err := tx.ExecContext(ctx, `insert into deployment_status (repo, deployment, state, description, environment, log_url, environment_url, creator, created) values (?,?,?,?,?,?,?,?,?)`,
			repo.key, id, s.State, s.Description, s.Environment, s.LogURL, s.EnvironmentURL, s.Creator, s.Created.UnixMicro())
		if err != nil {
			return err
		}
		if s.ID, err = result.LastInsertId(); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `update deployment set updated = ? where id = ?`, s.Created.UnixMicro(), id); err != nil {
			return err
		}
		r := f.asEvent(ctx)
		payload, err := f.payload(ctx, repo, s.Creator, "created", map[string]any{
			"deployment": f.deploymentJSON(r, repo, d), "deployment_status": f.deploymentStatusJSON(r, repo, d, *s), "check_run": nil, "workflow": nil, "workflow_run": nil,
		})
		if err != nil {
			return err
		}
		return out.add(Event{Repo: repo.full(), Name: "deployment_status", Action: "created", Ref: deployedRef(ctx, repo, d.Ref), Commit: d.SHA, Actor: s.Creator, Cause: s.Cause, Payload: payload})
	})
}

// deployment returns a deployment of a repository, or an error that matches git.ErrNotFound.
func (f *Forge) deployment(ctx context.Context, repo *repository, id int64) (*Deployment, error) {
	all, err := f.deployments(ctx, repo, `id = ?`, id)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("deployment %d: %w", id, git.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func (f *Forge) deployments(ctx context.Context, repo *repository, where string, args ...any) ([]*Deployment, error) {
	rows, err := f.db.QueryContext(ctx, `select id, sha, ref, task, environment, description, payload, creator, transient, production, created, updated
		from deployment where repo = ? and `+where+` order by id desc limit 10000`, append([]any{repo.key}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*Deployment
	for rows.Next() {
		d := &Deployment{}
		var created, updated int64
		var payload string
		if err := rows.Scan(&d.ID, &d.SHA, &d.Ref, &d.Task, &d.Environment, &d.Description, &payload, &d.Creator, &d.TransientEnvironment, &d.ProductionEnvironment, &created, &updated); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		d.Payload, d.Created, d.Updated = json.RawMessage(payload), time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		all = append(all, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

func (f *Forge) deploymentStatuses(ctx context.Context, id int64) ([]DeploymentStatus, error) {
	rows, err := f.db.QueryContext(ctx, `select id, state, description, environment, log_url, environment_url, creator, created
		from deployment_status where deployment = ? order by id desc limit 1000`, id)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []DeploymentStatus
	for rows.Next() {
		var s DeploymentStatus
		var created int64
		if err := rows.Scan(&s.ID, &s.State, &s.Description, &s.Environment, &s.LogURL, &s.EnvironmentURL, &s.Creator, &created); err != nil {
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
