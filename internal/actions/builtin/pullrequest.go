package builtin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func createPullRequest() Action {
	return Action{
		Name: "peter-evans/create-pull-request",
		Inputs: map[string]string{"token": "", "branch-token": "", "path": "", "add-paths": "", "commit-message": "[create-pull-request] automated change", "committer": "", "author": "",
			"signoff": "false", "branch": "create-pull-request/patch", "branch-suffix": "", "base": "", "title": "Changes by create-pull-request action",
			"body": "Automated changes by [create-pull-request](https://github.com/peter-evans/create-pull-request) GitHub action", "body-path": "", "labels": "", "assignees": "",
			"reviewers": "", "team-reviewers": "", "milestone": "", "draft": "false", "delete-branch": "false", "push-to-fork": "", "sign-commits": "false", "maintainer-can-modify": "true"},
		Run: runCreatePullRequest,
	}
}

// pullAnswer is what is read of a pull request.
type pullAnswer struct {
	Number  int    `json:"number"`
	HTMLURL string `json:"html_url"`
	Title   string `json:"title"`
	Body    string `json:"body"`
}

// commitChanges puts the changes of the work tree on a branch of its own, on
// top of base, and pushes it. It prints the commit, or nothing when there is
// no difference to base.
const commitChanges = `set -e
branch=$1 base=$2 message=$3 author=$4 committer=$5 signoff=$6 remote=$7 header=$8; shift 8
start=$(git symbolic-ref --short -q HEAD || git rev-parse HEAD)
git config --local user.name >/dev/null || :
export GIT_COMMITTER_NAME="${committer%% <*}" GIT_COMMITTER_EMAIL="${committer##*<}"; GIT_COMMITTER_EMAIL=${GIT_COMMITTER_EMAIL%>}
key=http.${remote%/*/*}/.extraheader
git -c "$key=" -c "$key=$header" fetch --quiet --no-tags "$remote" "+refs/heads/$base:refs/remotes/lockstep/base" >&2
git checkout --quiet -B lockstep-create-pull-request HEAD >&2
if [ $# -gt 0 ]; then git add --all -- "$@" >&2; else git add --all >&2; fi
sign=; [ "$signoff" = true ] && sign=--signoff
git diff --cached --quiet || git commit --quiet $sign --author "$author" -m "$message" >&2
if git diff --quiet lockstep/base HEAD; then result=
else
	result=$(git rev-parse HEAD)
	git -c "$key=" -c "$key=$header" push --quiet --force "$remote" "HEAD:refs/heads/$branch" >&2
fi
git checkout --quiet "$start" >&2
git branch --quiet -D lockstep-create-pull-request >&2
git update-ref -d refs/remotes/lockstep/base
printf 'commit=%s\n' "$result"`

func runCreatePullRequest(ctx context.Context, c *Call) error {
	if err := c.unsupported(map[string]string{"push-to-fork": "push to this repository", "sign-commits": "commits are not signed here"}); err != nil {
		return err
	}
	branch, err := pullBranch(ctx, c)
	if err != nil {
		return err
	}
	base := c.With["base"]
	if base == "" {
		base = strings.TrimPrefix(c.Job.Ref, "refs/heads/")
	}
	if strings.HasPrefix(base, "refs/") || base == branch {
		return c.errorf("set the input base to a branch, and branch to another one", "the base of the pull request, %q, is no branch or its own head", base)
	}
	commit, err := pushChanges(ctx, c, branch, base)
	if err != nil {
		return err
	}
	open, err := c.openPull(ctx, branch, base)
	if err != nil {
		return err
	}
	operation := "none"
	if commit == "" {
		if open != nil {
			operation = "closed"
			if err := c.closePull(ctx, *open, branch); err != nil {
				return err
			}
			c.SetOutput("pull-request-number", strconv.Itoa(open.Number))
		} else {
			c.Logf("There is nothing to do: the branch would not differ from %s.", base)
		}
		c.SetOutput("pull-request-operation", operation)
		return nil
	}
	pull, operation, err := c.writePull(ctx, branch, base, open)
	if err != nil {
		return c.errorf("give the job `contents: write` and `pull-requests: write`", "write the pull request: %w", err)
	}
	c.SetOutput("pull-request-number", strconv.Itoa(pull.Number))
	c.SetOutput("pull-request-url", pull.HTMLURL)
	c.SetOutput("pull-request-operation", operation)
	c.SetOutput("pull-request-head-sha", commit)
	c.SetOutput("pull-request-branch", branch)
	c.SetOutput("pull-request-commits-verified", "false")
	c.SetEnv("PULL_REQUEST_NUMBER", strconv.Itoa(pull.Number))
	c.Logf("Pull request #%d (%s): %s", pull.Number, operation, pull.HTMLURL)
	return nil
}

