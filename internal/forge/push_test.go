package forge

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestFirstPushCreatesAndIsTold(t *testing.T) {
	h := newHouse(t)
	dir := h.work("contoso/storefront", h.token)
	out := h.git(dir, "push", "origin", "main")
	if !strings.Contains(out, "remote: lockstep: created contoso/storefront") {
		t.Errorf("the pusher isn't told that the repository is new:\n%s", out)
	}
	first := h.git(dir, "rev-parse", "HEAD")
	second := h.commit(dir, "web/main.go", "package main\n", "Serve pages\n\nBody.")
	h.git(dir, "push", "-q", "origin", "main", "HEAD:refs/heads/feature/x")

	events := h.pushes("contoso/storefront")
	if len(events) != 3 {
		t.Fatalf("%d events: %+v", len(events), events)
	}
	for i, want := range []struct{ ref, before, after, message string }{
		{"refs/heads/main", git.ZeroID, first, "Add a read-me"},
		{"refs/heads/main", first, second, "Serve pages"},
		{"refs/heads/feature/x", git.ZeroID, second, "Serve pages"},
	} {
		e := events[i]
		took, err := time.ParseDuration(e.Data[DataDuration])
		if e.Stage != journal.StagePush || e.Status != journal.StatusSucceeded || e.Subject != want.ref || e.Commit != want.after ||
			e.Message != want.message || e.Data[journal.DataRef] != want.ref || e.Data[journal.DataBefore] != want.before ||
			e.Data[DataAfter] != want.after || e.Data[journal.DataActor] != "developer" || e.Data[journal.DataCause] != "" ||
			err != nil || took <= 0 {
			t.Errorf("event %d: %+v; want %+v", i, e, want)
		}
	}
	if events[1].Data[DataPush] != events[2].Data[DataPush] || events[0].Data[DataPush] == events[1].Data[DataPush] {
		t.Error("the refs of one push must share its id, and no others")
	}

	// A public repository is read without a token, with .git and without.
	for _, u := range []string{h.url("contoso/storefront", ""), strings.TrimSuffix(h.url("Contoso/Storefront", ""), ".git")} {
		clone := filepath.Join(t.TempDir(), "clone")
		h.git(t.TempDir(), "clone", "-q", u, clone)
		if got := h.git(clone, "rev-parse", "HEAD"); got != second {
			t.Errorf("clone of %s is at %s", u, got)
		}
	}
	// What is up to date moves nothing.
	h.git(dir, "push", "-q", "origin", "main")
	if n := len(h.pushes("contoso/storefront")); n != 3 {
		t.Errorf("%d events after a push of nothing", n)
	}
	repo, err := h.Repository(t.Context(), "contoso/storefront")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := repo.ReadFile(t.Context(), "refs/heads/main", "web/main.go"); err != nil || string(data) != "package main\n" {
		t.Errorf("read through the handle: %q, %v", data, err)
	}
}

func TestTagsDeletionsAndForce(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	first := h.git(dir, "rev-parse", "HEAD")
	h.git(dir, "tag", "-a", "-m", "release", "v1")
	tag := h.git(dir, "rev-parse", "v1")
	h.git(dir, "push", "-q", "origin", "main", "v1", "main:old")
	h.git(dir, "commit", "-q", "--amend", "-m", "Rewritten")
	rewritten := h.git(dir, "rev-parse", "HEAD")
	h.git(dir, "push", "-q", "--force", "origin", "main")
	h.git(dir, "push", "-q", "origin", ":old")
	if out, err := h.tryGit(dir, "push", "origin", ":main"); err == nil || !strings.Contains(out, "remote rejected") {
		t.Errorf("the default branch could be deleted: %v\n%s", err, out)
	}
	events := h.pushes("a/b")
	if len(events) != 5 {
		t.Fatalf("%d events: %+v", len(events), events)
	}
	byRef := map[string]journal.Event{}
	for _, e := range events {
		byRef[e.Subject] = e
	}
	if e := byRef["refs/tags/v1"]; e.Commit != first || e.Data[DataAfter] != tag {
		t.Errorf("tag: %+v", e)
	}
	if e := byRef["refs/heads/main"]; e.Commit != rewritten || e.Data[journal.DataBefore] != first {
		t.Errorf("forced push: %+v", e)
	}
	if e := byRef["refs/heads/old"]; e.Status != journal.StatusInfo || e.Commit != "" || e.Data[DataAfter] != git.ZeroID || e.Data[journal.DataBefore] != first {
		t.Errorf("deletion: %+v", e)
	}
}

