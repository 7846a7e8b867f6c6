package forge

import (
	"strconv"
	"strings"
)

// rollup is what all checks and statuses say of a commit together, nil without
// any.
func (e *gqlExecution) rollup(repo *repository, sha string) (any, error) {
	checks, err := e.f.checks(e.ctx(), repo, sha, true)
	if err != nil {
		return nil, err
	}
	statuses, err := e.f.statuses(e.ctx(), repo, sha, true)
	if err != nil || len(checks)+len(statuses) == 0 {
		return nil, err
	}
	nodes := []gqlObject{}
	counts, statusCounts := map[string]int{}, map[string]int{}
	state := "SUCCESS"
	worse := func(s string) {
		rank := map[string]int{"SUCCESS": 0, "PENDING": 1, "FAILURE": 2}
		if rank[s] > rank[state] {
			state = s
		}
	}
	for _, c := range checks {
		o, summary := e.checkObject(repo, c)
		nodes = append(nodes, o)
		counts[o["state"].(string)]++
		worse(summary)
	}
	for _, s := range statuses {
		nodes = append(nodes, e.statusObject(repo, sha, s))
		statusCounts[strings.ToUpper(s.State)]++
		worse(map[string]string{"success": "SUCCESS", "pending": "PENDING"}[s.State] + map[bool]string{true: "FAILURE"}[s.State == "error" || s.State == "failure"])
	}
	contexts := func(args map[string]any) (any, error) {
		o := connection("StatusCheckRollupContext", args, nodes)
		o["checkRunCount"], o["statusContextCount"] = len(checks), len(statuses)
		o["checkRunCountsByState"], o["statusContextCountsByState"] = gqlCounts("CheckRunStateCount", counts), gqlCounts("StatusContextStateCount", statusCounts)
		return o, nil
	}
	return gqlObject{"__typename": "StatusCheckRollup", "id": nodeID("Z", repo.full()+":"+sha), "state": state, "contexts": gqlField(contexts)}, nil
}

func gqlCounts(kind string, counts map[string]int) []gqlObject {
	list := []gqlObject{}
	for _, state := range sortedNames(counts) {
		list = append(list, gqlObject{"__typename": kind, "state": state, "count": counts[state]})
	}
	return list
}

func sortedNames(counts map[string]int) []string {
	keys := map[string]string{}
	for k := range counts {
		keys[k] = ""
	}
	return sortedKeys(keys)
}

// checkObject is a CheckRun, and SUCCESS, PENDING or FAILURE for the whole.
func (e *gqlExecution) checkObject(repo *repository, c storedCheck) (gqlObject, string) {
	details := c.DetailsURL
	if details == "" {
		details = e.f.cfg.URL + "/" + repo.full() + "/runs/" + strconv.FormatInt(c.ID, 10)
	}
	var run any
	if c.Workflow != "" {
		run = gqlObject{"__typename": "WorkflowRun", "event": c.Event, "workflow": gqlObject{"__typename": "Workflow", "name": c.Workflow}}
	}
	state, summary := strings.ToUpper(c.Status), "PENDING"
	if c.Status == "completed" {
		state = strings.ToUpper(c.Conclusion)
		summary = "FAILURE"
		if c.Conclusion == "success" || c.Conclusion == "neutral" || c.Conclusion == "skipped" {
			summary = "SUCCESS"
		}
	}
	return gqlObject{
		"__typename": "CheckRun", "id": nodeID("K", repo.full()+"#"+strconv.FormatInt(c.ID, 10)), "databaseId": c.ID, "name": c.Name, "status": strings.ToUpper(c.Status),
		"conclusion": gqlText(strings.ToUpper(c.Conclusion)), "startedAt": gqlTime(c.Started), "completedAt": gqlTime(c.Completed), "detailsUrl": details, "url": details,
		"permalink": details, "title": gqlText(c.Title), "summary": gqlText(c.Summary), "text": gqlText(c.Text), "externalId": c.External, "state": state,
		"checkSuite": gqlObject{"__typename": "CheckSuite", "id": nodeID("S", repo.full()+"#"+strconv.FormatInt(c.suite, 10)), "workflowRun": run,
			"app": gqlObject{"__typename": "App", "slug": c.App, "name": appName(c.App)}},
		"isRequired": e.required(repo, c.Name),
	}, summary
}

func (e *gqlExecution) statusObject(repo *repository, sha string, s Status) gqlObject {
	return gqlObject{
		"__typename": "StatusContext", "id": nodeID("StatusContext", repo.full()+":"+sha+":"+s.Context), "context": s.Context, "state": strings.ToUpper(s.State),
		"targetUrl": gqlText(s.TargetURL), "createdAt": gqlTime(s.Created), "description": gqlText(s.Description), "creator": e.account(s.Creator),
		"isRequired": e.required(repo, s.Context),
	}
}

// required is the field isRequired: whether the base of a pull request asks for
// the check.
func (e *gqlExecution) required(repo *repository, name string) gqlField {
	return func(args map[string]any) (any, error) {
		base := ""
		if id := gqlString(args, "pullRequestId"); id != "" {
			_, i, err := e.issueOfNode(id)
			if err != nil {
				return nil, err
			}
			base = i.Pull.Base
		} else if n, ok := args["pullRequestNumber"].(float64); ok {
			i, err := pullOf(e.ctx(), e.f.db, repo.id, int(n))
			if err != nil {
				return nil, err
			}
			base = i.Pull.Base
		}
		rules, err := e.f.rulesFor(e.ctx(), repo, "refs/heads/"+base)
		if err != nil || rules == nil || !rules.RequireChecks {
			return false, err
		}
		return len(without([]string{name}, rules.Contexts)) == 0, nil
	}
}
