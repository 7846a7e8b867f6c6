package trigger

import (
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
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
		d, err := MatchPush(load(t, c.on), Push{Ref: c.ref, Message: c.message, Paths: strings.Fields(c.paths)})
		if err != nil || d.Start != c.start || d.Reason != c.reason {
			t.Errorf("%s, %s: %+v %v", c.on, c.ref, d, err)
		}
	}
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
