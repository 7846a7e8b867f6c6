package actions

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// maxPayloadCommits is how many commits the payload of a push lists.
const maxPayloadCommits = 20

// accountID is the number that stands for a login, as on the forge.
func accountID(login string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.ToLower(login)))
	return int64(h.Sum32())
}

// payload is `github.event` of a run: the one that its event brought, or for a
// push, dispatch or schedule one made from the repository.
func (a *Actions) payload(ctx context.Context, repo *git.Repository, r Run) (*expr.Object, error) {
	stored, err := a.store.Payload(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if len(stored) > 0 {
		v, err := expr.FromJSON(string(stored))
		if err != nil {
			return nil, fmt.Errorf("event of run %d: %w", r.ID, err)
		}
		if o, ok := v.(*expr.Object); ok {
			return o, nil
		}
		return nil, fmt.Errorf("event of run %d is no object", r.ID)
	}
	url := a.cfg.ServerURL + "/" + r.Repo
	o := a.commonPayload(repo, r.Repo, r.Actor).Set("ref", r.Ref)
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
	before := r.Before
	if before == "" {
		before = git.ZeroID
	}
	return o.Set("before", before).Set("after", r.Commit).Set("created", before == git.ZeroID).Set("deleted", false).Set("forced", false).
		Set("base_ref", nil).Set("compare", url+"/compare/"+before[:12]+"..."+r.Commit[:12]).Set("commits", commits).Set("head_commit", head).
		Set("pusher", expr.NewObject().Set("name", r.Actor)), nil
}

// commonPayload is what every event has.
func (a *Actions) commonPayload(repo *git.Repository, name, actor string) *expr.Object {
	owner, short, _ := strings.Cut(name, "/")
	url := a.cfg.ServerURL + "/" + name
	repository := expr.NewObject().Set("name", short).Set("full_name", name).Set("default_branch", defaultBranch(repo)).
		Set("owner", expr.NewObject().Set("login", owner).Set("name", owner).Set("id", float64(accountID(owner)))).
		Set("html_url", url).Set("clone_url", url+".git").Set("url", url).Set("private", false)
	return expr.NewObject().Set("repository", repository).Set("sender", expr.NewObject().Set("login", actor).Set("id", float64(accountID(actor))))
}

// payloadJSON is an object as it is stored.
func payloadJSON(o *expr.Object) json.RawMessage { return json.RawMessage(expr.ToJSON(o)) }

// pushedCommits lists what a push brought, oldest first. A straight line is read
// without a process of git.
func pushedCommits(ctx context.Context, repo *git.Repository, r Run, url string) (expr.Array, error) {
	var ids []string
	straight := false
	for id := r.Commit; len(ids) < maxPayloadCommits; {
		if id == r.Before {
			straight = true
			break
		}
		c, err := repo.Commit(ctx, id)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		if r.Before == "" || r.Before == git.ZeroID || len(c.Parents) == 0 {
			straight = true // a new branch tells of its head only
			break
		}
		if len(c.Parents) > 1 {
			break
		}
		id = c.Parents[0]
	}
	if !straight {
		args := []string{"rev-list", fmt.Sprintf("--max-count=%d", maxPayloadCommits), r.Commit}
		if _, err := repo.Resolve(ctx, r.Before); err == nil {
			args = append(args, "^"+r.Before)
		}
		out, err := repo.Run(ctx, args...)
		if err != nil {
			return nil, err
		}
		ids = strings.Fields(string(out))
	}
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
