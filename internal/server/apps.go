package server

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Apps is the GitOps engine. What cannot be done is a *[Problem].
type Apps interface {
	// List returns all applications, without their Resources.
	List(ctx context.Context) ([]App, error)
	// Get returns one application with its Resources, or ErrNotFound.
	Get(ctx context.Context, namespace, name string) (App, error)
	// Diff compares what Git wants with what runs. Values of secrets are
	// masked by the engine.
	Diff(ctx context.Context, namespace, name string) ([]Change, error)
	// Sync starts to bring the wanted commit to the cluster and returns.
	Sync(ctx context.Context, namespace, name string, options SyncOptions) error
	// Refresh looks again at Git and the cluster; hard also forgets what was
	// rendered.
	Refresh(ctx context.Context, namespace, name string, hard bool) error
	// Plan returns what bringing the application to a state would change.
	Plan(ctx context.Context, namespace, name string, at At) ([]Change, error)
	// Manifests returns what the source has at a state, secrets masked.
	Manifests(ctx context.Context, namespace, name string, at At) ([]Manifest, error)
	// Tree returns the live objects with those that they own.
	Tree(ctx context.Context, namespace, name string) ([]Node, error)
	// History returns the syncs that can be gone back to, youngest first.
	History(ctx context.Context, namespace, name string) ([]HistoryEntry, error)
	// Rollback starts to go back to an entry of the history and returns.
	Rollback(ctx context.Context, namespace, name string, options RollbackOptions) (RolledBack, error)
	// Unhold gives up a rollback.
	Unhold(ctx context.Context, namespace, name string) error
	// Terminate ends the sync under way.
	Terminate(ctx context.Context, namespace, name string) error
	// Pause stops automated syncs, Resume lets them go on.
	Pause(ctx context.Context, namespace, name, reason string) error
	Resume(ctx context.Context, namespace, name string) error
	// Confirm approves what waits for it before it is deleted.
	Confirm(ctx context.Context, namespace, name string) error
	// Actions returns what the live objects that fit offer.
	Actions(ctx context.Context, namespace, name string, fits ObjectRef) ([]ObjectActions, error)
	RunAction(ctx context.Context, namespace, name string, run RunAction) error
	// DeleteObject deletes a live object; propagation is "foreground" (also
	// ""), "background" or "orphan".
	DeleteObject(ctx context.Context, namespace, name string, object ObjectRef, propagation string) error
}

// SyncOptions are what a person may choose for one sync.
type SyncOptions struct {
	Prune     bool        `json:"prune,omitempty"`     // delete what Git no longer has
	Revision  string      `json:"revision,omitempty"`  // instead of the target revision
	Force     bool        `json:"force,omitempty"`     // delete and create anew what cannot be changed in place
	NoHooks   bool        `json:"noHooks,omitempty"`   // apply only
	Resources []ObjectRef `json:"resources,omitempty"` // only these, without hooks
}

// ObjectRef names an object. Where several can be meant, "" fits everything.
type ObjectRef struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// At names a state of an application; the zero value is what is wanted now.
type At struct {
	Revision string // of the first source: branch, tag or commit
	History  *int64 // an entry of the history, instead of Revision
}

// App is an application and how it stands.
type App struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Project   string `json:"project,omitempty"`
	RepoURL   string `json:"repoURL,omitempty"`
	Path      string `json:"path,omitempty"`
	Revision  string `json:"revision,omitempty"` // the one it tracks: branch, tag or commit
	Sync      string `json:"sync"`               // Synced, OutOfSync or Unknown
	Health    string `json:"health"`             // Healthy, Progressing, Degraded, Suspended, Missing or Unknown
	Commit    string `json:"commit,omitempty"`   // what runs
	Wanted    string `json:"wanted,omitempty"`   // what Git wants
	// Message is one sentence with the reason of the state, Hint the next step.
	Message   string     `json:"message,omitempty"`
	Hint      string     `json:"hint,omitempty"`
	Syncing   bool       `json:"syncing,omitempty"` // a sync is under way, or about to be
	Paused    string     `json:"paused,omitempty"`  // why automated syncs are paused
	Held      *int64     `json:"held,omitempty"`    // the entry of the history that a rollback holds it at
	RetryAt   time.Time  `json:"retryAt,omitzero"`  // of the next automated attempt
	URLs      []string   `json:"urls,omitempty"`
	Images    []string   `json:"images,omitempty"`
	Changed   time.Time  `json:"changed,omitzero"` // since when it stands so
	Resources []Resource `json:"resources,omitempty"`
}

// Resource is one object of an application.
type Resource struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Sync      string `json:"sync,omitempty"`
	Health    string `json:"health,omitempty"`
	Message   string `json:"message,omitempty"`
}

// Node is a live object and what it owns.
type Node struct {
	Resource
	Created  time.Time `json:"created,omitzero"`
	Children []Node    `json:"children,omitempty"`
}

// Change is one difference between Git and the cluster.
type Change struct {
	Action    string `json:"action"` // create, update or delete
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Diff      string `json:"diff,omitempty"` // unified, live to wanted
	Why       string `json:"why,omitempty"`
}

// Manifest is one object that the source has.
type Manifest struct {
	Place  string         `json:"place,omitempty"` // "file:line"
	Hook   bool           `json:"hook,omitempty"`
	Object map[string]any `json:"object"`
}

// HistoryEntry is one successful sync.
type HistoryEntry struct {
	ID        int64     `json:"id"`
	Revisions []string  `json:"revisions"` // of the sources
	Deployed  time.Time `json:"deployed"`
	Seconds   float64   `json:"seconds,omitempty"` // that the sync took
	Actor     string    `json:"actor,omitempty"`
	Automated bool      `json:"automated,omitempty"`
	Subject   string    `json:"subject,omitempty"` // of the commit
	Author    string    `json:"author,omitempty"`
	Current   bool      `json:"current,omitempty"` // it is wanted now
}

