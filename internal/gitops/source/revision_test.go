package source

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func TestResolve(t *testing.T) {
	ctx := context.Background()
	repo, work := open(t)
	ids := map[string]string{}
	for _, tag := range []string{"v1.0.0", "v1.1.0", "v1.2.0-rc.1", "v2.0.0", "both", "app/1.0.0", "app/1.3.0", "other/9.0.0", "notaversion", "1.5"} {
		ids[tag] = commitAll(t, work, map[string]string{"f": tag})
		gitRun(t, work, "tag", tag)
	}
	ids["branch"] = commitAll(t, work, map[string]string{"f": "branch"})
	gitRun(t, work, "branch", "both")
	gitRun(t, work, "branch", "1.x-dev") // is a constraint as well, and a tag satisfies it
	gitRun(t, work, "branch", "release-1")
	gitRun(t, work, "update-ref", "refs/pull/7/head", ids["v1.0.0"])
	ids["main"] = commitAll(t, work, map[string]string{"f": "main"})
	gitRun(t, work, "-c", "user.name=t", "-c", "user.email=t@t", "tag", "-a", "-m", "m", "annotated", ids["v2.0.0"])
	for _, c := range []struct{ target, prefix, want string }{
		{"", "", "main"}, {"HEAD", "", "main"}, {"main", "", "main"}, {"refs/heads/main", "", "main"},
		{"v1.0.0", "", "v1.0.0"}, {"refs/tags/v1.0.0", "", "v1.0.0"}, {"annotated", "", "v2.0.0"},
		{"both", "", "branch"}, {"refs/tags/both", "", "both"},
		{"refs/pull/7/head", "", "v1.0.0"}, {"pull/7/head", "", "v1.0.0"},
		{ids["v1.1.0"], "", "v1.1.0"}, {ids["v1.1.0"][:7], "", "v1.1.0"}, {strings.ToUpper(ids["v1.1.0"]), "", "v1.1.0"},
		{"1.5", "", "1.5"}, {"1.0.*", "", "v1.0.0"}, {"v1.*", "", "1.5"}, {"^1.0.0", "", "1.5"}, {">=1.0.0 <1.2.0", "", "v1.1.0"},
		{">=1.2.0-0 <1.2.0", "", "v1.2.0-rc.1"}, {"*", "", "v2.0.0"}, {"1.x-dev", "", "1.5"}, {"release-1", "", "branch"},
		{"1.0.0", "app/", "app/1.0.0"}, {"*", "app/", "app/1.3.0"}, {"~1.0", "app/", "app/1.0.0"}, {"main", "app/", "main"},
		{"none", "", ""}, {"3.*", "", ""}, {"9.*", "app/", ""}, {"main~1", "", ""}, {"main^{tree}", "", ""}, {"-x", "", ""},
		{strings.Repeat("a", 40), "", ""}, {"aaaaaaa", "", ""}, {"refs/heads/none", "", ""}, {"a b", "", ""},
	} {
		got, err := Revision{Target: c.target, TagPrefix: c.prefix}.Resolve(ctx, repo)
		switch {
		case c.want == "" && !errors.Is(err, git.ErrNotFound):
			t.Errorf("%q %q = %q, %v; want git.ErrNotFound", c.target, c.prefix, got, err)
		case c.want != "" && (err != nil || got != ids[c.want]):
			t.Errorf("%q %q = %q, %v; want %s (%s)", c.target, c.prefix, got, err, c.want, ids[c.want])
		}
	}
	if got, err := Resolve(ctx, repo, "both"); err != nil || got != ids["branch"] {
		t.Errorf("Resolve: %q, %v", got, err)
	}
}

func TestRevisionTracks(t *testing.T) {
	for _, c := range []struct {
		target, prefix, ref string
		want                bool
	}{
		{"1.*", "", "refs/tags/v9", true}, {"1.*", "", "refs/heads/main", false}, {"1.*", "", "refs/heads/1.*", true},
		{"1.*", "app/", "refs/tags/app/1.2", true}, {"1.*", "app/", "refs/tags/v1.2", false},
		{"1.0.0", "app/", "refs/tags/app/1.0.0", true}, {"1.0.0", "", "refs/tags/v1.0.0", false},
		{"pull/1/head", "", "refs/pull/1/head", true}, {"", "", "HEAD", true}, {"", "", "refs/heads/dev", false},
	} {
		if got := (Revision{c.target, c.prefix}).Tracks(c.ref, "refs/heads/main"); got != c.want {
			t.Errorf("%q %q tracks %s = %v", c.target, c.prefix, c.ref, got)
		}
	}
}
