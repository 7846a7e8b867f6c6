package journal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	commitA = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
	commitB = "1a2bffffffffffffffffffffffffffffffffffff"
)

func open(t testing.TB, path string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func appendAll(t testing.TB, j journal.Appender, events ...journal.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := j.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

func ids(events []journal.Event) []int64 {
	out := make([]int64, len(events))
	for i, e := range events {
		out[i] = e.ID
	}
	return out
}

func TestAppendKeepsEveryField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path)
	want := journal.Event{
		Time: time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.FixedZone("", 3600)),
		Repo: "contoso/storefront", Commit: commitA, Stage: journal.StageRender,
		Subject: "argocd/storefront", Status: journal.StatusFailed,
		Message: "no such file ../base", File: "deploy/kustomization.yaml", Line: 7,
		Hint: "add it, or take it out of resources", Data: map[string]string{journal.DataApp: "argocd/storefront"},
	}
	id, err := j.Append(t.Context(), want)
	if err != nil || id != 1 {
		t.Fatalf("Append = %d, %v; want 1, nil", id, err)
	}
	got, err := j.Events(t.Context(), journal.Query{})
	if err != nil {
		t.Fatal(err)
	}
	want.ID, want.Time = 1, want.Time.UTC()
	if diff := cmp.Diff([]journal.Event{want}, got); diff != "" {
		t.Errorf("event changed on its way (-want +got):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("journal file has mode %o, want 600", mode)
	}
}

