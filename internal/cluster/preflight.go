package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lockstep-gitops/lockstep/internal/bundle"
)

// Free space below which a node is not started, and below which it is warned.
const (
	leastDisk = 1 << 30
	smallDisk = 5 << 30
)

// Finding is one thing about this machine that a node minds.
type Finding struct {
	What  string // in a few words
	Why   string // what was seen, and what it means
	Fix   string // the command or step that mends it
	Fatal bool   // the node cannot start
}

// Preflight looks at the machine without changing it. No findings: fine.
func Preflight(cfg Config) []Finding {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return []Finding{{What: "configuration", Why: err.Error(), Fix: "correct it", Fatal: true}}
	}
	var found []Finding
	for _, check := range []func(Config) []Finding{
		checkRoot, checkPrograms, checkHostPrograms, checkCgroups, checkOverlay, checkDisk, checkSubnet, checkInotify,
	} {
		found = append(found, check(cfg)...)
	}
	return found
}

func checkRoot(Config) []Finding {
	if os.Geteuid() != 0 {
		return []Finding{{"not root", fmt.Sprintf("the node makes network namespaces and mounts, which user %d may not", os.Geteuid()), "run it with sudo, or use an existing cluster with --kubeconfig", true}}
	}
	const capNetAdmin, capSysAdmin = 12, 21
	for name, number := range map[string]uint{"CAP_NET_ADMIN": capNetAdmin, "CAP_SYS_ADMIN": capSysAdmin} {
		if lacks, err := lacksCapability(number); err == nil && lacks {
			return []Finding{{"no " + name, "this root is confined, as in an unprivileged container", "run outside of the container, or run the container with --privileged", true}}
		}
	}
	return nil
}

func checkPrograms(cfg Config) []Finding {
	if cfg.Programs.Dir == "" {
		return []Finding{{"no node programs", bundle.ErrNoPayload.Error(), "build with `make`", true}}
	}
	if _, err := bundle.InDir(cfg.Programs.Dir); err != nil {
		return []Finding{{"node programs", err.Error(), "delete the folder and start again; it is written anew", true}}
	}
	return nil
}

// checkHostPrograms looks for what the distribution must bring.
func checkHostPrograms(Config) []Finding {
	var found []Finding
	for name, fix := range map[string]string{
		"nft":   "apt-get install -y nftables (or dnf install nftables)",
		"mount": "apt-get install -y mount (or dnf install util-linux)",
	} {
		if !inPath(childPath, name) {
			found = append(found, Finding{"program " + name + " is missing", "kube-proxy and kubelet call it; looked in " + childPath, fix, true})
		}
	}
	return found
}

func inPath(path, name string) bool {
	for _, dir := range strings.Split(path, ":") {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

func checkCgroups(Config) []Finding {
	groups, err := detectCgroups(cgroupMount)
	if err != nil {
		return []Finding{{"control groups", err.Error(), "mount -t cgroup2 none " + cgroupMount, true}}
	}
	if lacking := groups.missing(); len(lacking) > 0 {
		return []Finding{{"control groups", "the controllers " + strings.Join(lacking, ", ") + " are missing", "boot with cgroup_enable=memory, or delegate all controllers to this container", true}}
	}
	return nil
}

func checkOverlay(Config) []Finding {
	body, err := os.ReadFile("/proc/filesystems")
	if err == nil && !strings.Contains(string(body), "\toverlay\n") {
		return []Finding{{"no overlay file system", "the kernel has not loaded it; containers need it", "modprobe overlay", true}}
	}
	return nil
}

func checkDisk(cfg Config) []Finding {
	dir := cfg.StateDir
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return []Finding{{"state folder", fmt.Sprintf("%s: %v", dir, err), "choose another with --state-dir", true}}
		}
		dir = filepath.Dir(dir) // not made yet: its parent decides
	}
	var found []Finding
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		found = append(found, Finding{"state folder on overlay", cfg.StateDir + " is on an overlay file system (a container's own disk), which cannot carry containers", "mount a volume there, or choose another folder with --state-dir", true})
	}
	switch free := int64(st.Bavail) * st.Bsize; {
	case free < leastDisk:
		found = append(found, Finding{"disk full", fmt.Sprintf("%s has %d MiB free; below 1 GiB etcd and images fail", cfg.StateDir, free>>20), "free some space, or choose another folder with --state-dir", true})
	case free < smallDisk:
		found = append(found, Finding{"disk nearly full", fmt.Sprintf("%s has %.1f GiB free; images may not fit", cfg.StateDir, float64(free)/(1<<30)), "free some space", false})
	}
	return found
}

func checkSubnet(cfg Config) []Finding {
	used, err := usedPrefixes(cfg.linkName())
	if err != nil {
		return nil // SetupNetwork will say it
	}
	if u := overlapping(cfg.Subnet, used); u != nil {
		return []Finding{{"network range in use", fmt.Sprintf("%s overlaps %s of this platform", u.by, cfg.Subnet), "remove that route (`ip route`), or delete the state folder so that another range is picked", true}}
	}
	return nil
}

// checkInotify: each kubelet and many programs in pods hold watches.
func checkInotify(Config) []Finding {
	body, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	var n int
	if err != nil {
		return nil
	}
	if _, err := fmt.Sscan(string(body), &n); err == nil && n < 128 {
		return []Finding{{"few inotify instances", fmt.Sprintf("fs.inotify.max_user_instances is %d; pods may fail with \"too many open files\"", n), "sysctl fs.inotify.max_user_instances=512", false}}
	}
	return nil
}
