package forge

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// gqlMutation changes something and returns the fields of its payload.
type gqlMutation func(e *gqlExecution, in map[string]any) (gqlObject, error)

// gqlMutations are the mutations by name. The payload's type and
// clientMutationId are added by whoever calls them.
func gqlMutations(name string) gqlMutation {
	switch name {
	case "createRepository":
		return (*gqlExecution).createRepository
	case "createPullRequest":
		return (*gqlExecution).createPullRequest
	case "updatePullRequest":
		return (*gqlExecution).updatePullRequest
	case "closePullRequest":
		return pullMutation(pullChange{State: new("closed")})
	case "reopenPullRequest":
		return pullMutation(pullChange{State: new("open")})
	case "markPullRequestReadyForReview":
		return pullMutation(pullChange{Draft: new(false)})
	case "convertPullRequestToDraft":
		return pullMutation(pullChange{Draft: new(true)})
	case "mergePullRequest":
		return (*gqlExecution).mergePullRequest
	case "enablePullRequestAutoMerge", "disablePullRequestAutoMerge":
		return autoMergeMutation(name == "enablePullRequestAutoMerge")
	case "updatePullRequestBranch":
		return (*gqlExecution).updatePullRequestBranch
	case "requestReviews", "requestReviewsByLogin":
		return (*gqlExecution).requestReviews
	case "addPullRequestReview":
		return (*gqlExecution).addPullRequestReview
	case "resolveReviewThread", "unresolveReviewThread":
		return threadMutation(name == "resolveReviewThread")
	case "createIssue":
		return (*gqlExecution).createIssueMutation
	case "updateIssue":
		return (*gqlExecution).updateIssue
	case "closeIssue", "reopenIssue":
		return (*gqlExecution).shutIssue
	case "addComment":
		return (*gqlExecution).addComment
	case "updateIssueComment", "deleteIssueComment":
		return (*gqlExecution).changeIssueComment
	case "addLabelsToLabelable", "removeLabelsFromLabelable":
		return labelMutation(name == "addLabelsToLabelable")
	case "addAssigneesToAssignable", "removeAssigneesFromAssignable", "replaceActorsForAssignable":
		return assigneeMutation(name)
	case "createCommitOnBranch":
		return (*gqlExecution).createCommitOnBranch
	}
	return nil
}

func (e *gqlExecution) mutation(s gqlSelection, args map[string]any) (any, error) {
	change := gqlMutations(s.name)
	if change == nil {
		return nil, errNoField
	}
	in, _ := args["input"].(map[string]any)
	payload, err := change(e, in)
	if err != nil {
		return nil, err
	}
	e.scenes = nil // what was read may be out of date
	payload["__typename"] = strings.ToUpper(s.name[:1]) + s.name[1:] + "Payload"
	payload["clientMutationId"] = in["clientMutationId"]
	return payload, nil
}

// may reports whether the viewer may take part (or, with write, change things)
// in what the scope is about.
func (e *gqlExecution) may(repo *repository, scope string, write bool) error {
	id := IdentityFrom(e.ctx())
	switch {
	case repo.settings.Archived:
		return errors.New("Repository was archived so is read-only.")
	case id.Anonymous(), !id.allows(scope, "write"), id.Repo != "" && id.Repo != repo.key, write && !id.mayChange(repo.key, scope):
		return errScope
	}
	return nil
}

// subject is the issue or pull request that an input names by the field.
func (e *gqlExecution) subject(in map[string]any, field, scope string, write bool) (*repository, *issue, error) {
	repo, i, err := e.issueOfNode(gqlString(in, field))
	if err != nil {
		return nil, nil, err
	}
	return repo, i, e.may(repo, scope, write)
}

// names reads the names in global ids: the part after the last "/" or all.
func nodeNames(ids []string, kinds string) []string {
	var names []string
	for _, id := range ids {
		if name, ok := nameOfNode(id, kinds); ok {
			if kinds == "L" || kinds == "M" { // "owner/repo/name"
				parts := strings.SplitN(name, "/", 3)
				name = parts[len(parts)-1]
			}
			names = append(names, name)
		}
	}
	return names
}

