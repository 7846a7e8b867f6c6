package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupMount = "/sys/fs/cgroup"

// neededControllers are those without which kubelet does not start.
var neededControllers = []string{"cpu", "cpuset", "memory", "pids"}

// cgroups is how control groups are mounted on this machine.
type cgroups struct {
	v2 bool
	// roots are the mounted hierarchies: one for v2, one per controller for v1.
	roots []string
	// also are hierarchies where others make groups for us, to be swept: the
	// v2 hierarchy without controllers of a machine on v1.
	also []string
	// controllers are the names of all usable controllers.
	controllers []string
}

// detectCgroups looks at what is mounted below mount.
func detectCgroups(mount string) (cgroups, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		return cgroups{}, fmt.Errorf("control groups at %s: %w", mount, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		body, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
		if err != nil {
			return cgroups{}, fmt.Errorf("control groups: %w", err)
		}
		return cgroups{v2: true, roots: []string{mount}, controllers: strings.Fields(string(body))}, nil
	}
	entries, err := os.ReadDir(mount)
	if err != nil {
		return cgroups{}, fmt.Errorf("control groups: %w", err)
	}
	var found cgroups
	for _, e := range entries {
		dir := filepath.Join(mount, e.Name())
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dir = resolved // "cpu" often links to "cpu,cpuacct"
		}
		if unix.Statfs(dir, &st) != nil {
			continue
		}
		if st.Type == unix.CGROUP2_SUPER_MAGIC {
			found.also = append(found.also, dir)
		}
		if st.Type != unix.CGROUP_SUPER_MAGIC {
			continue
		}
		if !slices.Contains(found.roots, dir) {
			found.roots = append(found.roots, dir)
		}
		found.controllers = append(found.controllers, strings.Split(e.Name(), ",")...)
	}
	if len(found.roots) == 0 {
		return cgroups{}, fmt.Errorf("no control groups are mounted at %s; mount them: mount -t cgroup2 none %s", mount, mount)
	}
	return found, nil
}

// missing returns the needed controllers that this machine lacks.
func (g cgroups) missing() []string {
	var lacking []string
	for _, name := range neededControllers {
		if !slices.Contains(g.controllers, name) {
			lacking = append(lacking, name)
		}
	}
	return lacking
}

func (g cgroups) all() []string { return slices.Concat(g.roots, g.also) }

// create makes the group name in every hierarchy.
func (g cgroups) create(name string) error {
	for _, root := range g.roots {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
		if g.v2 {
			for _, parent := range []string{root, dir} {
				if err := enableControllers(parent); err != nil {
					return err
				}
			}
			continue
		}
		if err := initCpuset(root, dir); err != nil {
			return err
		}
	}
	return nil
}

// enableControllers lets children of a v2 group use every controller of it.
func enableControllers(dir string) error {
	body, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("enable controllers: %w", err)
	}
	for _, c := range strings.Fields(string(body)) {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
		if err != nil && slices.Contains(neededControllers, c) {
			return fmt.Errorf("enable controller %s in %s: %w (processes directly in that group are in the way; inside a container start with a cgroup namespace of its own)", c, dir, err)
		}
	}
	return nil
}

// initCpuset fills a new v1 cpuset, which is unusable while it is empty.
func initCpuset(root, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not the cpuset hierarchy
		}
		if err != nil {
			return fmt.Errorf("prepare cpuset: %w", err)
		}
		if len(strings.TrimSpace(string(have))) > 0 {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(root, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), parent, 0o644)
		}
		if err != nil {
			return fmt.Errorf("prepare cpuset: %w", err)
		}
	}
	return nil
}

// processes returns the processes in the group and below.
func (g cgroups) processes(name string) []int {
	var pids []int
	for _, root := range g.all() {
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // vanished while we walked
			}
			body, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return nil
			}
			for _, field := range strings.Fields(string(body)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// remove deletes the group and all below it, after killing what still runs
// there. It gives up when ctx ends.
func (g cgroups) remove(ctx context.Context, name string) error {
	for {
		for _, pid := range g.processes(name) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		err := g.tryRemove(name)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove control group %s: %w", name, err)
		case <-time.After(20 * time.Millisecond): // the kernel empties groups in the background
		}
	}
}

func (g cgroups) tryRemove(name string) error {
	var errs []error
	for _, root := range g.all() {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) { // children first
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("%s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}
