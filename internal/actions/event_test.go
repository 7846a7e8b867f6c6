package actions

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// newest waits until a workflow has n runs that have ended, and returns the
// newest.
func (w *world) newest(file string, n int) Run {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		runs, err := w.engine.Runs(w.t.Context(), Filter{File: file, Status: "completed"})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(runs) >= n {
			r, err := w.engine.GetRun(w.t.Context(), runs[0].ID)
			if err != nil {
				w.t.Fatal(err)
			}
			return r
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.dump()
	w.t.Fatalf("%s did not run %d times", file, n)
	return Run{}
}

const showEvent = `
jobs:
  a:
    runs-on: x
    steps:
      - run: |
          echo "event=$GITHUB_EVENT_NAME ref=$GITHUB_REF name=$GITHUB_REF_NAME sha=$GITHUB_SHA head=$GITHUB_HEAD_REF base=$GITHUB_BASE_REF"
          echo "number=${{ github.event.number }} action=${{ github.event.action }} secret=${{ secrets.TOKEN }}."
`

func TestPullRequestsRunTheirTestMerge(t *testing.T) {
	w := newWorld(t)
	if err := w.engine.SetSecret(t.Context(), "o/r", "TOKEN", []byte("very-secret-token")); err != nil {
		t.Fatal(err)
	}
	base := w.push("base", map[string]string{
		".github/workflows/pr.yml":     "name: pr\non:\n  pull_request:\n    branches: [main]\n    paths: ['src/**']\npermissions: {contents: write, id-token: write}" + showEvent,
		".github/workflows/target.yml": "name: target\non: pull_request_target" + showEvent,
		".github/workflows/closed.yml": "on: {pull_request: {types: [closed]}}" + showEvent,
	})
	// A proposal and its test merge.
	dir := t.TempDir()
	w.git(dir, "clone", "--quiet", w.bare, dir)
	w.git(dir, "checkout", "--quiet", "-b", "topic")
	w.git(dir, "commit", "--quiet", "--allow-empty", "-m", "empty")
	if err := writeFiles(dir, map[string]string{"src/x": "1"}); err != nil {
		t.Fatal(err)
	}
	w.git(dir, "add", "--all")
	w.git(dir, "commit", "--quiet", "-m", "propose")
	head := w.git(dir, "rev-parse", "HEAD")
	w.git(dir, "checkout", "--quiet", "-b", "merge", base)
	w.git(dir, "merge", "--quiet", "--no-ff", "-m", "merge", head)
	merge := w.git(dir, "rev-parse", "HEAD")
	w.git(dir, "push", "--quiet", "origin", "topic", "merge:refs/pull/7/merge")
	payload := func(fork bool) json.RawMessage {
		from := "o/r"
		if fork {
			from = "stranger/r"
		}
		return json.RawMessage(fmt.Sprintf(`{"action":"opened","number":7,"pull_request":{"number":7,"title":"A change","head":{"ref":"topic","sha":%q,"repo":{"full_name":%q}},"base":{"ref":"main","sha":%q,"repo":{"full_name":"o/r"}}},"repository":{"full_name":"o/r"}}`, head, from, base))
	}
	w.send(Event{Name: "pull_request", Action: "opened", Ref: "refs/pull/7/merge", Commit: merge, Payload: payload(false)})
	r := w.newest("pr.yml", 1)
	want := fmt.Sprintf("event=pull_request ref=refs/pull/7/merge name=7/merge sha=%s head=topic base=main\nnumber=7 action=opened secret=***.\n", merge)
	if log := w.log(r, "a"); !strings.Contains(log, want) || r.Title != "A change" || r.Pull != 7 || r.Head() != head || r.Commit != merge {
		t.Errorf("%+v\n%s", r, log)
	}
	if c := w.check(head, "a"); c.Conclusion != "success" {
		t.Errorf("check %+v", c)
	}
	r = w.newest("target.yml", 1)
	want = fmt.Sprintf("event=pull_request_target ref=refs/heads/main name=main sha=%s head=topic base=main\n", base)
	if log := w.log(r, "a"); !strings.Contains(log, want) {
		t.Errorf("target\n%s", log)
	}
	// The same from a fork: no secrets, nothing to write. The target has both.
	w.send(Event{Name: "pull_request", Action: "synchronize", Ref: "refs/pull/7/merge", Commit: merge, Fork: true, Payload: payload(true)})
	r = w.newest("pr.yml", 2)
	if log := w.log(r, "a"); !r.Fork || !strings.Contains(log, "secret=.\n") {
		t.Errorf("fork: %+v\n%s", r, log)
	}
	if r = w.newest("target.yml", 2); !strings.Contains(w.log(r, "a"), "secret=***.\n") {
		t.Errorf("target of a fork\n%s", w.log(r, "a"))
	}
	w.mu.Lock()
	for _, token := range w.tokens {
		run, err := w.engine.GetRun(t.Context(), token.Run)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case run.Fork && (token.Write("contents") || token.Permissions["id-token"] != ""):
			t.Errorf("token of a fork %+v", token)
		case run.Name == "pr" && !run.Fork && (!token.Write("contents") || token.Permissions["id-token"] != "write" || token.Permissions["packages"] != ""):
			t.Errorf("token %+v", token)
		case run.Name == "target" && (token.Write("contents") || token.Permissions["packages"] != "read"):
			t.Errorf("default token %+v", token)
		}
	}
	w.mu.Unlock()
	// Read again from the start, as after a crash, nothing starts twice.
	w.stop()
	db, err := store.Open(t.Context(), filepath.Join(w.dir, "state"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := db.Count(t.Context(), Filter{})
	_ = db.Close()
	w.start()
	w.send(Event{Name: "pull_request", Action: "closed", Ref: "refs/pull/7/merge", Commit: merge, Payload: payload(false)})
	w.newest("closed.yml", 1)
	if after, _ := w.engine.store.Count(t.Context(), Filter{}); after != before+1 {
		t.Errorf("%d runs, then %d", before, after)
	}
	// A conflict starts only the target; what a job did starts nothing.
	w.send(Event{Name: "pull_request", Action: "opened", Ref: "refs/pull/7/merge", Payload: payload(false)})
	w.newest("target.yml", 3)
	w.event(0, func(e journal.Event) bool {
		return e.Status == journal.StatusSkipped && strings.Contains(e.Message, "cannot be merged")
	})
	w.send(Event{Name: "pull_request", Action: "opened", Ref: "refs/pull/7/merge", Commit: merge, Cause: base, Payload: payload(false)})
	w.send(Event{Name: "pull_request", Action: "opened", Ref: "refs/pull/7/merge", Commit: merge, Actor: bot, Payload: payload(false)})
	w.send(Event{Name: "pull_request", Action: "closed", Ref: "refs/pull/7/merge", Commit: merge, Payload: payload(false)})
	w.newest("closed.yml", 2)
	if runs, _ := w.engine.Runs(t.Context(), Filter{File: "pr.yml"}); len(runs) != 2 {
		t.Errorf("%d runs of pr.yml", len(runs))
	}
}

func TestOtherEvents(t *testing.T) {
	w := newWorld(t)
	commit := w.push("x", map[string]string{
		".github/workflows/dispatch.yml": "on: {repository_dispatch: {types: [deploy]}}\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo \"to ${{ github.event.client_payload.to }} at $GITHUB_REF $GITHUB_SHA\"\n",
		".github/workflows/release.yml":  "on: {release: {types: [published]}}\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo \"release $GITHUB_REF $GITHUB_REF_TYPE ${{ github.event.release.tag_name }}\"\n",
		".github/workflows/comment.yml":  "on: issue_comment\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo \"comment ${{ github.event.comment.body }}\"\n",
		".github/workflows/after.yml":    "on: {workflow_run: {workflows: [comments, \".github/workflows/comment.yml\"], types: [completed]}}\njobs:\n  a:\n    if: github.event.workflow_run.conclusion == 'success'\n    runs-on: x\n    steps:\n      - run: echo \"after ${{ github.event.workflow_run.event }} ${{ github.event.workflow_run.id }}\"\n",
	})
	w.git(w.bare, "tag", "v1", commit)
	w.send(Event{Name: "repository_dispatch", Action: "other", Actor: bot, Payload: json.RawMessage(`{"action":"other"}`)})
	w.send(Event{Name: "repository_dispatch", Action: "deploy", Actor: bot, Payload: json.RawMessage(`{"action":"deploy","client_payload":{"to":"moon"}}`)})
	if log := w.log(w.newest("dispatch.yml", 1), "a"); !strings.Contains(log, "to moon at refs/heads/main "+commit) {
		t.Errorf("dispatch\n%s", log)
	}
	w.send(Event{Name: "release", Action: "published", Ref: "refs/tags/v1", Commit: commit, Payload: json.RawMessage(`{"action":"published","release":{"tag_name":"v1","name":"One"}}`)})
	if r := w.newest("release.yml", 1); !strings.Contains(w.log(r, "a"), "release refs/tags/v1 tag v1\n") || r.Title != "One" {
		t.Errorf("release %+v\n%s", r, w.log(r, "a"))
	}
	w.send(Event{Name: "issue_comment", Action: "created", Payload: json.RawMessage(`{"action":"created","comment":{"body":"hello"},"issue":{"title":"It breaks"}}`)})
	r := w.newest("comment.yml", 1)
	if !strings.Contains(w.log(r, "a"), "comment hello\n") || r.Title != "It breaks" {
		t.Errorf("comment %+v\n%s", r, w.log(r, "a"))
	}
	after := w.newest("after.yml", 1)
	if log := w.log(after, "a"); !strings.Contains(log, fmt.Sprintf("after issue_comment %d\n", r.ID)) || after.Event != "workflow_run" {
		t.Errorf("after %+v\n%s", after, log)
	}
	if runs, _ := w.engine.Runs(t.Context(), Filter{}); len(runs) != 4 {
		t.Errorf("%d runs", len(runs))
	}
}

func TestSchedulesRunOnceWhateverHappens(t *testing.T) {
	var offset atomic.Int64
	w := &world{}
	w.config = func(_ *Config, d *Deps) {
		d.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	}
	w = newWorldWith(t, w)
	commit := w.push("x", map[string]string{".github/workflows/cron.yml": "on:\n  schedule:\n    - cron: '17 3 * * *'\n    - cron: '18 4 * * 1'\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo \"by ${{ github.event.schedule }} $GITHUB_REF\"\n"})
	deadline := time.Now().Add(10 * time.Second)
	for list, _ := w.engine.store.Schedules(t.Context()); len(list) != 2; list, _ = w.engine.store.Schedules(t.Context()) {
		if time.Now().After(deadline) {
			t.Fatalf("schedules %v", list)
		}
		time.Sleep(5 * time.Millisecond)
	}
	// Three days pass while Lockstep is down: the daily one starts once.
	w.stop()
	offset.Store(int64(72 * time.Hour))
	w.start()
	w.event(0, func(e journal.Event) bool { return e.Subject == "cron.yml" && e.Status.Closes() })
	w.engine.lookAtClock()
	w.stop()
	w.start()
	w.push("y", map[string]string{"other": "1"}) // reads the schedules again
	time.Sleep(50 * time.Millisecond)
	runs, err := w.engine.Runs(t.Context(), Filter{})
	daily := 0
	for _, r := range runs {
		if r.Event != "schedule" || r.Commit != commit {
			t.Errorf("%+v", r)
		}
		full, _ := w.engine.GetRun(t.Context(), r.ID)
		if strings.Contains(w.log(full, "a"), "by 17 3 * * * refs/heads/main") {
			daily++
		}
	}
	if err != nil || daily != 1 || len(runs) > 2 {
		t.Errorf("%d runs, %d daily: %v", len(runs), daily, err)
	}
}