func (e *gqlExecution) repositoryOfNode(id string) (*repository, error) {
	missing := gqlNotFound("Could not resolve to a node with the global id of '" + id + "'")
	name, ok := nameOfNode(id, "R")
	if !ok {
		return nil, missing
	}
	repo, err := e.f.find(e.ctx(), name)
	if errors.Is(err, ErrNotFound) || err == nil && !IdentityFrom(e.ctx()).mayRead(repo) {
		return nil, missing
	}
	return repo, err
}

func (e *gqlExecution) pullPayload(repo *repository, i *issue, err error) (gqlObject, error) {
	if err != nil {
		return nil, err
	}
	o, err := e.pullObject(repo, i)
	return gqlObject{"pullRequest": o, "actor": e.account(IdentityFrom(e.ctx()).Actor)}, err
}

func (e *gqlExecution) createPullRequest(in map[string]any) (gqlObject, error) {
	repo, err := e.repositoryOfNode(gqlString(in, "repositoryId"))
	if err != nil {
		return nil, err
	}
	if err := e.may(repo, scopePulls, false); err != nil {
		return nil, err
	}
	draft, _ := in["draft"].(bool)
	maintained, said := in["maintainerCanModify"].(bool)
	s := pullSpec{title: gqlString(in, "title"), body: gqlString(in, "body"), head: gqlString(in, "headRefName"), base: gqlString(in, "baseRefName"), draft: draft, maintained: maintained || !said}
	if id := gqlString(in, "headRepositoryId"); id != "" {
		head, err := e.repositoryOfNode(id)
		if err != nil {
			return nil, err
		}
		_, branch, ok := strings.Cut(s.head, ":")
		if !ok {
			branch = s.head
		}
		s.head, s.headRepo = head.owner+":"+branch, head.name
	}
	if err := checkTexts("PullRequest", s.title, s.body); err != nil {
		return nil, err
	}
	i, err := e.f.createPull(e.ctx(), repo, IdentityFrom(e.ctx()), s)
	return e.pullPayload(repo, i, err)
}

// textOf is a text of an input, nil when it is not there.
func textOf(in map[string]any, name string) *string {
	if s, ok := in[name].(string); ok {
		return &s
	}
	return nil
}

// parts reads labels, assignees and the milestone of an input.
func issueParts(in map[string]any) issueChange {
	var c issueChange
	if _, ok := in["labelIds"].([]any); ok {
		list := []any{}
		for _, name := range nodeNames(gqlStrings(in, "labelIds"), "L") {
			list = append(list, name)
		}
		c.Labels = &list
	}
	if _, ok := in["assigneeIds"].([]any); ok {
		logins := nodeNames(gqlStrings(in, "assigneeIds"), "UOB")
		c.Assignees = &logins
	}
	if id, ok := in["milestoneId"]; ok {
		c.Milestone.set = true
		if text, _ := id.(string); text != "" {
			for _, name := range nodeNames([]string{text}, "M") {
				n := numeric(numberOf(name))
				c.Milestone.value = &n
			}
		}
	}
	return c
}

func (e *gqlExecution) updatePullRequest(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "pullRequestId", scopePulls, false)
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(e.ctx())
	change := pullChange{Title: textOf(in, "title"), Body: textOf(in, "body"), Base: textOf(in, "baseRefName")}
	if state := strings.ToLower(gqlString(in, "state")); state != "" {
		change.State = &state
	}
	if i, err = e.f.changePull(e.ctx(), repo, i, id, change); err != nil {
		return nil, err
	}
	if parts := issueParts(in); parts.Labels != nil || parts.Assignees != nil || parts.Milestone.set {
		i, err = e.f.editIssue(e.ctx(), repo, i, id, parts)
	}
	return e.pullPayload(repo, i, err)
}

func pullMutation(change pullChange) gqlMutation {
	return func(e *gqlExecution, in map[string]any) (gqlObject, error) {
		repo, i, err := e.subject(in, "pullRequestId", scopePulls, false)
		if err != nil {
			return nil, err
		}
		i, err = e.f.changePull(e.ctx(), repo, i, IdentityFrom(e.ctx()), change)
		return e.pullPayload(repo, i, err)
	}
}

