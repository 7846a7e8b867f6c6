package application

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fakediscovery "k8s.io/client-go/discovery/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/project"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// pool is a repository with commits that a branch moves between.
type pool struct {
	repo    *git.Repository
	commits []string
}

// poolDirs are what applications read; "both" reads the one beside it too.
var poolDirs = []string{"a", "b", "both"}

func newPool(t *testing.T) *pool {
	repo, err := git.Init(t.Context(), t.TempDir(), "main")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(repo.Close)
	p := &pool{repo: repo}
	object := func(v int) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {v: \"%d\"}\n", v)
	}
	for i, files := range []map[string]string{
		{"a/c.yaml": object(1), "b/c.yaml": object(1), "both/kustomization.yaml": "resources: [../b]\n", "b/kustomization.yaml": "resources: [c.yaml]\n"},
		{"a/c.yaml": object(2)},
		{"b/c.yaml": object(2)},
		{"README.md": "read me"},
		{"a/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: c\n"},
		{"a/c.yaml": object(3), "b/c.yaml": object(3)},
		{"a/d.yaml": strings.Replace(object(1), "name: c", "name: d", 1)},
		{"both/kustomization.yaml": "resources: [../b]\nnamePrefix: x-\n"},
	} {
		var in strings.Builder
		fmt.Fprintf(&in, "commit refs/heads/pool\ncommitter Ada <ada@contoso.com> %d +0000\ndata 4\ntest\n", 1_700_000_000+i)
		if i > 0 {
			fmt.Fprintf(&in, "from %s\n", p.commits[i-1])
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", name, len(files[name]), files[name])
		}
		if _, err := repo.RunInput(t.Context(), []byte(in.String()), "fast-import", "--quiet", "--force"); err != nil {
			t.Fatal(err)
		}
		id, err := repo.Resolve(t.Context(), "refs/heads/pool")
		if err != nil {
			t.Fatal(err)
		}
		p.commits = append(p.commits, id)
	}
	return p
}

// stage is where the model plays: sources whose every step is a point where
// something else can happen.
type stage struct {
	*pool
	head  string
	point func() // between two steps of a pass
	fault func() bool
}

var errFault = errors.New("the disk did not answer")

func (s *stage) Resolve(context.Context, string, v1alpha1.ApplicationSource) (Revision, error) {
	s.point()
	r := Revision{Repo: "contoso/pool", Git: s.repo, ID: s.head}
	s.point() // moves may come before the controller knows what was resolved
	if s.fault() {
		return r, errFault
	}
	return r, nil
}

func (s *stage) Tree(_ context.Context, _ string, _ v1alpha1.ApplicationSource, r Revision) (*source.Tree, error) {
	s.point()
	if s.fault() {
		return nil, errFault
	}
	return source.NewTreeOf(unsteady{s, r.ID}, r.ID), nil
}

// unsteady are the files of a commit, which cannot always be read.
type unsteady struct {
	*stage
	commit string
}

func (u unsteady) ReadDir(ctx context.Context, dir string) ([]git.Entry, error) {
	if u.fault() {
		return nil, errFault
	}
	return u.repo.ReadDir(ctx, u.commit, dir)
}

func (u unsteady) Object(ctx context.Context, id string) ([]byte, error) {
	if u.fault() {
		return nil, errFault
	}
	o, err := u.repo.Object(ctx, id)
	return o.Data, err
}

func (s *stage) Remote(string) render.Remote { return nil }

func (s *stage) Follow(context.Context, string, string, ...v1alpha1.ApplicationSource) { s.point() }

// bare is a controller without a cluster.
func bare(sources Sources) *Controller {
	silent := make(chan struct{})
	close(silent)
	return &Controller{
		Config: Config{Namespace: "argocd", FieldManager: "argocd-controller"},
		Deps:   Deps{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Sources: sources, Renderer: render.New(), Now: time.Now},
		states: map[string]*state{}, repos: map[string]*repository{}, unresolved: map[string]bool{}, dependents: map[string]map[string]bool{}, set: DefaultPolicies(), compiled: map[string]compiled{},
		queue:  workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Millisecond, time.Millisecond)),
		outbox: make(chan outgoing, 1), silent: silent,
	}
}

func fakeMapper() *observe.Mapper {
	verbs := metav1.Verbs{"get", "list", "watch"}
	return observe.NewMapper(&fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{Resources: []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "configmaps", Kind: "ConfigMap", Namespaced: true, Verbs: verbs}}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "deployments", Kind: "Deployment", Namespaced: true, Verbs: verbs}}},
	}}}, time.Now)
}

func fakeCluster() *Cluster {
	return &Cluster{Server: LocalServer, Mapper: fakeMapper(), Capabilities: func() (string, []string) { return "1.37.0", nil }}
}

