package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

type object = map[string]any

func pullCommands() map[string]command {
	create := shim.Flags{shim.F("--title", "-t"), shim.F("--body", "-b"), shim.F("--body-file", "-F"), shim.F("--base", "-B"), shim.F("--head", "-H"), shim.B("--draft", "-d"), shim.B("--fill", "-f"),
		shim.F("--label", "-l"), shim.F("--assignee", "-a"), shim.F("--reviewer", "-r"), shim.F("--milestone", "-m")}
	list := shim.Flags{shim.F("--state", "-s"), shim.F("--base", "-B"), shim.F("--head", "-H"), shim.F("--limit", "-L"), shim.F("--label", "-l"), shim.F("--author", "-A")}
	comment := shim.Flags{shim.F("--body", "-b"), shim.F("--body-file", "-F"), shim.B("--edit-last")}
	return map[string]command{
		"pr create":  {create, pullCreate},
		"pr list":    {list, pullList},
		"pr view":    {shim.Flags{shim.B("--comments", "-c")}, pullView},
		"pr comment": {comment, func(ctx context.Context, c *call) error { return c.comment(ctx, true) }},
		"pr merge": {shim.Flags{shim.B("--merge", "-m"), shim.B("--squash", "-s"), shim.B("--rebase", "-r"), shim.B("--delete-branch", "-d"), shim.F("--subject", "-t"), shim.F("--body", "-b"),
			shim.F("--match-head-commit"), shim.B("--admin"), shim.B("--auto")}, pullMerge},
		"pr checks":     {shim.Flags{shim.B("--watch"), shim.F("--interval", "-i"), shim.B("--fail-fast"), shim.B("--required")}, pullChecks},
		"pr close":      {shim.Flags{shim.F("--comment", "-c"), shim.B("--delete-branch", "-d")}, pullClose},
		"issue create":  {create, issueCreate},
		"issue comment": {comment, func(ctx context.Context, c *call) error { return c.comment(ctx, false) }},
	}
}

// more are labels and the like of something new.
func (c *call) more(ctx context.Context, number int) error {
	for _, m := range [][3]string{{"label", "labels", "/issues/%d/labels"}, {"assignee", "assignees", "/issues/%d/assignees"}, {"reviewer", "reviewers", "/pulls/%d/requested_reviewers"}} {
		var values []string
		for _, v := range c.All(m[0]) {
			values = append(values, strings.Split(v, ",")...)
		}
		if len(values) == 0 {
			continue
		}
		route, err := c.route(ctx, m[2], number)
		if err != nil {
			return err
		}
		if _, err := c.rest(ctx, http.MethodPost, route, object{m[1]: values}, nil); err != nil {
			return err
		}
	}
	return nil
}

func pullCreate(ctx context.Context, c *call) error {
	body, err := c.text("body", "body-file")
	if err != nil {
		return err
	}
	title, head, base := c.Get("title"), c.Get("head"), c.Get("base")
	if head == "" {
		if head, err = c.git(ctx, "rev-parse", "--abbrev-ref", "HEAD"); err != nil || head == "HEAD" {
			return errors.New("could not determine the current branch: use --head")
		}
	}
	if c.On("fill") && title == "" {
		if title, err = c.git(ctx, "log", "-1", "--format=%s"); err != nil {
			return err
		}
		if body == "" {
			body, _ = c.git(ctx, "log", "-1", "--format=%b")
		}
	}
	if title == "" || body == "" && !c.Has("body") && !c.Has("body-file") && !c.On("fill") {
		return shim.Usagef("must provide `--title` and `--body` (or `--fill`) when not running interactively")
	}
	if base == "" {
		route, err := c.route(ctx, "")
		if err != nil {
			return err
		}
		var repo struct {
			DefaultBranch string `json:"default_branch"`
		}
		if _, err := c.rest(ctx, http.MethodGet, route, nil, &repo); err != nil {
			return err
		}
		base = repo.DefaultBranch
	}
	route, err := c.route(ctx, "/pulls")
	if err != nil {
		return err
	}
	var made struct {
		Number int    `json:"number"`
		URL    string `json:"html_url"`
	}
	if _, err := c.rest(ctx, http.MethodPost, route, object{"title": title, "body": body, "head": head, "base": base, "draft": c.On("draft")}, &made); err != nil {
		return err
	}
	if err := c.more(ctx, made.Number); err != nil {
		return err
	}
	return c.printf("%s", made.URL)
}

