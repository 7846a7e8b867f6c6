package forge

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// maxPushCommits is how many commits the payload of a push lists, the newest.
const maxPushCommits = 50

type pushCommitJSON struct {
	ID        string     `json:"id"`
	TreeID    string     `json:"tree_id"`
	Distinct  bool       `json:"distinct"`
	Message   string     `json:"message"`
	Timestamp time.Time  `json:"timestamp"`
	URL       string     `json:"url"`
	Author    pushAuthor `json:"author"`
	Committer pushAuthor `json:"committer"`
	Added     []string   `json:"added"`
	Removed   []string   `json:"removed"`
	Modified  []string   `json:"modified"`
}

type pushAuthor struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// pushPayload is GitHub's payload of a push, made from its event in the journal.
func (f *Forge) pushPayload(ctx context.Context, e journal.Event) (json.RawMessage, error) {
	repo, err := f.find(ctx, e.Repo)
	if err != nil {
		return nil, err
	}
	ref, before, after, actor := e.Data[journal.DataRef], e.Data[journal.DataBefore], e.Data[DataAfter], e.Data[journal.DataActor]
	commits := []pushCommitJSON{}
	var head *pushCommitJSON
	forced := false
	if after != git.ZeroID {
		if commits, err = f.pushCommits(ctx, repo, ref, before, after); err != nil {
			return nil, err
		}
		if tip, err := repo.git.Commit(ctx, after); err == nil {
			j, err := f.pushCommit(ctx, repo, tip)
			if err != nil {
				return nil, err
			}
			head = &j
		}
		if before != git.ZeroID {
			forced, _ = f.forced(ctx, proposal{repo: repo}, refCommand{Ref: ref, Old: before, New: after})
		}
	}
	compare := f.cfg.URL + "/" + repo.full() + "/compare/" + cut12(before) + "..." + cut12(after)
	if before == git.ZeroID || after == git.ZeroID {
		compare = f.cfg.URL + "/" + repo.full() + "/compare/" + strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
	}
	return f.payload(ctx, repo, actor, "", map[string]any{
		"ref": ref, "before": before, "after": after, "base_ref": nil, "created": before == git.ZeroID, "deleted": after == git.ZeroID, "forced": forced,
		"compare": compare, "commits": commits, "head_commit": head, "pusher": map[string]string{"name": actor, "email": f.signature(actor).Email},
	})
}

func cut12(id string) string { return id[:min(len(id), 12)] }

// pushCommits are the commits that a push brought to a branch, oldest first.
func (f *Forge) pushCommits(ctx context.Context, repo *repository, ref, before, after string) ([]pushCommitJSON, error) {
	args := []string{"rev-list", "--max-count=" + strconv.Itoa(maxPushCommits), "--reverse", after}
	if before != git.ZeroID {
		args = append(args, "^"+before)
	} else {
		args = append(args, "--not", "--exclude="+ref, "--branches")
	}
	if !strings.HasPrefix(ref, "refs/heads/") {
		return []pushCommitJSON{}, nil
	}
	out, err := repo.git.Run(ctx, append(args, "--")...)
	if err != nil {
		return nil, err
	}
	list := []pushCommitJSON{}
	for _, id := range strings.Fields(string(out)) {
		c, err := repo.git.Commit(ctx, id)
		if err != nil {
			return nil, err
		}
		j, err := f.pushCommit(ctx, repo, c)
		if err != nil {
			return nil, err
		}
		list = append(list, j)
	}
	return list, nil
}

func (f *Forge) pushCommit(ctx context.Context, repo *repository, c git.Commit) (pushCommitJSON, error) {
	j := pushCommitJSON{
		ID: c.ID, TreeID: c.Tree, Distinct: true, Message: strings.TrimSuffix(c.Message, "\n"), Timestamp: c.CommitterTime, URL: f.cfg.URL + "/" + repo.full() + "/commit/" + c.ID,
		Author: pushAuthor{c.AuthorName, c.AuthorEmail}, Committer: pushAuthor{c.CommitterName, c.CommitterEmail},
		Added: []string{}, Removed: []string{}, Modified: []string{},
	}
	files, err := changedFiles(ctx, repo, c)
	if err != nil {
		return j, err
	}
	for _, file := range files[:min(len(files), 3000)] {
		switch file.Status {
		case "added":
			j.Added = append(j.Added, file.Filename)
		case "removed":
			j.Removed = append(j.Removed, file.Filename)
		default:
			j.Modified = append(j.Modified, file.Filename)
		}
	}
	return j, nil
}
