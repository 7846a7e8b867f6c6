package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

const someKubeconfig = `apiVersion: v1
kind: Config
current-context: work
clusters:
- name: work
  cluster: {server: "https://work.example", future-field: kept}
contexts:
- name: work
  context: {cluster: work, user: me}
users:
- name: me
  user: {token: secret}
preferences: {colors: true}
future: kept
`

// withAdmin returns a configuration whose administrator's kubeconfig exists.
func withAdmin(t *testing.T, name string) Config {
	t.Helper()
	cfg := sample(t)
	cfg.Name = name
	if err := cfg.ensurePKI(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := cfg.writeKubeconfigs(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestMergeAndRemoveContext(t *testing.T) {
	cfg := withAdmin(t, "lockstep")
	other := withAdmin(t, "demo")
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(someKubeconfig), 0o640); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again: as after a restart
		if name, err := MergeContext(t.Context(), cfg, path); err != nil || name != "lockstep" {
			t.Fatal(name, err)
		}
	}
	loaded, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.CurrentContext != "lockstep" || loaded.Clusters["lockstep"].Server != cfg.APIServerURL() || loaded.AuthInfos["me"].Token != "secret" || len(loaded.AuthInfos["lockstep"].ClientKeyData) == 0 {
		t.Errorf("merged: current %q, %d contexts", loaded.CurrentContext, len(loaded.Contexts))
	}
	if name, err := MergeContext(t.Context(), other, path); err != nil || name != "lockstep-demo" {
		t.Fatal(name, err)
	}
	for _, step := range []struct {
		remove Config
		want   string
	}{{other, "lockstep"}, {cfg, "work"}, {cfg, "work"}} {
		if err := RemoveContext(t.Context(), step.remove, path); err != nil {
			t.Fatal(err)
		}
		if loaded, err := clientcmd.LoadFromFile(path); err != nil || loaded.CurrentContext != step.want {
			t.Errorf("current context %q, %v, want %q", loaded.CurrentContext, err, step.want)
		}
	}
	var before, after map[string]any
	body, _ := os.ReadFile(path)
	if err := yaml.Unmarshal(body, &after); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(someKubeconfig), &before); err != nil {
		t.Fatal(err)
	}
	a, _ := yaml.Marshal(before)
	b, _ := yaml.Marshal(after)
	if string(a) != string(b) {
		t.Errorf("file differs after merge and removal:\n%s\nwant\n%s", b, a)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v, want the old one", info.Mode(), err)
	}
}

func TestMergeContextNewFile(t *testing.T) {
	cfg := withAdmin(t, "lockstep")
	path := filepath.Join(t.TempDir(), "dir", "config")
	if err := RemoveContext(t.Context(), cfg, path); err != nil {
		t.Fatalf("remove from a missing file: %v", err)
	}
	if _, err := MergeContext(t.Context(), cfg, path); err != nil {
		t.Fatal(err)
	}
	if err := RemoveContext(t.Context(), cfg, path); err != nil {
		t.Fatal(err)
	}
	if loaded, err := clientcmd.LoadFromFile(path); err != nil || len(loaded.Contexts) != 0 || loaded.CurrentContext != "" {
		t.Errorf("%+v, %v, want an empty kubeconfig", loaded, err)
	}
}

func TestMergeContextRefuses(t *testing.T) {
	cfg := withAdmin(t, "lockstep")
	for name, body := range map[string]string{
		"somebody's context": strings.ReplaceAll(someKubeconfig, "work", "lockstep"),
		"somebody's cluster": strings.Replace(someKubeconfig, "- name: work\n  cluster", "- name: lockstep\n  cluster", 1),
		"no kubeconfig":      "- a\n- b\n",
		"wrong types":        "clusters: 3\nusers: {}\n",
		"no YAML":            "a: [",
	} {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := MergeContext(t.Context(), cfg, path); err == nil && name != "wrong types" {
			t.Errorf("%s: merged, want an error", name)
		}
		if after, _ := os.ReadFile(path); string(after) != body && name != "wrong types" {
			t.Errorf("%s: the file was changed", name)
		}
		if _, err := os.Stat(path + ".lock"); !os.IsNotExist(err) {
			t.Errorf("%s: lock file is left", name)
		}
	}
	locked := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(locked+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := MergeContext(t.Context(), cfg, locked); err == nil || !strings.Contains(err.Error(), ".lock") {
		t.Errorf("locked: %v, want an error that names the lock file", err)
	}
}

func FuzzKubeconfigEdit(f *testing.F) {
	f.Add([]byte(someKubeconfig))
	f.Add([]byte("contexts: [null, 3, {name: lockstep, context: 3}]"))
	f.Add([]byte("contexts: [{name: lockstep, context: {extensions: [{name: lockstep}]}}]"))
	f.Fuzz(func(t *testing.T, body []byte) {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := RemoveContext(t.Context(), Config{Name: "lockstep"}, path); err != nil {
			if after, _ := os.ReadFile(path); string(after) != string(body) {
				t.Errorf("changed in spite of %v", err)
			}
		}
	})
}