func TestHeadFollowsFirstBranch(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main:trunk")
	clone := filepath.Join(t.TempDir(), "clone")
	h.git(dir, "clone", "-q", h.url("a/b", ""), clone)
	if got := h.git(clone, "branch", "--show-current"); got != "trunk" {
		t.Errorf("the clone is on %q", got)
	}
	// It stays, even when main comes.
	h.git(dir, "push", "-q", "origin", "main")
	if out := h.git(dir, "ls-remote", "--symref", "origin", "HEAD"); !strings.Contains(out, "ref: refs/heads/trunk") {
		t.Errorf("HEAD: %s", out)
	}
}

func TestRefusedPushes(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *Deps) { c.MaxPackBytes = 300 << 10 })
	dir := h.work("a/b", h.token)
	out, err := h.tryGit(dir, "push", "origin", "main:refs/pull/1/head")
	if err == nil || !strings.Contains(out, "remote: error: only branches and tags can be pushed (refs/heads/, refs/tags/), not refs/pull/1/head") {
		t.Errorf("push to refs/pull: %v\n%s", err, out)
	}
	h.git(dir, "push", "-q", "origin", "main")
	h.commit(dir, "noise", randomText(1<<20), "Too large")
	for _, buffer := range []string{"1000", "100000000"} { // chunked, and with a length
		out, err = h.tryGit(dir, "-c", "http.postBuffer="+buffer, "push", "origin", "main")
		if err == nil || !strings.Contains(out, "remote: error: the push has more than 300 KiB") || !strings.Contains(out, "! [remote rejected] main -> main") {
			t.Errorf("push over the limit (post buffer %s): %v\n%s", buffer, err, out)
		}
	}
	if n := len(h.pushes("a/b")); n != 1 {
		t.Errorf("%d events; only one push was taken", n)
	}
	if left, err := h.leftovers(t.Context(), &repository{key: "a/b"}); err != nil || len(left) != 0 {
		t.Errorf("left of refused pushes: %v, %v", left, err)
	}
}

func randomText(n int) string {
	var out strings.Builder
	x := uint64(88172645463325252)
	for out.Len() < n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		fmt.Fprintf(&out, "%016x", x*2685821657736338717)
	}
	return out.String()[:n]
}

// TestLargePush goes through the file on disk and, by its small post buffer,
// through chunked requests.
func TestLargePush(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.commit(dir, "big", randomText(3<<20), "Large")
	h.git(dir, "-c", "http.postBuffer=1000", "push", "-q", "origin", "main")
	h.git(dir, "fetch", "-q", "origin")
	if n := len(h.pushes("a/b")); n != 1 {
		t.Errorf("%d events", n)
	}
	if left, _ := os.ReadDir(h.tmp()); len(left) != 1 { // the empty repository
		t.Errorf("left in the temporary directory: %v", left)
	}
}

