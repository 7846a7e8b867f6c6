package forge

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// gh runs GitHub's command line in dir against the house. It reaches
// github.localhost through the test's server as its proxy.
func (s *shop) gh(dir string, args ...string) (string, error) {
	s.t.Helper()
	path, err := exec.LookPath("gh")
	if err != nil {
		s.t.Skip("gh is not installed (apt-get install gh)")
	}
	cmd := exec.CommandContext(s.t.Context(), path, args...)
	cmd.Dir = dir
	cmd.Env = append(git.Env(), "HOME="+dir+"/.home", "GH_HOST=github.localhost", "GH_TOKEN="+s.token, "HTTP_PROXY="+s.server.URL, "http_proxy="+s.server.URL,
		"GH_REPO=github.localhost/"+shopName, "GH_PROMPT_DISABLED=1", "NO_COLOR=1", "GH_NO_UPDATE_NOTIFIER=1", "CLICOLOR=0",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// mustGH runs gh and fails the test when it fails or its answer lacks a text.
func (s *shop) mustGH(want string, args ...string) string {
	s.t.Helper()
	out, err := s.gh(s.dir, args...)
	if err != nil || !strings.Contains(out, want) {
		s.t.Errorf("gh %s: %v; want %q\n%s", strings.Join(args, " "), err, want, out)
	}
	return out
}

func TestGHPullRequests(t *testing.T) {
	s := newShop(t)
	s.git(s.dir, "remote", "set-url", "origin", "http://github.localhost/"+shopName+".git")
	s.mustGH("github.localhost/contoso/shop/pull/1", "pr", "create", "--title", "Add the app", "--body", "why", "--base", "main", "--head", "topic", "--label", "bug", "--assignee", "@me", "--reviewer", "grace")
	if p := s.get(1); len(p.Labels) != 1 || len(p.Assignees) != 1 || len(p.RequestedReviewers) != 1 {
		t.Errorf("created: %v %v %v", p.Labels, p.Assignees, p.RequestedReviewers)
	}
	s.mustGH("Add the app\ttopic\tOPEN", "pr", "list")
	s.mustGH("Add the app", "pr", "list", "--search", "is:open head:topic")
	s.mustGH("title:\tAdd the app", "pr", "view", "1")
	s.mustGH(`"headRefName":"topic"`, "pr", "view", "topic", "--json", "headRefName,state,mergeable,mergeStateStatus,files,commits,statusCheckRollup,reviewDecision,reviews,comments,labels,isDraft,additions,author,headRepository,headRepositoryOwner,baseRefName,closed,createdAt,isCrossRepository,latestReviews,maintainerCanModify,mergeCommit,mergedAt,mergedBy,milestone,number,potentialMergeCommit,projectCards,reactionGroups,reviewRequests,title,updatedAt,url")
	s.mustGH("+one", "pr", "diff", "1")
	s.mustGH("Add the app", "pr", "status")
	s.mustGH("#issuecomment-", "pr", "comment", "1", "--body", "Looks fine")
	s.mustGH("Looks fine", "pr", "view", "1", "--comments")
	s.mustGH("", "pr", "review", "1", "--comment", "--body", "Some words")
	if out, err := s.gh(s.dir, "pr", "review", "1", "--approve"); err == nil || !strings.Contains(out, "Can not approve your own pull request") {
		t.Errorf("self-approval: %v %s", err, out)
	}
	head := s.git(s.dir, "rev-parse", "topic")
	start := time.Now().Add(-time.Minute)
	if _, err := s.SetCheckRun(t.Context(), shopName, CheckRun{Commit: head, Name: "build", ExternalID: "1/build", Workflow: "CI", Event: "pull_request", Status: "completed", Conclusion: "success", Started: start, DetailsURL: "http://localhost/runs/1"}); err != nil {
		t.Fatal(err)
	}
	s.mustGH("build\tpass", "pr", "checks", "1")
	s.mustGH("", "pr", "close", "1")
	s.mustGH("CLOSED", "pr", "list", "--state", "closed")
	s.mustGH("", "pr", "reopen", "1")
	s.mustGH("", "pr", "edit", "1", "--title", "Another title", "--add-label", "enhancement")
	s.mustGH("", "pr", "ready", "1")
	s.mustGH("", "pr", "merge", "1", "--squash", "--subject", "All of it")
	if p := s.get(1); !p.GetMerged() || p.GetTitle() != "Another title" || len(p.Labels) != 2 {
		t.Errorf("merged: %+v", p)
	}
	s.mustGH("MERGED", "pr", "list", "--state", "merged")
	out := s.mustGH("", "pr", "view", "1", "--json", "state,mergeCommit")
	var view struct{ State string }
	if err := json.Unmarshal([]byte(out), &view); err != nil || view.State != "MERGED" {
		t.Errorf("view: %s", out)
	}
}

func TestGHIssues(t *testing.T) {
	s := newShop(t)
	s.mustGH("/contoso/shop/issues/1", "issue", "create", "--title", "It is broken", "--body", "since today")
	s.mustGH("It is broken", "issue", "list")
	s.mustGH("since today", "issue", "view", "1")
	s.mustGH("#issuecomment-", "issue", "comment", "1", "--body", "me too")
	s.mustGH("", "label", "create", "urgent", "--color", "ff0000", "--description", "now")
	s.mustGH("", "issue", "edit", "1", "--add-label", "urgent", "--add-assignee", "@me")
	s.mustGH("urgent", "issue", "list", "--label", "urgent", "--assignee", "@me")
	s.mustGH("It is broken", "issue", "status")
	s.mustGH("", "issue", "close", "1", "--reason", "not planned")
	s.mustGH("not_planned", "api", "repos/contoso/shop/issues/1", "--jq", ".state_reason")
	s.mustGH("", "issue", "reopen", "1")
	s.mustGH(`"state":"OPEN"`, "issue", "view", "1", "--json", "state,labels,assignees,comments,closed,milestone,reactionGroups")
}
