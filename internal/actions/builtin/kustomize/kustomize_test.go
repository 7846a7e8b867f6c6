package kustomize

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEditSetImage(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("kustomization.yaml", []byte("resources:\n  - ../../base # the base\nimages:\n  - name: storefront\n    newTag: none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	var stderr bytes.Buffer
	if code := Main([]string{"edit", "set", "image", "storefront=storefront.azurecr.io/storefront@" + digest}, nil, &bytes.Buffer{}, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	got, err := os.ReadFile(filepath.Clean("kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"digest: " + digest, "newName: storefront.azurecr.io/storefront", "name: storefront"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if code := Main([]string{"edit", "set", "image"}, nil, &bytes.Buffer{}, &stderr); code == 0 || stderr.Len() == 0 {
		t.Error("a bad call passed")
	}
}
