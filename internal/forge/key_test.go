package forge

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-github/v92/github"
)

func TestKeysAndTokens(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	status, got := h.api("api.github.localhost", "POST", "/repos/contoso/shop/keys", h.token, `{"title":"argo","read_only":true}`)
	if status != 201 || got["read_only"] != true {
		t.Fatalf("create: %d %v", status, got)
	}
	key := got["token"].(string)
	h.git(dir, "ls-remote", h.url("contoso/shop", key))
	out, err := h.tryGit(dir, "push", h.url("contoso/shop", key), "main:x")
	wantRefused(t, out, err, "may not push")
	keys, _, err := h.client(h.token).Repositories.ListKeys(t.Context(), "contoso", "shop", nil)
	if err != nil || len(keys) != 1 || keys[0].GetTitle() != "argo" {
		t.Fatalf("list: %v %v", keys, err)
	}
	_, _, err = h.client(h.token).Repositories.CreateKey(t.Context(), "contoso", "shop", github.CreateDeployKeyRequest{Key: "ssh-ed25519 AAAA"})
	wantAPIError(t, err, 422, "no SSH server")
	if _, err := h.client(h.token).Repositories.DeleteKey(t.Context(), "contoso", "shop", keys[0].GetID()); err != nil {
		t.Error(err)
	}
	if got := h.status(http.MethodGet, "/api/v3/user", key); got != 401 {
		t.Errorf("after its end: %d", got)
	}
	token, listed, err := h.CreatePersonalToken(t.Context(), "laptop", TokenSpec{User: "developer", Write: true})
	if err != nil || h.status(http.MethodGet, "/api/v3/user", token) != 200 {
		t.Fatal(err)
	}
	if all, err := h.ListPersonalTokens(t.Context()); err != nil || len(all) != 1 || all[0].Title != "laptop" {
		t.Errorf("list: %v %v", all, err)
	}
	if err := h.RevokePersonalToken(t.Context(), listed.ID); err != nil || h.status(http.MethodGet, "/api/v3/user", token) != 401 {
		t.Errorf("revoke: %v", err)
	}
	if err := h.RevokePersonalToken(t.Context(), listed.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoke twice: %v", err)
	}
}

func TestFork(t *testing.T) {
	h := newHouse(t)
	dir := h.workTree("contoso/shop")
	h.git(dir, "push", "-q", "origin", "main:topic")
	c := h.client(h.token)
	fork, _, err := c.Repositories.CreateFork(t.Context(), "contoso", "shop", &github.RepositoryCreateForkOptions{Organization: "ada"})
	var accepted *github.AcceptedError
	if err != nil && !errors.As(err, &accepted) {
		t.Fatalf("fork: %v %v", fork, err)
	}
	fork, _, err = c.Repositories.Get(t.Context(), "ada", "shop")
	if err != nil || !fork.GetFork() || fork.GetParent().GetFullName() != "contoso/shop" {
		t.Errorf("fork: %v %v", fork, err)
	}
	if err := h.DeleteRepository(t.Context(), "contoso/shop"); err != nil {
		t.Fatal(err)
	}
	clone := t.TempDir() + "/clone"
	h.git(dir, "clone", "-q", h.url("ada/shop", h.token), clone)
	h.git(clone, "fsck", "--strict")
	if got := h.git(clone, "rev-parse", "origin/topic"); got != h.git(dir, "rev-parse", "HEAD") {
		t.Errorf("topic is at %s", got)
	}
	if pushes := h.pushes("ada/shop"); len(pushes) != 2 {
		t.Errorf("told %d", len(pushes))
	}
}
