package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hostTrees are the parts of the host whose own mounts are shown inside too:
// programs and their configuration. Everything else that is mounted below /
// stays out, because an overlay does not cross mounts.
var hostTrees = []string{"/usr", "/opt", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix"}

// hidden are the host's folders that hold other people's data.
var hidden = []string{"/root", "/home", "/run", "/tmp", "/var/tmp", "/mnt", "/media", "/var/run", "/var/log",
	"/boot", "/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet", "/var/spool"}

// readOnlyProc are kernel settings that root could write without a capability.
var readOnlyProc = []string{"sys", "sysrq-trigger", "irq", "bus", "fs"}

// maskedProc are files that leak the machine.
var maskedProc = []string{"kcore", "keys", "timer_list", "sched_debug", "kallsyms"}

// enter builds the new root and moves into it. It returns what could not be
// done as well as on other machines.
func enter(spec Spec) (warnings []string, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	hostMounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", spec.Root, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755"); err != nil {
		return nil, fmt.Errorf("mount tmpfs on %s: %w", spec.Root, err)
	}
	root := spec.Root + "/root"
	for _, dir := range []string{"/root", "/upper", "/work", "/empty"} {
		if err := os.Mkdir(spec.Root+dir, 0o755); err != nil {
			return nil, err
		}
	}
	if w, err := mountRoot(spec.Root, root); err != nil {
		return nil, err
	} else if w != "" {
		warnings = append(warnings, w)
	}
	steps := []func() error{
		func() error { return showHostTrees(root, hostMounts) },
		func() error { return hide(root, append(slices.Clone(hidden), spec.Masks...)) },
		func() error { return mountKernel(root) },
		func() error { return mountDev(root) },
		func() error { return bindAll(root, spec.Binds) },
		func() error { return writeHosts(spec, root) },
		func() error { return link(root, spec.Links) },
		func() error { return pivot(root) },
		func() error { return unix.Sethostname([]byte(spec.Hostname)) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

// mountRoot shows the host's root at root: writable through an overlay, or,
// where the kernel refuses that, read-only.
func mountRoot(scratch, root string) (warning string, err error) {
	options := "lowerdir=/,upperdir=" + scratch + "/upper,workdir=" + scratch + "/work"
	overlay := unix.Mount("overlay", root, "overlay", unix.MS_NODEV, options)
	if overlay == nil {
		return "", nil
	}
	if err := unix.Mount("/", root, "", unix.MS_BIND, ""); err != nil {
		return "", errors.Join(fmt.Errorf("overlay the root: %w", overlay), fmt.Errorf("bind the root: %w", err))
	}
	if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return "", fmt.Errorf("make the root read-only: %w", err)
	}
	return fmt.Sprintf("this machine cannot overlay its root (%v): outside of the workspace, home and /tmp the job's file system is read-only", overlay), nil
}

func showHostTrees(root string, hostMounts []string) error {
	for _, m := range hostMounts {
		if !slices.ContainsFunc(hostTrees, func(tree string) bool { return m == tree || strings.HasPrefix(m, tree+"/") }) {
			continue
		}
		if err := bind(m, root+m, true); err != nil {
			return err
		}
	}
	return nil
}

// hide mounts something empty over each path that exists inside.
func hide(root string, paths []string) error {
	slices.Sort(paths)
	var done []string
	for _, p := range slices.Compact(paths) {
		if slices.ContainsFunc(done, func(d string) bool { return strings.HasPrefix(p, d+"/") }) {
			continue
		}
		fi, err := os.Lstat(root + p)
		if err != nil || fi.Mode()&os.ModeSymlink != 0 {
			continue // not there, or only another name for something else
		}
		if !fi.IsDir() {
			if err := unix.Mount("/dev/null", root+p, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("hide %s: %w", p, err)
			}
			continue
		}
		mode := "mode=0755"
		if p == "/tmp" || p == "/var/tmp" {
			mode = "mode=1777"
		}
		if err := unix.Mount("tmpfs", root+p, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, mode); err != nil {
			return fmt.Errorf("hide %s: %w", p, err)
		}
		done = append(done, p)
	}
	return nil
}

func mountKernel(root string) error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", root+"/proc", "proc", safe, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, p := range readOnlyProc {
		p = root + "/proc/" + p
		if _, err := os.Lstat(p); err != nil {
			continue
		}
		if err := bind(p, p, true); err != nil {
			return err
		}
	}
	for _, p := range maskedProc {
		p = root + "/proc/" + p
		if _, err := os.Lstat(p); err != nil {
			continue
		}
		if err := unix.Mount("/dev/null", p, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", p, err)
		}
	}
	if err := unix.Mount("sysfs", root+"/sys", "sysfs", safe|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}

func mountDev(root string) error {
	dev := root + "/dev"
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bind("/dev/"+name, dev+"/"+name, false); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/pts", "/shm"} {
		if err := os.Mkdir(dev+dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if err := unix.Mount("tmpfs", dev+"/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	for name, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, dev+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

func bindAll(root string, binds []Bind) error {
	for _, b := range binds {
		if err := bind(b.Source, root+b.Target, b.ReadOnly); err != nil {
			return err
		}
	}
	return nil
}

// bind mounts source at target, which it creates when it is missing.
func bind(source, target string, readOnly bool) error {
	fi, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("bind %s: %w", source, err)
	}
	if _, err := os.Lstat(target); err != nil {
		if err := create(target, fi.IsDir()); err != nil {
			return fmt.Errorf("bind %s: %w", source, err)
		}
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

func create(target string, dir bool) error {
	if dir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(path.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// writeHosts gives the sandbox its own /etc/hosts: the host's and the spec's lines.
func writeHosts(spec Spec, root string) error {
	old, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lines := append([]string{strings.TrimRight(string(old), "\n"), "127.0.0.1 " + spec.Hostname}, spec.Hosts...)
	file := spec.Root + "/hosts"
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return bind(file, root+"/etc/hosts", false)
}

func link(root string, links []Link) error {
	for _, l := range links {
		if err := os.MkdirAll(root+path.Dir(l.Path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.To, root+l.Path); err != nil {
			return fmt.Errorf("link %s: %w", l.Path, err)
		}
	}
	return nil
}

// pivot makes root the root and lets go of the old one.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// With both names the same, the old root is stacked on the new one and
	// can be detached by the same name (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	return os.Chdir("/")
}

// mountPoints lists where something is mounted, outermost first.
func mountPoints() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points = append(points, unescape.Replace(fields[4]))
		}
	}
	slices.Sort(points)
	return slices.Compact(points), nil
}
