package image

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func planOf(t *testing.T, change func(*Request)) (plan, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/Dockerfile", []byte("FROM scratch\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Request{ContextDir: dir, Tags: []string{"shop.azurecr.io/web:1"}, Push: true}
	change(&r)
	return newPlan(r)
}

func TestOptionsReachTheFrontend(t *testing.T) {
	other := t.TempDir()
	p, err := planOf(t, func(r *Request) {
		r.NoCacheFilters, r.Pull, r.Network, r.ShmSize = []string{"build", "test"}, true, "none", "64m"
		r.Ulimits, r.AddHosts = []string{"nofile=1024:2048"}, []string{"db:10.0.0.1", "v6=::1"}
		r.Contexts = map[string]string{"shared": other, "base": "docker-image://golang:1"}
		r.Provenance = "true"
	})
	if err != nil {
		t.Fatal(err)
	}
	attrs, err := p.frontendAttrs()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"filename": "Dockerfile", "cmdline": "lockstep", "no-cache": "build,test", "image-resolve-mode": "pull", "force-network-mode": "none",
		"shm-size": "67108864", "ulimit": "nofile=1024:2048", "add-hosts": "db=10.0.0.1,v6=::1", "attest:provenance": "mode=min",
		"context:shared": "local:named-shared", "context:base": "docker-image://golang:1",
	}
	if d := cmp.Diff(want, attrs); d != "" {
		t.Error(d)
	}
	mounts, err := p.mounts()
	if got := slices.Sorted(maps.Keys(mounts)); err != nil || !slices.Equal(got, []string{"context", "dockerfile", "named-shared"}) {
		t.Errorf("mounts %q, %v", got, err)
	}
}

func TestCachesOfBuildx(t *testing.T) {
	got, notes, err := caches([]string{"shop.azurecr.io/web:cache", `type=registry,ref=a/b:c,mode=max`, "type=gha,scope=x", "type=inline"})
	if err != nil || len(got) != 3 || len(notes) != 1 || !strings.Contains(notes[0], "type=gha") {
		t.Fatalf("%+v, %q, %v", got, notes, err)
	}
	if got[0].Type != "registry" || got[0].Attrs["ref"] != "shop.azurecr.io/web:cache" || got[1].Attrs["mode"] != "max" || got[2].Type != "inline" {
		t.Errorf("%+v", got)
	}
}

func TestAnnotations(t *testing.T) {
	for in, want := range map[string]string{
		"org.opencontainers.image.title=web": "annotation.org.opencontainers.image.title",
		"index:a=b":                          "annotation-index.a",
		"manifest[linux/amd64]:a=b":          "annotation-manifest[linux/amd64].a",
		"manifest-descriptor:a=b":            "annotation-manifest-descriptor.a",
		"urn:x=y":                            "annotation.urn:x",
	} {
		if key, _, err := annotation(in); err != nil || key != want {
			t.Errorf("%s: %s, %v; want %s", in, key, err, want)
		}
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for want, change := range map[string]func(*Request){
		`network "lan"`:      func(r *Request) { r.Network = "lan" },
		`shm-size "big"`:     func(r *Request) { r.ShmSize = "big" },
		`cache "type=ftp"`:   func(r *Request) { r.CacheFrom = []string{"type=ftp"} },
		`"mode" is not key`:  func(r *Request) { r.CacheTo = []string{"type=registry,mode"} },
		`annotation "x"`:     func(r *Request) { r.Annotations = []string{"x"} },
		`output of type "s"`: func(r *Request) { r.Exports = []Export{{Type: "s", Dest: "/x"}} },
		`allow "everything"`: func(r *Request) { r.Allow = []string{"everything"} },
	} {
		if _, err := planOf(t, change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestSSHKeysAreFilesForTheBuildOnly(t *testing.T) {
	p, err := planOf(t, func(r *Request) { r.SSH = map[string][][]byte{"default": {[]byte("key")}} })
	if err != nil {
		t.Fatal(err)
	}
	configs, done, err := p.agents()
	if err != nil || len(configs) != 1 || len(configs[0].Paths) != 1 {
		t.Fatalf("%+v, %v", configs, err)
	}
	if info, err := os.Stat(configs[0].Paths[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	done()
	if _, err := os.Stat(configs[0].Paths[0]); !os.IsNotExist(err) {
		t.Errorf("the key is still there: %v", err)
	}
}
