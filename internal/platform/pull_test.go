//go:build linux

package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v92/github"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// yard is a forge, a cluster without nodes, the GitOps engine, and what shows
// pull requests in between.
type yard struct {
	t       *testing.T
	plane   *plane.Cluster
	forge   *forge.Forge
	engine  *gitops.Engine
	server  *httptest.Server
	gh      *github.Client
	dir     string // work tree of contoso/shop
	state   string
	door    pullForge
	endShow func()
}

const yardWait = 40 * time.Second

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{t: t, plane: plane.StartCluster(t), state: t.TempDir()}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	book, err := journal.Open(t.Context(), filepath.Join(y.state, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = book.Close() })
	y.server = httptest.NewUnstartedServer(nil)
	address := "http://" + y.server.Listener.Addr().String()
	if y.forge, err = forge.New(forge.Config{Dir: filepath.Join(y.state, "forge"), URL: address}, forge.Deps{Log: log, Journal: book,
		Review: func(ctx context.Context, p forge.Proposed) ([]string, error) { return reviewOf(ctx, y.engine, p) },
	}); err != nil {
		t.Fatal(err)
	}
	y.server.Config.Handler = y.forge.Handler()
	y.server.Start()
	t.Cleanup(y.server.Close)
	y.door = pullForge{forge: y.forge, api: address + "/api/v3", client: y.server.Client()}
	y.start(y.forge.Run)
	y.await("the forge", y.forge.Ready())
	if y.engine, err = gitops.New(gitops.Config{}, gitops.Deps{Log: log, Journal: book, Rest: y.plane.Config, Repositories: repositories{y.forge},
		StateDir: filepath.Join(y.state, "gitops"), Forge: ownForge{y.door}}); err != nil {
		t.Fatal(err)
	}
	y.start(y.engine.Run)
	y.await("the engine", y.engine.Ready())
	y.show()
	token, err := y.forge.OwnerToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if y.gh, err = github.NewClient(github.WithAuthToken(token), github.WithEnterpriseURLs(address, address)); err != nil {
		t.Fatal(err)
	}
	y.dir = t.TempDir()
	u, _ := url.Parse(address + "/contoso/shop.git")
	u.User = url.UserPassword("x-access-token", token)
	y.git("init", "-q", "-b", "main")
	y.git("remote", "add", "origin", u.String())
	return y
}

// start runs something until the test ends; what it returns ends it earlier.
func (y *yard) start(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = func() {
		if ctx.Err() != nil {
			return
		}
		cancel()
		if err := <-done; err != nil {
			y.t.Errorf("Run: %v", err)
		}
	}
	y.t.Cleanup(stop)
	return stop
}

func (y *yard) await(what string, ready <-chan struct{}) {
	y.t.Helper()
	select {
	case <-ready:
	case <-time.After(yardWait):
		y.t.Fatalf("%s is not ready", what)
	}
}

// show starts what shows pull requests.
func (y *yard) show() {
	p := &pulls{log: slog.New(slog.NewTextHandler(y.t.Output(), nil)), events: y.forge, forge: y.door, engine: y.engine, file: filepath.Join(y.state, "pulls.json")}
	y.endShow = y.start(p.Run)
}

func (y *yard) tryGit(args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-c", "gc.auto=0", "-c", "credential.helper="}, args...)...)
	cmd.Dir = y.dir
	cmd.Env = append(git.Env(), "PATH="+os.Getenv("PATH"), "HOME="+y.dir, "GIT_ASKPASS=true", "NO_PROXY=*",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (y *yard) git(args ...string) string {
	y.t.Helper()
	out, err := y.tryGit(args...)
	if err != nil {
		y.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

// commit writes files and commits them.
func (y *yard) commit(files map[string]string) string {
	y.t.Helper()
	for name, content := range files {
		name = filepath.Join(y.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
			y.t.Fatal(err)
		}
	}
	y.git("add", "-A")
	y.git("commit", "-q", "-m", "Change")
	return y.git("rev-parse", "HEAD")
}

// application makes one that keeps overlays/<name> of main in namespace <name>.
func (y *yard) application(name string) {
	y.t.Helper()
	y.create(fmt.Sprintf(`apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: %[1]s, namespace: argocd}
spec:
  project: default
  source: {repoURL: https://github.com/contoso/shop, targetRevision: main, path: overlays/%[1]s}
  destination: {server: https://kubernetes.default.svc, namespace: %[1]s}
  syncPolicy: {automated: {prune: true}, syncOptions: [CreateNamespace=true]}
`, name))
}

func (y *yard) create(manifest string) {
	y.t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		y.t.Fatal(err)
	}
	resource := v1alpha1.ApplicationResource
	if o.GetKind() == "ApplicationSet" {
		resource = v1alpha1.ApplicationSetResource
	}
	if _, err := y.plane.Client.Resource(resource).Namespace("argocd").Create(y.t.Context(), o, metav1.CreateOptions{}); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) synced(name, commit string) {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(y.t.Context(), yardWait)
	defer cancel()
	v, err := y.engine.Applications().Wait(ctx, "argocd", name, func(v application.View) bool {
		return v.Commit == commit && v.Application.Status.Sync.Status == v1alpha1.SyncSynced
	})
	if err != nil {
		y.t.Fatalf("%s: %v: %+v", name, err, v.Application.Status.Conditions)
	}
}

// until waits for a condition that others bring about.
func (y *yard) until(what string, cond func() bool) {
	y.t.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(yardWait)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			y.t.Fatalf("waiting for %s", what)
		}
	}
}

func (y *yard) comments(number int) []*github.IssueComment {
	y.t.Helper()
	list, _, err := y.gh.Issues.ListComments(y.t.Context(), "contoso", "shop", number, nil)
	if err != nil {
		y.t.Fatal(err)
	}
	return list
}

// comment waits until the one comment has all of the texts.
func (y *yard) comment(number int, texts ...string) *github.IssueComment {
	y.t.Helper()
	var list []*github.IssueComment
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(yardWait); time.Now().Before(deadline); <-tick.C {
		list = y.comments(number)
		if len(list) == 1 && !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(list[0].GetBody(), s) }) {
			return list[0]
		}
	}
	for _, c := range list {
		y.t.Logf("%s: %s", c.GetUser().GetLogin(), c.GetBody())
	}
	y.t.Fatalf("%d comments on #%d, want one with %q", len(list), number, texts)
	return nil
}

