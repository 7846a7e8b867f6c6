package actions

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/service"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Types of the seams and of what is stored.
type (
	BuildRequest = builtin.BuildRequest
	BuildResult  = builtin.BuildResult
	Credential   = builtin.Credential
	// Builder builds images for docker/build-push-action.
	Builder = builtin.Builder
	// LocatedError is a failure with a place in the repository; a Builder
	// returns one for a line of a Dockerfile.
	LocatedError = builtin.Error

	Run     = store.Run
	Job     = store.Job
	Step    = store.Step
	Problem = store.Problem
	Filter  = store.Filter
	Review  = store.Review
)

// ErrNotFound says that there is no such run, job, log, secret or variable.
var ErrNotFound = store.ErrNotFound

// Repositories opens the forge's repositories.
type Repositories interface {
	Repository(ctx context.Context, name string) (*git.Repository, error)
}

// JobToken says what a job's token may do.
type JobToken struct {
	Repo   string // "owner/name"
	Commit string // the cause of what is pushed with it
	Run    int64
	// Permissions are GitHub's scopes ("contents", "pull-requests") to "read" or
	// "write"; what is not named is not allowed.
	Permissions map[string]string
}

// Write reports whether the token may write a scope.
func (t JobToken) Write(scope string) bool { return t.Permissions[scope] == writeLevel }

// Tokens issues tokens of github-actions[bot].
type Tokens interface {
	IssueJobToken(ctx context.Context, t JobToken) (token string, revoke func(context.Context) error, err error)
}

// Event is one event of the forge, in the words of GitHub's webhooks. Pushes
// come by the journal.
type Event struct {
	ID      int64
	Time    time.Time
	Repo    string // "owner/name"
	Name    string // "pull_request"
	Action  string // "opened"
	Ref     string // full; of a pull request refs/pull/N/merge
	Commit  string // at Ref when the event happened; "" when there is none
	Actor   string
	Cause   string // commit whose workflow run did it; such events start nothing
	Fork    bool   // from a pull request of another repository
	Payload json.RawMessage
}

// Events are the forge's events.
type Events interface {
	// FollowEvents yields every event with an ID above after, oldest first, and
	// waits for more until ctx ends.
	FollowEvents(ctx context.Context, after int64) iter.Seq[Event]
}

// Check is the state of one job, or of a workflow file that cannot run, as a
// check run of its commit. Two with the same ExternalID are the same one.
type Check struct {
	Repo, Commit string
	Workflow     string // name of the workflow
	Name         string // of the job
	ExternalID   string // unique in the repository
	Run          int64
	Status       string // queued, in_progress, completed
	Conclusion   string // success, failure, cancelled, skipped, ...; "" until completed
	Title        string // what happened, in one line
	Summary      string // Markdown
	DetailsURL   string
	Started      time.Time
	Completed    time.Time
	Annotations  []command.Annotation
}

// Checks shows the states of jobs on commits.
type Checks interface {
	// SetCheck is repeated until it succeeds or gives up after some tries.
	SetCheck(ctx context.Context, c Check) error
}

// Deployment is a job on its way into an environment.
type Deployment struct {
	Repo, Ref, Commit, Environment string
	Creator                        string
	Run, Job                       int64
}

// Deployments records deployments. States are GitHub's: waiting, queued,
// in_progress, success, failure, error, inactive.
type Deployments interface {
	CreateDeployment(ctx context.Context, d Deployment) (id int64, err error)
	SetDeploymentStatus(ctx context.Context, repo string, id int64, state, url string) error
}

// Protection tells which branches are protected, for environments that only
// those may deploy to.
type Protection interface {
	Protected(ctx context.Context, repo, branch string) (bool, error)
}

// Users knows the accounts of the forge by their numbers.
type Users interface {
	// Login returns "" for a number that nobody has.
	Login(ctx context.Context, id int64) (string, error)
}

// Services are artifacts, caches and ID tokens for the clients of a job;
// *service.Service is one.
type Services interface {
	// Open returns variables for the job's steps. closing ends what they open.
	Open(scope service.Scope) (env map[string]string, closing func())
	// REST serves artifacts and caches below /repos/{owner}/{repo}/actions.
	REST() http.Handler
	// DeleteRun removes what belongs to a run.
	DeleteRun(ctx context.Context, run int64) error

	// What built-in actions use; see package service.
	SaveArtifact(ctx context.Context, scope service.Scope, spec service.ArtifactSpec, write func(io.Writer) error) (service.Artifact, error)
	Artifacts(ctx context.Context, f service.ArtifactFilter) ([]service.Artifact, int, error)
	OpenArtifact(ctx context.Context, repo string, id int64) (service.Artifact, service.Blob, error)
	FindCache(ctx context.Context, scope service.Scope, key string, restore []string, version string) (service.Cache, bool, error)
	OpenCache(c service.Cache) (service.Blob, error)
	SaveCache(ctx context.Context, scope service.Scope, key, version string, write func(io.Writer) error) (service.Cache, error)
}

// Deps are what the engine uses.
type Deps struct {
	Log     *slog.Logger
	Journal interface {
		journal.Appender
		journal.Reader
	}
	Repositories Repositories
	Tokens       Tokens
	Events       Events      // nil: only pushes, schedules and dispatches start workflows
	Builder      Builder     // nil: images cannot be built
	Checks       Checks      // nil: no check runs
	Deployments  Deployments // nil: environments make no deployments
	Protection   Protection  // nil: no branch is protected
	Users        Users       // nil: numbers are made of logins
	Services     Services    // nil: no artifacts, caches and ID tokens for clients
	// Registry reaches container registries to check logins; nil: unchecked.
	Registry http.RoundTripper
	Now      func() time.Time // default time.Now
}
