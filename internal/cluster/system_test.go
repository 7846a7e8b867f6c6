package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const someMounts = `22 1 8:1 / / rw - ext4 /dev/sda rw
30 22 0:30 / /run rw - tmpfs tmpfs rw
31 30 0:4 net:[1] /run/x/netns rw - nsfs nsfs rw
32 30 0:31 / /run/x/a\040b/rootfs rw - overlay overlay rw
33 32 0:32 / /run/x/a\040b/rootfs/proc rw - proc proc rw
34 30 0:33 / /run/xy rw - tmpfs tmpfs rw
35 30 0:34 / /run/x rw - tmpfs tmpfs rw
36 35 0:35 / /run/x rw - tmpfs tmpfs rw
`

func TestMountsBelow(t *testing.T) {
	got, err := mountsBelow(strings.NewReader(someMounts), "/run/x", "/state")
	want := []string{"/run/x/a b/rootfs/proc", "/run/x/a b/rootfs", "/run/x/netns", "/run/x", "/run/x"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func FuzzMountsBelow(f *testing.F) {
	f.Add(someMounts)
	f.Fuzz(func(t *testing.T, text string) {
		got, _ := mountsBelow(strings.NewReader(text), "/run/x")
		for _, point := range got {
			if point != "/run/x" && !strings.HasPrefix(point, "/run/x/") {
				t.Errorf("%q is not below /run/x", point)
			}
		}
	})
}

func TestUnmountBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	inner := filepath.Join(dir, "a", "b c")
	for _, point := range []string{filepath.Join(dir, "a"), inner} {
		if err := os.MkdirAll(point, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", point, "tmpfs", 0, ""); err != nil {
			t.Skipf("needs to mount: %v", err)
		}
	}
	busy, err := os.Create(filepath.Join(inner, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := unmountBelow(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "a")); len(left) != 0 {
		t.Errorf("%v is still mounted", left)
	}
}

func TestDetectCgroups(t *testing.T) {
	groups, err := detectCgroups(cgroupMount)
	if err != nil {
		t.Skipf("this machine has none: %v", err)
	}
	if !slices.Contains(groups.controllers, "memory") && !groups.v2 {
		t.Errorf("controllers %v without memory", groups.controllers)
	}
	if _, err := detectCgroups(t.TempDir()); err == nil || !strings.Contains(err.Error(), "mount -t cgroup2") {
		t.Errorf("nothing mounted: %v, want the command that mends it", err)
	}
	lacking := cgroups{controllers: []string{"cpu", "memory"}}.missing()
	if !slices.Equal(lacking, []string{"cpuset", "pids"}) {
		t.Errorf("missing %v, want cpuset and pids", lacking)
	}
}

func TestRemoveLogLinks(t *testing.T) {
	dir := t.TempDir()
	for link, target := range map[string]string{"ours": "/state/pod-logs/x", "theirs": "/var/log/pods/x", "near": "/state/pod-logs-2/x"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeLogLinks(dir, "/state/pod-logs"); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 2 {
		t.Errorf("left %v, want the two that are not ours", left)
	}
	if err := removeLogLinks(filepath.Join(dir, "none"), "/x"); err != nil {
		t.Errorf("missing folder: %v", err)
	}
}

func TestLockState(t *testing.T) {
	cfg := sample(t)
	unlock, err := lockState(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(cfg); err == nil || !strings.Contains(err.Error(), "is up already") {
		t.Errorf("second lock: %v, want that the platform is up", err)
	}
	unlock()
	again, err := lockState(cfg)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	again()
}

func TestPreflight(t *testing.T) {
	cfg := sample(t)
	has := func(what string) bool {
		for _, f := range Preflight(cfg) {
			if f.Why == "" || f.Fix == "" {
				t.Errorf("%+v does not say why and what to do", f)
			}
			if strings.Contains(f.What, what) && f.Fatal {
				return true
			}
		}
		return false
	}
	if !has("node programs") {
		t.Error("missing programs are not found")
	}
	cfg.Name = "!"
	if !has("configuration") {
		t.Error("a bad configuration is not found")
	}
	if inPath("/nonexistent:"+t.TempDir(), "nft") {
		t.Error("nft found where it is not")
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	for _, body := range []string{"1", "2"} {
		if err := writeFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != body {
			t.Errorf("%q, %v, want %q", got, err, body)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("%d files, want no temporary ones", len(entries))
	}
}