func TestShallowAndPartialClones(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	for i := range 5 {
		h.commit(dir, "file", fmt.Sprint(i), fmt.Sprint("Commit ", i))
	}
	head := h.git(dir, "rev-parse", "HEAD")
	old := h.git(dir, "rev-parse", "HEAD~3")
	h.git(dir, "push", "-q", "origin", "main")
	for _, version := range []string{"0", "2"} {
		shallow, partial := filepath.Join(t.TempDir(), "s"), filepath.Join(t.TempDir(), "p")
		h.git(dir, "-c", "protocol.version="+version, "clone", "-q", "--depth", "1", h.url("a/b", ""), shallow)
		if n := h.git(shallow, "rev-list", "--count", "HEAD"); n != "1" {
			t.Errorf("shallow clone has %s commits", n)
		}
		h.git(shallow, "fetch", "-q", "--deepen", "2")
		if n := h.git(shallow, "rev-list", "--count", "HEAD"); n != "3" {
			t.Errorf("deepened clone has %s commits", n)
		}
		h.git(dir, "-c", "protocol.version="+version, "clone", "-q", "--filter=blob:none", h.url("a/b", ""), partial)
		if missing := h.git(partial, "rev-list", "--objects", "--missing=print", "--all"); !strings.Contains(missing, "?") {
			t.Error("the partial clone has every blob")
		}
		// Any commit can be fetched by its id, as actions/checkout does.
		h.git(partial, "-c", "protocol.version="+version, "fetch", "-q", "--depth", "1", "origin", old)
	}
	// A commit made in a shallow clone can be pushed.
	shallow := filepath.Join(t.TempDir(), "s")
	h.git(dir, "clone", "-q", "--depth", "1", h.url("a/b", h.token), shallow)
	h.commit(shallow, "file", "write-back", "Pin the digest")
	h.git(shallow, "push", "-q", "origin", "HEAD:main")
	if events := h.pushes("a/b"); len(events) != 2 || events[1].Data[journal.DataBefore] != head {
		t.Errorf("events: %+v", events)
	}
}

