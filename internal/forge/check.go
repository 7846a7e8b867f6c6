package forge

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CheckRun is what one check says of a commit, with GitHub's words.
type CheckRun struct {
	ID          int64        `json:"-"`           // 0 makes a new one, unless ExternalID is known
	Commit      string       `json:"-"`           // full id
	Name        string       `json:"name"`        // "build"
	ExternalID  string       `json:"external_id"` // the writer's own name for it, "" for none; the same name is the same run
	External    string       `json:"external"`    // as REST gives it, which is no key; default ExternalID
	Suite       string       `json:"suite"`       // what belongs together, as a workflow run's id; "" is all of one App
	App         string       `json:"app"`         // slug of who writes; default "github-actions"
	Status      string       `json:"status"`      // queued, in_progress, completed, waiting, requested, pending; default queued
	Conclusion  string       `json:"conclusion"`  // with completed: success, failure, neutral, cancelled, skipped, timed_out, action_required, stale
	DetailsURL  string       `json:"details_url"` // where to look further
	Started     time.Time    `json:"started"`     // zero: now
	Completed   time.Time    `json:"completed"`   // zero: now, when completed
	Title       string       `json:"title"`       // of the output
	Summary     string       `json:"summary"`     // Markdown, at most 65,535 bytes
	Text        string       `json:"text"`        // Markdown, at most 65,535 bytes
	Workflow    string       `json:"workflow"`    // name of the workflow, "" when it is of none
	Event       string       `json:"event"`       // that started the workflow
	Branch      string       `json:"branch"`      // that the commit was checked for
	Actor       string       `json:"actor"`       // who is said to have written it; default App + "[bot]"
	Cause       string       `json:"-"`           // commit whose workflow run wrote it
	Annotations []Annotation `json:"-"`           // added to those that are there
}

// Annotation is a remark of a check run on a file.
type Annotation struct {
	Path        string `json:"path"`
	StartLine   int    `json:"start_line"`
	EndLine     int    `json:"end_line"`
	StartColumn int    `json:"start_column,omitempty"`
	EndColumn   int    `json:"end_column,omitempty"`
	Level       string `json:"annotation_level"` // notice, warning, failure
	Message     string `json:"message"`
	Title       string `json:"title,omitempty"`
	RawDetails  string `json:"raw_details,omitempty"`
}

const (
	maxAnnotations = 50 * 100 // of a run
	maxCheckText   = 65535
	maxCheckRuns   = 10_000 // of a commit
)

var (
	checkStatuses    = []string{"queued", "in_progress", "completed", "waiting", "requested", "pending"}
	checkConclusions = []string{"success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required", "stale", "startup_failure"}
)

var errInvalidCheck = errors.New("invalid check run")

func (c *CheckRun) validate() error {
	switch {
	case strings.TrimSpace(c.Name) == "" || len(c.Name) > 1000:
		return fmt.Errorf("%w: name is empty or too long", errInvalidCheck)
	case !slices.Contains(checkStatuses, c.Status):
		return fmt.Errorf("%w: status %.40q is not one of %s", errInvalidCheck, c.Status, strings.Join(checkStatuses, ", "))
	case c.Status == "completed" && !slices.Contains(checkConclusions, c.Conclusion):
		return fmt.Errorf("%w: conclusion %.40q is not one of %s", errInvalidCheck, c.Conclusion, strings.Join(checkConclusions, ", "))
	case c.DetailsURL != "" && !strings.HasPrefix(c.DetailsURL, "http://") && !strings.HasPrefix(c.DetailsURL, "https://"):
		return fmt.Errorf("%w: details_url must begin with http:// or https://", errInvalidCheck)
	case len(c.Summary) > maxCheckText || len(c.Text) > maxCheckText:
		return fmt.Errorf("%w: summary or text has more than %d bytes", errInvalidCheck, maxCheckText)
	}
	for _, a := range c.Annotations {
		if !slices.Contains([]string{"notice", "warning", "failure"}, a.Level) {
			return fmt.Errorf("%w: annotation_level %.40q is not notice, warning or failure", errInvalidCheck, a.Level)
		}
		if a.Path == "" || a.StartLine < 0 || a.EndLine < a.StartLine || len(a.Message) > 64<<10 {
			return fmt.Errorf("%w: an annotation needs a path, lines in order and a message of at most 64 KB", errInvalidCheck)
		}
	}
	return nil
}

