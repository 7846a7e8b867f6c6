package trigger

import (
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"pgregory.net/rapid"
)

// The rows follow GitHub's filter pattern cheat sheet.
func TestPatterns(t *testing.T) {
	for _, c := range []struct{ patterns, yes, no string }{
		{"feature/*", "feature/my-branch feature/your-branch", "feature/a/b feature xfeature/a"},
		{"feature/**", "feature/beta-a/my-branch feature/your-branch feature/mona/the/octocat", "feature main"},
		{"main", "main", "main2 xmain MAIN"},
		{"releases/mona-the-octocat", "releases/mona-the-octocat", "releases/mona"},
		{"*", "main releases", "all/the/branches"},
		{"**", "all/the/branches every/tag main", ""},
		{"*feature", "mona-feature feature ver-10-feature", "features a/feature"},
		{"v2*", "v2 v2.0 v2.9", "v1 v2/x"},
		{"v[12].[0-9]+.[0-9]+", "v1.10.1 v2.0.0", "v3.0.0 v1.x.1 v1.0"},
		{"*.jsx?", "page.js page.jsx", "page.jsxx a/page.js"},
		{"**.js", "index.js js/index.js src/js/app.js", "index.jsx"},
		{"docs/*", "docs/README.md docs/file.txt", "docs/a/b.md"},
		{"docs/**", "docs/README.md docs/mona/octocat.txt", "doc/x"},
		{"docs/**/*.md", "docs/README.md docs/mona/hello-world.md docs/a/markdown/file.md", "docs/a.txt"},
		{"**/docs/**", "docs/hello.md dir/docs/my-file.txt space/docs/plan/space.doc", "adocs/x"},
		{"**/README.md", "README.md js/README.md", "js/XREADME.md"},
		{"**/*src/**", "a/src/app.js my-src/code/js/app.js", "a/srcs/x"},
		{"**/*-post.md", "my-post.md path/their-post.md", "post.md"},
		{"**/migrate-*.sql", "migrate-10909.sql db/migrate-v1.0.sql db/sept/migrate-v1.sql", "migrate.sql"},
		{"*.md !README.md", "hello.md", "README.md docs/hello.md"},
		{"*.md !README.md README*", "hello.md README.md README.doc", ""},
		{"**.txt", "a.txt b/c.txt", "a.txtx"},
		{`a\*b`, "a*b", "axb"},
		{"[CB]at", "Cat Bat", "cat hat"},
		{"[a-z]+x", "abx", "x 1x"},
		{"1.0", "1.0", "1x0"},
	} {
		patterns := strings.Fields(c.patterns)
		for _, name := range strings.Fields(c.yes) {
			if ok, err := MatchAny(patterns, name); !ok || err != nil {
				t.Errorf("%s does not match %s (%v)", c.patterns, name, err)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if ok, err := MatchAny(patterns, name); ok || err != nil {
				t.Errorf("%s matches %s (%v)", c.patterns, name, err)
			}
		}
	}
	if _, err := MatchAny([]string{"v[12"}, "v1"); err == nil {
		t.Error("an unclosed class passed")
	}
}

func load(t *testing.T, on string) *syntax.Workflow {
	t.Helper()
	w, d := syntax.Load("ci.yml", []byte("on:\n"+on+"\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n"))
	if w == nil {
		t.Fatalf("%s: %v", on, d)
	}
	return w
}

func TestMatchPush(t *testing.T) {
	for _, c := range []struct {
		on, ref, message, paths string
		start                   bool
		reason                  string
	}{
		{"  push:", "refs/heads/x", "", "", true, ""},
		{"  push:", "refs/tags/x", "", "", true, ""},
		{"  push:", "refs/notes/x", "", "", false, "refs/notes/x is not among the branches and tags of the push trigger"},
		{"  workflow_dispatch:", "refs/heads/x", "", "", false, "the workflow has no push trigger"},
		{"  push: {branches: [main]}", "refs/heads/main", "", "", true, ""},
		{"  push: {branches: [main]}", "refs/heads/dev", "", "", false, "refs/heads/dev is not among the branches and tags of the push trigger"},
		{"  push: {branches: [main]}", "refs/tags/main", "", "", false, "the push trigger is only for branches"},
		{"  push: {tags: ['v*']}", "refs/heads/main", "", "", false, "the push trigger is only for tags"},
		{"  push: {tags: ['v*']}", "refs/tags/v1", "", "", true, ""},
		{"  push: {branches: [main], tags: ['v*']}", "refs/tags/v1", "", "", true, ""},
		{"  push: {branches-ignore: ['dev/**']}", "refs/heads/dev/a", "", "", false, "refs/heads/dev/a is not among the branches and tags of the push trigger"},
		{"  push: {branches-ignore: ['dev/**']}", "refs/heads/main", "", "", true, ""},
		{"  push: {paths: ['src/**']}", "refs/heads/main", "", "src/a.go README.md", true, ""},
		{"  push: {paths: ['src/**']}", "refs/heads/main", "", "README.md", false, "none of the 1 changed files passes the path filters of the push trigger"},
		{"  push: {paths: ['src/**', '!src/doc/**']}", "refs/heads/main", "", "src/doc/a", false, "none of the 1 changed files passes the path filters of the push trigger"},
		{"  push: {paths-ignore: ['**.md']}", "refs/heads/main", "", "README.md docs/a.md", false, "none of the 2 changed files passes the path filters of the push trigger"},
		{"  push: {paths-ignore: ['**.md']}", "refs/heads/main", "", "README.md main.go", true, ""},
		{"  push: {paths: ['src/**']}", "refs/tags/v1", "", "", true, ""},
		{"  push:", "refs/heads/main", "fix [skip ci]", "", false, "the commit message says [skip ci]"},
		{"  push:", "refs/heads/main", "fix\n\nskip-checks: true\n", "", false, "the commit message says skip-checks: true"},
		{"  push:", "refs/heads/main", "skip-checks: true", "", true, ""},
	} {
		d, err := Match(load(t, c.on), Event{Name: "push", Ref: c.ref, Message: c.message, Paths: strings.Fields(c.paths)})
		if err != nil || d.Start != c.start || d.Reason != c.reason {
			t.Errorf("%s, %s: %+v %v", c.on, c.ref, d, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		on     string
		event  Event
		start  bool
		line   int
		reason string
	}{
		{"  pull_request:", Event{Name: "pull_request", Action: "opened", BaseRef: "main"}, true, 2, ""},
		{"  pull_request:", Event{Name: "pull_request", Action: "synchronize"}, true, 2, ""},
		{"  pull_request:", Event{Name: "pull_request", Action: "closed"}, false, 2, `pull_request starts without ` + "`types`" + ` only for opened, synchronize, reopened, not for "closed"`},
		{"  pull_request:\n    types: [closed]", Event{Name: "pull_request", Action: "closed"}, true, 2, ""},
		{"  pull_request:\n    types: [closed]", Event{Name: "pull_request", Action: "opened"}, false, 3, `"opened" is not among the types of the pull_request trigger`},
		{"  pull_request:\n    branches: ['release/**']", Event{Name: "pull_request", Action: "opened", BaseRef: "release/1/2"}, true, 2, ""},
		{"  pull_request:\n    branches: ['release/**']", Event{Name: "pull_request", Action: "opened", BaseRef: "refs/heads/release/1"}, true, 2, ""},
		{"  pull_request:\n    types: opened\n    branches: ['release/**']", Event{Name: "pull_request", Action: "opened", BaseRef: "main"}, false, 4, "the base branch main is not among the branches of the pull_request trigger"},
		{"  pull_request:\n    branches-ignore: [main]", Event{Name: "pull_request", Action: "opened", BaseRef: "main"}, false, 3, "the base branch main is not among the branches of the pull_request trigger"},
		{"  pull_request:\n    paths: ['**.go']", Event{Name: "pull_request", Action: "opened", Paths: []string{"README.md", "a/b.go"}}, true, 2, ""},
		{"  pull_request:\n    paths: ['**.go', '!a/**']", Event{Name: "pull_request", Action: "opened", Paths: []string{"README.md", "a/b.go"}}, false, 3, "none of the 2 changed files passes the path filters of the pull_request trigger"},
		{"  pull_request:\n    paths-ignore: ['docs/**']", Event{Name: "pull_request", Action: "opened"}, false, 3, "none of the 0 changed files passes the path filters of the pull_request trigger"},
		{"  pull_request:", Event{Name: "pull_request", Action: "opened", Message: "x [no ci]"}, false, 2, "the commit message says [no ci]"},
		{"  pull_request_target:", Event{Name: "pull_request_target", Action: "opened", Message: "x [no ci]"}, true, 2, ""},
		{"  push:", Event{Name: "pull_request", Action: "opened"}, false, 0, "the workflow has no pull_request trigger"},
		{"  issue_comment:", Event{Name: "issue_comment", Action: "edited"}, true, 2, ""},
		{"  release: {types: [published]}", Event{Name: "release", Action: "created"}, false, 2, `"created" is not among the types of the release trigger`},
		{"  repository_dispatch:", Event{Name: "repository_dispatch", Action: "anything"}, true, 2, ""},
		{"  repository_dispatch: {types: [deploy]}", Event{Name: "repository_dispatch", Action: "deploy"}, true, 2, ""},
		{"  repository_dispatch: {types: [deploy]}", Event{Name: "repository_dispatch", Action: "Deploy"}, false, 2, `"Deploy" is not among the types of the repository_dispatch trigger`},
		{"  merge_group: {branches: [main]}", Event{Name: "merge_group", Action: "checks_requested", BaseRef: "refs/heads/main"}, true, 2, ""},
		{"  create:\n  delete:", Event{Name: "delete", Ref: "refs/tags/x"}, true, 3, ""},
		{"  workflow_run: {workflows: [CI, Build]}", Event{Name: "workflow_run", Action: "completed", Workflow: "Build", Branch: "x"}, true, 2, ""},
		{"  workflow_run:\n    workflows: [CI]", Event{Name: "workflow_run", Action: "completed", Workflow: "ci"}, false, 3, `"ci" is not among the workflows of the workflow_run trigger`},
		{"  workflow_run:\n    workflows: [CI]\n    branches: [main]", Event{Name: "workflow_run", Action: "completed", Workflow: "CI", Branch: "dev"}, false, 4, "the branch dev is not among the branches of the workflow_run trigger"},
		{"  workflow_run: {workflows: [CI], types: [requested]}", Event{Name: "workflow_run", Action: "completed", Workflow: "CI"}, false, 2, `"completed" is not among the types of the workflow_run trigger`},
		{"  schedule:\n    - cron: 0 5 * * *", Event{Name: "schedule", Action: "0 5 * * *"}, true, 2, ""},
		{"  schedule:\n    - cron: 0 5 * * *", Event{Name: "schedule", Action: "0 6 * * *"}, false, 2, `the schedule "0 6 * * *" is not in the file`},
		{"  push:\n    branches: [main]\n    paths: [a]", Event{Name: "push", Ref: "refs/heads/main", Paths: []string{"b"}}, false, 4, "none of the 1 changed files passes the path filters of the push trigger"},
		{"  push:\n    tags-ignore: ['v*']", Event{Name: "push", Ref: "refs/tags/v1"}, false, 3, "refs/tags/v1 is not among the branches and tags of the push trigger"},
		{"  push:\n    tags-ignore: ['v*']", Event{Name: "push", Ref: "refs/heads/v1"}, false, 3, "the push trigger is only for tags"},
		{"  push:\n    branches: ['!main']", Event{Name: "push", Ref: "refs/heads/dev"}, false, 3, "refs/heads/dev is not among the branches and tags of the push trigger"},
	} {
		d, err := Match(load(t, c.on), c.event)
		if err != nil || d.Start != c.start || d.Line != c.line || d.Reason != c.reason {
			t.Errorf("%s, %+v\n got %+v %v\nwant %v %d %s", c.on, c.event, d, err, c.start, c.line, c.reason)
		}
	}
	w := load(t, "  push:\n    paths: [a]\n  pull_request:")
	if !NeedsPaths(w, "push") || NeedsPaths(w, "pull_request") || NeedsPaths(w, "fork") {
		t.Error("which event needs paths")
	}
	w = load(t, "  push:\n    branches: ['v[12']")
	if d, err := Match(w, Event{Name: "push", Ref: "refs/heads/v1"}); err == nil || d.Start || d.Line != 3 {
		t.Errorf("a bad pattern: %+v, %v", d, err)
	}
}

func TestCall(t *testing.T) {
	w := load(t, `  workflow_call:
    inputs:
      level: {type: string, default: "${{ github.ref }}"}
      count: {type: number}
      force: {type: boolean}
      who: {type: string, required: true}`)
	fallback := func(text syntax.Text) (any, error) { return "<" + text.Value + ">", nil }
	o, err := Call(w, map[string]any{"who": "me", "count": "3"}, fallback)
	if err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(strings.Fields(expr.ToJSON(o)), ""); s != `{"level":"<${{github.ref}}>","count":3,"force":false,"who":"me"}` {
		t.Errorf("inputs %s", s)
	}
	for _, c := range []struct {
		given map[string]any
		want  string
	}{
		{map[string]any{}, "input 'who' is required, but not provided while calling"},
		{map[string]any{"who": "me", "force": "yes"}, `input 'force' must be true or false, not "yes"`},
		{map[string]any{"who": "me", "count": true}, `input 'count' must be a number, not "true"`},
		{map[string]any{"who": expr.Array{}}, "input 'who' must be a text, not an Array"},
		{map[string]any{"who": "me", "b": 1.0, "a": 1.0}, "invalid input, 'a' is not defined in the referenced workflow"},
	} {
		if _, err := Call(w, c.given, fallback); err == nil || err.Error() != c.want {
			t.Errorf("%v\n got %v\nwant %s", c.given, err, c.want)
		}
	}
	if _, err := Call(load(t, "  push:"), nil, nil); err != ErrNoCall {
		t.Errorf("not reusable: %v", err)
	}
}

// Patterns that take everything back match nothing; adding one that matches
// everything matches everything.
func TestPatternOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		patterns := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "!a", "*", "!*", "a/**", "!a/**", "**/b", "[ab]?", "a+"}), 0, 6).Draw(rt, "patterns")
		name := rapid.SampledFrom([]string{"a", "b", "aa", "a/b", "a/b/c", ""}).Draw(rt, "name")
		for last, want := range map[string]bool{"**": true, "!**": false} {
			if got, err := MatchAny(append(slices.Clone(patterns), last), name); err != nil || got != want {
				rt.Fatalf("%q: %v, %v", append(patterns, last), got, err)
			}
		}
		// Each pattern decides alone, the last that matches counts.
		want := false
		for _, p := range patterns {
			rest, negated := strings.CutPrefix(p, "!")
			if ok, _ := MatchAny([]string{rest}, name); ok {
				want = !negated
			}
		}
		if got, _ := MatchAny(patterns, name); got != want {
			rt.Fatalf("%q of %q is %v", patterns, name, got)
		}
	})
}

