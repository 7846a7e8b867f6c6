package forge

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v92/github"
)

// receiver is a server that a hook sends to.
type receiver struct {
	*httptest.Server
	got chan received
}

type received struct {
	event  string
	parsed any
	header http.Header
}

// newReceiver checks signatures with GitHub's own client and answers with the codes, then 200.
func newReceiver(t *testing.T, secret string, codes ...int) *receiver {
	rc := &receiver{got: make(chan received, 100)}
	answers := make(chan int, len(codes))
	for _, code := range codes {
		answers <- code
	}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := github.ValidatePayload(r, []byte(secret))
		if err != nil {
			t.Errorf("payload: %v", err)
		}
		parsed, err := github.ParseWebHook(github.WebHookType(r), body)
		if err != nil {
			t.Errorf("parse: %v", err)
		}
		rc.got <- received{github.WebHookType(r), parsed, r.Header}
		select {
		case code := <-answers:
			w.WriteHeader(code)
		default:
			_, _ = io.WriteString(w, "thanks")
		}
	}))
	t.Cleanup(rc.Close)
	return rc
}

func (rc *receiver) next(t *testing.T, event string) received {
	t.Helper()
	select {
	case r := <-rc.got:
		if r.event != event {
			t.Fatalf("got %s, want %s", r.event, event)
		}
		return r
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s came", event)
	}
	return received{}
}

func TestWebhooks(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *Deps) { c.HookRetry = 10 * time.Millisecond })
	dir := h.workTree("contoso/shop")
	ctx, c := t.Context(), h.client(h.token)
	rc := newReceiver(t, "s3cret", 200, 503)
	made, _, err := c.Repositories.CreateHook(ctx, "contoso", "shop", &github.Hook{
		Config: &github.HookConfig{URL: &rc.URL, ContentType: new("json"), Secret: new("s3cret")}, Events: []string{"push", "create"},
	})
	if err != nil || made.GetConfig().GetSecret() != "********" {
		t.Fatalf("create: %v %v", made, err)
	}
	if ping := rc.next(t, "ping").parsed.(*github.PingEvent); ping.GetHookID() != made.GetID() || ping.GetRepo().GetFullName() != "contoso/shop" {
		t.Errorf("ping: %v", ping)
	}
	before := h.git(dir, "rev-parse", "HEAD")
	after := h.commit(dir, "deploy/app.yaml", "a: 1\n", "Deploy")
	h.git(dir, "push", "-q", "origin", "main")
	first := rc.next(t, "push")
	second := rc.next(t, "push") // the first was answered with 503
	if first.header.Get("X-GitHub-Delivery") != second.header.Get("X-GitHub-Delivery") || second.header.Get("X-GitHub-Hook-ID") == "" {
		t.Errorf("headers: %v %v", first.header, second.header)
	}
	push := second.parsed.(*github.PushEvent)
	if push.GetRef() != "refs/heads/main" || push.GetBefore() != before || push.GetAfter() != after || len(push.Commits) != 1 || push.Commits[0].Added[0] != "deploy/app.yaml" ||
		push.GetHeadCommit().GetMessage() != "Deploy" || push.GetPusher().GetName() != "developer" || push.GetForced() {
		t.Errorf("push: %v", github.Stringify(push))
	}
	h.git(dir, "push", "-q", "origin", "main:topic")
	seen := map[string]bool{}
	for range 2 {
		r := <-rc.got
		seen[r.event] = true
	}
	if !seen["push"] || !seen["create"] {
		t.Errorf("a new branch: %v", seen)
	}
	var deliveries []*github.HookDelivery
	for range 100 { // what came of the last one is stored after it was answered
		if deliveries, _, err = c.Repositories.ListHookDeliveries(ctx, "contoso", "shop", made.GetID(), nil); err != nil || len(deliveries) != 4 || deliveries[0].GetStatusCode() == 200 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil || len(deliveries) != 4 || deliveries[0].GetStatus() != "OK" {
		t.Fatalf("deliveries: %v %v", github.Stringify(deliveries), err)
	}
	one, _, err := c.Repositories.GetHookDelivery(ctx, "contoso", "shop", made.GetID(), deliveries[3].GetID())
	if err != nil || one.GetEvent() != "ping" || one.Request.GetHeaders()["X-Github-Event"] == "" && one.Request.GetHeaders()["X-GitHub-Event"] == "" {
		t.Errorf("delivery: %v %v", github.Stringify(one), err)
	}
	if _, _, err := c.Repositories.RedeliverHookDelivery(ctx, "contoso", "shop", made.GetID(), deliveries[3].GetID()); err != nil && !strings.Contains(err.Error(), "scheduled") {
		t.Error(err)
	}
	if again := rc.next(t, "ping"); again.header.Get("X-GitHub-Delivery") != deliveries[3].GetGUID() {
		t.Error("redelivery has another GUID")
	}
	var sealed []byte
	if err := h.db.QueryRow(`select secret from hook`).Scan(&sealed); err != nil || strings.Contains(string(sealed), "s3cret") {
		t.Errorf("the secret is stored as it is: %v", err)
	}
	if _, err := c.Repositories.DeleteHook(ctx, "contoso", "shop", made.GetID()); err != nil {
		t.Error(err)
	}
	for _, address := range []string{"ftp://x", "http://github.localhost/x", "http://api.github.localhost", "http://u:p@x/"} {
		_, _, err := c.Repositories.CreateHook(ctx, "contoso", "shop", &github.Hook{Config: &github.HookConfig{URL: &address}})
		wantAPIError(t, err, 422, "Validation Failed")
	}
}

// TestWebhooksSurvive stops the forge before a hook was reached.
func TestWebhooksSurvive(t *testing.T) {
	dir := t.TempDir()
	rc := newReceiver(t, "")
	h := openHouse(t, dir)
	work := h.workTree("contoso/shop")
	repo, err := h.find(t.Context(), "contoso/shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.storeHook(t.Context(), &hook{repo: repo.key, url: rc.URL, events: []string{"*"}, active: false}); err != nil {
		t.Fatal(err)
	}
	h.stop()
	// Pushed while nobody delivers: the event is in the journal, the cursor before it.
	h = openHouse(t, dir)
	h.stop()
	h = openHouse(t, dir, func(c *Config, _ *Deps) {
		c.PrivateAddresses = []string{strings.TrimPrefix(rc.URL, "http://")}
		c.HookRetry = time.Hour
	})
	if _, err := h.db.Exec(`update hook set active = 1`); err != nil {
		t.Fatal(err)
	}
	h.git(work, "remote", "set-url", "origin", h.url("contoso/shop", h.token))
	h.commit(work, "x", "x", "X")
	h.git(work, "push", "-q", "origin", "main")
	for range 500 { // refused: the address is private
		var n int
		if err := h.db.QueryRow(`select count(*) from delivery where pending = 0 and event = 'push'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case r := <-rc.got:
		t.Errorf("%s reached a private address", r.event)
	default:
	}
	if _, err := h.db.Exec(`update delivery set pending = 1, due = 0 where event = 'push'`); err != nil {
		t.Fatal(err)
	}
	h.stop()
	openHouse(t, dir)
	rc.next(t, "push")
}
