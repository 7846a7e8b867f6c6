package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroupRoot is where the machine has its control groups.
const cgroupRoot = "/sys/fs/cgroup"

// controllers are those that limits need, as cgroup v1 names their folders.
var controllers = []string{"memory", "pids", "cpu"}

// group is the cgroup of one sandbox: one folder with cgroup v2, one per
// controller with v1. A job's limits are on the folder above, so that other
// sandboxes of the job can lie beside it.
type group struct {
	unified bool
	dirs    map[string]string // by controller
	top     map[string]string // the folders of the job
	owner   bool              // top goes with this group
	limits  Limits
	missing []string // controllers that this machine does not give us
}

// layout finds where the controllers are mounted below root.
func layout(root string) (unified bool, mounts map[string]string) {
	mounts = map[string]string{}
	if data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
		for c := range strings.FieldsSeq(string(data)) {
			mounts[c] = root
		}
		return true, mounts
	}
	for _, c := range controllers {
		for _, dir := range []string{c, "cpu,cpuacct"} {
			file := filepath.Join(root, dir, "cgroup.procs")
			if _, err := os.Stat(file); err == nil && (dir == c || c == "cpu") {
				mounts[c] = filepath.Join(root, dir)
				break
			}
		}
	}
	return false, mounts
}

// ownLeaf is where the processes of the job itself are, below its folder.
const ownLeaf = "job"

// newGroup makes the cgroup of a job ("instance/job") with its limits.
func newGroup(root, name string, limits Limits) (*group, error) {
	unified, mounts := layout(root)
	g := &group{unified: unified, dirs: map[string]string{}, top: map[string]string{}, limits: limits, owner: true}
	for _, c := range controllers {
		mount, ok := mounts[c]
		if !ok {
			g.missing = append(g.missing, c)
			continue
		}
		top := filepath.Join(mount, name)
		if err := os.MkdirAll(filepath.Join(top, ownLeaf), 0o755); err != nil {
			g.missing = append(g.missing, c)
			continue
		}
		g.top[c], g.dirs[c] = top, filepath.Join(top, ownLeaf)
		if unified {
			delegate(mount, name)
		}
	}
	if err := g.limit(g.top); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g, nil
}

// beside makes a cgroup below the same job.
func (g *group) beside(leaf string, limits Limits) (*group, error) {
	b := &group{unified: g.unified, dirs: map[string]string{}, top: g.top, limits: limits}
	for c, top := range g.top {
		b.dirs[c] = filepath.Join(top, leaf)
		if err := os.MkdirAll(b.dirs[c], 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("make a cgroup: %w", err), b.remove())
		}
	}
	if err := b.limit(b.dirs); err != nil {
		return nil, errors.Join(err, b.remove())
	}
	if b.limits.Memory == 0 {
		b.limits.Memory = g.limits.Memory
	}
	if b.limits.PIDs == 0 {
		b.limits.PIDs = g.limits.PIDs
	}
	return b, nil
}

// delegate lets the folders from mount down to name limit their children.
// What fails shows when the limit is set.
func delegate(mount, name string) {
	dir := mount
	for _, part := range append([]string{""}, strings.Split(name, "/")...) {
		dir = filepath.Join(dir, part)
		for _, c := range controllers {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
		}
	}
}

func (g *group) limit(dirs map[string]string) error {
	type setting struct {
		controller, v1, v2, value string
		optional                  bool
	}
	var settings []setting
	if n := g.limits.Memory; n > 0 {
		v := strconv.FormatInt(n, 10)
		settings = append(settings, setting{"memory", "memory.limit_in_bytes", "memory.max", v, false},
			// Without these a job could swap instead of ending.
			setting{"memory", "memory.memsw.limit_in_bytes", "memory.swap.max", map[bool]string{false: v, true: "0"}[g.unified], true})
	}
	if n := g.limits.PIDs; n > 0 {
		settings = append(settings, setting{"pids", "pids.max", "pids.max", strconv.FormatInt(n, 10), false})
	}
	if n := g.limits.CPU; n > 0 {
		value := strconv.FormatInt(n, 10)
		if !g.unified {
			value = strconv.FormatInt(max(2, n*1024/100), 10)
		}
		settings = append(settings, setting{"cpu", "cpu.shares", "cpu.weight", value, true})
	}
	for _, s := range settings {
		dir, ok := dirs[s.controller]
		if !ok {
			continue
		}
		name := s.v1
		if g.unified {
			name = s.v2
		}
		err := os.WriteFile(filepath.Join(dir, name), []byte(s.value), 0o644)
		if errors.Is(err, fs.ErrNotExist) && !s.optional {
			g.missing = append(g.missing, s.controller)
			continue
		}
		if err != nil && !s.optional {
			return fmt.Errorf("limit %s to %s: %w", name, s.value, err)
		}
	}
	return nil
}