func TestInputs(t *testing.T) {
	w := load(t, `  workflow_dispatch:
    inputs:
      level: {type: choice, options: [low, high]}
      count: {type: number, default: 3}
      force: {type: boolean}
      who: {required: true}`)
	got, err := Inputs(w, map[string]string{"WHO": "me"})
	if err != nil || got["level"] != "low" || got["count"] != "3" || got["force"] != "false" || got["who"] != "me" {
		t.Errorf("%v %v", got, err)
	}
	if s := strings.Join(strings.Fields(expr.ToJSON(Typed(w, got))), ""); s != `{"level":"low","count":3,"force":false,"who":"me"}` {
		t.Errorf("typed %s", s)
	}
	for _, c := range []struct{ name, value, want string }{
		{"level", "mid", "not in the list of allowed values: low, high"},
		{"count", "x", "must be a number"}, {"force", "yes", "must be true or false"}, {"extra", "x", `unexpected inputs provided: "extra"`},
		{"who", "", "required input 'who' not provided"},
	} {
		given := map[string]string{"who": "me"}
		given[c.name] = c.value
		if _, err := Inputs(w, given); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
	}
	if _, err := Inputs(load(t, "  push:"), nil); err != ErrNoDispatch {
		t.Errorf("no trigger: %v", err)
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("docs/**/*.md", "docs/a.md")
	f.Add("[a-", "x")
	f.Add("!\\", "é")
	f.Fuzz(func(_ *testing.T, pattern, name string) { _, _ = MatchAny([]string{pattern}, name) })
}