// fill sets what the writer left out.
func (c *CheckRun) fill(now time.Time) {
	if c.App == "" {
		c.App = "github-actions"
	}
	if c.Actor == "" {
		c.Actor = c.App + "[bot]"
	}
	if c.External == "" {
		c.External = c.ExternalID
	}
	if c.Conclusion != "" {
		c.Status = "completed"
	}
	if c.Status == "" {
		c.Status = "queued"
	}
	if c.Started.IsZero() {
		c.Started = now.UTC()
	}
	if c.Status != "completed" {
		c.Conclusion, c.Completed = "", time.Time{}
	} else if c.Completed.IsZero() {
		c.Completed = now.UTC()
	}
}

// SetCheckRun makes a check run of a commit of "owner/name", or changes the one
// with c.ID or with c.Commit and c.ExternalID, and returns its ID. It returns ErrNotFound without
// such a repository, and an error that matches git.ErrNotFound without such a
// commit.
func (f *Forge) SetCheckRun(ctx context.Context, full string, c CheckRun) (int64, error) {
	repo, err := f.find(ctx, full)
	if err != nil {
		return 0, fmt.Errorf("set check run: %w", err)
	}
	saved, err := f.saveCheck(ctx, repo, c)
	if err != nil {
		return 0, fmt.Errorf("set check run of %s: %w", full, err)
	}
	return saved.ID, nil
}

// saveCheck stores a check run and tells of it.
func (f *Forge) saveCheck(ctx context.Context, repo *repository, c CheckRun) (CheckRun, error) {
	c.fill(f.deps.Now())
	if err := c.validate(); err != nil {
		return c, err
	}
	sha, err := repo.git.Resolve(ctx, c.Commit)
	if err != nil {
		return c, err
	}
	c.Commit = sha
	sc, err := f.eventScene(ctx, repo)
	if err != nil {
		return c, err
	}
	pulls, err := f.pullsOfHead(ctx, repo, sha)
	if err != nil {
		return c, err
	}
	err = f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		suite, err := c.suite(ctx, tx, repo.id, out.now)
		if err != nil {
			return err
		}
		created, err := c.store(ctx, tx, repo.id, suite)
		if err != nil {
			return err
		}
		if err := c.annotate(ctx, tx); err != nil {
			return err
		}
		return sc.tellCheck(ctx, tx, out, c, suite, created, pulls)
	})
	return c, err
}

// suite finds or makes the suite that a run belongs to.
func (c *CheckRun) suite(ctx context.Context, tx *sql.Tx, repo int64, now time.Time) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `insert into check_suite (repo, sha, app, external, branch, created, updated) values (?,?,?,?,?,?,?)
		on conflict (repo, sha, app, external) do update set updated = excluded.updated returning id`,
		repo, c.Commit, c.App, c.Suite, c.Branch, now.UnixMicro(), now.UnixMicro()).Scan(&id)
	return id, err
}

