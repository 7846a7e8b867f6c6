package forge

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-github/v92/github"
)

// shop is a repository with a branch topic beside main, and clients for it.
type shop struct {
	*house
	dir string
	c   *github.Client
}

const shopName = "contoso/shop"

func newShop(t *testing.T) *shop {
	t.Helper()
	h := newHouse(t)
	s := &shop{house: h, dir: h.work(shopName, h.token), c: h.client(h.token)}
	s.git(s.dir, "push", "-q", "origin", "main")
	s.git(s.dir, "checkout", "-q", "-b", "topic")
	s.commit(s.dir, "app.txt", "one\n", "Add the app")
	s.git(s.dir, "push", "-q", "origin", "topic")
	return s
}

// open opens a pull request from a branch to main.
func (s *shop) open(head string) *github.PullRequest {
	s.t.Helper()
	p, _, err := s.c.PullRequests.Create(s.t.Context(), "contoso", "shop", github.CreatePullRequest{Title: new("Add " + head), Head: head, Base: "main", Body: new("why")})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *shop) get(number int) *github.PullRequest {
	s.t.Helper()
	p, _, err := s.c.PullRequests.Get(s.t.Context(), "contoso", "shop", number)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// told are the names and actions of the events after an id.
func (s *shop) told(after int64) (list []string, events []Event) {
	s.t.Helper()
	events, err := s.Events(s.t.Context(), after, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range events {
		name := e.Name
		if e.Action != "" {
			name += "." + e.Action
		}
		if !json.Valid(e.Payload) {
			s.t.Errorf("payload of %s is no JSON", name)
		}
		list = append(list, name)
	}
	return list, events
}

func (s *shop) last() int64 {
	s.t.Helper()
	id, err := s.LastEvent(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func wantTold(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("events %q; want %q", got, want)
	}
}

func TestPullRequestFromOpenToMerged(t *testing.T) {
	s := newShop(t)
	ctx, cursor := t.Context(), s.last()
	p := s.open("topic")
	head := s.git(s.dir, "rev-parse", "topic")
	if p.GetNumber() != 1 || p.GetState() != "open" || p.GetHead().GetSHA() != head || p.GetHead().GetLabel() != "contoso:topic" || p.GetBase().GetRef() != "main" ||
		!p.GetMergeable() || !p.GetRebaseable() || p.GetMergeableState() != "clean" || p.GetCommits() != 1 || p.GetAdditions() != 1 || p.GetChangedFiles() != 1 || p.GetUser().GetLogin() != "developer" {
		t.Errorf("opened: %+v", p)
	}
	names, events := s.told(cursor)
	wantTold(t, names, "pull_request.opened")
	e := events[0]
	if e.Ref != "refs/pull/1/merge" || e.Commit != p.GetMergeCommitSHA() || e.Fork || e.Actor != "developer" {
		t.Errorf("event: %+v", e)
	}
	var payload github.PullRequestEvent
	if err := json.Unmarshal(e.Payload, &payload); err != nil || payload.GetNumber() != 1 || payload.PullRequest.GetHead().GetRepo().GetFullName() != shopName || payload.GetSender().GetLogin() != "developer" {
		t.Errorf("payload: %+v, %v", payload, err)
	}
	// git fetches head and test merge.
	s.git(s.dir, "fetch", "-q", "origin", "refs/pull/1/head", "refs/pull/1/merge")
	if got := s.git(s.dir, "ls-remote", "origin", "refs/pull/1/head"); !strings.HasPrefix(got, head) {
		t.Errorf("refs/pull/1/head: %s", got)
	}
	if got := s.git(s.dir, "log", "-1", "--format=%P", e.Commit); got != s.git(s.dir, "rev-parse", "main")+" "+head {
		t.Errorf("test merge of %s", got)
	}

	// A push to the head is told with a new test merge.
	cursor = s.last()
	head = s.commit(s.dir, "app.txt", "one\ntwo\n", "Add two")
	s.git(s.dir, "push", "-q", "origin", "topic")
	names, events = s.told(cursor)
	wantTold(t, names, "pull_request.synchronize")
	if events[0].Commit == e.Commit || !strings.Contains(string(events[0].Payload), `"after":"`+head+`"`) {
		t.Errorf("synchronize: %+v", events[0])
	}
	if p = s.get(1); p.GetHead().GetSHA() != head || p.GetCommits() != 2 || p.GetAdditions() != 2 {
		t.Errorf("after the push: %+v", p)
	}
	files, _, err := s.c.PullRequests.ListFiles(ctx, "contoso", "shop", 1, nil)
	if err != nil || len(files) != 1 || files[0].GetFilename() != "app.txt" || files[0].GetStatus() != "added" || files[0].GetPatch() != "@@ -0,0 +1,2 @@\n+one\n+two" {
		t.Errorf("files: %+v, %v", files, err)
	}
	if commits, _, err := s.c.PullRequests.ListCommits(ctx, "contoso", "shop", 1, nil); err != nil || len(commits) != 2 || commits[1].GetSHA() != head {
		t.Errorf("commits: %v, %v", commits, err)
	}
	diff, _, err := s.c.PullRequests.GetRaw(ctx, "contoso", "shop", 1, github.RawOptions{Type: github.Diff})
	if err != nil || !strings.HasPrefix(diff, "diff --git a/app.txt b/app.txt") {
		t.Errorf("diff: %q, %v", diff, err)
	}
	patch, _, err := s.c.PullRequests.GetRaw(ctx, "contoso", "shop", 1, github.RawOptions{Type: github.Patch})
	if err != nil || strings.Count(patch, "Subject: [PATCH") != 2 {
		t.Errorf("patch: %q, %v", patch, err)
	}

	cursor = s.last()
	_, _, err = s.c.PullRequests.Merge(ctx, "contoso", "shop", 1, "", &github.PullRequestOptions{SHA: strings.Repeat("1", 40)})
	wantAPIError(t, err, 409, "Head branch was modified")
	merged, _, err := s.c.PullRequests.Merge(ctx, "contoso", "shop", 1, "Because.", &github.PullRequestOptions{SHA: head, MergeMethod: "merge"})
	if err != nil || !merged.GetMerged() {
		t.Fatalf("merge: %v, %v", merged, err)
	}
	names, events = s.told(cursor)
	wantTold(t, names, "pull_request.closed")
	if events[0].Ref != "refs/heads/main" || events[0].Commit != merged.GetSHA() || !strings.Contains(string(events[0].Payload), `"merged":true`) {
		t.Errorf("closed: %+v", events[0])
	}
	if p = s.get(1); p.GetState() != "closed" || !p.GetMerged() || p.GetMergeCommitSHA() != merged.GetSHA() || p.GetMergedBy().GetLogin() != "developer" {
		t.Errorf("merged: %+v", p)
	}
	s.git(s.dir, "fetch", "-q", "origin")
	if got := s.git(s.dir, "log", "-1", "--format=%H|%B|%an|%cn", "origin/main"); got != merged.GetSHA()+"|Merge pull request #1 from contoso/topic\n\nBecause.\n|developer|GitHub" {
		t.Errorf("main: %s", got)
	}
	pushes := s.pushes(shopName)
	if last := pushes[len(pushes)-1]; last.Subject != "refs/heads/main" || last.Commit != merged.GetSHA() {
		t.Errorf("journal: %+v", last)
	}
	if is, _, err := s.c.PullRequests.IsMerged(ctx, "contoso", "shop", 1); err != nil || !is {
		t.Errorf("is merged: %v, %v", is, err)
	}
	_, _, err = s.c.PullRequests.Merge(ctx, "contoso", "shop", 1, "", nil)
	wantAPIError(t, err, 405, "already merged")
	_, _, err = s.c.PullRequests.Edit(ctx, "contoso", "shop", 1, &github.PullRequest{State: new("open")})
	wantAPIError(t, err, 422, "merged")
}

// rest sends a request with a body and decodes the answer.
func (h *house) rest(method, path, token string, body, answer any) int {
	h.t.Helper()
	var in io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			h.t.Fatal(err)
		}
		in = strings.NewReader(string(data))
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(h.t.Context()), method, h.server.URL+"/api/v3"+path, in)
	if err != nil {
		h.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := h.server.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	if answer != nil {
		if err := json.Unmarshal(data, answer); err != nil {
			h.t.Fatalf("%s %s: %d %s: %v", method, path, res.StatusCode, data, err)
		}
	}
	return res.StatusCode
}
