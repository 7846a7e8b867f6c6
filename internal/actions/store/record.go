package store

import (
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
)

// Status is how far a run, job or step is.
type Status string

// The states, in GitHub's words. A run or job is pending behind its concurrency
// group, and waiting for the protection rules of an environment.
const (
	Queued     Status = "queued"
	Pending    Status = "pending"
	Waiting    Status = "waiting"
	InProgress Status = "in_progress"
	Completed  Status = "completed"
)

// Where events come from: each source has a cursor of its own.
const (
	FromJournal  = "push"     // pushes in the journal
	FromForge    = "forge"    // the forge's other events
	FromRuns     = "run"      // runs of this engine, for workflow_run
	FromSchedule = "schedule" // the clock
)

// Run is one run of a workflow file.
type Run struct {
	ID      int64             `json:"id"`
	Number  int64             `json:"run_number"` // per repository and file, from 1
	Attempt int               `json:"run_attempt"`
	Repo    string            `json:"repository"`
	File    string            `json:"path"` // ".github/workflows/ci.yaml"
	Name    string            `json:"name"`
	Title   string            `json:"display_title"`
	Event   string            `json:"event"`            // "push", "pull_request", "workflow_dispatch"
	Action  string            `json:"action,omitempty"` // activity of the event: "opened"
	Ref     string            `json:"ref"`
	Commit  string            `json:"head_sha"` // that the workflow runs for, GITHUB_SHA
	Before  string            `json:"before,omitempty"`
	Actor   string            `json:"actor"`
	Source  string            `json:"source,omitempty"`   // of EventID; "" is FromJournal
	EventID int64             `json:"event_id,omitempty"` // in its source; 0 for a dispatch
	Inputs  map[string]string `json:"inputs,omitempty"`
	// Of pull requests: the branches, the commit that was proposed (Commit is
	// the test merge), and whether it comes from another repository.
	HeadRef    string `json:"head_ref,omitempty"`
	BaseRef    string `json:"base_ref,omitempty"`
	HeadCommit string `json:"head_commit,omitempty"`
	Pull       int64  `json:"pull,omitempty"` // number of the pull request
	Fork       bool   `json:"fork,omitempty"`
	Chain      int    `json:"chain,omitempty"` // how many workflow_run led to this run

	Status     Status    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"` // success, failure, cancelled, skipped, startup_failure
	Problem    *Problem  `json:"problem,omitempty"`    // why it failed
	Note       string    `json:"note,omitempty"`       // what it waits for
	Created    time.Time `json:"created_at"`
	Started    time.Time `json:"run_started_at,omitzero"`
	Ended      time.Time `json:"ended_at,omitzero"`
	// TriggeredBy asked for this attempt; "" is Actor.
	TriggeredBy string `json:"triggering_actor,omitempty"`
	// OnlyFailed: a re-run that takes over the jobs which succeeded before.
	OnlyFailed bool `json:"only_failed,omitempty"`
	// OnlyJob: a re-run of the job with this key and those that need it.
	OnlyJob string `json:"only_job,omitempty"`
	// Resume: Lockstep stopped while this attempt only waited; it goes on.
	Resume bool `json:"resume,omitempty"`
	// Referenced are the reusable workflows with their commits.
	Referenced []Use `json:"referenced,omitempty"`
	// Annotations are what the linter says about the workflow file.
	Annotations []command.Annotation `json:"annotations,omitempty"`

	// Jobs of the current attempt, where the method says so.
	Jobs []Job `json:"jobs,omitempty"`
}

// Head is the commit that people look at: of a pull request its own, not the
// test merge.
func (r Run) Head() string {
	if r.HeadCommit != "" {
		return r.HeadCommit
	}
	return r.Commit
}

// Triggerer is who asked for the current attempt.
func (r Run) Triggerer() string {
	if r.TriggeredBy != "" {
		return r.TriggeredBy
	}
	return r.Actor
}

// Problem is why something failed and what to try.
type Problem struct {
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`
	File    string   `json:"file,omitempty"`
	Line    int      `json:"line,omitempty"`
	Step    int      `json:"step,omitempty"` // number, 0 for the job or run itself
	Name    string   `json:"name,omitempty"` // of the step
	Tail    []string `json:"tail,omitempty"` // last lines of its log
}

// Job is one job of one attempt of a run; a matrix has several with one Key.
type Job struct {
	ID          int64                `json:"id"`
	RunID       int64                `json:"run_id"`
	Attempt     int                  `json:"run_attempt"`
	Key         string               `json:"key"`  // id in the workflow; of a called one "caller/id"
	Name        string               `json:"name"` // with the matrix values; of a called one "caller / name"
	Needs       []string             `json:"needs,omitempty"`
	Line        int                  `json:"line,omitempty"`
	File        string               `json:"file,omitempty"` // workflow that it is written in, when that is a called one
	Labels      []string             `json:"labels,omitempty"`
	Status      Status               `json:"status"`
	Conclusion  string               `json:"conclusion,omitempty"`
	Problem     *Problem             `json:"problem,omitempty"`
	Note        string               `json:"note,omitempty"`
	Created     time.Time            `json:"created_at,omitzero"`
	Started     time.Time            `json:"started_at,omitzero"`
	Ended       time.Time            `json:"completed_at,omitzero"`
	Steps       []Step               `json:"steps,omitempty"`
	Annotations []command.Annotation `json:"annotations,omitempty"`
	Summary     string               `json:"summary,omitempty"` // Markdown of its steps
	Outputs     map[string]string    `json:"outputs,omitempty"`
	Uses        []Use                `json:"uses,omitempty"`
	Gate        *Gate                `json:"gate,omitempty"` // of an environment
	// Tolerated: it failed, and its continue-on-error lets the run go on.
	Tolerated bool `json:"tolerated,omitempty"`
}

// Use is one `uses` of a job and the commit that stood behind it.
type Use struct {
	Ref    string `json:"ref"`              // as in the file: "actions/checkout@v4"
	Commit string `json:"commit,omitempty"` // object id; "" for a part of the engine
	From   string `json:"from,omitempty"`   // "the forge", a URL, or "built in"
	File   string `json:"file,omitempty"`   // where it is written
	Line   int    `json:"line,omitempty"`
}

// Gate is the way of a job into its environment.
type Gate struct {
	Environment   string     `json:"environment"`
	EnvironmentID int64      `json:"environment_id"`
	URL           string     `json:"url,omitempty"`
	Deployment    int64      `json:"deployment,omitempty"` // of the forge
	Since         time.Time  `json:"since,omitzero"`       // when the job came to the gate
	Until         time.Time  `json:"until,omitzero"`       // end of the wait timer
	Reviewers     []Reviewer `json:"reviewers,omitempty"`  // one of whom must approve
	State         string     `json:"state,omitempty"`      // approved, rejected; "" while nobody has decided
	By            string     `json:"by,omitempty"`
	Passed        bool       `json:"passed,omitempty"`
}

// Step is one step of a job.
type Step struct {
	Number     int       `json:"number"`
	Name       string    `json:"name"`
	Status     Status    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"`
	Outcome    string    `json:"outcome,omitempty"` // before continue-on-error
	Started    time.Time `json:"started_at,omitzero"`
	Ended      time.Time `json:"completed_at,omitzero"`
}

// Review is one decision about jobs that waited for an environment.
type Review struct {
	Run          int64     `json:"run"`
	Attempt      int       `json:"attempt"`
	Environments []string  `json:"environments"`
	State        string    `json:"state"` // approved, rejected
	User         string    `json:"user"`
	Comment      string    `json:"comment"`
	Time         time.Time `json:"time"`
}