func issueCreate(ctx context.Context, c *call) error {
	body, err := c.text("body", "body-file")
	if err != nil {
		return err
	}
	if c.Get("title") == "" {
		return shim.Usagef("must provide `--title` and `--body` when not running interactively")
	}
	route, err := c.route(ctx, "/issues")
	if err != nil {
		return err
	}
	var made struct {
		Number int    `json:"number"`
		URL    string `json:"html_url"`
	}
	if _, err := c.rest(ctx, http.MethodPost, route, object{"title": c.Get("title"), "body": body}, &made); err != nil {
		return err
	}
	if err := c.more(ctx, made.Number); err != nil {
		return err
	}
	return c.printf("%s", made.URL)
}

// limit is --limit, 30 without it.
func (c *call) limit() (int, error) {
	n, err := strconv.Atoi(c.Or("limit", "30"))
	if err != nil || n < 1 || n > 1000 {
		return 0, shim.Usagef("invalid value for --limit: %q", c.Get("limit"))
	}
	return n, nil
}

func pullList(ctx context.Context, c *call) error {
	n, err := c.limit()
	if err != nil {
		return err
	}
	repo, err := c.repo(ctx)
	if err != nil {
		return err
	}
	state := c.Or("state", "open")
	q := url.Values{"state": {strings.Replace(state, "merged", "closed", 1)}, "per_page": {strconv.Itoa(min(n, 100))}}
	if b := c.Get("base"); b != "" {
		q.Set("base", b)
	}
	if h := c.Get("head"); h != "" {
		q.Set("head", strings.Split(repo, "/")[0]+":"+h)
	}
	var all []object
	if _, err := c.rest(ctx, http.MethodGet, "/repos/"+repo+"/pulls?"+q.Encode(), nil, &all); err != nil {
		return err
	}
	found := []object{}
	for _, p := range all {
		if state == "merged" && p["merged_at"] == nil || c.Has("label") && !labelled(p, c.Get("label")) || len(found) >= n {
			continue
		}
		found = append(found, p)
	}
	return c.show(found, func() error {
		for _, p := range found {
			head, _ := p["head"].(object)
			if err := c.printf("%v\t%v\t%v\t%v", p["number"], p["title"], head["ref"], strings.ToUpper(fmt.Sprint(p["state"]))); err != nil {
				return err
			}
		}
		return nil
	})
}

func labelled(p object, label string) bool {
	labels, _ := p["labels"].([]any)
	for _, l := range labels {
		if m, ok := l.(object); ok && m["name"] == label {
			return true
		}
	}
	return false
}

// pull finds the pull request that the arguments name: a number, an address, a
// branch, or nothing for the current branch.
func (c *call) pull(ctx context.Context) (object, int, error) {
	text := ""
	if len(c.Rest) > 0 {
		text = c.Rest[0]
	}
	if strings.Contains(text, "/pull/") {
		text = path.Base(text)
	}
	number, err := strconv.Atoi(strings.TrimPrefix(text, "#"))
	if err != nil {
		if text == "" {
			if text, err = c.git(ctx, "rev-parse", "--abbrev-ref", "HEAD"); err != nil {
				return nil, 0, err
			}
		}
		repo, err := c.repo(ctx)
		if err != nil {
			return nil, 0, err
		}
		var found []object
		q := url.Values{"head": {strings.Split(repo, "/")[0] + ":" + text}, "state": {"all"}}
		if _, err := c.rest(ctx, http.MethodGet, "/repos/"+repo+"/pulls?"+q.Encode(), nil, &found); err != nil {
			return nil, 0, err
		}
		if len(found) == 0 {
			return nil, 0, fmt.Errorf("no pull requests found for branch %q", text)
		}
		n, _ := found[0]["number"].(float64)
		number = int(n)
	}
	route, err := c.route(ctx, "/pulls/%d", number)
	if err != nil {
		return nil, 0, err
	}
	var p object
	_, err = c.rest(ctx, http.MethodGet, route, nil, &p)
	return p, number, err
}

