package storefront

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const remote = "http://github.localhost:8080/contoso/storefront.git"

func needTemplate(t *testing.T) {
	t.Helper()
	if _, err := template.ReadFile("template/storefront.tar"); err != nil {
		t.Skip("built without the example")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(t.TempDir(), "none"))
}

func TestWorkcopy(t *testing.T) {
	needTemplate(t)
	// "deploy" in the folder's own path replaces nothing.
	w := workcopy{dir: filepath.Join(t.TempDir(), "deploy", "my shop"), helper: `'/a b/lockstep' credential`}
	replace := map[string]string{"CLIENT_ID": "the-client", "TENANT_ID": "the-tenant"}
	if err := w.create(t.Context(), remote, replace); err != nil {
		t.Fatal(err)
	}
	first, err := w.head(t.Context())
	if err != nil || len(first) != 40 {
		t.Fatalf("%q, %v", first, err)
	}
	if files, err := w.git(t.Context(), "grep", "-l", "-e", "the-client"); err != nil || files == "" {
		t.Errorf("nothing was replaced: %v", err)
	} else {
		for file := range strings.FieldsSeq(files) {
			if !strings.HasPrefix(file, "deploy/") {
				t.Errorf("replaced in %s", file)
			}
		}
	}
	// Again, with another port: only origin and the helper follow.
	other := strings.Replace(remote, "8080", "8081", 1)
	if err := w.create(t.Context(), other, replace); err != nil {
		t.Fatal(err)
	}
	again, err := w.head(t.Context())
	if err != nil || again != first {
		t.Errorf("a second run made %s of %s, %v", again, first, err)
	}
	for key, want := range map[string]string{
		"remote.origin.url": other, "credential.http://github.localhost:8081.helper": "!" + w.helper, "http.http://github.localhost:8081.proxy": "",
	} {
		if got, err := w.git(t.Context(), "config", key); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", key, got, err, want)
		}
	}
}

func TestWorkcopyRefusesForeignFolders(t *testing.T) {
	needTemplate(t)
	git := func(dir string, args ...string) {
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	files, clone := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	git(clone, "init", "--quiet")
	git(clone, "remote", "add", "origin", "https://github.com/ada/thesis.git")
	// A folder within a clone of the example is not that clone.
	around := t.TempDir()
	git(around, "init", "--quiet")
	git(around, "remote", "add", "origin", remote)
	inside := filepath.Join(around, "notes")
	if err := os.MkdirAll(filepath.Join(inside, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"files": files, "clone": clone, "inside": inside} {
		err := workcopy{dir: dir, helper: "x"}.create(t.Context(), remote, nil)
		if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--example-dir") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(files, ".git")); err == nil {
		t.Error("a refused folder is a repository now")
	}
}

func TestSameRepository(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b string
		want bool
	}{
		"port":    {remote, "http://github.localhost/contoso/storefront.git", true},
		"suffix":  {remote, "http://github.localhost:8080/contoso/storefront", true},
		"other":   {remote, "http://github.localhost:8080/contoso/ledger.git", false},
		"nothing": {"", "", false},
		"path":    {"/srv/contoso/storefront.git", remote, false},
	} {
		if got := sameRepository(tc.a, tc.b); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
