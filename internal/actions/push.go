package actions

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// bot is the actor of pushes by a job's token.
const bot = "github-actions[bot]"

const workflowsDir = ".github/workflows"

// maxWorkflows bounds the workflow files of one commit.
const maxWorkflows = 200

// consume turns one push event into queued runs. What cannot be read is tried
// again a few times, then told in the journal.
func (a *Actions) consume(ctx context.Context, e journal.Event) {
	var err error
	for pause := 200 * time.Millisecond; pause < 5*time.Second; pause *= 4 {
		if err = a.consumeOnce(ctx, e); err == nil || ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	a.log.Error("push event starts no workflow", "repo", e.Repo, "commit", e.Commit, "err", err)
	a.tell(ctx, journal.Event{Repo: e.Repo, Commit: e.Commit, Subject: "workflows", Status: journal.StatusFailed,
		Message: "the workflows of this push could not be read: " + err.Error(), Hint: "push again, or start the workflow by hand"})
	if _, err := a.store.Consume(ctx, e.ID, nil); err != nil {
		a.log.Error("store cursor", "err", err)
	}
}

func (a *Actions) consumeOnce(ctx context.Context, e journal.Event) error {
	var runs []Run
	if e.Data[journal.DataActor] == bot {
		a.log.Debug("a job's push starts no workflow", "repo", e.Repo, "commit", e.Commit)
	} else {
		var err error
		if runs, err = a.triggered(ctx, e); err != nil {
			return err
		}
	}
	created, err := a.store.Consume(ctx, e.ID, runs)
	if err != nil {
		return err
	}
	for _, r := range created {
		a.log.Info("workflow queued", "repo", r.Repo, "file", r.File, "run", r.ID, "commit", r.Commit)
	}
	a.wakeUp()
	return nil
}

// triggered lists the runs that a push starts. A file that cannot be loaded
// makes a run that fails at once, as on GitHub.
func (a *Actions) triggered(ctx context.Context, e journal.Event) ([]Run, error) {
	ref := e.Data[journal.DataRef]
	if ref == "" {
		ref = e.Subject
	}
	if e.Commit == "" || e.Commit == git.ZeroID {
		return nil, nil
	}
	repo, err := a.deps.Repositories.Repository(ctx, e.Repo)
	if err != nil {
		return nil, err
	}
	files, err := workflowFiles(ctx, repo, e.Commit)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	commit, err := repo.Commit(ctx, e.Commit)
	if err != nil {
		return nil, err
	}
	push := trigger.Push{Ref: ref, Message: commit.Subject + "\n\n" + commit.Body}
	if push.Paths, err = changedPaths(ctx, repo, ref, e.Data[journal.DataBefore], e.Commit); err != nil {
		return nil, err
	}
	var runs []Run
	for _, file := range files {
		r := Run{
			Attempt: 1, Repo: e.Repo, File: file.path, Name: file.path, Title: commit.Subject, Event: "push", Ref: ref, Commit: e.Commit,
			Before: e.Data[journal.DataBefore], Actor: e.Data[journal.DataActor], EventID: e.ID, Status: store.Queued, Created: a.deps.Now().UTC(),
		}
		w, diagnostics := syntax.Load(file.path, file.content)
		if w == nil {
			if trigger.SkipMarker(push.Message) != "" {
				continue
			}
			r.Problem = firstFatal(diagnostics)
			runs = append(runs, r)
			continue
		}
		r.Name = w.Name
		decision, err := trigger.MatchPush(w, push)
		switch {
		case err != nil:
			r.Problem = &Problem{Message: err.Error(), File: file.path, Line: decision.Line}
			runs = append(runs, r)
		case decision.Start:
			runs = append(runs, r)
		case decision.Line > 0: // it has a push trigger, which did not match
			a.tell(ctx, journal.Event{Repo: e.Repo, Commit: e.Commit, Subject: path.Base(file.path), Status: journal.StatusSkipped,
				Message: "not started: " + decision.Reason, File: file.path, Line: decision.Line})
		}
	}
	return runs, nil
}

// firstFatal is the fault to tell first: a slip of the pen explains what else is
// wrong with a file.
func firstFatal(diagnostics []syntax.Diagnostic) *Problem {
	fatal := func(d syntax.Diagnostic) bool { return d.Fatal }
	slip := func(d syntax.Diagnostic) bool { return d.Fatal && strings.HasPrefix(d.Hint, "did you mean") }
	for _, wanted := range []func(syntax.Diagnostic) bool{slip, fatal} {
		if i := slices.IndexFunc(diagnostics, wanted); i >= 0 {
			d := diagnostics[i]
			return &Problem{Message: d.Message, Hint: d.Hint, File: d.File, Line: d.Line}
		}
	}
	return &Problem{Message: "the workflow file could not be read"}
}

type workflowFile struct {
	path    string
	content []byte
}

// workflowFiles reads the workflows of a commit, in the order of their names.
func workflowFiles(ctx context.Context, repo *git.Repository, commit string) ([]workflowFile, error) {
	entries, err := repo.ReadDir(ctx, commit, workflowsDir)
	if errors.Is(err, git.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []workflowFile
	for _, e := range entries {
		if e.Kind != git.KindBlob || e.Symlink() || !strings.HasSuffix(e.Name, ".yml") && !strings.HasSuffix(e.Name, ".yaml") {
			continue
		}
		if len(out) == maxWorkflows {
			return nil, fmt.Errorf("%s has more than %d workflow files", workflowsDir, maxWorkflows)
		}
		content, err := repo.ReadFile(ctx, commit, e.Path)
		if err != nil {
			return nil, err
		}
		out = append(out, workflowFile{path: e.Path, content: content})
	}
	return out, nil
}

// changedPaths lists what a push changed. A new branch is compared with where
// it left the default branch.
func changedPaths(ctx context.Context, repo *git.Repository, ref, before, commit string) ([]string, error) {
	if strings.HasPrefix(ref, "refs/tags/") {
		return nil, nil
	}
	if before != "" && before != git.ZeroID {
		if _, err := repo.Resolve(ctx, before); err == nil {
			return repo.Changed(ctx, before, commit)
		}
	}
	base := ""
	if head, err := repo.Run(ctx, "symbolic-ref", "HEAD"); err == nil && strings.TrimSpace(string(head)) != ref {
		if out, err := repo.Run(ctx, "merge-base", strings.TrimSpace(string(head)), commit); err == nil {
			base = strings.TrimSpace(string(out))
		}
	}
	return repo.Changed(ctx, base, commit)
}

// maxPayloadCommits is how many commits the payload of a push lists.
const maxPayloadCommits = 20

// payload is `github.event` of a run.
func (a *Actions) payload(ctx context.Context, repo *git.Repository, r Run) (*expr.Object, error) {
	owner, name, _ := strings.Cut(r.Repo, "/")
	branch := "main"
	if head, err := repo.Run(ctx, "symbolic-ref", "--short", "HEAD"); err == nil {
		branch = strings.TrimSpace(string(head))
	}
	url := a.cfg.ServerURL + "/" + r.Repo
	repository := expr.NewObject().Set("name", name).Set("full_name", r.Repo).Set("default_branch", branch).
		Set("owner", expr.NewObject().Set("login", owner).Set("name", owner)).
		Set("html_url", url).Set("clone_url", url+".git").Set("url", url).Set("private", false)
	o := expr.NewObject().Set("ref", r.Ref).Set("repository", repository).Set("sender", expr.NewObject().Set("login", r.Actor))
	if r.Event == "workflow_dispatch" {
		return o.Set("workflow", r.File).Set("inputs", expr.Strings(r.Inputs)), nil
	}
	commits, err := pushedCommits(ctx, repo, r, url)
	if err != nil {
		return nil, err
	}
	head, err := commitPayload(ctx, repo, r.Commit, url)
	if err != nil {
		return nil, err
	}
	created := r.Before == "" || r.Before == git.ZeroID
	return o.Set("before", r.Before).Set("after", r.Commit).Set("created", created).Set("deleted", false).Set("forced", false).
		Set("compare", url+"/compare/"+r.Before+"..."+r.Commit).Set("commits", commits).Set("head_commit", head).
		Set("pusher", expr.NewObject().Set("name", r.Actor)), nil
}

func pushedCommits(ctx context.Context, repo *git.Repository, r Run, url string) (expr.Array, error) {
	args := []string{"rev-list", fmt.Sprintf("--max-count=%d", maxPayloadCommits), r.Commit}
	if r.Before != "" && r.Before != git.ZeroID {
		if _, err := repo.Resolve(ctx, r.Before); err == nil {
			args = append(args, "^"+r.Before)
		}
	} else {
		args[1] = "--max-count=1"
	}
	out, err := repo.Run(ctx, args...)
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(string(out))
	slices.Reverse(ids)
	commits := expr.Array{}
	for _, id := range ids {
		c, err := commitPayload(ctx, repo, id, url)
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
	}
	return commits, nil
}

func commitPayload(ctx context.Context, repo *git.Repository, id, url string) (*expr.Object, error) {
	c, err := repo.Commit(ctx, id)
	if err != nil {
		return nil, err
	}
	message := c.Subject
	if c.Body != "" {
		message += "\n\n" + c.Body
	}
	author := func() *expr.Object { return expr.NewObject().Set("name", c.AuthorName).Set("email", c.AuthorEmail) }
	return expr.NewObject().Set("id", c.ID).Set("tree_id", c.Tree).Set("distinct", true).Set("message", message).
		Set("timestamp", c.AuthorTime.Format(time.RFC3339)).Set("url", url+"/commit/"+c.ID).Set("author", author()).Set("committer", author()), nil
}

// Dispatch starts a workflow by hand, as the API's workflow_dispatch does. ref
// is a branch or tag, with or without refs/. It returns the run.
func (a *Actions) Dispatch(ctx context.Context, repoName, file, ref, actor string, inputs map[string]string) (Run, error) {
	repo, err := a.deps.Repositories.Repository(ctx, repoName)
	if err != nil {
		return Run{}, err
	}
	full, commit, err := resolveRef(ctx, repo, ref)
	if err != nil {
		return Run{}, err
	}
	p := path.Join(workflowsDir, path.Base(file))
	content, err := repo.ReadFile(ctx, commit, p)
	if err != nil {
		return Run{}, fmt.Errorf("workflow %s at %s: %w", file, ref, errors.Join(err, ErrNotFound))
	}
	w, diagnostics := syntax.Load(p, content)
	if w == nil {
		d := firstFatal(diagnostics)
		return Run{}, &LocatedError{File: d.File, Line: d.Line, Msg: d.Message, Hint: d.Hint}
	}
	values, err := trigger.Inputs(w, inputs)
	if err != nil {
		return Run{}, &LocatedError{File: p, Msg: err.Error(), Err: err}
	}
	c, err := repo.Commit(ctx, commit)
	if err != nil {
		return Run{}, err
	}
	r, err := a.store.CreateRun(ctx, Run{Attempt: 1, Repo: repoName, File: p, Name: w.Name, Title: c.Subject, Event: "workflow_dispatch", Ref: full, Commit: c.ID,
		Actor: actor, Inputs: values, Status: store.Queued, Created: a.deps.Now().UTC()})
	if err == nil {
		a.wakeUp()
	}
	return r, err
}

func resolveRef(ctx context.Context, repo *git.Repository, ref string) (full, commit string, err error) {
	candidates := []string{"refs/heads/" + ref, "refs/tags/" + ref}
	if strings.HasPrefix(ref, "refs/") {
		candidates = []string{ref}
	}
	for _, full := range candidates {
		if commit, err = repo.Resolve(ctx, full); err == nil {
			return full, commit, nil
		}
	}
	return "", "", fmt.Errorf("no branch or tag %q: %w", ref, errors.Join(err, ErrNotFound))
}
