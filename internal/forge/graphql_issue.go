package forge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// gqlScene is the scene of a repository's issues, read once in an operation.
func (e *gqlExecution) scene(repo *repository) (*scene, error) {
	if sc, ok := e.scenes[repo.id]; ok {
		return sc, nil
	}
	sc, err := e.f.scene(e.r, repo)
	if err == nil {
		if e.scenes == nil {
			e.scenes = map[int64]*scene{}
		}
		e.scenes[repo.id] = sc
	}
	return sc, err
}

func (e *gqlExecution) ctx() context.Context { return e.r.Context() }

// issueFields are the fields that issues and pull requests share.
func (e *gqlExecution) issueFields(sc *scene, i *issue) gqlObject {
	j := sc.issue(i)
	viewer := IdentityFrom(e.ctx())
	return gqlObject{
		"id": j.NodeID, "databaseId": i.id, "fullDatabaseId": strconv.FormatInt(i.id, 10), "number": i.number, "title": i.title, "body": i.Body, "bodyText": i.Body,
		"url": j.HTMLURL, "resourcePath": strings.TrimPrefix(j.HTMLURL, e.f.cfg.URL), "author": e.account(i.author), "authorAssociation": j.Association,
		"createdAt": gqlTime(i.created), "updatedAt": gqlTime(i.updated), "closedAt": gqlTime(i.Closed), "closed": !i.open, "locked": i.Locked,
		"activeLockReason": gqlText(strings.ToUpper(strings.ReplaceAll(i.Lock, " ", "_"))), "viewerDidAuthor": strings.EqualFold(viewer.Actor, i.author),
		"viewerCanUpdate": e.f.mayEdit(sc.repo, i.author, viewer) == nil, "isPinned": false, "includesCreatedEdit": false, "lastEditedAt": nil,
		"repository":     gqlLater(func() (any, error) { return e.repository(sc.repo) }),
		"assignees":      gqlList("User", func(map[string]any) ([]gqlObject, error) { return e.accountList(i.Assignees), nil }),
		"assignedActors": gqlList("Assignee", func(map[string]any) ([]gqlObject, error) { return e.accountList(i.Assignees), nil }),
		"labels": gqlList("Label", func(map[string]any) ([]gqlObject, error) {
			nodes := []gqlObject{}
			for _, l := range j.Labels {
				nodes = append(nodes, gqlLabel(l))
			}
			return nodes, nil
		}),
		"milestone": e.milestone(sc, i.Milestone), "reactionGroups": gqlReactions(sc, "issue", i.id),
		"comments":     gqlList("IssueComment", func(map[string]any) ([]gqlObject, error) { return e.comments(sc, i) }),
		"projectCards": emptyConnection("ProjectCard"), "projectItems": emptyConnection("ProjectV2Item"), "projectsV2": emptyConnection("ProjectV2"),
		"closingIssuesReferences": emptyConnection("Issue"), "closedByPullRequestsReferences": emptyConnection("PullRequest"),
		"participants": gqlList("User", func(map[string]any) ([]gqlObject, error) { return e.accountList([]string{i.author}), nil }),
	}
}

// issueObject is an Issue or a PullRequest.
func (e *gqlExecution) issueObject(repo *repository, i *issue) (gqlObject, error) {
	if i.Pull != nil {
		return e.pullObject(repo, i)
	}
	sc, err := e.scene(repo)
	if err != nil {
		return nil, err
	}
	o := e.issueFields(sc, i)
	o["__typename"], o["state"] = "Issue", strings.ToUpper(i.state())
	o["stateReason"] = gqlText(strings.ToUpper(i.Reason))
	o["linkedBranches"] = emptyConnection("LinkedBranch")
	return o, nil
}

func (e *gqlExecution) accountList(logins []string) []gqlObject {
	list := []gqlObject{}
	for _, login := range logins {
		list = append(list, e.account(login))
	}
	return list
}

func gqlLabel(l labelJSON) gqlObject {
	return gqlObject{"__typename": "Label", "id": l.NodeID, "name": l.Name, "color": l.Color, "description": l.Description, "isDefault": l.Default, "url": l.URL}
}

func (e *gqlExecution) milestone(sc *scene, number int) any {
	m, ok := sc.milestones[number]
	if !ok || number == 0 {
		return nil
	}
	return gqlMilestone(m)
}

func gqlMilestone(m milestoneJSON) gqlObject {
	return gqlObject{"__typename": "Milestone", "id": m.NodeID, "number": m.Number, "title": m.Title, "description": m.Description, "dueOn": m.DueOn, "state": strings.ToUpper(m.State), "url": m.HTMLURL}
}

var gqlReactionNames = map[string]string{
	"+1": "THUMBS_UP", "-1": "THUMBS_DOWN", "laugh": "LAUGH", "confused": "CONFUSED", "heart": "HEART", "hooray": "HOORAY", "rocket": "ROCKET", "eyes": "EYES",
}

