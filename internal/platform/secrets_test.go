package platform

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// assembled is a platform without a node: every box that needs none.
func assembled(t *testing.T) *system {
	t.Helper()
	cfg := Config{Name: "test", StateDir: t.TempDir(), Port: 8080, Self: "/nonexistent/lockstep"}
	book, err := journal.Open(t.Context(), filepath.Join(t.TempDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := &system{cfg: cfg, log: slog.New(slog.DiscardHandler), journal: book, stop: func() {}, started: time.Now(), steps: &steps{now: time.Now}}
	if err := s.assemble(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.actions.Close(), s.registry.Close(), s.azure.Close(), s.forge.Close(), book.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// arm makes a resource as the platform's owner.
func arm(t *testing.T, s *system, id, version string, body map[string]any) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	var ignored map[string]any
	if err := (secrets{s}).call(t.Context(), http.MethodPut, "https://management.azure.com"+id+"?api-version="+version, data, &ignored); err != nil {
		t.Fatalf("PUT %s: %v", id, err)
	}
}

func TestSecretsGoThroughTheVaultsWire(t *testing.T) {
	s, ctx := assembled(t), t.Context()
	group := "/subscriptions/" + SubscriptionID + "/resourceGroups/shop"
	vault := group + "/providers/Microsoft.KeyVault/vaults/shop-kv"
	arm(t, s, group, "2023-07-01", map[string]any{"location": Region})
	arm(t, s, vault, "2026-02-01", map[string]any{"location": Region, "properties": map[string]any{
		"tenantId": TenantID, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}})

	// As in Azure, whoever owns the subscription may not yet write its secrets.
	_, err := secrets{s}.Set(ctx, "shop-kv", "key", []byte("hidden"))
	var problem *server.Problem
	if !errors.As(err, &problem) || problem.Status != http.StatusForbidden {
		t.Fatalf("without a role: %v, want a refusal", err)
	}
	const officer = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7" // Key Vault Secrets Officer
	arm(t, s, vault+"/providers/Microsoft.Authorization/roleAssignments/6b1e2f1c-0000-4000-8000-000000000001", "2022-04-01",
		map[string]any{"properties": map[string]any{"principalId": s.azure.OwnerCredentials().ObjectID,
			"roleDefinitionId": "/subscriptions/" + SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/" + officer}})

	first, err := secrets{s}.Set(ctx, "shop-kv", "key", []byte("hidden"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := secrets{s}.Set(ctx, "shop-kv", "key", []byte("hidden too"))
	if err != nil || first == second {
		t.Fatalf("second version %q after %q: %v", second, first, err)
	}
	if err := s.forge.CreateRepository(ctx, forge.RepositorySpec{Name: "ada/shop"}); err != nil {
		t.Fatal(err)
	}
	if err := (secrets{s}).SetRepo(ctx, "ada/shop", "TOKEN", []byte("hidden")); err != nil {
		t.Fatal(err)
	}
	if err := (secrets{s}).SetRepo(ctx, "ada/none", "TOKEN", []byte("hidden")); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("an unknown repository: %v", err)
	}

	list, err := secrets{s}.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Vault != "shop-kv" || list[0].Name != "key" || list[0].Versions != 2 || !list[0].Enabled ||
		list[1].Repo != "ada/shop" || list[1].Name != "TOKEN" {
		t.Errorf("list is %+v", list)
	}
	if data, _ := json.Marshal(list); strings.Contains(string(data), "hidden") {
		t.Errorf("the list shows a value: %s", data)
	}
	if _, err := (secrets{s}).Set(ctx, "nosuch-kv", "key", []byte("x")); err == nil || !strings.Contains(err.Error(), "nosuch-kv") {
		t.Errorf("an unknown vault: %v", err)
	}
}