func (e *gqlExecution) mergePullRequest(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "pullRequestId", scopeContents, true)
	if err != nil {
		return nil, err
	}
	method := strings.ToLower(gqlString(in, "mergeMethod"))
	if method == "" {
		method = "merge"
	}
	i, err = e.f.mergePull(e.ctx(), repo, i.number, IdentityFrom(e.ctx()), mergeSpec{
		Method: method, Title: gqlString(in, "commitHeadline"), Message: textOf(in, "commitBody"), SHA: gqlString(in, "expectedHeadOid"),
	})
	return e.pullPayload(repo, i, err)
}

func autoMergeMutation(on bool) gqlMutation {
	return func(e *gqlExecution, in map[string]any) (gqlObject, error) {
		repo, i, err := e.subject(in, "pullRequestId", scopePulls, true)
		if err != nil {
			return nil, err
		}
		id := IdentityFrom(e.ctx())
		var how *auto
		if on {
			how = &auto{Method: strings.ToLower(gqlString(in, "mergeMethod")), Title: gqlString(in, "commitHeadline"), Message: gqlString(in, "commitBody"), By: id.Actor}
			if how.Method == "" {
				how.Method = "merge"
			}
		}
		i, err = e.f.setAuto(e.ctx(), repo, i, id, how)
		return e.pullPayload(repo, i, err)
	}
}

func (e *gqlExecution) updatePullRequestBranch(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "pullRequestId", scopePulls, false)
	if err != nil {
		return nil, err
	}
	if err := e.f.updatePull(e.ctx(), repo, i.number, IdentityFrom(e.ctx()), gqlString(in, "expectedHeadOid"), gqlString(in, "updateMethod") == "REBASE"); err != nil {
		return nil, err
	}
	i, err = pullOf(e.ctx(), e.f.db, repo.id, i.number)
	return e.pullPayload(repo, i, err)
}

func (e *gqlExecution) requestReviews(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "pullRequestId", scopePulls, false)
	if err != nil {
		return nil, err
	}
	change := reviewersChange{
		add:      append(nodeNames(gqlStrings(in, "userIds"), "UOB"), gqlStrings(in, "userLogins")...),
		addTeams: append(nodeNames(gqlStrings(in, "teamIds"), "T"), gqlStrings(in, "teamSlugs")...),
	}
	if union, _ := in["union"].(bool); !union {
		change.remove, change.removeTeams = without(i.Pull.Reviewers, change.add), without(i.Pull.Teams, change.addTeams)
	}
	i, err = e.f.changeReviewers(e.ctx(), repo, i, IdentityFrom(e.ctx()), change)
	return e.pullPayload(repo, i, err)
}

func (e *gqlExecution) addPullRequestReview(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "pullRequestId", scopePulls, false)
	if err != nil {
		return nil, err
	}
	rv, err := e.f.addReview(e.ctx(), repo, i, IdentityFrom(e.ctx()), reviewInput{Body: gqlString(in, "body"), Event: gqlString(in, "event"), CommitID: gqlString(in, "commitOID")})
	if err != nil {
		return nil, err
	}
	sc, err := e.scene(repo)
	if err != nil {
		return nil, err
	}
	o := e.reviewObject(sc, i, rv)
	return gqlObject{"pullRequestReview": o, "reviewEdge": gqlObject{"__typename": "PullRequestReviewEdge", "node": o}}, nil
}

func (e *gqlExecution) createIssueMutation(in map[string]any) (gqlObject, error) {
	repo, err := e.repositoryOfNode(gqlString(in, "repositoryId"))
	if err != nil {
		return nil, err
	}
	if err := e.may(repo, scopeIssues, false); err != nil {
		return nil, err
	}
	change := issueParts(in)
	change.Title, change.Body = textOf(in, "title"), textOf(in, "body")
	i, err := e.f.createIssue(e.ctx(), repo, IdentityFrom(e.ctx()), change)
	return e.issuePayload(repo, i, err)
}

func (e *gqlExecution) issuePayload(repo *repository, i *issue, err error) (gqlObject, error) {
	if err != nil {
		return nil, err
	}
	o, err := e.issueObject(repo, i)
	return gqlObject{"issue": o, "labelable": o, "assignable": o}, err
}