func TestJobToken(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	cause := h.git(dir, "rev-parse", "HEAD")
	job, revoke, err := h.IssueToken(t.Context(), TokenSpec{
		User: "github-actions[bot]", Repo: "A/b", Write: true, Cause: cause, Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.git(dir, "remote", "set-url", "origin", h.url("a/b", job))
	h.commit(dir, "pin", "sha256:1", "Pin")
	h.git(dir, "push", "-q", "origin", "main")
	events := h.pushes("a/b")
	if e := events[len(events)-1]; e.Data[journal.DataActor] != "github-actions[bot]" || e.Data[journal.DataCause] != cause {
		t.Errorf("event: %+v", e)
	}
	if out, err := h.tryGit(dir, "push", h.url("a/other", job), "main"); err == nil || !strings.Contains(out, "there is no repository a/other") {
		t.Errorf("the job's token made a repository: %v\n%s", err, out)
	}
	if err := revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.commit(dir, "pin", "sha256:2", "Pin again")
	if out, err := h.tryGit(dir, "push", "origin", "main"); err == nil || !strings.Contains(out, "Authentication failed") {
		t.Errorf("a revoked token pushed: %v\n%s", err, out)
	}
}

func TestAccess(t *testing.T) {
	now := time.Now()
	h := newHouse(t, func(_ *Config, d *Deps) { d.Now = func() time.Time { return now } })
	for _, spec := range []RepositorySpec{{Name: "a/public"}, {Name: "a/private", Private: true}, {Name: "a/other", Private: true}} {
		if err := h.CreateRepository(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	read := h.issue(TokenSpec{User: "reader"})
	scoped := h.issue(TokenSpec{User: "job", Repo: "a/private", Write: true})
	ownNone := h.issue(TokenSpec{User: "job", Repo: "a/none", Write: true})
	short := h.issue(TokenSpec{User: "job", Expires: now.Add(time.Minute)})
	now = now.Add(2 * time.Minute)
	const fetch, push = "/info/refs?service=git-upload-pack", "/info/refs?service=git-receive-pack"
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/a/public.git" + fetch, "", 200}, {"/a/public" + fetch, "", 200}, {"/A/Public.git" + fetch, "", 200},
		{"/a/public.git" + fetch, "wrong", 401}, {"/a/public.git" + fetch, short, 401}, {"/a/public.git" + push, "", 401},
		{"/a/public.git" + push, read, 403}, {"/a/public.git" + push, scoped, 403}, {"/a/public.git" + push, h.token, 200},
		{"/a/private.git" + fetch, "", 401}, {"/a/private.git" + fetch, read, 200}, {"/a/private.git" + fetch, scoped, 200},
		{"/a/private.git" + push, scoped, 200}, {"/a/other.git" + fetch, scoped, 404}, {"/a/other.git" + push, scoped, 404},
		{"/a/none.git" + fetch, "", 401}, {"/a/none.git" + fetch, h.token, 404}, {"/a/none.git" + push, h.token, 200},
		{"/a/none.git" + push, ownNone, 404}, {"/a/none.git" + push, read, 404}, {"/a/none.git" + push, scoped, 404},
		{"/a/public.git/info/refs", "", 404}, {"/a/public.git/info/refs?service=git-shell", "", 404}, {"/a/public.git/HEAD", "", 404},
		{"/a/public.git/git-upload-pack", "", 404}, {"/a/public", "", 200}, {"/", "", 404}, {"/a", "", 404},
		{"/a/..%2f..%2fforge.db" + fetch, "", 404}, {"/../a/public" + fetch, h.token, 404},
		{"/api/v3/user", "", 401}, {"/api/v3/user", "wrong", 401}, {"/api/v3/user", short, 401}, {"/api/v3/user", read, 200},
		{"/api/v3/repos/a/private", "", 404}, {"/api/v3/repos/a/private", scoped, 200}, {"/api/v3/repos/a/other", scoped, 404},
	} {
		if got := h.status(http.MethodGet, c.path, c.token); got != c.want {
			t.Errorf("GET %s with %q: %d; want %d", c.path, c.token, got, c.want)
		}
	}
	if names, _ := h.Repositories(t.Context()); len(names) != 3 {
		t.Errorf("asking for refs has made a repository: %v", names)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+"/a/private.git"+fetch, nil)
	req.SetBasicAuth(read, "x-oauth-basic")
	res, err := h.server.Client().Do(req)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("the token as user name: %v, %v", res, err)
	}
	_ = res.Body.Close()
	data, err := os.ReadFile(filepath.Join(h.cfg.Dir, "forge.db"))
	wal, _ := os.ReadFile(filepath.Join(h.cfg.Dir, "forge.db-wal"))
	if err != nil || bytes.Contains(append(data, wal...), []byte(read)) {
		t.Errorf("a token is stored in clear: %v", err)
	}
	if info, err := os.Stat(filepath.Join(h.cfg.Dir, "owner-token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the owner's token: %v, %v", info, err)
	}
	again, err := h.OwnerToken(t.Context())
	if err != nil || again != h.token {
		t.Errorf("the owner's token changed: %v", err)
	}
}

func TestAskForToken(t *testing.T) {
	h := newHouse(t)
	res, err := h.server.Client().Get(h.server.URL + "/a/b.git/info/refs?service=git-receive-pack")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	if !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic realm=") || !strings.Contains(string(body), "lockstep env") {
		t.Errorf("%v %s", res.Header, body)
	}
}

func TestConcurrentPushes(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	const n = 6
	won := make([]bool, n)
	clones := make([]string, n)
	for i := range n {
		clones[i] = filepath.Join(t.TempDir(), "c")
		h.git(dir, "clone", "-q", h.url("a/b", h.token), clones[i])
		h.commit(clones[i], "file", fmt.Sprint(i), fmt.Sprint("Commit ", i))
	}
	var wg sync.WaitGroup
	for i, clone := range clones {
		wg.Go(func() {
			_, err := h.tryGit(clone, "push", "-q", "origin", "HEAD:main")
			won[i] = err == nil
			if out, err := h.tryGit(clone, "push", "-q", "origin", fmt.Sprint("HEAD:branch-", i)); err != nil {
				t.Errorf("push of a branch of its own: %v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	winners := 0
	for _, w := range won {
		if w {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d pushes from the same state won", winners)
	}
	seen := map[string]string{}
	for _, e := range h.pushes("a/b") {
		if before := idOrZero(seen[e.Subject]); e.Data[journal.DataBefore] != before {
			t.Errorf("%s: event says %s before, but it was at %s", e.Subject, e.Data[journal.DataBefore], before)
		}
		seen[e.Subject] = e.Commit
	}
	repo, _ := h.Repository(t.Context(), "a/b")
	refs, err := repo.Refs(t.Context())
	if err != nil || len(refs) != n+1 {
		t.Fatalf("refs: %v, %v", refs, err)
	}
	for ref, id := range refs {
		if seen[ref] != id {
			t.Errorf("%s is at %s; its last event says %s", ref, id, seen[ref])
		}
	}
}

// TestCrash stops a push at each point between two durable steps, starts anew
// and wants each event once, with the actor of the push.
func TestCrash(t *testing.T) {
	for _, c := range []struct {
		name         string
		moved, told  bool
		recorded     bool
		actor, cause string
		events       int
	}{
		{name: "before git ran", recorded: true, events: 1},
		{name: "after git, before the journal", recorded: true, moved: true, actor: "ada", cause: "c0ffee", events: 2},
		{name: "after the journal, before forgetting", recorded: true, moved: true, told: true, actor: "ada", cause: "c0ffee", events: 2},
		{name: "moved without a push", moved: true, actor: ActorUnknown, events: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			dir := h.work("a/b", h.token)
			h.git(dir, "push", "-q", "origin", "main")
			before := h.git(dir, "rev-parse", "HEAD")
			after := h.commit(dir, "file", "x", "Second")
			repo, err := h.find(t.Context(), "a/b")
			if err != nil {
				t.Fatal(err)
			}
			if c.moved {
				h.git(dir, "push", "-q", repo.git.Dir(), "main") // past the forge
			}
			if c.recorded {
				p, err := h.recordPush(t.Context(), repo, "ada", "c0ffee", []refCommand{{"refs/heads/main", before, after}})
				if err != nil {
					t.Fatal(err)
				}
				if c.told {
					if err := h.tell(t.Context(), repo, p, refCommand{"refs/heads/main", before, after}); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 2 { // the second start must find nothing to do
				h.stop()
				h = openHouse(t, h.dir)
			}
			events := h.pushes("a/b")
			if len(events) != c.events {
				t.Fatalf("%d events; want %d: %+v", len(events), c.events, events)
			}
			if e := events[len(events)-1]; c.moved && (e.Commit != after || e.Data[journal.DataBefore] != before ||
				e.Data[journal.DataActor] != c.actor || e.Data[journal.DataCause] != c.cause || e.Message != "Second") {
				t.Errorf("event: %+v", e)
			}
			if left, err := h.leftovers(t.Context(), repo); err != nil || len(left) != 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
			third := h.commit(dir, "file", "y", "Third")
			h.git(dir, "remote", "set-url", "origin", h.url("a/b", h.token))
			h.git(dir, "push", "-q", "origin", "main")
			if events = h.pushes("a/b"); events[len(events)-1].Commit != third || len(events) != c.events+1 {
				t.Errorf("the next push: %+v", events)
			}
		})
	}
}

func TestLocksOfAKilledGitAreRemoved(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main", "main:feature/x")
	for _, name := range []string{"HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "refs/heads/feature/x.lock"} {
		if err := os.WriteFile(filepath.Join(h.Forge.dir("a/b"), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.stop()
	h = openHouse(t, h.dir)
	h.git(dir, "remote", "set-url", "origin", h.url("a/b", h.token))
	h.commit(dir, "file", "x", "Second")
	h.git(dir, "push", "-q", "origin", "main", "main:feature/x")
}

// failingJournal refuses appends while broken.
type failingJournal struct {
	*journal.Journal
	mu     sync.Mutex
	broken bool
}

func (j *failingJournal) Append(ctx context.Context, e journal.Event) (int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return 0, errors.New("disk full")
	}
	return j.Journal.Append(ctx, e)
}

func TestJournalThatFailsIsToldLater(t *testing.T) {
	j := &failingJournal{}
	h := newHouse(t, func(_ *Config, d *Deps) {
		j.Journal = d.Journal.(*journal.Journal)
		d.Journal = j
	})
	dir := h.work("a/b", h.token)
	j.mu.Lock()
	j.broken = true
	j.mu.Unlock()
	first := h.git(dir, "rev-parse", "HEAD")
	h.git(dir, "push", "-q", "origin", "main")
	j.mu.Lock()
	j.broken = false
	j.mu.Unlock()
	second := h.commit(dir, "file", "x", "Second")
	h.git(dir, "push", "-q", "origin", "main")
	events := h.pushes("a/b")
	if len(events) != 2 || events[0].Commit != first || events[1].Commit != second || events[1].Data[journal.DataBefore] != first {
		t.Errorf("events: %+v", events)
	}
}

func TestPushBodies(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	id := h.git(dir, "rev-parse", "HEAD")
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	deletion := line(id+" "+git.ZeroID+" refs/heads/none\x00report-status") + "0000"
	make := line(git.ZeroID+" "+id+" refs/heads/copy\x00report-status delete-refs") + "0000" + emptyPack
	for _, c := range []struct {
		name, body, encoding string
		status               int
		want                 string
	}{
		{"empty", "", "", 400, "can't read the push"},
		{"flush only, as a probe", "0000", "", 200, ""},
		{"no packet", "what is this", "", 400, "is no length of a packet"},
		{"cut off", line("x")[:4], "", 400, "can't read the push"},
		{"not a command", line("hello\x00") + "0000", "", 400, "is no ref command"},
		{"signed", line("push-cert\x00caps\n") + "0000", "", 400, "signed pushes"},
		{"ref with a space", line(git.ZeroID+" "+id+" refs/heads/a b\x00") + "0000", "", 400, "is no ref name"},
		{"the same ref twice", line(git.ZeroID+" "+id+" refs/heads/a\x00") + line(git.ZeroID+" "+id+" refs/heads/a") + "0000", "", 400, "named twice"},
		{"nothing to nothing", line(git.ZeroID+" "+git.ZeroID+" refs/heads/a\x00") + "0000", "", 400, "neither makes nor removes"},
		{"unknown encoding", deletion, "br", 400, "can't be read"},
		{"wrong encoding", deletion, "gzip", 400, "isn't"},
		{"gzip", make, "GZIP", 200, "ok refs/heads/copy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, encoding := []byte(c.body), c.encoding
			if encoding == "GZIP" {
				var z bytes.Buffer
				w := gzip.NewWriter(&z)
				_, _ = w.Write(body)
				_ = w.Close()
				body, encoding = z.Bytes(), "gzip"
			}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, h.server.URL+"/a/b.git/git-receive-pack", bytes.NewReader(body))
			req.SetBasicAuth("x", h.token)
			req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
			if encoding != "" {
				req.Header.Set("Content-Encoding", encoding)
			}
			res, err := h.server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			got, _ := io.ReadAll(res.Body)
			if res.StatusCode != c.status || !strings.Contains(string(got), c.want) {
				t.Errorf("%d %s; want %d %q", res.StatusCode, got, c.status, c.want)
			}
		})
	}
	if n := len(h.pushes("a/b")); n != 2 {
		t.Errorf("%d events; want those of main and copy", n)
	}
}

// emptyPack is a pack without objects and its SHA-1.
const emptyPack = "PACK\x00\x00\x00\x02\x00\x00\x00\x00\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e"

func TestClosingRefusesPushes(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.drain(time.Second)
	if out, err := h.tryGit(dir, "push", "origin", "main"); err == nil || len(h.pushes("a/b")) != 0 {
		t.Errorf("push while closing: %v\n%s", err, out)
	}
}

func BenchmarkPush(b *testing.B) {
	h := newHouse(b)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		h.commit(dir, "file", fmt.Sprint(i), fmt.Sprint("Commit ", i))
		b.StartTimer()
		h.git(dir, "push", "-q", "origin", "main")
	}
}

func BenchmarkLsRemote(b *testing.B) {
	h := newHouse(b)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	for b.Loop() {
		h.git(dir, "ls-remote", "origin")
	}
}