// store writes the run; created says that it is new.
func (c *CheckRun) store(ctx context.Context, tx *sql.Tx, repo, suite int64) (created bool, err error) {
	if c.ID == 0 && c.ExternalID != "" {
		err := tx.QueryRowContext(ctx, `select id from check_run where repo = ? and sha = ? and external = ? order by id desc limit 1`, repo, c.Commit, c.ExternalID).Scan(&c.ID)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
	}
	facts, err := json.Marshal(c)
	if err != nil {
		return false, err
	}
	if c.ID != 0 {
		result, err := tx.ExecContext(ctx, `update check_run set name = ?, external = ?, facts = ? where id = ? and repo = ?`, c.Name, c.ExternalID, facts, c.ID, repo)
		if err != nil {
			return false, err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return false, errors.Join(err, ErrNotFound)
		}
		return false, nil
	}
	var n int
	if err := tx.QueryRowContext(ctx, `select count(*) from check_run where repo = ? and sha = ?`, repo, c.Commit).Scan(&n); err != nil {
		return false, err
	}
	if n >= maxCheckRuns {
		return false, fmt.Errorf("%w: this commit has %d check runs already", errInvalidCheck, n)
	}
	result, err := tx.ExecContext(ctx, `insert into check_run (repo, suite, sha, name, external, facts) values (?,?,?,?,?,?)`, repo, suite, c.Commit, c.Name, c.ExternalID, facts)
	if err == nil {
		c.ID, err = result.LastInsertId()
	}
	return true, err
}

// annotate adds the annotations to those that are there.
func (c *CheckRun) annotate(ctx context.Context, tx *sql.Tx) error {
	if len(c.Annotations) == 0 {
		return nil
	}
	var n int
	if err := tx.QueryRowContext(ctx, `select coalesce(max(n), 0) from check_annotation where run = ?`, c.ID).Scan(&n); err != nil {
		return err
	}
	for _, a := range c.Annotations {
		if n++; n > maxAnnotations {
			return nil // as many as anybody reads
		}
		facts, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `insert into check_annotation (run, n, facts) values (?,?,?)`, c.ID, n, facts); err != nil {
			return err
		}
	}
	return nil
}

// storedCheck is a check run with what the database knows of it.
type storedCheck struct {
	CheckRun
	suite       int64
	annotations int
}

// checksWhere returns check runs, oldest first.
func (f *Forge) checksWhere(ctx context.Context, q querier, condition string, args ...any) ([]storedCheck, error) {
	rows, err := q.QueryContext(ctx, `select id, suite, sha, facts, (select count(*) from check_annotation a where a.run = c.id) from check_run c where `+condition+` order by id`, args...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []storedCheck
	for rows.Next() {
		var c storedCheck
		var facts []byte
		var id int64
		var sha string
		if err := rows.Scan(&id, &c.suite, &sha, &facts, &c.annotations); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		if err := json.Unmarshal(facts, &c.CheckRun); err != nil {
			return nil, fmt.Errorf("forge state: check run %d: %w", id, err)
		}
		c.ID, c.Commit = id, sha
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// checks are the check runs of a commit; latest leaves out those that a newer
// one of the same app and name replaced.
func (f *Forge) checks(ctx context.Context, repo *repository, sha string, latest bool) ([]storedCheck, error) {
	all, err := f.checksWhere(ctx, f.db, `repo = ? and sha = ?`, repo.id, sha)
	if err != nil || !latest {
		return all, err
	}
	newest := map[[3]string]int64{}
	for _, c := range all {
		newest[[3]string{c.App, c.Workflow, c.Name}] = c.ID
	}
	return slices.DeleteFunc(all, func(c storedCheck) bool { return newest[[3]string{c.App, c.Workflow, c.Name}] != c.ID }), nil
}

// checkStates is what the newest check run of each name says of a commit: its
// conclusion, or "pending".
func (f *Forge) checkStates(ctx context.Context, repo *repository, sha string) (map[string]string, error) {
	all, err := f.checks(ctx, repo, sha, true)
	if err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, c := range all {
		state := c.Conclusion
		if c.Status != "completed" {
			state = "pending"
		}
		states[c.Name] = state
	}
	return states, nil
}

// pullsOfHead are the open pull requests with a commit as their head.
func (f *Forge) pullsOfHead(ctx context.Context, repo *repository, sha string) ([]*issue, error) {
	open, err := issuesWhere(ctx, f.db, `i.repo = ? and i.is_pull and i.open order by i.number`, repo.id)
	return slices.DeleteFunc(open, func(i *issue) bool { return i.Pull.HeadSHA != sha }), err
}
