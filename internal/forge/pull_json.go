package forge

import (
	"fmt"
	"strconv"
	"time"
)

type sideJSON struct {
	Label string          `json:"label"`
	Ref   string          `json:"ref"`
	SHA   string          `json:"sha"`
	User  *accountJSON    `json:"user"`
	Repo  *repositoryJSON `json:"repo"`
}

type linkJSON struct {
	Href string `json:"href"`
}

type autoMergeJSON struct {
	EnabledBy accountJSON `json:"enabled_by"`
	Method    string      `json:"merge_method"`
	Title     *string     `json:"commit_title"`
	Message   *string     `json:"commit_message"`
}

type pullJSON struct {
	URL                string              `json:"url"`
	ID                 int64               `json:"id"`
	NodeID             string              `json:"node_id"`
	HTMLURL            string              `json:"html_url"`
	DiffURL            string              `json:"diff_url"`
	PatchURL           string              `json:"patch_url"`
	IssueURL           string              `json:"issue_url"`
	CommitsURL         string              `json:"commits_url"`
	ReviewCommentsURL  string              `json:"review_comments_url"`
	ReviewCommentURL   string              `json:"review_comment_url"`
	CommentsURL        string              `json:"comments_url"`
	StatusesURL        string              `json:"statuses_url"`
	Number             int                 `json:"number"`
	State              string              `json:"state"`
	Locked             bool                `json:"locked"`
	LockReason         *string             `json:"active_lock_reason"`
	Title              string              `json:"title"`
	User               accountJSON         `json:"user"`
	Body               *string             `json:"body"`
	Labels             []labelJSON         `json:"labels"`
	Milestone          any                 `json:"milestone"`
	CreatedAt          time.Time           `json:"created_at"`
	UpdatedAt          time.Time           `json:"updated_at"`
	ClosedAt           *time.Time          `json:"closed_at"`
	MergedAt           *time.Time          `json:"merged_at"`
	MergeCommitSHA     *string             `json:"merge_commit_sha"`
	Assignee           *accountJSON        `json:"assignee"`
	Assignees          []accountJSON       `json:"assignees"`
	RequestedReviewers []accountJSON       `json:"requested_reviewers"`
	RequestedTeams     []map[string]any    `json:"requested_teams"`
	Head               sideJSON            `json:"head"`
	Base               sideJSON            `json:"base"`
	Links              map[string]linkJSON `json:"_links"`
	Association        string              `json:"author_association"`
	AutoMerge          *autoMergeJSON      `json:"auto_merge"`
	Draft              bool                `json:"draft"`

	// Only of one pull request, not in lists.
	*pullMoreJSON
}

type pullMoreJSON struct {
	Merged              bool         `json:"merged"`
	Mergeable           *bool        `json:"mergeable"`
	Rebaseable          *bool        `json:"rebaseable"`
	MergeableState      string       `json:"mergeable_state"`
	MergedBy            *accountJSON `json:"merged_by"`
	Comments            int          `json:"comments"`
	ReviewComments      int          `json:"review_comments"`
	MaintainerCanModify bool         `json:"maintainer_can_modify"`
	Commits             int          `json:"commits"`
	Additions           int          `json:"additions"`
	Deletions           int          `json:"deletions"`
	ChangedFiles        int          `json:"changed_files"`
}

// pullShort is a pull request as lists have it.
func (sc *scene) pullShort(i *issue) pullJSON {
	p, issue := i.Pull, sc.issue(i)
	url := sc.base() + "/pulls/" + strconv.Itoa(i.number)
	j := pullJSON{
		URL: url, ID: i.id, NodeID: issue.NodeID, HTMLURL: issue.HTMLURL, DiffURL: issue.HTMLURL + ".diff", PatchURL: issue.HTMLURL + ".patch",
		IssueURL: issue.URL, CommitsURL: url + "/commits", ReviewCommentsURL: url + "/comments", ReviewCommentURL: sc.base() + "/pulls/comments{/number}",
		CommentsURL: issue.CommentsURL, StatusesURL: sc.base() + "/statuses/" + p.HeadSHA, Number: i.number, State: issue.State,
		Locked: i.Locked, LockReason: issue.LockReason, Title: i.title, User: issue.User, Body: issue.Body, Labels: issue.Labels, Milestone: issue.Milestone,
		CreatedAt: issue.CreatedAt, UpdatedAt: issue.UpdatedAt, ClosedAt: issue.ClosedAt, MergedAt: moment(p.Merged),
		Assignee: issue.Assignee, Assignees: issue.Assignees, RequestedReviewers: sc.accounts(p.Reviewers), RequestedTeams: []map[string]any{},
		Association: issue.Association, Draft: p.Draft,
		Head: sc.side(p.HeadOwner, p.Head, p.HeadSHA, sc.heads[p.HeadRepo]),
		Base: sc.side(sc.repo.owner, p.Base, p.BaseSHA, &sc.json),
	}
	for _, team := range p.Teams {
		j.RequestedTeams = append(j.RequestedTeams, map[string]any{"name": team, "slug": team})
	}
	switch {
	case !p.Merged.IsZero():
		j.MergeCommitSHA = &p.MergeSHA
	case p.Test.Commit != "":
		j.MergeCommitSHA = &p.Test.Commit
	}
	if a := p.Auto; a != nil {
		j.AutoMerge = &autoMergeJSON{EnabledBy: sc.account(a.By), Method: a.Method, Title: optional(a.Title), Message: optional(a.Message)}
	}
	j.Links = map[string]linkJSON{
		"self": {url}, "html": {j.HTMLURL}, "issue": {j.IssueURL}, "comments": {j.CommentsURL}, "review_comments": {j.ReviewCommentsURL},
		"review_comment": {j.ReviewCommentURL}, "commits": {j.CommitsURL}, "statuses": {j.StatusesURL},
	}
	return j
}

func (sc *scene) side(owner, branch, sha string, repo *repositoryJSON) sideJSON {
	user := sc.account(owner)
	return sideJSON{Label: owner + ":" + branch, Ref: branch, SHA: sha, User: &user, Repo: repo}
}

// pull is a pull request as events have it: with its test merge, without what
// protection and checks say of it.
func (sc *scene) pull(i *issue) pullJSON { return sc.pullWith(i, "unknown", 0) }

func (sc *scene) pullWith(i *issue, state string, reviewComments int) pullJSON {
	j, p := sc.pullShort(i), i.Pull
	m := &pullMoreJSON{
		Merged: !p.Merged.IsZero(), MergeableState: state, Comments: i.comments, ReviewComments: reviewComments, MaintainerCanModify: p.Maintained,
		Commits: p.Test.Commits, Additions: p.Test.Additions, Deletions: p.Test.Deletions, ChangedFiles: p.Test.Files,
	}
	if i.open {
		mergeable := p.Test.Commit != ""
		m.Mergeable, m.Rebaseable = &mergeable, p.Test.Rebaseable
	}
	if p.MergedBy != "" {
		by := sc.account(p.MergedBy)
		m.MergedBy = &by
	}
	j.pullMoreJSON = m
	return j
}

func (sc *scene) pullURL(i *issue) string { return fmt.Sprintf("%s/pull/%d", sc.page(), i.number) }
