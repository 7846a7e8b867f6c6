package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/forge/merge"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// mergeSpec is how to merge a pull request.
type mergeSpec struct {
	Method  string // merge, squash or rebase; "" is the first that is allowed
	Title   string // of the commit; "" is GitHub's
	Message *string
	SHA     string // what the head must be; "" is anything
}

// maxMergeTries is how often a merge is made anew because the base moved.
const maxMergeTries = 5

// mergePull merges an open pull request into its base without a work tree. The
// base moves as by a push; a crash leaves a merge that is done, or none.
func (f *Forge) mergePull(ctx context.Context, repo *repository, number int, id Identity, s mergeSpec) (*issue, error) {
	var i *issue
	for try := 1; ; try++ {
		var err error
		if i, err = pullOf(ctx, f.db, repo.id, number); err != nil {
			return nil, err
		}
		err = f.mergeOnce(ctx, repo, i, id, s)
		if errors.Is(err, errRefMoved) && try < maxMergeTries {
			continue
		}
		if errors.Is(err, errRefMoved) {
			return nil, fail(http.StatusMethodNotAllowed, "Base branch was modified. Review and try the merge again.")
		}
		if err != nil {
			return nil, err
		}
		break
	}
	if repo.settings.DeleteBranchOnMerge && !i.fork() {
		f.deleteMerged(ctx, repo, i, id)
	}
	return pullOf(ctx, f.db, repo.id, number)
}

// mergeOnce makes the commit and moves the base to it. What the base is to
// become is written down first: whoever tells of the move, now or after a
// crash, knows by it that the pull request is merged.
func (f *Forge) mergeOnce(ctx context.Context, repo *repository, i *issue, id Identity, s mergeSpec) error {
	tip, err := f.mayMergeNow(ctx, repo, i, id, &s)
	if err != nil {
		return err
	}
	commit, err := f.mergeCommit(ctx, repo, i, tip, id, s)
	if err != nil {
		return err
	}
	if commit == tip {
		return fail(http.StatusMethodNotAllowed, "There is nothing to merge: %s has all of it already", i.Pull.Base)
	}
	if _, err := f.db.ExecContext(ctx, `insert or replace into pull_merge (issue, sha, actor) values (?,?,?)`, i.id, commit, id.Actor); err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	err = f.changeRefsFor(ctx, repo, id, refCommand{Ref: "refs/heads/" + i.Pull.Base, Old: tip, New: commit})
	var refused *refusedError
	if errors.As(err, &refused) {
		return fail(http.StatusMethodNotAllowed, "%s", refused)
	}
	return err
}

// mayMergeNow checks all that must hold, fills in the method and returns the
// tip of the base.
func (f *Forge) mayMergeNow(ctx context.Context, repo *repository, i *issue, id Identity, s *mergeSpec) (string, error) {
	allowed := mergeMethods(repo)
	if s.Method == "" && len(allowed) > 0 {
		s.Method = allowed[0]
	}
	switch {
	case !i.Pull.Merged.IsZero():
		return "", fail(http.StatusMethodNotAllowed, "Pull Request is already merged")
	case !i.open:
		return "", fail(http.StatusMethodNotAllowed, "Pull Request is closed")
	case i.Pull.Draft:
		return "", fail(http.StatusMethodNotAllowed, "Pull Request is still a draft")
	case s.SHA != "" && s.SHA != i.Pull.HeadSHA:
		return "", fail(http.StatusConflict, "Head branch was modified. Review and try the merge again.")
	case !slices.Contains([]string{"merge", "squash", "rebase"}, s.Method):
		return "", invalid("PullRequest", "invalid", "merge_method", fmt.Sprintf("%.20q is not merge, squash or rebase", s.Method))
	case !slices.Contains(allowed, s.Method):
		return "", fail(http.StatusMethodNotAllowed, "%s merges are not allowed on this repository.", strings.ToUpper(s.Method[:1])+s.Method[1:])
	}
	tip, err := repo.git.Resolve(ctx, "refs/heads/"+i.Pull.Base)
	if errors.Is(err, git.ErrNotFound) {
		return "", fail(http.StatusMethodNotAllowed, "The base branch %s is gone", i.Pull.Base)
	}
	if err != nil {
		return "", err
	}
	return tip, f.protectedMerge(ctx, repo, i, id)
}

// mergeMethods are those that the repository's settings allow.
func mergeMethods(repo *repository) []string {
	var methods []string
	for _, m := range []struct {
		name string
		on   bool
	}{{"merge", repo.settings.AllowMergeCommit}, {"squash", repo.settings.AllowSquashMerge}, {"rebase", repo.settings.AllowRebaseMerge}} {
		if m.on {
			methods = append(methods, m.name)
		}
	}
	return methods
}

// mergeCommit writes what the base is to become.
func (f *Forge) mergeCommit(ctx context.Context, repo *repository, i *issue, tip string, id Identity, s mergeSpec) (commit string, err error) {
	head := i.Pull.HeadSHA
	switch s.Method {
	case "rebase":
		commit, err = merge.Rebase(ctx, repo.git, tip, head, f.signature(id.Actor))
	case "squash":
		var message string
		var author merge.Signature
		if message, author, err = f.squashMessage(ctx, repo, i, tip, s); err != nil {
			return "", err
		}
		commit, err = merge.Squash(ctx, repo.git, tip, head, author, f.github(), message)
	default:
		title := s.Title
		if title == "" {
			title = fmt.Sprintf("Merge pull request #%d from %s/%s", i.number, i.Pull.HeadOwner, i.Pull.Head)
		}
		body := i.title
		if s.Message != nil {
			body = *s.Message
		}
		commit, err = merge.Merge(ctx, repo.git, tip, head, f.signature(id.Actor), f.github(), joinMessage(title, body))
	}
	var conflict *merge.Conflict
	switch {
	case errors.As(err, &conflict):
		return "", fail(http.StatusMethodNotAllowed, "Pull Request is not mergeable: %s", conflict)
	case errors.Is(err, merge.ErrNotRebaseable):
		return "", fail(http.StatusMethodNotAllowed, "This branch can't be rebased: %s", err)
	}
	return commit, err
}