// pullBranch is the branch with its suffix.
func pullBranch(ctx context.Context, c *Call) (string, error) {
	branch := c.With["branch"]
	switch suffix := c.With["branch-suffix"]; suffix {
	case "":
	case "random":
		branch += "-" + strconv.FormatInt(time.Now().UnixNano(), 36)[5:]
	case "timestamp":
		branch += "-" + strconv.FormatInt(time.Now().Unix(), 10)
	case "short-commit-hash":
		branch += "-" + c.Job.Commit[:min(7, len(c.Job.Commit))]
	default:
		return "", c.errorf("write random, timestamp or short-commit-hash", "input branch-suffix: %q", suffix)
	}
	if _, err := c.capture(ctx, c.Job.Workspace, "git", "check-ref-format", "--branch", branch); err != nil {
		return "", c.errorf("", "input branch: %q is no branch name", branch)
	}
	return branch, nil
}

var person = regexp.MustCompile(`^[^<>\n]+ <[^<>\s]+@[^<>\s]+>$`)

func pushChanges(ctx context.Context, c *Call, branch, base string) (string, error) {
	dir := path.Join(c.Job.Workspace, c.With["path"])
	actor := orElse(c.env("GITHUB_ACTOR"), "github-actions[bot]")
	author := orElse(c.With["author"], fmt.Sprintf("%s <%s@users.noreply.github.com>", actor, actor))
	committer := orElse(c.With["committer"], "github-actions[bot] <41898282+github-actions[bot]@users.noreply.github.com>")
	for _, who := range []string{author, committer} {
		if !person.MatchString(who) {
			return "", c.errorf("write it as Name <address@example.com>", "%q names no person", who)
		}
	}
	token := orElse(c.With["branch-token"], orElse(c.With["token"], c.Job.Token))
	basic := basicAuth("x-access-token", token)
	c.Job.Mask(token, basic)
	args := append([]string{"sh", "-c", commitChanges, "sh", branch, base, c.With["commit-message"], author, committer, c.With["signoff"],
		c.Job.ServerURL + "/" + c.Job.Repo, "AUTHORIZATION: basic " + basic}, c.list("add-paths", true)...)
	out, err := c.capture(ctx, dir, args...)
	if err != nil {
		return "", c.errorf("check the repository out before, and give the job `contents: write`", "push the changes to %s: %w", branch, err)
	}
	_, commit, ok := strings.Cut(out, "commit=")
	if !ok {
		return "", c.errorf("", "push the changes to %s: %s", branch, out)
	}
	return strings.TrimSpace(commit), nil
}

