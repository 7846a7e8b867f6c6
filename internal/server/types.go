package server

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrNotFound is what a part returns (or wraps) for a thing that is not there.
var ErrNotFound = errors.New("not found")

// Platform is the platform as a whole.
type Platform struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	State   string    `json:"state"` // "starting", "ready", "degraded" or "stopping"
	Message string    `json:"message,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// URLs by name: "page", "forge", "registry", "app" …
	URLs        map[string]string `json:"urls,omitempty"`
	KubeContext string            `json:"kubeContext,omitempty"`
	Steps       []Step            `json:"steps,omitempty"` // of the start, in order
}

// Step is one part of starting.
type Step struct {
	Name    string    `json:"name"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"` // zero while it runs
	Note    string    `json:"note,omitempty"` // what it waits for, or a remark
	Error   string    `json:"error,omitempty"`
}

// Runs is the Actions engine.
type Runs interface {
	// List returns runs without their Jobs, newest first.
	List(ctx context.Context, query RunQuery) ([]Run, error)
	// Get returns one run with its Jobs, or ErrNotFound.
	Get(ctx context.Context, id int64) (Run, error)
	// Log returns the log as text, secrets masked. With Follow the reader
	// blocks until there is more and ends with the run or ctx.
	Log(ctx context.Context, id int64, options RunLogOptions) (io.ReadCloser, error)
	Cancel(ctx context.Context, id int64) error
	// ForceCancel ends a run at once, without its always() steps.
	ForceCancel(ctx context.Context, id int64) error
	// Rerun starts the run again and returns the run's ID, which may be new.
	Rerun(ctx context.Context, id int64, onlyFailed bool) (int64, error)
	// Review approves or rejects the jobs that wait for an environment, and
	// returns their names.
	Review(ctx context.Context, id int64, r RunReview) ([]string, error)
	// Dispatch starts a workflow by hand and returns its run.
	Dispatch(ctx context.Context, d RunDispatch) (int64, error)
}

// RunReview is a decision about jobs that wait for an environment.
type RunReview struct {
	Approve bool   `json:"approve"`
	Comment string `json:"comment,omitempty"`
}

// ReviewedRun is the answer of POST /runs/{id}/review.
type ReviewedRun struct {
	Jobs []string `json:"jobs"`
}

// RunDispatch names a workflow that starts by hand.
type RunDispatch struct {
	Repo     string            `json:"repo"`     // "owner/name"
	Workflow string            `json:"workflow"` // file name below .github/workflows
	Ref      string            `json:"ref"`      // branch or tag; "" is main
	Inputs   map[string]string `json:"inputs,omitempty"`
}

// RunQuery selects runs.
type RunQuery struct {
	Repo   string // "owner/name"
	Commit string // full object id or prefix
	Before int64  // only IDs below, 0 for no bound
	Limit  int    // 1 to 100
}

// RunLogOptions select a part of a run's log.
type RunLogOptions struct {
	Job    string // id or name; empty for all
	Failed bool   // only the steps that failed
	Follow bool
}

// Run is one run of a workflow.
type Run struct {
	ID       int64  `json:"id"`
	Number   int64  `json:"number,omitempty"`
	Attempt  int    `json:"attempt,omitempty"`
	Repo     string `json:"repo"`
	Workflow string `json:"workflow"` // file name, "ci.yaml"
	Name     string `json:"name,omitempty"`
	Title    string `json:"title,omitempty"`
	Event    string `json:"event,omitempty"`
	Ref      string `json:"ref,omitempty"`
	Commit   string `json:"commit"`
	Actor    string `json:"actor,omitempty"`
	// Status is queued, in_progress or completed; then Conclusion is success,
	// failure, cancelled or skipped.
	Status     string    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"`
	Message    string    `json:"message,omitempty"` // why it failed or waits
	File       string    `json:"file,omitempty"`
	Line       int       `json:"line,omitempty"`
	Hint       string    `json:"hint,omitempty"`
	Created    time.Time `json:"created"`
	Started    time.Time `json:"started,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
	Jobs       []Job     `json:"jobs,omitempty"`
}

// Job is one job of a run.
type Job struct {
	ID         string    `json:"id"`
	Name       string    `json:"name,omitempty"`
	Status     string    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"`
	Message    string    `json:"message,omitempty"`
	Started    time.Time `json:"started,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
	Steps      []JobStep `json:"steps,omitempty"`
}

// JobStep is one step of a job.
type JobStep struct {
	Number     int       `json:"number"`
	Name       string    `json:"name"`
	Status     string    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"`
	Message    string    `json:"message,omitempty"`
	File       string    `json:"file,omitempty"`
	Line       int       `json:"line,omitempty"`
	Started    time.Time `json:"started,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
}

// Components are the platform's own parts and child processes.
type Components interface {
	List(ctx context.Context) ([]Component, error)
	// Log returns the end of a component's log as text, or ErrNotFound. With
	// Follow the reader blocks until there is more and ends with ctx.
	Log(ctx context.Context, name string, options LogOptions) (io.ReadCloser, error)
}

// LogOptions select a part of a component's log.
type LogOptions struct {
	Follow bool
	Since  time.Time // zero for no bound
	Tail   int       // at most this many lines from the end, 0 for all
}

// Component is one part of the platform.
type Component struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // starting, running, restarting, failed, stopped
	PID      int       `json:"pid,omitempty"`
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	Hint     string    `json:"hint,omitempty"`
}

// Secrets are the Key Vaults and the Actions secrets. Nothing here reads a value.
type Secrets interface {
	List(ctx context.Context) ([]Secret, error)
	// Set writes a new version of a vault's secret and returns the version.
	Set(ctx context.Context, vault, name string, value []byte) (version string, err error)
	// SetRepo writes an Actions secret of a repository "owner/name".
	SetRepo(ctx context.Context, repo, name string, value []byte) error
}

// Secret is what may be known of a secret: all but its value.
type Secret struct {
	Vault    string    `json:"vault,omitempty"` // of a Key Vault secret
	Repo     string    `json:"repo,omitempty"`  // of an Actions secret
	Name     string    `json:"name"`
	Version  string    `json:"version,omitempty"` // the current one
	Versions int       `json:"versions,omitempty"`
	Updated  time.Time `json:"updated,omitzero"`
	Enabled  bool      `json:"enabled"`
}