func pullView(ctx context.Context, c *call) error {
	p, _, err := c.pull(ctx)
	if err != nil {
		return err
	}
	return c.show(p, func() error {
		user, _ := p["user"].(object)
		return c.printf("title:\t%v\nstate:\t%s\nauthor:\t%v\nnumber:\t%v\nurl:\t%v\n--\n%v", p["title"], strings.ToUpper(fmt.Sprint(p["state"])), user["login"], p["number"], p["html_url"], orElse(text(p["body"]), ""))
	})
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func (c *call) comment(ctx context.Context, onPull bool) error {
	if c.On("edit-last") {
		return shim.Usagef("--edit-last is not emulated")
	}
	body, err := c.text("body", "body-file")
	if err != nil {
		return err
	}
	if body == "" {
		return shim.Usagef("flags required when not running interactively: --body or --body-file")
	}
	number := 0
	if onPull {
		_, number, err = c.pull(ctx)
	} else if len(c.Rest) == 1 {
		number, err = strconv.Atoi(path.Base(strings.TrimPrefix(c.Rest[0], "#")))
	} else {
		err = shim.Usagef("issue number required")
	}
	if err != nil {
		return err
	}
	route, err := c.route(ctx, "/issues/%d/comments", number)
	if err != nil {
		return err
	}
	var made struct {
		URL string `json:"html_url"`
	}
	if _, err := c.rest(ctx, http.MethodPost, route, object{"body": body}, &made); err != nil {
		return err
	}
	return c.printf("%s", made.URL)
}

func pullMerge(ctx context.Context, c *call) error {
	if c.On("auto") {
		return shim.Usagef("gh pr merge: --auto is not emulated: wait with gh pr checks --watch")
	}
	method := ""
	for _, m := range []string{"merge", "squash", "rebase"} {
		if c.On(m) {
			method = m
		}
	}
	if method == "" {
		return shim.Usagef("--merge, --rebase, or --squash required when not running interactively")
	}
	p, number, err := c.pull(ctx)
	if err != nil {
		return err
	}
	in := object{"merge_method": method}
	for option, field := range map[string]string{"subject": "commit_title", "body": "commit_message", "match-head-commit": "sha"} {
		if v := c.Get(option); v != "" {
			in[field] = v
		}
	}
	route, err := c.route(ctx, "/pulls/%d/merge", number)
	if err != nil {
		return err
	}
	if _, err := c.rest(ctx, http.MethodPut, route, in, nil); err != nil {
		return err
	}
	if c.On("delete-branch") {
		return c.deleteHead(ctx, p)
	}
	return nil
}

func (c *call) deleteHead(ctx context.Context, p object) error {
	head, _ := p["head"].(object)
	route, err := c.route(ctx, "/git/refs/heads/%s", text(head["ref"]))
	if err != nil {
		return err
	}
	_, err = c.rest(ctx, http.MethodDelete, route, nil, nil)
	return err
}

func pullClose(ctx context.Context, c *call) error {
	p, number, err := c.pull(ctx)
	if err != nil {
		return err
	}
	if body := c.Get("comment"); body != "" {
		route, err := c.route(ctx, "/issues/%d/comments", number)
		if err != nil {
			return err
		}
		if _, err := c.rest(ctx, http.MethodPost, route, object{"body": body}, nil); err != nil {
			return err
		}
	}
	route, err := c.route(ctx, "/pulls/%d", number)
	if err != nil {
		return err
	}
	if _, err := c.rest(ctx, http.MethodPatch, route, object{"state": "closed"}, nil); err != nil || !c.On("delete-branch") {
		return err
	}
	return c.deleteHead(ctx, p)
}