func gqlReactions(sc *scene, kind string, id int64) []gqlObject {
	counts := sc.reactions[kind+"/"+strconv.FormatInt(id, 10)]
	groups := []gqlObject{}
	for _, content := range reactionContents {
		count := gqlObject{"__typename": "ReactingUserConnection", "totalCount": counts[content]}
		groups = append(groups, gqlObject{"__typename": "ReactionGroup", "content": gqlReactionNames[content], "users": count, "reactors": count})
	}
	return groups
}

func (e *gqlExecution) comments(sc *scene, i *issue) ([]gqlObject, error) {
	found, err := e.f.commentsWhere(e.ctx(), e.f.db, `kind = 'issue' and repo = ? and issue = ?`, i.repo, i.id)
	if err != nil {
		return nil, err
	}
	nodes := []gqlObject{}
	for _, c := range found {
		nodes = append(nodes, e.commentObject(sc, i, c))
	}
	return nodes, nil
}

func (e *gqlExecution) commentObject(sc *scene, i *issue, c *comment) gqlObject {
	j := sc.comment(i.number, i.Pull != nil, c)
	viewer := IdentityFrom(e.ctx())
	return gqlObject{
		"__typename": "IssueComment", "id": j.NodeID, "databaseId": c.ID, "body": c.Body, "bodyText": c.Body, "author": e.account(c.Author), "authorAssociation": j.Association,
		"createdAt": gqlTime(c.Created), "updatedAt": gqlTime(c.Updated), "publishedAt": gqlTime(c.Created), "includesCreatedEdit": c.EditedAfter, "lastEditedAt": nil,
		"isMinimized": c.Minimized != "", "minimizedReason": c.Minimized, "reactionGroups": gqlReactions(sc, "issue_comment", c.ID), "url": j.HTMLURL,
		"viewerDidAuthor": strings.EqualFold(viewer.Actor, c.Author), "viewerCanDelete": true, "viewerCanUpdate": true,
	}
}

// issueList are the issues or pull requests of a repository that arguments ask
// for.
func (e *gqlExecution) issueList(repo *repository, pulls bool, args map[string]any) ([]gqlObject, error) {
	filter, _ := args["filterBy"].(map[string]any)
	states := gqlStrings(args, "states")
	if states == nil {
		states = gqlStrings(filter, "states")
	}
	order, _ := args["orderBy"].(map[string]any)
	sort := strings.TrimSuffix(strings.ToLower(gqlString(order, "field")), "_at")
	direction := strings.ToLower(gqlString(order, "direction"))
	if direction == "" {
		direction = "asc"
	}
	all, err := issuesWhere(e.ctx(), e.f.db, `i.repo = ? and i.is_pull = ?`+issueOrder(sort, direction), repo.id, pulls)
	if err != nil {
		return nil, err
	}
	viewer := IdentityFrom(e.ctx())
	nodes := []gqlObject{}
	for _, i := range all {
		state := strings.ToUpper(i.state())
		if i.Pull != nil && !i.Pull.Merged.IsZero() {
			state = "MERGED"
		}
		head, base := gqlString(args, "headRefName"), gqlString(args, "baseRefName")
		by, to := me(gqlString(filter, "createdBy"), viewer), me(gqlString(filter, "assignee"), viewer)
		switch {
		case len(states) > 0 && !slices.Contains(states, state),
			head != "" && i.Pull != nil && i.Pull.Head != head, base != "" && i.Pull != nil && i.Pull.Base != base,
			by != "" && !strings.EqualFold(by, i.author), to != "" && to != "*" && len(without([]string{to}, i.Assignees)) > 0,
			len(without(gqlStrings(args, "labels"), i.Labels)) > 0, len(without(gqlStrings(filter, "labels"), i.Labels)) > 0,
			gqlString(filter, "mentioned") != "" && !strings.Contains(i.Body, "@"+me(gqlString(filter, "mentioned"), viewer)):
			continue
		}
		o, err := e.issueObject(repo, i)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, o)
	}
	return nodes, nil
}

// issueByNumber is a field with a number; kind is Issue, PullRequest or "" for
// both.
func (e *gqlExecution) issueByNumber(repo *repository, kind string) gqlField {
	return func(args map[string]any) (any, error) {
		n, _ := args["number"].(float64)
		i, err := issueOf(e.ctx(), e.f.db, repo.id, int(n))
		if errors.Is(err, ErrNotFound) || err == nil && (kind == "Issue" && i.Pull != nil || kind == "PullRequest" && i.Pull == nil) {
			if kind == "" {
				kind = "issue or pull request"
			}
			return nil, gqlNotFound(fmt.Sprintf("Could not resolve to an %s with the number of %d.", kind, int(n)))
		}
		if err != nil {
			return nil, err
		}
		return e.issueObject(repo, i)
	}
}

