package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
)

// Tx is one change of several records, all or none.
type Tx struct {
	ctx context.Context
	tx  *sql.Tx
}

// Change runs f in one transaction. With durable it survives a power failure,
// without it the end of the process.
func (s *Store) Change(ctx context.Context, durable bool, f func(*Tx) error) error {
	db := s.fast
	if durable {
		db = s.full
	}
	if err := s.transact(ctx, db, func(tx *sql.Tx) error { return f(&Tx{ctx, tx}) }); err != nil {
		return fmt.Errorf("store a change of a run: %w", err)
	}
	return nil
}

// CreateRun stores a new run and sets its ID and number.
func (t *Tx) CreateRun(r *Run, payload json.RawMessage) error {
	if r.Source == "" {
		r.Source = FromJournal
	}
	if err := t.tx.QueryRowContext(t.ctx, `select coalesce(max(number), 0) + 1 from run where repo = ? and file = ?`, r.Repo, r.File).Scan(&r.Number); err != nil {
		return err
	}
	res, err := t.tx.ExecContext(t.ctx, `insert into run (repo, file, number, status, commit_id, head_id, source, event_id, body) values (?,?,?,?,?,?,?,?,'{}')`,
		r.Repo, r.File, r.Number, r.Status, r.Commit, r.HeadCommit, r.Source, r.EventID)
	if err != nil {
		return err
	}
	if r.ID, err = res.LastInsertId(); err != nil {
		return err
	}
	if len(payload) > 0 {
		if _, err := t.tx.ExecContext(t.ctx, `insert into payload (run_id, body) values (?,?)`, r.ID, string(payload)); err != nil {
			return err
		}
	}
	return t.SaveRun(*r)
}

// SaveRun stores a run as it is now.
func (t *Tx) SaveRun(r Run) error {
	r.Jobs = nil
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, `update run set status = ?, body = ? where id = ?`, r.Status, string(body), r.ID)
	return err
}

// NextAttempt keeps the state that a run has now as that of its attempt, and
// stores the run as the next one.
func (t *Tx) NextAttempt(now, next Run) error {
	now.Jobs = nil
	body, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if _, err := t.tx.ExecContext(t.ctx, `insert or replace into attempt (run_id, attempt, body) values (?,?,?)`, now.ID, now.Attempt, string(body)); err != nil {
		return err
	}
	return t.SaveRun(next)
}

// SaveJob stores a job as it is now; a new one gets its ID.
func (t *Tx) SaveJob(j *Job) error {
	if j.ID == 0 {
		res, err := t.tx.ExecContext(t.ctx, `insert into job (run_id, attempt, body) values (?,?,'{}')`, j.RunID, j.Attempt)
		if err != nil {
			return err
		}
		if j.ID, err = res.LastInsertId(); err != nil {
			return err
		}
	}
	body, err := json.Marshal(j)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, `update job set body = ? where id = ?`, string(body), j.ID)
	return err
}

// DeleteJob removes a job that has not begun.
func (t *Tx) DeleteJob(id int64) error {
	_, err := t.tx.ExecContext(t.ctx, `delete from job where id = ?`, id)
	return err
}

// Review stores a decision about an environment.
func (t *Tx) Review(r Review) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, `insert into review (run_id, body) values (?,?)`, r.Run, string(body))
	return err
}

// Tell puts a message for others into the outbox.
func (t *Tx) Tell(kind string, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, `insert into outbox (kind, body) values (?,?)`, kind, string(body))
	return err
}

// Message is one entry of the outbox.
type Message struct {
	ID   int64
	Body json.RawMessage
}

// Outbox returns the oldest messages of a kind, at most limit.
func (s *Store) Outbox(ctx context.Context, kind string, limit int) ([]Message, error) {
	rows, err := s.read.QueryContext(ctx, `select id, body from outbox where kind = ? order by id limit ?`, kind, limit)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []Message
	for rows.Next() {
		var m Message
		var body string
		if err := rows.Scan(&m.ID, &body); err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		m.Body = json.RawMessage(body)
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return out, nil
}

// Told removes messages of a kind up to the given one.
func (s *Store) Told(ctx context.Context, kind string, upTo int64) error {
	err := s.transact(ctx, s.fast, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `delete from outbox where kind = ? and id <= ?`, kind, upTo)
		return err
	})
	if err != nil {
		return fmt.Errorf("empty outbox: %w", err)
	}
	return nil
}
