package mirror

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

func rev(target string) source.Revision { return source.Revision{Target: target} }

func TestCommitAndMoves(t *testing.T) {
	o := newOrigin(t, false)
	o.create("o/r")
	first := o.commit("o/r", "main", "1", false)
	s, rec := newStore(t, Config{}, credential.Input{})
	url, ctx := o.url("o/r"), t.Context()
	get := func(target string) (string, error) {
		repo, id, err := s.Commit(ctx, "default", url, rev(target))
		if err == nil {
			if _, err := repo.Git.ReadFile(ctx, id, "file"); err != nil {
				t.Errorf("%s: %v", target, err)
			}
		}
		return id, err
	}
	refresh := func() {
		t.Helper()
		if err := s.Refresh(ctx, strings.TrimPrefix(o.http.URL, "http://")+"/o/r"); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"", "HEAD", "main", "refs/heads/main", first, first[:8]} {
		if id, err := get(target); err != nil || id != first {
			t.Errorf("%q = %q, %v", target, id, err)
		}
	}
	if _, err := get("none"); !errors.Is(err, git.ErrNotFound) {
		t.Errorf("a branch that is not there: %v", err)
	}
	lists := o.lists
	for range 20 {
		if _, err := get("main"); err != nil {
			t.Fatal(err)
		}
	}
	if o.lists != lists {
		t.Errorf("the server was asked again: %d times", o.lists-lists)
	}
	s.Track("app", Want{"default", url, rev("main")}, Want{"default", url, rev("v1.*")}, Want{"default", url, rev("later")})
	if moves := rec.take(); len(moves) != 0 {
		t.Errorf("moves at first sight: %v", moves)
	}
	second := o.commit("o/r", "main", "2", false)
	o.commit("o/r", "other", "x", false)
	refresh()
	name := strings.TrimPrefix(o.http.URL, "http://") + "/o/r"
	if moves := rec.take(); !slices.Equal(moves, []Move{{name, "refs/heads/main", first, second}}) {
		t.Errorf("moves after a push: %v", moves)
	}
	if id, err := get(""); err != nil || id != second {
		t.Errorf("HEAD = %q, %v", id, err)
	}
	if _, err := get("v1.*"); !errors.Is(err, git.ErrNotFound) {
		t.Errorf("no tag yet: %v", err)
	}
	o.git("o/r", "tag", "-a", "-m", "m", "v1.1.0", first)
	o.git("o/r", "tag", "v2.0.0", first)
	refresh()
	if moves := rec.take(); !slices.Equal(moves, []Move{{name, "refs/tags/v1.1.0", git.ZeroID, first}}) {
		t.Errorf("moves after a tag: %v", moves)
	}
	if id, err := get("v1.*"); err != nil || id != first {
		t.Errorf("v1.* = %q, %v", id, err)
	}
	forced := o.commit("o/r", "main", "3", true)
	later := o.commit("o/r", "later", "l", false)
	refresh()
	if moves := rec.take(); !slices.Equal(moves, []Move{{name, "refs/heads/later", git.ZeroID, later}, {name, "refs/heads/main", second, forced}}) {
		t.Errorf("moves after a force-push: %v", moves)
	}
	o.git("o/r", "update-ref", "-d", "refs/heads/later")
	o.git("o/r", "symbolic-ref", "HEAD", "refs/heads/other")
	refresh()
	moves := rec.take()
	if len(moves) != 2 || moves[0] != (Move{name, "refs/heads/later", later, git.ZeroID}) || moves[1].Ref != "refs/heads/other" || moves[1].Before != forced {
		t.Errorf("moves after a deletion and another default branch: %v", moves)
	}
	if _, err := get("later"); !errors.Is(err, git.ErrNotFound) {
		t.Errorf("deleted branch: %v", err)
	}
}

