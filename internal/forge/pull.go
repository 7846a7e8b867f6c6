package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// pull is what a pull request has beside an issue.
type pull struct {
	Base       string    `json:"base"`      // branch name
	BaseSHA    string    `json:"base_sha"`  // tip of the base when it was last looked at
	HeadRepo   int64     `json:"head_repo"` // repository.id
	HeadOwner  string    `json:"head_owner"`
	Head       string    `json:"head"` // branch name
	HeadSHA    string    `json:"head_sha"`
	Draft      bool      `json:"draft,omitempty"`
	Merged     time.Time `json:"merged,omitzero"`
	MergedBy   string    `json:"merged_by,omitempty"`
	MergeSHA   string    `json:"merge_sha,omitempty"` // of the merge that was done
	Test       test      `json:"test"`
	Reviewers  []string  `json:"reviewers,omitempty"`
	Teams      []string  `json:"teams,omitempty"`
	Auto       *auto     `json:"auto,omitempty"`
	Maintained bool      `json:"maintained,omitempty"` // maintainers may push to the head
}

// test is the merge that was tried out, of these two commits.
type test struct {
	Base       string   `json:"base"`
	Head       string   `json:"head"`
	Commit     string   `json:"commit,omitempty"`    // "" when it conflicts
	Conflicts  []string `json:"conflicts,omitempty"` // files
	Rebaseable *bool    `json:"rebaseable,omitempty"`
	MergeBase  string   `json:"merge_base,omitempty"`
	Commits    int      `json:"commits"`
	Files      int      `json:"files"`
	Additions  int      `json:"additions"`
	Deletions  int      `json:"deletions"`
}

// auto says how to merge when all that is required is there.
type auto struct {
	Method  string `json:"method"`
	Title   string `json:"title,omitempty"`
	Message string `json:"message,omitempty"`
	By      string `json:"by"`
}

func (p *pull) headRef(number int) string  { return fmt.Sprintf("refs/pull/%d/head", number) }
func (p *pull) mergeRef(number int) string { return fmt.Sprintf("refs/pull/%d/merge", number) }

// fork reports whether the head is in another repository.
func (i *issue) fork() bool { return i.Pull.HeadRepo != i.repo }

// at is the ref and the commit that an event of the pull request is about.
func (i *issue) at() (ref, commit string) {
	if !i.Pull.Merged.IsZero() {
		return "refs/heads/" + i.Pull.Base, i.Pull.MergeSHA
	}
	return i.Pull.mergeRef(i.number), i.Pull.Test.Commit
}

// pullSpec is a pull request to be opened.
type pullSpec struct {
	title, body string
	head        string // "branch", "owner:branch" or "owner/name:branch"
	headRepo    string // name of the head's repository when an owner has several
	base        string
	draft       bool
	maintained  bool
	from        *issue // the issue that becomes the pull request
}

// findHead returns the repository and branch that head means for base.
func (f *Forge) findHead(ctx context.Context, base *repository, head, name string) (*repository, string, error) {
	owner, branch, ok := strings.Cut(head, ":")
	if !ok {
		owner, branch = base.owner, head
	}
	branch = strings.TrimPrefix(branch, "refs/heads/")
	if full, of, ok := strings.Cut(owner, "/"); ok {
		owner, name = full, of
	}
	var candidates []string
	switch {
	case name != "":
		candidates = []string{owner + "/" + strings.TrimPrefix(name, owner+"/")}
	case strings.EqualFold(owner, base.owner):
		candidates = []string{base.full()}
	default:
		candidates = []string{owner + "/" + base.name}
		all, err := f.list(ctx, owner)
		if err != nil {
			return nil, "", err
		}
		for _, r := range all {
			if r.parent == base.id || r.parent != 0 && r.parent == base.parent || base.parent == r.id {
				candidates = append(candidates, r.full())
			}
		}
	}
	for _, full := range candidates {
		repo, err := f.find(ctx, full)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if _, err := repo.git.Resolve(ctx, "refs/heads/"+branch); err == nil {
			return repo, branch, nil
		} else if !errors.Is(err, git.ErrNotFound) {
			return nil, "", err
		}
	}
	return nil, "", invalid("PullRequest", "invalid", "head", fmt.Sprintf("there is no branch %q of %s/%s or a fork of it", branch, owner, base.name))
}