// check waits for the check run of a commit.
func (y *yard) check(commit, conclusion string) *github.CheckRun {
	y.t.Helper()
	var run *github.CheckRun
	y.until("the check run of "+commit, func() bool {
		list, _, err := y.gh.Checks.ListCheckRunsForRef(y.t.Context(), "contoso", "shop", commit, nil)
		if err != nil {
			y.t.Fatal(err)
		}
		for _, r := range list.CheckRuns {
			if r.GetName() == previewCheck {
				run = r
			}
		}
		return run != nil
	})
	if run.GetConclusion() != conclusion {
		y.t.Errorf("check run: %s, want %s: %s", run.GetConclusion(), conclusion, run.GetOutput().GetSummary())
	}
	return run
}

func (y *yard) open(head string) *github.PullRequest {
	y.t.Helper()
	p, _, err := y.gh.PullRequests.Create(y.t.Context(), "contoso", "shop", github.CreatePullRequest{Title: new("Change " + head), Head: head, Base: "main"})
	if err != nil {
		y.t.Fatal(err)
	}
	return p
}

func configMap(value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  color: " + value + "\n"
}

const overlay = "resources: [settings.yaml]\n"

// twoEnvironments is a repository that two applications follow.
func (y *yard) twoEnvironments() (commit string) {
	commit = y.commit(map[string]string{
		"overlays/test/kustomization.yaml": overlay, "overlays/test/settings.yaml": configMap("red"),
		"overlays/prod/kustomization.yaml": overlay, "overlays/prod/settings.yaml": configMap("red"), "README.md": "hello\n",
	})
	y.git("push", "-q", "origin", "main")
	y.application("test")
	y.application("prod")
	y.synced("test", commit)
	y.synced("prod", commit)
	return commit
}

func TestPullRequestShowsWhatItChanges(t *testing.T) {
	y := newYard(t)
	y.twoEnvironments()

	y.git("checkout", "-q", "-b", "topic")
	y.commit(map[string]string{"overlays/test/settings.yaml": configMap("blue")})
	y.git("push", "-q", "origin", "topic")
	renders := y.engine.Renders()
	pull := y.open("topic")
	first := y.comment(pull.GetNumber(), "1 of 2 applications change: 1 object changed", "-  color: red\n+  color: blue", "`in-cluster/test`")
	if first.GetUser().GetLogin() != previewBot || first.GetUser().GetType() != "Bot" {
		t.Errorf("the comment is by %s (%s)", first.GetUser().GetLogin(), first.GetUser().GetType())
	}
	y.check(pull.GetHead().GetSHA(), "success")
	if n := y.engine.Renders() - renders; n != 1 {
		t.Errorf("%d renders, want that of the one application that changes, once", n)
	}

	// The next push replaces the comment.
	head := y.commit(map[string]string{"overlays/test/settings.yaml": configMap("green"), "overlays/prod/settings.yaml": configMap("green")})
	y.git("push", "-q", "origin", "topic")
	second := y.comment(pull.GetNumber(), "2 of 2 applications change", "+  color: green")
	if second.GetID() != first.GetID() || strings.Contains(second.GetBody(), "blue") {
		t.Errorf("comment %d is not %d with the new content", second.GetID(), first.GetID())
	}
	y.check(head, "success")

	// What does not render has its place.
	head = y.commit(map[string]string{"overlays/prod/settings.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n data: {}\n"})
	y.git("push", "-q", "origin", "topic")
	y.comment(pull.GetNumber(), "1 application cannot be synced", "overlays/prod/settings.yaml:4")
	run := y.check(head, "failure")
	remarks, _, err := y.gh.Checks.ListCheckRunAnnotations(t.Context(), "contoso", "shop", run.GetID(), nil)
	if err != nil || len(remarks) != 1 || remarks[0].GetPath() != "overlays/prod/settings.yaml" || remarks[0].GetStartLine() != 4 {
		t.Errorf("annotations %v, %v", remarks, err)
	}

	// What the cluster's schema does not have is found before the sync.
	head = y.commit(map[string]string{"overlays/prod/settings.yaml": configMap("green") + "datta: {}\n"})
	y.git("push", "-q", "origin", "topic")
	y.comment(pull.GetNumber(), "datta")
	y.check(head, "failure")

	// A push while nobody looks is not forgotten.
	y.endShow()
	head = y.commit(map[string]string{"overlays/prod/settings.yaml": configMap("violet")})
	y.git("push", "-q", "origin", "topic")
	y.show()
	last := y.comment(pull.GetNumber(), "+  color: violet")
	if last.GetID() != first.GetID() {
		t.Errorf("another comment: %d", last.GetID())
	}
	y.check(head, "success")

	// One that nobody reads gets a check run and no comment.
	y.git("checkout", "-q", "-b", "words", "main")
	head = y.commit(map[string]string{"README.md": "hello, world\n"})
	y.git("push", "-q", "origin", "words")
	words := y.open("words")
	y.check(head, "success")
	if list := y.comments(words.GetNumber()); len(list) != 0 {
		t.Errorf("comments %v", list)
	}
}