func TestOneListingServesAll(t *testing.T) {
	o := newOrigin(t, false)
	for i := range 4 {
		o.create(fmt.Sprint("r", i))
		for b := range 3 {
			o.commit(fmt.Sprint("r", i), fmt.Sprint("b", b), "x", false)
		}
	}
	s, _ := newStore(t, Config{Parallel: 2}, credential.Input{})
	var wg sync.WaitGroup
	for n := range 120 {
		wg.Go(func() {
			if _, _, err := s.Commit(t.Context(), fmt.Sprint("p", n%5), o.url(fmt.Sprint("r", n%4)), rev(fmt.Sprint("b", n%3))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if o.lists > 4*6 { // per repository a few rounds of listing and fetching
		t.Errorf("%d listings for 120 readers of 4 repositories", o.lists)
	}
	t.Logf("%d listings, %d requests at a time", o.lists, o.peak)
	if o.peak > 2 {
		t.Errorf("%d git processes at a time", o.peak)
	}
}

func TestSignIn(t *testing.T) {
	o := newOrigin(t, false)
	o.create("private")
	want := o.commit("private", "main", "1", false)
	o.set(func() { o.user, o.password = "robot", "hunter2" })
	url := o.url("private")
	try := func(project string, in credential.Input) error {
		s, _ := newStore(t, Config{}, in)
		_, id, err := s.Commit(t.Context(), project, url, rev("main"))
		if err == nil && id != want {
			t.Errorf("commit %s", id)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is shown: %v", err)
		}
		return err
	}
	good := repoSecret("url", url, "username", "robot", "password", "hunter2")
	if err := try("", credential.Input{Secrets: []credential.Secret{good}}); err != nil {
		t.Error(err)
	}
	if err := try("", credential.Input{}); !errors.Is(err, ErrRefused) {
		t.Errorf("nobody: %v", err)
	}
	if err := try("", credential.Input{Secrets: []credential.Secret{repoSecret("url", url, "username", "robot", "password", "hunter22")}}); !errors.Is(err, ErrRefused) {
		t.Errorf("wrong password: %v", err)
	}
	good.Data["project"] = []byte("team")
	in := credential.Input{Secrets: []credential.Secret{good}}
	s, _ := newStore(t, Config{}, in)
	if _, _, err := s.Commit(t.Context(), "team", url, rev("main")); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Commit(t.Context(), "other", url, rev("main")); !errors.Is(err, ErrRefused) {
		t.Errorf("another project reads the mirror of a project: %v", err)
	}
	if _, _, err := s.Commit(t.Context(), "other", url, rev(want)); err == nil {
		t.Error("another project reads a commit by its id")
	}
}

func TestTLS(t *testing.T) {
	o := newOrigin(t, true)
	o.create("r")
	o.commit("r", "main", "1", false)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.http.Certificate().Raw}))
	host := strings.Split(strings.TrimPrefix(o.http.URL, "https://"), ":")[0]
	for _, c := range []struct {
		name string
		in   credential.Input
		want error
	}{
		{"unknown", credential.Input{}, ErrUntrusted},
		{"certificate", credential.Input{TLSCerts: map[string]string{host: ca}}, nil},
		{"insecure", credential.Input{Secrets: []credential.Secret{repoSecret("url", o.url("r"), "insecure", "true")}}, nil},
	} {
		s, _ := newStore(t, Config{}, c.in)
		if _, _, err := s.Commit(t.Context(), "", o.url("r"), rev("main")); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestVanishedRepositoryRecovers(t *testing.T) {
	o := newOrigin(t, false)
	o.create("r")
	first := o.commit("r", "main", "1", false)
	s, rec := newStore(t, Config{Interval: 30 * time.Millisecond, Jitter: time.Millisecond}, credential.Input{})
	url := o.url("r")
	if _, _, err := s.Commit(t.Context(), "", url, rev("main")); err != nil {
		t.Fatal(err)
	}
	s.Track("app", Want{"", url, rev("main")})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	await := func(what string, ok func() bool) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for {
			rec.mu.Lock()
			good := ok()
			rec.mu.Unlock()
			if good {
				return
			}
			select {
			case <-rec.told:
			case <-limit:
				t.Fatalf("waited for %s; health %v moves %v", what, rec.health, rec.moves)
			}
		}
	}
	if err := os.Rename(filepath.Join(o.root, "r.git"), filepath.Join(o.root, "away.git")); err != nil {
		t.Fatal(err)
	}
	await("an error", func() bool { return len(rec.health) == 1 && strings.Contains(rec.health[0], ErrUnknown.Error()) })
	if _, _, err := s.Commit(t.Context(), "", url, rev("main")); !errors.Is(err, ErrUnknown) {
		t.Errorf("while it is away: %v", err)
	}
	if _, _, err := s.Commit(t.Context(), "", url, rev(first)); err != nil {
		t.Errorf("a commit that is here: %v", err)
	}
	if err := os.Rename(filepath.Join(o.root, "away.git"), filepath.Join(o.root, "r.git")); err != nil {
		t.Fatal(err)
	}
	second := o.commit("r", "main", "2", false)
	await("recovery", func() bool { return len(rec.health) == 2 && strings.HasSuffix(rec.health[1], "<nil>") })
	await("the move", func() bool { return slices.ContainsFunc(rec.moves, func(m Move) bool { return m.After == second }) })
	s.Track("app")
	o.set(func() { o.lists = 0 })
	if s.Pushed("https://elsewhere.example/r") || !s.Pushed(strings.TrimSuffix(url, ".git")) {
		t.Error("Pushed does not know its repositories")
	}
}

func TestDamagedMirrorIsMadeAnew(t *testing.T) {
	damages := map[string]func(dir string) error{
		"no objects": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "objects")) },
		"no config":  func(dir string) error { return os.Remove(filepath.Join(dir, "config")) },
		"no HEAD":    func(dir string) error { return os.Remove(filepath.Join(dir, "HEAD")) },
		"empty objects": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "objects")), os.Mkdir(filepath.Join(dir, "objects"), 0o700))
		},
		"cut objects": func(dir string) error {
			return filepath.WalkDir(filepath.Join(dir, "objects"), func(p string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				return errors.Join(os.Chmod(p, 0o600), os.Truncate(p, 5))
			})
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, false)
			o.create("r")
			o.commit("r", "main", "1", false)
			s, _ := newStore(t, Config{}, credential.Input{})
			url := o.url("r")
			repo, _, err := s.Commit(t.Context(), "", url, rev("main"))
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(repo.Git.Dir()); err != nil {
				t.Fatal(err)
			}
			repo.Git.Reset()
			s.Suspect(repo.Git)
			second := o.commit("r", "main", "2", false)
			again, id, err := s.Commit(t.Context(), "", url, rev("main"))
			if err != nil || id != second || again.Git != repo.Git {
				t.Fatalf("%q, %v", id, err)
			}
			if data, err := repo.Git.ReadFile(t.Context(), id, "file"); err != nil || string(data) != "2" {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

func TestRestartKeepsMirrors(t *testing.T) {
	o := newOrigin(t, false)
	o.create("r")
	first := o.commit("r", "main", "1", false)
	dir := t.TempDir()
	s, _ := newStore(t, Config{Dir: dir}, credential.Input{})
	if _, _, err := s.Commit(t.Context(), "", o.url("r"), rev("main")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	again, rec := newStore(t, Config{Dir: dir}, credential.Input{})
	o.set(func() { o.down = true })
	if _, id, err := again.Commit(t.Context(), "", o.url("r"), rev(first)); err != nil || id != first {
		t.Errorf("a commit without the server: %q, %v", id, err)
	}
	if _, _, err := again.Commit(t.Context(), "", o.url("r"), rev("main")); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a branch without the server: %v", err)
	}
	o.set(func() { o.down = false })
	second := o.commit("r", "main", "2", false)
	again.Track("app", Want{"", o.url("r"), rev("main")})
	again.Pushed(o.url("r"))
	if err := again.Refresh(t.Context(), strings.TrimPrefix(o.http.URL, "http://")+"/r"); err != nil {
		t.Fatal(err)
	}
	if moves := rec.take(); len(moves) != 1 || moves[0].Before != first || moves[0].After != second {
		t.Errorf("what moved while it was stopped: %v", moves)
	}
}

func TestDepthEmptyAndSize(t *testing.T) {
	o := newOrigin(t, false)
	o.create("deep")
	for i := range 5 {
		o.commit("deep", "main", fmt.Sprint(i), false)
	}
	s, _ := newStore(t, Config{}, credential.Input{Secrets: []credential.Secret{repoSecret("url", o.url("deep"), "depth", "1")}})
	repo, id, err := s.Commit(t.Context(), "", o.url("deep"), rev("main"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := repo.Git.Run(t.Context(), "rev-list", "--count", id); err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Errorf("%s commits, %v", out, err)
	}
	o.create("empty")
	if _, err := s.Open(t.Context(), "", o.url("empty")); err != nil {
		t.Errorf("open an empty repository: %v", err)
	}
	if _, _, err := s.Commit(t.Context(), "", o.url("empty"), rev("")); !errors.Is(err, git.ErrNotFound) {
		t.Errorf("HEAD of an empty repository: %v", err)
	}
	for _, url := range []string{"file:///etc", "ext::sh", "oci://h/r", "h/r", "-u", ""} {
		if _, err := s.Open(t.Context(), "", url); err == nil {
			t.Errorf("%q was opened", url)
		}
	}
}

func TestSweepRemovesWhatNobodyWants(t *testing.T) {
	o := newOrigin(t, false)
	o.create("r")
	o.commit("r", "main", "1", false)
	now := time.Now()
	dir := t.TempDir()
	s := New(Config{Dir: dir, KeepUnused: time.Hour}, Deps{Credential: (*credential.Store)(nil).For, Now: func() time.Time { return now }})
	defer s.Close()
	repo, _, err := s.Commit(t.Context(), "", o.url("r"), rev("main"))
	if err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(dir, "0123.git")
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Track("app", Want{"", o.url("r"), rev("main")})
	now = now.Add(2 * time.Hour)
	s.sweep()
	if _, err := os.Stat(repo.Git.Dir()); err != nil {
		t.Errorf("a mirror that is tracked: %v", err)
	}
	if _, err := os.Stat(stray); err == nil {
		t.Error("a folder of an earlier time is kept")
	}
	s.Track("app")
	now = now.Add(2 * time.Hour)
	s.sweep()
	if _, err := os.Stat(repo.Git.Dir()); err == nil || len(s.mirrors) != 0 {
		t.Error("a mirror that nobody wants is kept")
	}
}

func FuzzAdvertisement(f *testing.F) {
	id := strings.Repeat("a", 40)
	f.Add([]byte("ref: refs/heads/main\tHEAD\n" + id + "\tHEAD\n" + id + "\trefs/heads/main\n" + id + "\trefs/tags/v1^{}\n"))
	f.Add([]byte(id + " refs/heads/main\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAdvertisement(data)
		if err != nil {
			return
		}
		for ref, id := range a.refs {
			if !strings.HasPrefix(ref, "refs/") || len(id) < 40 {
				t.Errorf("%q %q", ref, id)
			}
		}
		a.ref(rev("1.*"))
	})
}