func (e *gqlExecution) updateIssue(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "id", scopeIssues, false)
	if err != nil {
		return nil, err
	}
	change := issueParts(in)
	change.Title, change.Body = textOf(in, "title"), textOf(in, "body")
	if state := strings.ToLower(gqlString(in, "state")); state != "" {
		change.State = &state
	}
	i, err = e.f.editIssue(e.ctx(), repo, i, IdentityFrom(e.ctx()), change)
	return e.issuePayload(repo, i, err)
}

// shutIssue is closeIssue and reopenIssue.
func (e *gqlExecution) shutIssue(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "issueId", scopeIssues, false)
	if err != nil {
		return nil, err
	}
	state, reason := "closed", strings.ToLower(gqlString(in, "stateReason"))
	if !i.open {
		state = "open"
	}
	i, err = e.f.editIssue(e.ctx(), repo, i, IdentityFrom(e.ctx()), issueChange{State: &state, Reason: &reason})
	return e.issuePayload(repo, i, err)
}

func (e *gqlExecution) addComment(in map[string]any) (gqlObject, error) {
	repo, i, err := e.subject(in, "subjectId", scopeIssues+","+scopePulls, false)
	if err != nil {
		return nil, err
	}
	i, c, err := e.f.addIssueComment(e.ctx(), repo, i.number, IdentityFrom(e.ctx()), gqlString(in, "body"))
	if err != nil {
		return nil, err
	}
	sc, err := e.scene(repo)
	if err != nil {
		return nil, err
	}
	subject, err := e.issueObject(repo, i)
	return gqlObject{"commentEdge": gqlObject{"__typename": "IssueCommentEdge", "node": e.commentObject(sc, i, c)}, "subject": subject}, err
}

// commentOfNode finds the comment of a kind with a global id, and its issue.
func (e *gqlExecution) commentOfNode(id, letter, kind string) (*repository, *issue, *comment, error) {
	missing := gqlNotFound("Could not resolve to a node with the global id of '" + id + "'")
	name, ok := nameOfNode(id, letter)
	full, number, cut := strings.Cut(name, "#")
	if !ok || !cut {
		return nil, nil, nil, missing
	}
	repo, err := e.repositoryOfNode(nodeID("Repository", full))
	if err != nil {
		return nil, nil, nil, missing
	}
	c, err := e.f.commentOf(e.ctx(), repo, kind, number)
	if err != nil {
		return nil, nil, nil, missing
	}
	found, err := issuesWhere(e.ctx(), e.f.db, `i.id = ?`, c.Issue)
	if err != nil || len(found) == 0 {
		return nil, nil, nil, missing
	}
	return repo, found[0], c, nil
}

func (e *gqlExecution) changeIssueComment(in map[string]any) (gqlObject, error) {
	repo, i, c, err := e.commentOfNode(gqlString(in, "id"), "C", "issue")
	if err != nil {
		return nil, err
	}
	if err := e.may(repo, scopeIssues+","+scopePulls, false); err != nil {
		return nil, err
	}
	if err := e.f.changeComment(e.ctx(), repo, c, IdentityFrom(e.ctx()), textOf(in, "body")); err != nil {
		return nil, err
	}
	sc, err := e.scene(repo)
	if err != nil {
		return nil, err
	}
	return gqlObject{"issueComment": e.commentObject(sc, i, c)}, nil
}

func labelMutation(add bool) gqlMutation {
	return func(e *gqlExecution, in map[string]any) (gqlObject, error) {
		repo, i, err := e.subject(in, "labelableId", scopeIssues+","+scopePulls, true)
		if err != nil {
			return nil, err
		}
		names := nodeNames(gqlStrings(in, "labelIds"), "L")
		if add {
			names = distinct(append(append([]string{}, i.Labels...), names...))
		} else {
			names = without(i.Labels, names)
		}
		list := make([]any, len(names))
		for n := range names {
			list[n] = names[n]
		}
		i, err = e.f.editIssue(e.ctx(), repo, i, IdentityFrom(e.ctx()), issueChange{Labels: &list})
		return e.issuePayload(repo, i, err)
	}
}

