package actions

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
)

// runMessage tells that a run was asked for, goes on, or has ended.
type runMessage struct {
	Run    int64  `json:"run"`
	Action string `json:"action"` // requested, in_progress, completed
}

// maxChain is how many workflows can follow each other by workflow_run, as on
// GitHub.
const maxChain = 3

// toChain starts the workflows that wait for other workflows.
func (a *Actions) toChain(ctx context.Context, messages []store.Message) error {
	for _, m := range messages {
		var msg runMessage
		if err := json.Unmarshal(m.Body, &msg); err != nil {
			a.log.Error("a message of a run is damaged", "id", m.ID, "err", err)
			continue
		}
		r, err := a.store.Run(ctx, msg.Run)
		if err != nil {
			continue // deleted
		}
		a.insist(ctx, store.FromRuns, m.ID, r.Repo, r.Commit, "workflow_run of "+r.Name, func() error { return a.chain(ctx, m.ID, r, msg.Action) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (a *Actions) chain(ctx context.Context, id int64, r Run, action string) error {
	if r.Chain >= maxChain {
		return nil
	}
	repo, err := a.deps.Repositories.Repository(ctx, r.Repo)
	if err != nil {
		return err
	}
	_, branch := shortRef(r.Ref)
	if r.HeadRef != "" {
		branch = r.HeadRef
	}
	h := &happening{id: id, repo: r.Repo, name: "workflow_run", action: action, actor: r.Actor, title: "", workflow: r.Name, branch: branch, chain: r.Chain + 1}
	list, err := a.atDefault(ctx, repo, h)
	if err != nil || len(list) == 0 || !a.waitsForRuns(ctx, list[0]) {
		return err
	}
	run := expr.FromAny(a.runJSON(r))
	h.payload = payloadJSON(a.commonPayload(repo, r.Repo, r.Actor).Set("action", action).Set("workflow_run", run).
		Set("workflow", expr.FromAny(a.workflowJSON(r.Repo, workflow{path: r.File, name: r.Name}))))
	starts, err := a.starts(ctx, repo, h)
	if err != nil {
		return err
	}
	return a.consume(ctx, store.FromRuns, id, starts, nil)
}

// waitsForRuns reports whether a workflow of the default branch has the trigger
// at all, which is seldom.
func (a *Actions) waitsForRuns(ctx context.Context, h *happening) bool {
	repo, err := a.deps.Repositories.Repository(ctx, h.repo)
	if err != nil {
		return false
	}
	files, err := workflowFiles(ctx, repo, h.commit)
	if err != nil {
		return false
	}
	for _, f := range files {
		if w, _ := a.files.load(f.path, f.content); w != nil && w.Event("workflow_run") != nil {
			return true
		}
	}
	return false
}

// describeFile is a workflow file as it is named in references.
func describeFile(repo, file, ref string) string { return fmt.Sprintf("%s/%s@%s", repo, file, ref) }