// createPull opens a pull request and tells of it.
func (f *Forge) createPull(ctx context.Context, repo *repository, id Identity, s pullSpec) (*issue, error) {
	s.base = strings.TrimPrefix(s.base, "refs/heads/")
	base, err := repo.git.Resolve(ctx, "refs/heads/"+s.base)
	if err != nil {
		return nil, revisionErrorAs(err, 422, fmt.Sprintf("Validation Failed: base: there is no branch %q in %s", s.base, repo.full()))
	}
	headRepo, branch, err := f.findHead(ctx, repo, s.head, s.headRepo)
	if err != nil {
		return nil, err
	}
	if !id.mayRead(headRepo) {
		return nil, invalid("PullRequest", "invalid", "head", "no such branch")
	}
	unlock, err := f.pulls.lock(ctx, repo.id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	same, err := issuesWhere(ctx, f.db, `i.repo = ? and i.is_pull and i.open and i.base_ref = ? and i.head_repo = ? and i.head_ref = ?`, repo.id, s.base, headRepo.id, branch)
	if err != nil {
		return nil, err
	}
	if len(same) > 0 {
		return nil, invalid("PullRequest", "custom", "", "A pull request already exists for "+headRepo.owner+":"+branch+".")
	}
	i := s.from
	now := f.deps.Now().UTC()
	if i == nil {
		i = &issue{repo: repo.id, open: true, title: s.title, author: id.Actor, created: now}
		i.Body, i.Cause = s.body, id.Cause
		if i.number, err = f.nextNumber(ctx, repo.id); err != nil {
			return nil, err
		}
	}
	i.updated = now
	i.Pull = &pull{Base: s.base, BaseSHA: base, HeadRepo: headRepo.id, HeadOwner: headRepo.owner, Head: branch, Draft: s.draft, Maintained: s.maintained && headRepo.id != repo.id}
	if i.Pull.HeadSHA, err = headRepo.git.Resolve(ctx, "refs/heads/"+branch); err != nil {
		return nil, err
	}
	if err := f.tryOut(ctx, repo, headRepo, i, base); err != nil {
		return nil, err
	}
	if i.Pull.Test.Commits == 0 {
		return nil, errors.Join(invalid("PullRequest", "custom", "", fmt.Sprintf("No commits between %s and %s", s.base, s.head)), f.dropPullRefs(ctx, repo, i))
	}
	return i, f.announce(ctx, repo, i, id, "opened", nil)
}

// announce stores an issue or pull request together with the event of a change.
func (f *Forge) announce(ctx context.Context, repo *repository, i *issue, id Identity, action string, extra map[string]any) error {
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return err
	}
	return f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		if i.id != 0 && i.Pull != nil { // it was an issue
			if _, err := tx.ExecContext(ctx, `update issue set is_pull = 1 where id = ?`, i.id); err != nil {
				return err
			}
		}
		if err := i.save(ctx, tx); err != nil {
			return err
		}
		return sc.tell(out, i, id, action, extra)
	})
}

func (f *Forge) dropPullRefs(ctx context.Context, repo *repository, i *issue) error {
	return updateRefs(ctx, repo, refCommand{Ref: i.Pull.headRef(i.number)}, refCommand{Ref: i.Pull.mergeRef(i.number)})
}

// updateRefs moves or deletes (New is "") refs that only the forge moves.
func updateRefs(ctx context.Context, repo *repository, refs ...refCommand) error {
	var b strings.Builder
	for _, c := range refs {
		if c.New == "" {
			b.WriteString("delete " + c.Ref + "\n")
		} else {
			b.WriteString("update " + c.Ref + " " + c.New + "\n")
		}
	}
	_, err := repo.git.RunInput(ctx, []byte(b.String()), "-c", "core.fsync=reference", "update-ref", "--stdin")
	return err
}

// numberOf is the {number} of the request's path, 0 when it is none.
func numberOf(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