// search is Query.search for issues and pull requests.
func (e *gqlExecution) search(args map[string]any) (any, error) {
	if kind := gqlString(args, "type"); kind != "ISSUE" && kind != "ISSUE_ADVANCED" {
		return nil, fmt.Errorf("Lockstep's forge can't search for %s", kind)
	}
	hits, err := e.f.findIssues(e.r, gqlString(args, "query"))
	if err != nil {
		return nil, err
	}
	nodes := []gqlObject{}
	for _, hit := range hits[:min(len(hits), 1000)] {
		o, err := e.issueObject(hit.repo, hit.issue)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, o)
	}
	return connection("SearchResultItem", args, nodes), nil
}

// node finds an object by its global id.
func (e *gqlExecution) node(id string) (any, error) {
	missing := gqlNotFound("Could not resolve to a node with the global id of '" + id + "'")
	if repo, i, err := e.issueOfNode(id); err == nil {
		return e.issueObject(repo, i)
	} else if !errors.As(err, new(gqlNotFound)) {
		return nil, err
	}
	if name, ok := nameOfNode(id, "R"); ok {
		repo, err := e.f.find(e.ctx(), name)
		if err != nil || !IdentityFrom(e.ctx()).mayRead(repo) {
			return nil, missing
		}
		return e.repository(repo)
	}
	if name, ok := nameOfNode(id, "UOB"); ok && !strings.ContainsAny(name, "#/:") {
		return e.account(name), nil
	}
	return nil, missing
}

// issueOfNode finds the issue or pull request with a global id.
func (e *gqlExecution) issueOfNode(id string) (*repository, *issue, error) {
	missing := gqlNotFound("Could not resolve to a node with the global id of '" + id + "'")
	name, ok := nameOfNode(id, "IP")
	full, number, cut := strings.Cut(name, "#")
	if !ok || !cut {
		return nil, nil, missing
	}
	repo, err := e.f.find(e.ctx(), full)
	if errors.Is(err, ErrNotFound) || err == nil && !IdentityFrom(e.ctx()).mayRead(repo) {
		return nil, nil, missing
	}
	if err != nil {
		return nil, nil, err
	}
	i, err := issueOf(e.ctx(), e.f.db, repo.id, numberOf(number))
	if errors.Is(err, ErrNotFound) {
		return nil, nil, missing
	}
	return repo, i, err
}

// discussions adds to a Repository what is said and reviewed in it.
func (e *gqlExecution) discussions(repo *repository, o gqlObject) {
	o["issue"], o["pullRequest"], o["issueOrPullRequest"] = e.issueByNumber(repo, "Issue"), e.issueByNumber(repo, "PullRequest"), e.issueByNumber(repo, "")
	o["issues"] = gqlList("Issue", func(args map[string]any) ([]gqlObject, error) { return e.issueList(repo, false, args) })
	o["pullRequests"] = gqlList("PullRequest", func(args map[string]any) ([]gqlObject, error) { return e.issueList(repo, true, args) })
	o["labels"] = gqlList("Label", func(map[string]any) ([]gqlObject, error) {
		sc, err := e.scene(repo)
		if err != nil {
			return nil, err
		}
		names := map[string]string{}
		for key := range sc.labels {
			names[key] = ""
		}
		nodes := []gqlObject{}
		for _, key := range sortedKeys(names) {
			nodes = append(nodes, gqlLabel(sc.labels[key]))
		}
		return nodes, nil
	})
	o["label"] = gqlField(func(args map[string]any) (any, error) {
		sc, err := e.scene(repo)
		if err != nil {
			return nil, err
		}
		if l, ok := sc.labels[strings.ToLower(gqlString(args, "name"))]; ok {
			return gqlLabel(l), nil
		}
		return nil, nil
	})
	o["milestones"] = gqlList("Milestone", func(map[string]any) ([]gqlObject, error) {
		sc, err := e.scene(repo)
		nodes := []gqlObject{}
		if err == nil {
			for n := 1; n <= len(sc.milestones); n++ {
				nodes = append(nodes, gqlMilestone(sc.milestones[n]))
			}
		}
		return nodes, err
	})
	people := gqlList("User", func(map[string]any) ([]gqlObject, error) { return e.accountList([]string{e.f.cfg.User}), nil })
	o["assignableUsers"], o["mentionableUsers"], o["suggestedActors"] = people, people, people
	o["projects"], o["projectsV2"] = emptyConnection("Project"), emptyConnection("ProjectV2")
	o["pullRequestTemplates"], o["issueTemplates"] = []gqlObject{}, []gqlObject{}
	o["ref"] = gqlField(func(args map[string]any) (any, error) {
		return e.ref(repo, strings.TrimPrefix(gqlString(args, "qualifiedName"), "refs/heads/"))
	})
	o["mergeQueue"] = nil
}
