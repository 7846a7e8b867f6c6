package forge

import (
	"maps"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// pullObject is a PullRequest.
func (e *gqlExecution) pullObject(repo *repository, i *issue) (gqlObject, error) {
	sc, err := e.scene(repo)
	if err != nil {
		return nil, err
	}
	o, p := e.issueFields(sc, i), i.Pull
	state := strings.ToUpper(i.state())
	if !p.Merged.IsZero() {
		state = "MERGED"
	}
	headOwner := e.account(p.HeadOwner)
	own := gqlObject{
		"__typename": "PullRequest", "state": state, "isDraft": p.Draft, "merged": !p.Merged.IsZero(), "mergedAt": gqlTime(p.Merged), "mergedBy": nil,
		"permalink": o["url"], "checksUrl": sc.pullURL(i) + "/checks",
		"baseRefName": p.Base, "baseRefOid": p.BaseSHA, "headRefName": p.Head, "headRefOid": p.HeadSHA, "isCrossRepository": i.fork(),
		"headRepositoryOwner": headOwner, "baseRepository": o["repository"], "maintainerCanModify": p.Maintained,
		"headRepository": gqlLater(func() (any, error) {
			head, err := e.f.findID(e.ctx(), p.HeadRepo)
			if err != nil {
				return nil, nil //nolint:nilerr // a head that is gone is null
			}
			return e.repository(head)
		}),
		"additions": p.Test.Additions, "deletions": p.Test.Deletions, "changedFiles": p.Test.Files,
		"mergeable":            gqlLater(func() (any, error) { return e.mergeable(repo, i) }),
		"mergeStateStatus":     gqlLater(func() (any, error) { return e.mergeStatus(repo, i) }),
		"reviewDecision":       gqlLater(func() (any, error) { d, err := e.f.reviewDecision(e.ctx(), repo, i); return gqlText(d), err }),
		"mergeCommit":          nil,
		"potentialMergeCommit": nil, "autoMergeRequest": nil, "isInMergeQueue": false, "isMergeQueueEnabled": false, "mergeQueueEntry": nil, "mergeQueue": nil,
		"files":                    gqlList("PullRequestChangedFile", func(map[string]any) ([]gqlObject, error) { return e.changedFiles(repo, i) }),
		"commits":                  gqlList("PullRequestCommit", func(map[string]any) ([]gqlObject, error) { return e.pullCommits(repo, i) }),
		"reviews":                  gqlList("PullRequestReview", func(args map[string]any) ([]gqlObject, error) { return e.reviews(sc, i, args, false) }),
		"latestReviews":            gqlList("PullRequestReview", func(args map[string]any) ([]gqlObject, error) { return e.reviews(sc, i, args, true) }),
		"reviewRequests":           gqlList("ReviewRequest", func(map[string]any) ([]gqlObject, error) { return e.reviewRequests(i), nil }),
		"reviewThreads":            gqlList("PullRequestReviewThread", func(map[string]any) ([]gqlObject, error) { return e.reviewThreads(sc, i) }),
		"statusCheckRollup":        gqlLater(func() (any, error) { return e.rollup(repo, i.Pull.HeadSHA) }),
		"baseRef":                  gqlLater(func() (any, error) { return e.ref(repo, p.Base) }),
		"headRef":                  gqlLater(func() (any, error) { return e.headRef(i) }),
		"viewerMergeHeadlineText":  gqlField(func(args map[string]any) (any, error) { h, _, err := e.mergeText(repo, i, args); return h, err }),
		"viewerMergeBodyText":      gqlField(func(args map[string]any) (any, error) { _, b, err := e.mergeText(repo, i, args); return b, err }),
		"viewerCanEnableAutoMerge": repo.settings.AllowAutoMerge,
	}
	maps.Copy(o, own)
	if p.MergedBy != "" {
		o["mergedBy"] = e.account(p.MergedBy)
		o["mergeCommit"] = gqlObject{"__typename": "Commit", "oid": p.MergeSHA, "abbreviatedOid": p.MergeSHA[:7]}
	} else if p.Test.Commit != "" {
		o["potentialMergeCommit"] = gqlObject{"__typename": "Commit", "oid": p.Test.Commit}
	}
	if a := p.Auto; a != nil {
		o["autoMergeRequest"] = gqlObject{"__typename": "AutoMergeRequest", "enabledBy": e.account(a.By), "mergeMethod": strings.ToUpper(a.Method),
			"commitHeadline": gqlText(a.Title), "commitBody": gqlText(a.Message), "enabledAt": gqlTime(i.updated), "authorEmail": nil}
	}
	return o, nil
}

func (e *gqlExecution) mergeable(repo *repository, i *issue) (any, error) {
	if !i.open {
		return "UNKNOWN", nil
	}
	i, err := e.f.fresh(e.ctx(), repo, i)
	if err != nil {
		return nil, err
	}
	if i.Pull.Test.Commit == "" {
		return "CONFLICTING", nil
	}
	return "MERGEABLE", nil
}

func (e *gqlExecution) mergeStatus(repo *repository, i *issue) (any, error) {
	i, err := e.f.fresh(e.ctx(), repo, i)
	if err != nil {
		return nil, err
	}
	state, err := e.f.mergeState(e.ctx(), repo, i)
	return strings.ToUpper(state), err
}

// mergeText is what the commit of a merge would say.
func (e *gqlExecution) mergeText(repo *repository, i *issue, args map[string]any) (headline, body string, err error) {
	switch gqlString(args, "mergeType") {
	case "SQUASH":
		text, _, err := e.f.squashMessage(e.ctx(), repo, i, i.Pull.BaseSHA, mergeSpec{})
		headline, body, _ = strings.Cut(text, "\n\n")
		return headline, body, err
	case "REBASE":
		return "", "", nil
	}
	return "Merge pull request #" + strconv.Itoa(i.number) + " from " + i.Pull.HeadOwner + "/" + i.Pull.Head, i.title, nil
}

func (e *gqlExecution) changedFiles(repo *repository, i *issue) ([]gqlObject, error) {
	files, err := e.f.pullChanges(e.r, repo, i)
	if err != nil {
		return nil, err
	}
	nodes := []gqlObject{}
	for _, c := range files {
		kind := map[string]string{"removed": "DELETED"}[c.Status]
		if kind == "" {
			kind = strings.ToUpper(c.Status)
		}
		nodes = append(nodes, gqlObject{"__typename": "PullRequestChangedFile", "path": c.Filename, "additions": c.Additions, "deletions": c.Deletions, "changeType": kind})
	}
	return nodes, nil
}

func (e *gqlExecution) pullCommits(repo *repository, i *issue) ([]gqlObject, error) {
	commits, err := commitsBetween(e.ctx(), repo, i.Pull.Test.Base, i.Pull.HeadSHA, maxPullCommits)
	if err != nil {
		return nil, err
	}
	nodes := []gqlObject{}
	for _, c := range commits {
		nodes = append(nodes, gqlObject{"__typename": "PullRequestCommit", "id": nodeID("Commit", repo.full()+":"+c.ID), "commit": e.commit(repo, c)})
	}
	return nodes, nil
}

func (e *gqlExecution) commit(repo *repository, c git.Commit) gqlObject {
	author := gqlObject{"__typename": "GitActor", "name": c.AuthorName, "email": c.AuthorEmail, "date": gqlTime(c.AuthorTime), "user": nil}
	url := e.f.cfg.URL + "/" + repo.full() + "/commit/" + c.ID
	return gqlObject{
		"__typename": "Commit", "id": nodeID("Commit", repo.full()+":"+c.ID), "oid": c.ID, "abbreviatedOid": c.ID[:7], "messageHeadline": c.Subject, "messageBody": c.Body,
		"message": c.Message, "committedDate": gqlTime(c.CommitterTime), "authoredDate": gqlTime(c.AuthorTime), "url": url, "commitUrl": url, "author": author,
		"authors":           gqlList("GitActor", func(map[string]any) ([]gqlObject, error) { return []gqlObject{author}, nil }),
		"statusCheckRollup": gqlLater(func() (any, error) { return e.rollup(repo, c.ID) }),
	}
}

// reviews are the submitted reviews and the viewer's own; latest keeps the last
// of each author.
func (e *gqlExecution) reviews(sc *scene, i *issue, args map[string]any, latest bool) ([]gqlObject, error) {
	all, err := e.f.reviewsOf(e.ctx(), e.f.db, i.id, IdentityFrom(e.ctx()).Actor)
	if err != nil {
		return nil, err
	}
	last := map[string]int64{}
	for _, r := range all {
		last[r.Author] = r.ID
	}
	states, author := gqlStrings(args, "states"), gqlString(args, "author")
	nodes := []gqlObject{}
	for _, r := range all {
		if latest && last[r.Author] != r.ID || len(states) > 0 && len(without([]string{r.State}, states)) > 0 || author != "" && !strings.EqualFold(author, r.Author) {
			continue
		}
		nodes = append(nodes, e.reviewObject(sc, i, r))
	}
	return nodes, nil
}

func (e *gqlExecution) reviewObject(sc *scene, i *issue, r review) gqlObject {
	j := sc.review(i, r)
	return gqlObject{
		"__typename": "PullRequestReview", "id": j.NodeID, "databaseId": r.ID, "author": e.account(r.Author), "authorAssociation": j.Association, "body": r.Body,
		"state": r.State, "submittedAt": gqlTime(r.Submitted), "createdAt": gqlTime(r.Submitted), "url": j.HTMLURL, "includesCreatedEdit": false,
		"reactionGroups": gqlReactions(sc, "review", r.ID), "commit": gqlObject{"__typename": "Commit", "oid": r.SHA},
	}
}

func (e *gqlExecution) reviewRequests(i *issue) []gqlObject {
	nodes := []gqlObject{}
	for _, login := range i.Pull.Reviewers {
		nodes = append(nodes, gqlObject{"__typename": "ReviewRequest", "requestedReviewer": e.account(login)})
	}
	for _, team := range i.Pull.Teams {
		owner, slug, ok := strings.Cut(team, "/")
		if !ok {
			owner, slug = i.Pull.HeadOwner, team
		}
		nodes = append(nodes, gqlObject{"__typename": "ReviewRequest", "requestedReviewer": gqlObject{"__typename": "Team", "id": nodeID("Team", team), "name": slug, "slug": slug, "organization": e.account(owner)}})
	}
	return nodes
}

func (e *gqlExecution) reviewThreads(sc *scene, i *issue) ([]gqlObject, error) {
	all, err := e.f.commentsWhere(e.ctx(), e.f.db, `kind = 'review' and repo = ? and issue = ? and review not in (select id from review where submitted = 0 and author != ?)`,
		i.repo, i.id, IdentityFrom(e.ctx()).Actor)
	if err != nil {
		return nil, err
	}
	threads := map[int64][]gqlObject{}
	for _, c := range all {
		first := c.ReplyTo
		if first == 0 {
			first = c.ID
		}
		j := sc.reviewComment(i, c)
		threads[first] = append(threads[first], gqlObject{
			"__typename": "PullRequestReviewComment", "id": j.NodeID, "databaseId": c.ID, "body": c.Body, "author": e.account(c.Author), "authorAssociation": j.Association,
			"path": c.Path, "diffHunk": c.Hunk, "line": j.Line, "originalLine": c.Line, "url": j.HTMLURL, "createdAt": gqlTime(c.Created), "updatedAt": gqlTime(c.Updated),
			"outdated": j.Line == nil, "isMinimized": false,
		})
	}
	nodes := []gqlObject{}
	for _, c := range all {
		if c.ReplyTo != 0 {
			continue
		}
		comments := threads[c.ID]
		var line any
		if c.Commit == i.Pull.HeadSHA {
			line = c.Line
		}
		o := gqlObject{
			"__typename": "PullRequestReviewThread", "id": nodeID("T", sc.repo.full()+"#"+strconv.FormatInt(c.ID, 10)), "isResolved": c.ResolvedBy != "", "resolvedBy": nil,
			"isOutdated": c.Commit != i.Pull.HeadSHA, "path": c.Path, "line": line, "originalLine": c.Line, "diffSide": c.Side, "subjectType": strings.ToUpper(c.Subject), "isCollapsed": c.ResolvedBy != "",
			"comments": gqlList("PullRequestReviewComment", func(map[string]any) ([]gqlObject, error) { return comments, nil }),
		}
		if c.ResolvedBy != "" {
			o["resolvedBy"] = e.account(c.ResolvedBy)
		}
		nodes = append(nodes, o)
	}
	return nodes, nil
}

// headRef is the head's branch, nil when it is gone.
func (e *gqlExecution) headRef(i *issue) (any, error) {
	head, err := e.f.findID(e.ctx(), i.Pull.HeadRepo)
	if err != nil {
		return nil, nil //nolint:nilerr // a head that is gone is null
	}
	return e.ref(head, i.Pull.Head)
}

// ref is a branch, nil when it is not there.
func (e *gqlExecution) ref(repo *repository, branch string) (any, error) {
	sha, err := repo.git.Resolve(e.ctx(), "refs/heads/"+branch)
	if err != nil {
		return nil, nil //nolint:nilerr // as on GitHub
	}
	rules, err := e.f.rulesFor(e.ctx(), repo, "refs/heads/"+branch)
	if err != nil {
		return nil, err
	}
	var rule any
	if rules != nil {
		rule = gqlObject{"__typename": "BranchProtectionRule", "requiresStrictStatusChecks": rules.Strict, "requiresStatusChecks": rules.RequireChecks,
			"requiresApprovingReviews": rules.RequirePull && rules.Approvals > 0, "requiredApprovingReviewCount": rules.Approvals, "requiredStatusCheckContexts": rules.Contexts}
	}
	return gqlObject{
		"__typename": "Ref", "id": nodeID("Fullref", repo.full()+":refs/heads/"+branch), "name": branch, "prefix": "refs/heads/", "branchProtectionRule": rule,
		"target": gqlObject{"__typename": "Commit", "oid": sha, "statusCheckRollup": gqlLater(func() (any, error) { return e.rollup(repo, sha) })},
	}, nil
}