func joinMessage(title, body string) string {
	if body = strings.TrimSpace(body); body == "" {
		return title
	}
	return title + "\n\n" + body
}

// squashMessage is GitHub's: one commit keeps its own message, several become a
// list. The author is that of the first commit; the others are named at the end.
func (f *Forge) squashMessage(ctx context.Context, repo *repository, i *issue, tip string, s mergeSpec) (string, merge.Signature, error) {
	commits, err := commitsBetween(ctx, repo, tip, i.Pull.HeadSHA, maxPullCommits)
	if err != nil {
		return "", merge.Signature{}, err
	}
	title, body := fmt.Sprintf("%s (#%d)", i.title, i.number), ""
	author := f.signature(i.author)
	var list, others []string
	for n, c := range commits {
		if n == 0 {
			author = merge.Signature{Name: c.AuthorName, Email: c.AuthorEmail, Time: f.deps.Now()}
		} else if c.AuthorEmail != author.Email {
			others = append(others, fmt.Sprintf("Co-authored-by: %s <%s>", c.AuthorName, c.AuthorEmail))
		}
		list = append(list, strings.TrimSpace("* "+strings.TrimSpace(c.Message)))
	}
	if len(commits) == 1 {
		title, body = fmt.Sprintf("%s (#%d)", commits[0].Subject, i.number), commits[0].Body
	} else if len(commits) > 1 {
		body = strings.Join(list, "\n\n")
	}
	if s.Title != "" {
		title = s.Title
	}
	if s.Message != nil {
		body = *s.Message
	}
	if others = distinct(others); len(others) > 0 && s.Message == nil {
		body += "\n\n" + strings.Join(others, "\n")
	}
	return joinMessage(title, body), author, nil
}

// maxPullCommits is how many commits of a pull request are listed, as on GitHub.
const maxPullCommits = 250

// commitsBetween are the commits that head has and base has not, oldest first.
func commitsBetween(ctx context.Context, repo *repository, base, head string, limit int) ([]git.Commit, error) {
	out, err := repo.git.Run(ctx, "rev-list", "--topo-order", "--reverse", base+".."+head)
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(string(out))
	var commits []git.Commit
	for _, id := range ids[:min(len(ids), limit)] {
		c, err := repo.git.Commit(ctx, id)
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
	}
	return commits, nil
}

// deleteMerged deletes the head of a merged pull request, unless it has moved on.
func (f *Forge) deleteMerged(ctx context.Context, repo *repository, i *issue, id Identity) {
	head, err := f.head(ctx, repo)
	if err == nil && head != i.Pull.Head {
		err = f.changeRefsFor(ctx, repo, id, refCommand{Ref: "refs/heads/" + i.Pull.Head, Old: i.Pull.HeadSHA, New: git.ZeroID})
	}
	if err != nil {
		f.log.Warn("the branch of a merged pull request was not deleted", "repo", repo.full(), "pull", i.number, "error", err)
	}
}

// updatePull merges the base into the head, or rebases the head onto it, as the
// button "Update branch" does.
func (f *Forge) updatePull(ctx context.Context, repo *repository, number int, id Identity, expected string, rebase bool) error {
	i, err := pullOf(ctx, f.db, repo.id, number)
	if err != nil {
		return err
	}
	head, err := f.findID(ctx, i.Pull.HeadRepo)
	if err != nil {
		return err
	}
	if !id.mayWrite(head.key) {
		return fail(http.StatusForbidden, "Resource not accessible by this token: it may not write to %s", head.full())
	}
	if !i.open || expected != "" && expected != i.Pull.HeadSHA {
		return invalid("PullRequest", "custom", "", "expected head sha didn’t match current head ref.")
	}
	tip, err := repo.git.Resolve(ctx, "refs/heads/"+i.Pull.Base)
	if err != nil {
		return err
	}
	if head.id != repo.id {
		if _, err := head.git.Run(ctx, "-c", "core.fsync=objects,derived-metadata,reference", "-c", "gc.auto=0", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", repo.git.Dir(), tip); err != nil {
			return err
		}
	}
	var commit string
	if rebase {
		commit, err = merge.Rebase(ctx, head.git, tip, i.Pull.HeadSHA, f.signature(id.Actor))
	} else {
		commit, err = merge.Merge(ctx, head.git, i.Pull.HeadSHA, tip, f.signature(id.Actor), f.github(), fmt.Sprintf("Merge branch '%s' into %s", i.Pull.Base, i.Pull.Head))
	}
	var conflict *merge.Conflict
	if errors.As(err, &conflict) {
		return invalid("PullRequest", "custom", "", "merge conflict between base and head: "+strings.Join(conflict.Files, ", "))
	}
	if err != nil {
		return err
	}
	if base, err := merge.Base(ctx, head.git, tip, i.Pull.HeadSHA); err != nil || base == tip {
		return errors.Join(err, invalid("PullRequest", "custom", "", "There are no new commits on the base branch."))
	}
	return moveAnswer(f.changeRefs(ctx, head, id, refCommand{Ref: "refs/heads/" + i.Pull.Head, Old: i.Pull.HeadSHA, New: commit}))
}