// RollbackOptions are what a person may choose for one rollback.
type RollbackOptions struct {
	History *int64 `json:"history,omitempty"` // nil for what was before
	Prune   bool   `json:"prune,omitempty"`
	DryRun  bool   `json:"dryRun,omitempty"`
}

// RolledBack says what a rollback does.
type RolledBack struct {
	Entry   HistoryEntry `json:"entry"`
	Skipped []string     `json:"skipped,omitempty"` // what automated sync leaves out from now on
	Changes []Change     `json:"changes,omitempty"` // of a dry run
}

// ObjectActions are what one live object offers.
type ObjectActions struct {
	ObjectRef
	Actions []Action `json:"actions"`
}

// Action is one that an object offers.
type Action struct {
	Name     string        `json:"name"`
	Title    string        `json:"title,omitempty"`
	Disabled bool          `json:"disabled,omitempty"`
	Params   []ActionParam `json:"params,omitempty"`
}

// ActionParam is a value that an action takes.
type ActionParam struct {
	Name    string `json:"name"`
	Default string `json:"default,omitempty"`
}

// RunAction is the body of POST /apps/{namespace}/{name}/actions.
type RunAction struct {
	ObjectRef
	Action string            `json:"action"`
	Params map[string]string `json:"params,omitempty"`
}

// Pause is the body of POST /apps/{namespace}/{name}/pause.
type Pause struct {
	Reason string `json:"reason"`
}

// Items is the answer of the routes that list something of an application.
type Items[T any] struct {
	Items []T `json:"items"`
}

// appRoutes are the routes below /apps/{namespace}/{name}.
func (s *Server) appRoutes(do func(pattern string, h func(r *http.Request) (any, error))) {
	app := func(method, path string, h func(a Apps, r *http.Request, namespace, name string) (any, error)) {
		do(method+" /api/v1/apps/{namespace}/{name}"+path, func(r *http.Request) (any, error) {
			if s.deps.Apps == nil {
				return nil, missing("the GitOps engine")
			}
			return h(s.deps.Apps, r, r.PathValue("namespace"), r.PathValue("name"))
		})
	}
	verb := func(path string, f func(a Apps, ctx context.Context, namespace, name string) error) {
		app("POST", path, func(a Apps, r *http.Request, namespace, name string) (any, error) {
			return nil, f(a, r.Context(), namespace, name)
		})
	}
	verb("/terminate", Apps.Terminate)
	verb("/resume", Apps.Resume)
	verb("/unhold", Apps.Unhold)
	verb("/confirm", Apps.Confirm)
	app("POST", "/pause", pauseApp)
	app("POST", "/rollback", rollbackApp)
	app("GET", "/history", func(a Apps, r *http.Request, namespace, name string) (any, error) {
		return items(a.History(r.Context(), namespace, name))
	})
	app("GET", "/tree", func(a Apps, r *http.Request, namespace, name string) (any, error) {
		return items(a.Tree(r.Context(), namespace, name))
	})
	app("GET", "/plan", func(a Apps, r *http.Request, namespace, name string) (any, error) {
		at, err := atOf(r)
		if err != nil {
			return nil, err
		}
		changes, err := a.Plan(r.Context(), namespace, name, at)
		return Diff{append([]Change{}, changes...)}, err
	})
	app("GET", "/manifests", func(a Apps, r *http.Request, namespace, name string) (any, error) {
		at, err := atOf(r)
		if err != nil {
			return nil, err
		}
		return items(a.Manifests(r.Context(), namespace, name, at))
	})
	app("GET", "/actions", func(a Apps, r *http.Request, namespace, name string) (any, error) {
		return items(a.Actions(r.Context(), namespace, name, refOf(r)))
	})
	app("POST", "/actions", runAction)
	app("DELETE", "/objects", func(a Apps, r *http.Request, namespace, name string) (any, error) {
		ref := refOf(r)
		if ref.Kind == "" || ref.Name == "" {
			return nil, problemf(http.StatusBadRequest, "?kind=Deployment&name=web", "the object needs a kind and a name")
		}
		return nil, a.DeleteObject(r.Context(), namespace, name, ref, r.URL.Query().Get("propagation"))
	})
}

func items[T any](list []T, err error) (any, error) { return Items[T]{append([]T{}, list...)}, err }

func pauseApp(a Apps, r *http.Request, namespace, name string) (any, error) {
	var body Pause
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return nil, a.Pause(r.Context(), namespace, name, body.Reason)
}

func rollbackApp(a Apps, r *http.Request, namespace, name string) (any, error) {
	var body RollbackOptions
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return a.Rollback(r.Context(), namespace, name, body)
}

func runAction(a Apps, r *http.Request, namespace, name string) (any, error) {
	var body RunAction
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.Kind == "" || body.Name == "" || body.Action == "" {
		return nil, problemf(http.StatusBadRequest, "send kind, name and action", "the action needs an object and a name")
	}
	return nil, a.RunAction(r.Context(), namespace, name, body)
}

func refOf(r *http.Request) ObjectRef {
	q := r.URL.Query()
	return ObjectRef{Group: q.Get("group"), Kind: q.Get("kind"), Namespace: q.Get("namespace"), Name: q.Get("name")}
}

func atOf(r *http.Request) (At, error) {
	q := r.URL.Query()
	at := At{Revision: q.Get("revision")}
	if text := q.Get("history"); text != "" {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil || id < 0 || at.Revision != "" {
			return at, problemf(http.StatusBadRequest, "use ?history with an ID of the history, or ?revision", "history %q does not fit", bounded(text))
		}
		at.History = &id
	}
	return at, nil
}
