// Package journal is the append-only record of what happened to each commit.
//
// Input: an [Event] from any stage of the loop. Output: the same events, in
// order, to every reader: the trace, the status page, `lockstep trace`, and
// the boxes themselves, which use it as a durable queue ([Journal.Follow] from
// a cursor that they keep).
//
// Invariants: an event that Append has acknowledged survives kill -9 and a
// power cut; IDs only grow and are never reused; events are never changed; the
// newest million are kept. No event holds a secret: its writer masks before it appends.
//
// Start reading at [Event], then [Open].
package journal

import "time"

// Stage is one lane of the trace: the part of the loop that an event is about.
type Stage string

// The lanes in the order in which a commit passes them.
const (
	StagePush   Stage = "push"   // the forge accepted a ref update
	StageRun    Stage = "run"    // a workflow run, its jobs and steps
	StageImage  Stage = "image"  // an image was built or pushed
	StageRender Stage = "render" // an application's manifests were produced
	StagePlan   Stage = "plan"   // desired and live state were compared
	StageApply  Stage = "apply"  // changes were written to the cluster
	StageReady  Stage = "ready"  // the application's health at the new commit
	// StageSecret is about Key Vault objects and their mounts. It is drawn
	// beside the lanes, for a secret has no commit of its own.
	StageSecret Stage = "secret"
	// StagePlatform is about Lockstep itself: a child died, the disk is full.
	StagePlatform Stage = "platform"
)

// Status says how far the subject of an event is.
type Status string

// A span opens with StatusStarted and closes with one of Succeeded, Failed,
// Skipped or Cancelled. Waiting and Info may stand between or alone.
const (
	StatusStarted   Status = "started"
	StatusWaiting   Status = "waiting" // Message says for what and what would end it
	StatusInfo      Status = "info"
	StatusSucceeded Status = "succeeded"
	StatusFailed    Status = "failed"
	StatusSkipped   Status = "skipped"
	StatusCancelled Status = "cancelled"
)

// Closes reports whether the status ends a span.
func (s Status) Closes() bool {
	switch s {
	case StatusSucceeded, StatusFailed, StatusSkipped, StatusCancelled:
		return true
	}
	return false
}

// Well-known keys of Event.Data. A writer may add keys of its own.
const (
	DataActor  = "actor"  // who did it: a user name, or "github-actions[bot]"
	DataRef    = "ref"    // full ref name, "refs/heads/main"
	DataBefore = "before" // commit before a push; 40 zeros for a new ref
	DataCause  = "cause"  // commit whose run pushed this commit (write-back)
	// DataSubject and DataAuthor describe the pushed commit itself: the first
	// line of its message, and its author's name.
	DataSubject = "subject"
	DataAuthor  = "author"
	DataRun     = "run"    // workflow run number, decimal
	DataJob     = "job"    // job id within the workflow
	DataStep    = "step"   // step number, from 1
	DataDigest  = "digest" // "sha256:…"
	DataImage   = "image"  // image name without tag or digest
	DataApp     = "app"    // application "namespace/name"
	// DataDuration is how long something took that has only a closing event,
	// as "41ms".
	DataDuration = "duration"
	DataURL      = "url" // where to look further
)

// Event is one thing that happened. Events with the same Commit, Stage and
// Subject form a span.
type Event struct {
	// ID is assigned by Append: the event's position and the reader's cursor.
	ID int64 `json:"id"`
	// Time is when it happened. Append fills it in when it is zero.
	Time time.Time `json:"time"`
	// Repo is "owner/name", empty for events of the platform.
	Repo string `json:"repo,omitempty"`
	// Commit is the full hexadecimal object id, empty for events of the platform.
	Commit string `json:"commit,omitempty"`
	Stage  Stage  `json:"stage"`
	// Subject is what the event is about within its stage, in the words of
	// the box: "refs/heads/main", "ci.yaml/build", "storefront.azurecr.io/web",
	// "argocd/storefront", "kubelet".
	Subject string `json:"subject"`
	Status  Status `json:"status"`
	// Message is one sentence for people: what and why.
	Message string `json:"message,omitempty"`
	// File and Line (from 1) locate bad input, in the repository at Commit.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Hint says what to try, where there is something to try.
	Hint string            `json:"hint,omitempty"`
	Data map[string]string `json:"data,omitempty"`
}
