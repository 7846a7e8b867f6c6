package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func get(t *testing.T, shop Shop, path string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	shop.Handler().ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
	return answer.Code, answer.Body.String()
}

func TestPageGreetsAndHidesTheSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "payment-key")
	if err := os.WriteFile(file, []byte("correct horse battery staple"), 0o600); err != nil {
		t.Fatal(err)
	}
	shop := Shop{Greeting: "Hello", Version: "abc123", SecretFile: file}
	for _, path := range []string{"/", "/api/state"} {
		code, body := get(t, shop, path)
		if code != 200 || !strings.Contains(body, "Hello") || !strings.Contains(body, "abc123") {
			t.Errorf("%s answered %d %q", path, code, body)
		}
		if strings.Contains(body, "horse") {
			t.Errorf("%s shows the secret", path)
		}
	}
	if code, _ := get(t, shop, "/readyz"); code != 200 {
		t.Errorf("/readyz answered %d", code)
	}
}

func TestNotReadyWithoutSecret(t *testing.T) {
	shop := Shop{SecretFile: filepath.Join(t.TempDir(), "none")}
	if code, _ := get(t, shop, "/readyz"); code != 503 {
		t.Errorf("/readyz answered %d, want 503", code)
	}
	if code, _ := get(t, shop, "/healthz"); code != 200 {
		t.Errorf("/healthz answered %d, want 200", code)
	}
}