func assigneeMutation(name string) gqlMutation {
	return func(e *gqlExecution, in map[string]any) (gqlObject, error) {
		repo, i, err := e.subject(in, "assignableId", scopeIssues+","+scopePulls, true)
		if err != nil {
			return nil, err
		}
		logins := append(nodeNames(gqlStrings(in, "assigneeIds"), "UOB"), nodeNames(gqlStrings(in, "actorIds"), "UOB")...)
		switch name {
		case "addAssigneesToAssignable":
			logins = distinct(append(append([]string{}, i.Assignees...), logins...))
		case "removeAssigneesFromAssignable":
			logins = without(i.Assignees, logins)
		}
		i, err = e.f.editIssue(e.ctx(), repo, i, IdentityFrom(e.ctx()), issueChange{Assignees: &logins})
		return e.issuePayload(repo, i, err)
	}
}

// createCommitOnBranch writes files in one commit, if the branch is where the
// client says.
func (e *gqlExecution) createCommitOnBranch(in map[string]any) (gqlObject, error) {
	branch, _ := in["branch"].(map[string]any)
	full, name := gqlString(branch, "repositoryNameWithOwner"), strings.TrimPrefix(gqlString(branch, "branchName"), "refs/heads/")
	if id := gqlString(branch, "id"); id != "" {
		text, _ := nameOfNode(id, "F")
		var ref string
		full, ref, _ = strings.Cut(text, ":")
		name = strings.TrimPrefix(ref, "refs/heads/")
	}
	repo, err := e.f.find(e.ctx(), full)
	if err != nil || !IdentityFrom(e.ctx()).mayRead(repo) {
		return nil, gqlNotFound("Could not resolve to a Repository with the name '" + full + "'.")
	}
	if err := e.may(repo, scopeContents, true); err != nil {
		return nil, err
	}
	tip, tree, err := e.f.branchTip(e.ctx(), repo, name)
	if err != nil {
		return nil, err
	}
	if tip == "" {
		return nil, gqlNotFound("No ref exists for the branch '" + name + "'")
	}
	if expected := gqlString(in, "expectedHeadOid"); expected != tip {
		return nil, fail(http.StatusConflict, "Expected branch to point to %q but it did not. Pull and try again.", expected)
	}
	entries, err := e.fileChanges(repo, in)
	if err != nil {
		return nil, err
	}
	root, err := e.f.writeTree(e.ctx(), repo, tree, entries)
	if err != nil {
		return nil, err
	}
	message, _ := in["message"].(map[string]any)
	if strings.TrimSpace(gqlString(message, "headline")) == "" {
		return nil, errors.New("message.headline is empty")
	}
	id := IdentityFrom(e.ctx())
	commit, err := e.f.writeCommit(e.ctx(), repo, id, newCommit{tree: root, parents: []string{tip}, message: joinMessage(gqlString(message, "headline"), gqlString(message, "body"))})
	if err != nil {
		return nil, err
	}
	if err := e.f.changeRefs(e.ctx(), repo, id, refCommand{Ref: "refs/heads/" + name, Old: tip, New: commit}); err != nil {
		return nil, moveAnswer(err)
	}
	c, err := repo.git.Commit(e.ctx(), commit)
	if err != nil {
		return nil, err
	}
	ref, err := e.ref(repo, name)
	return gqlObject{"commit": e.commit(repo, c), "ref": ref}, err
}

// fileChanges reads what createCommitOnBranch adds and deletes.
func (e *gqlExecution) fileChanges(repo *repository, in map[string]any) ([]newTreeEntry, error) {
	changes, _ := in["fileChanges"].(map[string]any)
	var entries []newTreeEntry
	for _, kind := range []string{"additions", "deletions"} {
		list, _ := changes[kind].([]any)
		for _, one := range list {
			change, _ := one.(map[string]any)
			entry := newTreeEntry{Path: gqlString(change, "path"), Mode: "100644"}
			if reason := hostilePath(entry.Path); reason != "" {
				return nil, fmt.Errorf("path %.100q: %s", entry.Path, reason)
			}
			if kind == "additions" {
				var err error
				if entry.SHA, err = e.f.storeContent(e.ctx(), repo, gqlString(change, "contents")); err != nil {
					return nil, err
				}
			}
			entries = append(entries, entry)
		}
	}
	return entries, nil
}
