package actions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// bot is the actor of what a job's token does.
const bot = "github-actions[bot]"

// happening is something that may start workflows: a push, an event of the
// forge, the end of a run, a time of the clock.
type happening struct {
	id     int64 // in its source
	repo   string
	name   string // of the event in workflows: "pull_request_target"
	action string
	ref    string // full
	commit string // whose workflow files count, and that runs get
	actor  string
	title  string
	// payload is github.event; nil is made from the repository.
	payload json.RawMessage
	// message of the commit that skip markers are looked for in.
	message string
	before  string // of a push
	// Of pull requests.
	headRef, baseRef, head string
	pull                   int64
	fork                   bool
	paths                  func() ([]string, error) // that changed; nil: none
	// Of workflow_run.
	workflow, branch string
	chain            int
	// only is the file that may start, "" for all.
	only string
}

// run is a run of a file that the happening starts.
func (a *Actions) runOf(h *happening, file string) Run {
	return Run{
		Attempt: 1, Repo: h.repo, File: file, Name: file, Title: h.title, Event: h.name, Action: h.action, Ref: h.ref, Commit: h.commit, Before: h.before,
		Actor: h.actor, EventID: h.id, HeadRef: h.headRef, BaseRef: h.baseRef, HeadCommit: h.head, Pull: h.pull, Fork: h.fork, Chain: h.chain,
		Status: store.Queued, Created: a.deps.Now().UTC(),
	}
}

// starts lists the runs that a happening starts. A file that cannot be loaded
// makes a run that fails at once when the event is a push or pull request, as on
// GitHub.
func (a *Actions) starts(ctx context.Context, repo *git.Repository, h *happening) ([]store.Start, error) {
	files, err := workflowFiles(ctx, repo, h.commit)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	states, err := a.store.WorkflowStates(ctx, h.repo)
	if err != nil {
		return nil, err
	}
	paths := sync.OnceValues(func() ([]string, error) {
		if h.paths == nil {
			return nil, nil
		}
		return h.paths()
	})
	var out []store.Start
	for _, file := range files {
		if h.only != "" && h.only != file.path || states[file.path] != "" {
			continue
		}
		r := a.runOf(h, file.path)
		w, diagnostics := a.files.load(file.path, file.content)
		if w == nil {
			if (h.name == "push" || h.name == "pull_request") && trigger.SkipMarker(h.message) == "" {
				r.Problem, r.Annotations = firstFatal(diagnostics), annotations(diagnostics)
				out = append(out, store.Start{Run: r, Payload: h.payload})
			}
			continue
		}
		r.Name, r.Annotations = w.Name, annotations(diagnostics)
		if r.Title == "" {
			r.Title = w.Name
		}
		decision, err := decide(w, h, paths)
		var failed *unreadable
		switch {
		case errors.As(err, &failed):
			return nil, err
		case err != nil:
			r.Problem = &Problem{Message: err.Error(), File: file.path, Line: decision.Line}
			out = append(out, store.Start{Run: r, Payload: h.payload})
		case decision.Start:
			out = append(out, store.Start{Run: r, Payload: h.payload})
		case decision.Line > 0: // it has the trigger, which did not match
			a.tellNow(ctx, journal.Event{Repo: h.repo, Commit: r.Head(), Subject: path.Base(file.path), Status: journal.StatusSkipped,
				Message: "not started: " + decision.Reason, File: file.path, Line: decision.Line})
		}
	}
	return out, nil
}

// annotations are diagnostics of a workflow file in the words of checks.
func annotations(diagnostics []syntax.Diagnostic) []command.Annotation {
	var out []command.Annotation
	for _, d := range diagnostics {
		if len(out) == maxAnnotations {
			break
		}
		level, message := "warning", d.Message
		if d.Fatal {
			level = "error"
		}
		if d.Hint != "" {
			message += " (" + d.Hint + ")"
		}
		out = append(out, command.Annotation{Level: level, Message: message, File: d.File, Line: d.Line, Title: "workflow file"})
	}
	return out
}

// tellNow puts an event into the journal that belongs to no change.
func (a *Actions) tellNow(ctx context.Context, e journal.Event) {
	_ = a.change(ctx, false, func(t *telling) error { return t.event(a.deps.Now(), e) })
}

// consume stores what a happening starts and moves the source's cursor past it.
func (a *Actions) consume(ctx context.Context, source string, id int64, starts []store.Start, more func(*store.Tx) error) error {
	created, err := a.store.Consume(ctx, source, id, starts, func(tx *store.Tx, created []Run) error {
		for _, r := range created {
			if err := tx.Tell(runKind, runMessage{r.ID, "requested"}); err != nil {
				return err
			}
		}
		if more != nil {
			return more(tx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range created {
		a.log.Info("workflow queued", "repo", r.Repo, "file", r.File, "run", r.ID, "event", r.Event, "commit", r.Commit)
	}
	if len(created) > 0 {
		a.wakeUp()
		a.deliverSoon(runKind)
	}
	return nil
}

// describeEvent is an event in one line, for messages.
func describeEvent(name, action string) string {
	if action == "" {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, action)
}

// shortRef is a ref as people say it: of refs/pull/7/merge "7/merge".
func shortRef(ref string) (kind, short string) {
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		return "tag", tag
	}
	if pull, ok := strings.CutPrefix(ref, "refs/pull/"); ok {
		return "branch", pull
	}
	return "branch", strings.TrimPrefix(ref, "refs/heads/")
}