// openPull is the open pull request of a branch, or nil.
func (c *Call) openPull(ctx context.Context, branch, base string) (*pullAnswer, error) {
	owner, _, _ := strings.Cut(c.Job.Repo, "/")
	q := url.Values{"state": {"open"}, "head": {owner + ":" + branch}, "base": {base}}
	var found []pullAnswer
	if err := c.api(ctx, http.MethodGet, c.With["token"], "/repos/"+c.Job.Repo+"/pulls?"+q.Encode(), nil, &found); err != nil {
		return nil, c.errorf("give the job `pull-requests: write`", "look for the pull request: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

func (c *Call) closePull(ctx context.Context, p pullAnswer, branch string) error {
	remove, err := c.flag("delete-branch")
	if err != nil || !remove {
		return err
	}
	if err := c.api(ctx, http.MethodPatch, c.With["token"], fmt.Sprintf("/repos/%s/pulls/%d", c.Job.Repo, p.Number), map[string]string{"state": "closed"}, nil); err != nil {
		return c.errorf("", "close pull request %d: %w", p.Number, err)
	}
	if err := c.api(ctx, http.MethodDelete, c.With["token"], "/repos/"+c.Job.Repo+"/git/refs/heads/"+branch, nil, nil); err != nil {
		return c.errorf("", "delete the branch %s: %w", branch, err)
	}
	return nil
}

// writePull creates or updates the pull request and what hangs on it.
func (c *Call) writePull(ctx context.Context, branch, base string, open *pullAnswer) (p pullAnswer, operation string, err error) {
	body, err := c.bodyOf("body", "body-path")
	if err != nil {
		return p, "", err
	}
	draft, err := c.flag("draft")
	if err != nil && c.With["draft"] != "always-true" {
		return p, "", err
	}
	fields := map[string]any{"title": c.With["title"], "body": body}
	if open != nil {
		operation = "updated"
		err = c.api(ctx, http.MethodPatch, c.With["token"], fmt.Sprintf("/repos/%s/pulls/%d", c.Job.Repo, open.Number), fields, &p)
	} else {
		operation = "created"
		fields["head"], fields["base"], fields["draft"] = branch, base, draft || c.With["draft"] == "always-true"
		err = c.api(ctx, http.MethodPost, c.With["token"], "/repos/"+c.Job.Repo+"/pulls", fields, &p)
	}
	if err != nil {
		return p, "", err
	}
	issue := fmt.Sprintf("/repos/%s/issues/%d", c.Job.Repo, p.Number)
	for _, more := range []struct {
		input, key, route string
	}{
		{"labels", "labels", issue + "/labels"}, {"assignees", "assignees", issue + "/assignees"},
		{"reviewers", "reviewers", fmt.Sprintf("/repos/%s/pulls/%d/requested_reviewers", c.Job.Repo, p.Number)},
		{"team-reviewers", "team_reviewers", fmt.Sprintf("/repos/%s/pulls/%d/requested_reviewers", c.Job.Repo, p.Number)},
	} {
		if list := c.list(more.input, true); len(list) > 0 {
			if err := c.api(ctx, http.MethodPost, c.With["token"], more.route, map[string]any{more.key: list}, nil); err != nil {
				c.warn("%s could not be set on the pull request: %v", more.input, err)
			}
		}
	}
	if m, convErr := strconv.Atoi(c.With["milestone"]); convErr == nil {
		if err := c.api(ctx, http.MethodPatch, c.With["token"], issue, map[string]any{"milestone": m}, nil); err != nil {
			c.warn("the milestone could not be set: %v", err)
		}
	}
	return p, operation, nil
}

// bodyOf reads a text from an input or from the file that another names.
func (c *Call) bodyOf(input, file string) (string, error) {
	name := c.With[file]
	if name == "" {
		return c.With[input], nil
	}
	inside, err := within(c, name)
	if err != nil {
		return "", err
	}
	data, err := readFile(c.Job.Files, inside, 1<<20)
	if err != nil {
		return "", c.errorf("", "input %s: %w", file, err)
	}
	return string(data), nil
}

func comment() Action {
	return Action{
		Name: "peter-evans/create-or-update-comment",
		Inputs: map[string]string{"token": "", "repository": "", "issue-number": "", "comment-id": "", "body": "", "body-path": "", "body-file": "",
			"edit-mode": "append", "append-separator": "newline", "reactions": "", "reactions-edit-mode": "append"},
		Run: runComment,
	}
}

func runComment(ctx context.Context, c *Call) error {
	repo := orElse(c.With["repository"], c.Job.Repo)
	if !repoName.MatchString(repo) {
		return c.errorf("", "input repository %q is not owner/name", repo)
	}
	c.With["body-path"] = orElse(c.With["body-path"], c.With["body-file"])
	body, err := c.bodyOf("body", "body-path")
	if err != nil {
		return err
	}
	id, issue := c.With["comment-id"], c.With["issue-number"]
	for name, v := range map[string]string{"comment-id": id, "issue-number": issue} {
		if _, err := strconv.ParseInt(orElse(v, "0"), 10, 64); err != nil {
			return c.errorf("", "input %s: %q is no number", name, v)
		}
	}
	switch {
	case id != "":
		err = c.editComment(ctx, repo, id, body)
	case issue == "":
		return c.errorf("", "issue-number or comment-id is needed")
	case body == "":
		return c.errorf("", "input body or body-path is needed")
	default:
		var made struct {
			ID int64 `json:"id"`
		}
		err = c.api(ctx, http.MethodPost, c.With["token"], "/repos/"+repo+"/issues/"+issue+"/comments", map[string]string{"body": body}, &made)
		id = strconv.FormatInt(made.ID, 10)
	}
	if err != nil {
		return c.errorf("give the job `issues: write` or `pull-requests: write`", "write the comment: %w", err)
	}
	for _, reaction := range c.list("reactions", true) {
		if err := c.api(ctx, http.MethodPost, c.With["token"], "/repos/"+repo+"/issues/comments/"+id+"/reactions", map[string]string{"content": reaction}, nil); err != nil {
			c.warn("the reaction %s could not be set: %v", reaction, err)
		}
	}
	c.SetOutput("comment-id", id)
	c.Logf("Comment %s", id)
	return nil
}

func (c *Call) editComment(ctx context.Context, repo, id, body string) error {
	if body == "" {
		return nil // only reactions
	}
	route := "/repos/" + repo + "/issues/comments/" + id
	switch c.With["edit-mode"] {
	case "append":
		var old struct {
			Body string `json:"body"`
		}
		if err := c.api(ctx, http.MethodGet, c.With["token"], route, nil, &old); err != nil {
			return err
		}
		body = old.Body + map[string]string{"newline": "\n", "space": " ", "none": ""}[c.With["append-separator"]] + body
	case "replace":
	default:
		return c.errorf("write append or replace", "input edit-mode: %q", c.With["edit-mode"])
	}
	return c.api(ctx, http.MethodPatch, c.With["token"], route, map[string]string{"body": body}, nil)
}