func appOf(dir string) *v1alpha1.Application {
	app := &v1alpha1.Application{}
	app.Namespace, app.Name, app.UID = "argocd", dir, "1"
	app.Spec.Source = &v1alpha1.ApplicationSource{RepoURL: "https://github.com/contoso/pool", TargetRevision: "main", Path: dir}
	app.Spec.Destination = v1alpha1.Destination{Server: LocalServer, Namespace: "default"}
	return app
}

// look is the part of a pass from the sources to the rendering.
func (c *Controller) lookAt(ctx context.Context, app *v1alpha1.Application, cluster *Cluster) (*rendered, error) {
	key := app.Namespace + "/" + app.Name
	p := &pass{Controller: c, key: key, st: c.state(key), app: *app, was: &app.Status, set: c.set, annotate: map[string]any{}, cluster: cluster, sources: sourcesOf(app)}
	p.st.params = paramsOf(app, nil)
	var err error
	if p.rules, err = project.Compile(&v1alpha1.AppProject{}); err != nil {
		return nil, err
	}
	defer p.looked()
	r, err := p.sourced(ctx)
	if r != nil && r.unsure {
		return nil, errors.New("the kinds of the cluster are not known")
	}
	return r, err
}

// outcome is what a rendering says, for comparisons.
func outcome(r *rendered, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var b strings.Builder
	for _, d := range r.objects {
		fmt.Fprintf(&b, "%s %x\n", d.key, d.digest)
	}
	return b.String()
}

// TestTrackModel plays pushes, their events and passes in any order. In the
// end every application must have what a rendering from nothing gives, although
// nobody looked at those that read no changed file.
func TestTrackModel(t *testing.T) {
	pool := newPool(t)
	cluster := fakeCluster()
	rapid.Check(t, func(t *rapid.T) {
		s := &stage{pool: pool, head: pool.commits[0], point: func() {}, fault: func() bool { return false }}
		c := bare(s)
		defer c.queue.ShutDown()
		var moves []Move
		push := func() {
			next := rapid.SampledFrom(pool.commits).Draw(t, "push")
			moves = append(moves, Move{Repo: "contoso/pool", Ref: "refs/heads/main", Before: s.head, After: next})
			s.head = next
		}
		deliver := func() {
			if len(moves) > 0 {
				m := moves[0]
				moves = moves[1:]
				c.Moved(t.Context(), m)
			}
		}
		working := false
		pass := func() {
			if c.queue.Len() == 0 {
				return
			}
			key, _ := c.queue.Get()
			defer c.queue.Done(key)
			working = true
			_, err := c.lookAt(t.Context(), appOf(strings.TrimPrefix(key, "argocd/")), cluster)
			working = false
			if errors.Is(err, errFault) {
				c.queue.Add(key) // as retryLater does
			}
		}
		s.point = func() {
			if !working {
				return
			}
			switch rapid.IntRange(0, 5).Draw(t, "meanwhile") {
			case 0:
				push()
			case 1:
				deliver()
			case 2:
				push()
				for len(moves) > 0 {
					deliver()
				}
			}
		}
		s.fault = func() bool { return working && rapid.IntRange(0, 19).Draw(t, "fault") == 0 }
		dirs := poolDirs[:rapid.IntRange(1, len(poolDirs)).Draw(t, "applications")]
		for _, dir := range dirs {
			c.queue.Add("argocd/" + dir)
		}
		t.Repeat(map[string]func(*rapid.T){
			"push":    func(*rapid.T) { push() },
			"deliver": func(*rapid.T) { deliver() },
			"pass":    func(*rapid.T) { pass() },
			"refresh": func(t *rapid.T) { c.lookAgain("argocd/" + rapid.SampledFrom(dirs).Draw(t, "application")) },
		})
		s.point, s.fault = func() {}, func() bool { return false }
		for len(moves) > 0 {
			deliver()
		}
		for n := 0; c.queue.Len() > 0; n++ {
			if n > 1000 {
				t.Fatalf("the passes do not end: %v", c.state("argocd/a").rendered.err)
			}
			pass()
		}
		for _, dir := range dirs {
			want := outcome(bare(s).lookAt(t.Context(), appOf(dir), cluster))
			if st := c.state("argocd/" + dir); outcome(st.rendered, st.rendered.err) != want {
				t.Errorf("%s has\n%s\nbut at the head there is\n%s", dir, outcome(st.rendered, st.rendered.err), want)
			}
			if got := c.state("argocd/" + dir).commit(); got != s.head {
				t.Errorf("%s is shown at %s, not at the head %s", dir, got, s.head)
			}
		}
	})
}