func TestPushThatDoesNotRenderIsRefused(t *testing.T) {
	y := newYard(t)
	y.twoEnvironments()
	y.commit(map[string]string{"overlays/prod/settings.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n data: {}\n"})
	if err := y.forge.SetReview(t.Context(), "contoso/shop", true); err != nil {
		t.Fatal(err)
	}
	out, err := y.tryGit("push", "-q", "origin", "main")
	if err == nil || !strings.Contains(out, "application prod: overlays/prod/settings.yaml:4:") {
		t.Errorf("pushed: %v\n%s", err, out)
	}
	y.commit(map[string]string{"overlays/prod/settings.yaml": configMap("blue")})
	commit := y.git("rev-parse", "HEAD")
	y.git("push", "-q", "origin", "main")
	y.synced("prod", commit)
	y.git("push", "-q", "origin", "main:other") // followed by nobody
}

func TestPreviewEnvironments(t *testing.T) {
	y := newYard(t)
	y.twoEnvironments()
	// As on github.com, with a token that is not here; and by the address of the forge.
	for name, api := range map[string]string{"public": "tokenRef: {secretName: missing, key: token}", "local": "api: http://api.github.localhost:8080"} {
		y.create(fmt.Sprintf(`apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: %[1]s, namespace: argocd}
spec:
  goTemplate: true
  generators:
  - pullRequest:
      github:
        owner: contoso
        repo: shop
        labels: [preview]
        %[2]s
      requeueAfterSeconds: 1800
  template:
    metadata: {name: '%[1]s-{{ .number }}', annotations: {head: '{{ .head_short_sha }} {{ .branch }} {{ .author }} {{ .labels }}'}}
    spec:
      project: default
      source: {repoURL: https://github.com/contoso/shop, targetRevision: '{{ .head_sha }}', path: overlays/test}
      destination: {server: https://kubernetes.default.svc, namespace: '%[1]s-{{ .number }}'}
      syncPolicy: {automated: {prune: true}, syncOptions: [CreateNamespace=true]}
`, name, api))
	}
	y.git("checkout", "-q", "-b", "topic")
	head := y.commit(map[string]string{"overlays/test/settings.yaml": configMap("blue")})
	y.git("push", "-q", "origin", "topic")
	pull := y.open("topic")
	if _, _, err := y.gh.Issues.AddLabelsToIssue(t.Context(), "contoso", "shop", pull.GetNumber(), []string{"preview"}); err != nil {
		t.Fatal(err)
	}
	names := []string{fmt.Sprintf("public-%d", pull.GetNumber()), fmt.Sprintf("local-%d", pull.GetNumber())}
	apps := y.plane.Client.Resource(v1alpha1.ApplicationResource).Namespace("argocd")
	for _, name := range names {
		y.synced(name, head)
		o, err := apps.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := o.GetAnnotations()["head"], head[:8]+" topic developer [preview]"; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	head = y.commit(map[string]string{"overlays/test/settings.yaml": configMap("green")})
	y.git("push", "-q", "origin", "topic")
	for _, name := range names {
		y.synced(name, head)
	}
	if _, _, err := y.gh.PullRequests.Edit(t.Context(), "contoso", "shop", pull.GetNumber(), &github.PullRequest{State: new("closed")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		y.until("the end of "+name, func() bool {
			_, err := apps.Get(t.Context(), name, metav1.GetOptions{})
			return err != nil
		})
	}
}