func TestAppendFillsTimeAndRefusesHalfEvents(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j"))
	before := time.Now().Add(-time.Second)
	appendAll(t, j, journal.Event{Stage: journal.StagePlatform, Subject: "kubelet", Status: journal.StatusInfo})
	got, err := j.Events(t.Context(), journal.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Time.Before(before) || got[0].Time.Location() != time.UTC {
		t.Errorf("time = %v, want now in UTC", got[0].Time)
	}
	for _, e := range []journal.Event{{Stage: journal.StagePush}, {Status: journal.StatusInfo}} {
		if _, err := j.Append(t.Context(), e); err == nil {
			t.Errorf("Append(%+v) succeeded, want an error", e)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Append(ctx, got[0]); err == nil {
		t.Error("Append with an ended context succeeded")
	}
}

func TestQuery(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "with space?#%41.db"))
	appendAll(t, j,
		journal.Event{Repo: "o/a", Commit: commitA, Stage: journal.StagePush, Subject: "refs/heads/main", Status: journal.StatusSucceeded}, // 1
		journal.Event{Repo: "o/a", Commit: commitA, Stage: journal.StageRun, Subject: "ci.yaml", Status: journal.StatusStarted},            // 2
		journal.Event{Repo: "o/a", Commit: commitA, Stage: journal.StageRun, Subject: "ci.yaml", Status: journal.StatusSucceeded},          // 3
		journal.Event{Repo: "o/a", Commit: commitB, Stage: journal.StagePush, Subject: "refs/heads/main", Status: journal.StatusSucceeded, // 4
			Data: map[string]string{journal.DataCause: commitA}},
		journal.Event{Repo: "o/b", Commit: "ffff", Stage: journal.StagePush, Subject: "refs/heads/dev", Status: journal.StatusSucceeded}, // 5
		journal.Event{Stage: journal.StagePlatform, Subject: "kubelet", Status: journal.StatusFailed},                                    // 6
	)
	for name, tc := range map[string]struct {
		q    journal.Query
		want []int64
	}{
		"everything":        {journal.Query{}, []int64{1, 2, 3, 4, 5, 6}},
		"after":             {journal.Query{After: 4}, []int64{5, 6}},
		"before":            {journal.Query{Before: 3}, []int64{1, 2}},
		"between":           {journal.Query{After: 2, Before: 5}, []int64{3, 4}},
		"repo":              {journal.Query{Repo: "o/b"}, []int64{5}},
		"commit":            {journal.Query{Commit: commitA}, []int64{1, 2, 3}},
		"shared prefix":     {journal.Query{Commit: "1a2b"}, []int64{1, 2, 3, 4}},
		"prefix of one":     {journal.Query{Commit: "1a2bf"}, []int64{4}},
		"last digit":        {journal.Query{Commit: "fff"}, []int64{5}},
		"commit by pattern": {journal.Query{Commit: "1a2%"}, nil},
		"stage":             {journal.Query{Stages: []journal.Stage{journal.StagePush}}, []int64{1, 4, 5}},
		"stages":            {journal.Query{Stages: []journal.Stage{journal.StagePush, journal.StagePlatform}}, []int64{1, 4, 5, 6}},
		"status":            {journal.Query{Statuses: []journal.Status{journal.StatusFailed, journal.StatusStarted}}, []int64{2, 6}},
		"subject":           {journal.Query{Subject: "refs/heads/main"}, []int64{1, 4}},
		"cause":             {journal.Query{Cause: commitA}, []int64{4}},
		"limit":             {journal.Query{Limit: 2}, []int64{1, 2}},
		"newest":            {journal.Query{Limit: 2, Newest: true}, []int64{5, 6}},
		"newest before":     {journal.Query{Limit: 2, Newest: true, Before: 5, Stages: []journal.Stage{journal.StagePush}}, []int64{1, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := j.Events(t.Context(), tc.q)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(ids(got), tc.want) {
				t.Errorf("ids = %v, want %v", ids(got), tc.want)
			}
		})
	}
}

func TestFollowSendsStoredThenNewInOrder(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j"))
	const stored, fresh = 600, 50 // more than two pages
	one := func(i int) journal.Event {
		stage := journal.StagePush
		if i%2 == 1 {
			stage = journal.StageRun
		}
		return journal.Event{Stage: stage, Subject: fmt.Sprint(i), Status: journal.StatusInfo}
	}
	for i := range stored {
		appendAll(t, j, one(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	all := j.Follow(ctx, 100, journal.Query{})
	pushes := j.Follow(ctx, 0, journal.Query{Stages: []journal.Stage{journal.StagePush}, Limit: 1, Newest: true})
	go func() {
		for i := stored; i < stored+fresh; i++ {
			if _, err := j.Append(ctx, one(i)); err != nil {
				t.Error(err)
			}
		}
	}()
	for want := int64(101); want <= stored+fresh; want++ {
		if e := <-all; e.ID != want {
			t.Fatalf("all: got %d, want %d", e.ID, want)
		}
	}
	for want := int64(1); want <= stored+fresh; want += 2 {
		if e := <-pushes; e.ID != want {
			t.Fatalf("pushes: got %d, want %d", e.ID, want)
		}
	}
	cancel()
	for range all {
	}
	for range pushes {
	}
}

// Many writers and followers at once: every follower sees every event once and
// in order, and what Append returned is what is stored.
func TestConcurrentAppendAndFollow(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j"))
	const writers, each, followers = 8, 40, 4
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen [followers][]journal.Event
	var wg sync.WaitGroup
	for f := range followers {
		ch := j.Follow(ctx, 0, journal.Query{})
		wg.Go(func() {
			for len(seen[f]) < writers*each {
				seen[f] = append(seen[f], <-ch)
			}
		})
	}
	var mu sync.Mutex
	acked := map[int64]string{}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				subject := fmt.Sprintf("%d/%d", w, i)
				id, err := j.Append(ctx, journal.Event{Stage: journal.StageRun, Subject: subject, Status: journal.StatusInfo})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[id] = subject
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for f, events := range seen {
		for i, e := range events {
			if e.ID != int64(i+1) || acked[e.ID] != e.Subject {
				t.Fatalf("follower %d: event %d is %d %q; Append said %q", f, i, e.ID, e.Subject, acked[e.ID])
			}
		}
	}
}

func TestFollowEndsWithItsContextThoughNobodyReads(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j"))
	appendAll(t, j, journal.Event{Stage: journal.StagePush, Status: journal.StatusInfo})
	ctx, cancel := context.WithCancel(t.Context())
	ch := j.Follow(ctx, 0, journal.Query{})
	cancel()
	for range ch {
	}
}

func TestReopenKeepsEventsAndNeverReusesIDs(t *testing.T) {
	t.Chdir(t.TempDir())
	path := "relative ?.db"
	j := open(t, path)
	appendAll(t, j, journal.Event{Stage: journal.StagePush, Status: journal.StatusInfo}, journal.Event{Stage: journal.StagePush, Status: journal.StatusInfo})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, path)
	if last, err := j.Last(t.Context()); err != nil || last != 2 {
		t.Fatalf("Last = %d, %v; want 2", last, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	id, err := j.Append(t.Context(), journal.Event{Stage: journal.StagePush, Status: journal.StatusInfo})
	if err != nil || id != 3 {
		t.Fatalf("Append = %d, %v; want 3", id, err)
	}
}

func TestOpenSaysWhichFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "j")
	if _, err := journal.Open(t.Context(), path); err == nil {
		t.Fatal("Open in a missing folder succeeded")
	}
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("this is not a database, it is a long sentence that only looks like one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(t.Context(), garbage); err == nil {
		t.Fatal("Open of a file that is no journal succeeded")
	}
}

func BenchmarkAppend(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "j"))
	e := journal.Event{Repo: "o/r", Commit: commitA, Stage: journal.StageRun, Subject: "ci.yaml/build", Status: journal.StatusInfo, Message: "step 3 of 7"}
	for b.Loop() {
		if _, err := j.Append(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEventsOfOneCommit(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "j"))
	for i := range 2000 {
		appendAll(b, j, journal.Event{Commit: fmt.Sprintf("%040x", i/20), Stage: journal.StageRun, Subject: "ci.yaml", Status: journal.StatusInfo})
	}
	for b.Loop() {
		events, err := j.Events(b.Context(), journal.Query{Commit: fmt.Sprintf("%040x", 50)})
		if err != nil || len(events) != 20 {
			b.Fatal(len(events), err)
		}
	}
}