// warnings says which limits do not hold.
func (g *group) warnings() []string {
	var out []string
	for _, c := range g.missing {
		out = append(out, fmt.Sprintf("this machine gives no %s cgroup: the job's %s is not limited", c, map[string]string{
			"memory": "memory", "pids": "number of processes", "cpu": "share of the processors"}[c]))
	}
	return out
}

// enter moves a process into the group.
func (g *group) enter(pid int) error {
	done := map[string]bool{}
	for _, dir := range g.dirs {
		if done[dir] {
			continue
		}
		done[dir] = true
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("limit the job: %w", err)
		}
	}
	return nil
}

// trouble counts how often limits were hit.
type trouble struct{ oom, pids int64 }

func (g *group) trouble() trouble {
	if g == nil {
		return trouble{}
	}
	memory := "memory.oom_control"
	if g.unified {
		memory = "memory.events"
	}
	// Kernels differ in whether they count where it happened or where the limit is.
	var t trouble
	for _, dirs := range []map[string]string{g.dirs, g.top} {
		t.oom += counter(dirs["memory"], memory, "oom_kill")
		t.pids += counter(dirs["pids"], "pids.events", "max")
	}
	return t
}

// counter reads one line "key n" of a file of a cgroup; 0 where it is missing.
func counter(dir, file, key string) int64 {
	if dir == "" {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if k, v, _ := strings.Cut(lines.Text(), " "); k == key {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

// why explains what changed since before.
func (g *group) why(before trouble) string {
	now := g.trouble()
	switch {
	case now.oom > before.oom:
		return fmt.Sprintf("the job used more than its %s of memory, and a process of it was killed", size(g.limits.Memory))
	case now.pids > before.pids:
		return fmt.Sprintf("the job tried to have more than its %d processes and threads", g.limits.PIDs)
	}
	return ""
}

// remove takes the group away. Its processes have ended or are about to.
func (g *group) remove() error {
	var errs []error
	dirs := g.dirs
	if g.owner {
		dirs = g.top
	}
	for _, dir := range dirs {
		errs = append(errs, removeGroup(dir))
	}
	return errors.Join(errs...)
}

// removeGroup removes a folder of cgroups and those below it. The kernel may
// still count the last processes for a moment after they ended.
func removeGroup(dir string) error {
	children, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, c := range children {
		if c.IsDir() {
			if err := removeGroup(filepath.Join(dir, c.Name())); err != nil {
				return err
			}
		}
	}
	pause := time.Millisecond
	for range 12 {
		err = syscall.Rmdir(dir)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(pause) // the kernel does not tell when it has let go
		pause *= 2
	}
	return fmt.Errorf("remove cgroup %s: %w", dir, err)
}

// Sweep ends the processes and removes the cgroups that a killed supervisor
// left of instance. It is called before the instance starts sandboxes.
func Sweep(instance string) error { return sweep(cgroupRoot, instance) }

func sweep(root, instance string) error {
	if instance == "" || strings.ContainsAny(instance, "/") || strings.Trim(instance, ".") == "" {
		return fmt.Errorf("sweep cgroups: bad instance name %q", instance)
	}
	_, mounts := layout(root)
	var errs []error
	done := map[string]bool{}
	for _, c := range controllers {
		mount, ok := mounts[c]
		if !ok || done[mount] {
			continue
		}
		done[mount] = true
		dir := filepath.Join(mount, instance)
		killAll(dir)
		errs = append(errs, removeGroup(dir))
	}
	return errors.Join(errs...)
}

// killAll ends every process at and below dir.
func killAll(dir string) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		data, _ := os.ReadFile(p)
		for line := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return nil
	})
}

// size writes bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30 || n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}
