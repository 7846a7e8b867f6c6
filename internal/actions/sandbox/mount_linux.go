package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
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

// masked are files and folders of the kernel that leak the machine.
var masked = []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/kallsyms",
	"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/sys/firmware", "/sys/devices/virtual/powercap"}

// scratch is where init builds the new root. What the host has there is not
// needed any more: all of it came as open trees.
const scratch = "/tmp"

// builder makes the inside of one sandbox.
type builder struct {
	plan  plan
	files []*os.File // of plan.Trees
	root  string
	notes []string
}

// enter builds the new root and moves into it. It returns what could not be
// done as well as on other machines.
func enter(p plan, files []*os.File) (warnings []string, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	b := &builder{plan: p, files: files, root: scratch + "/root"}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, b.sized("mode=0755")); err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, dir := range []string{"/root", "/upper", "/work", "/lower"} {
		if err := os.Mkdir(scratch+dir, 0o755); err != nil {
			return nil, err
		}
	}
	steps := []func() error{
		b.mountRoot,
		func() error { return b.attachAll(treeShown) },
		b.hide,
		b.mountKernel,
		b.mountDev,
		func() error { return b.attachAll(treeBind) },
		b.makeDirs,
		b.link,
		b.pivot,
		func() error { return unix.Sethostname([]byte(p.Hostname)) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	closeAll(files)
	return b.notes, nil
}

// sized adds the size of the disk limit to the options of a tmpfs.
func (b *builder) sized(options string) string {
	if b.plan.Limits.Disk > 0 {
		options += ",size=" + strconv.FormatInt(b.plan.Limits.Disk, 10)
	}
	return options
}

// mountRoot overlays the lower trees at root: writable, or, where the kernel
// refuses that for the host's root, read-only.
func (b *builder) mountRoot() error {
	var lower []string
	for i, t := range b.plan.Trees {
		if t.Kind != treeLower {
			continue
		}
		name := "lower/" + strconv.Itoa(i)
		if err := t.attach(b.files[i], scratch+"/"+name); err != nil {
			return err
		}
		lower = append(lower, name)
	}
	// Names relative to scratch: the options of a mount fit one page.
	if err := os.Chdir(scratch); err != nil {
		return err
	}
	options := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=upper,workdir=work"
	if b.plan.Untrusted {
		options += ",userxattr"
	}
	overlay := unix.Mount("overlay", b.root, "overlay", unix.MS_NODEV, options)
	if overlay == nil {
		return nil
	}
	if len(lower) > 1 {
		return fmt.Errorf("overlay %d layers: %w", len(lower), overlay)
	}
	if err := unix.Mount(scratch+"/"+lower[0], b.root, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("overlay the root: %w", overlay), fmt.Errorf("bind the root: %w", err))
	}
	if err := protect(b.root); err != nil {
		return err
	}
	b.notes = append(b.notes, fmt.Sprintf("this machine cannot overlay its root (%v): outside of the workspace, home and /tmp the job's file system is read-only", overlay))
	return nil
}

// protect makes a mount read-only.
func protect(target string) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, 0, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

func (b *builder) attachAll(kind string) error {
	for i, t := range b.plan.Trees {
		if t.Kind != kind {
			continue
		}
		target, err := inside(b.root, t.Target)
		if err != nil {
			return err
		}
		if err := t.attach(b.files[i], target); err != nil {
			return err
		}
	}
	return nil
}

// hide mounts something empty over each path of the host that exists inside.
func (b *builder) hide() error {
	if b.plan.Image {
		return nil // an image has nothing of the host
	}
	paths := append(slices.Clone(hidden), b.plan.Masks...)
	slices.Sort(paths)
	var done []string
	for _, p := range slices.Compact(paths) {
		if slices.ContainsFunc(done, func(d string) bool { return strings.HasPrefix(p, d+"/") }) {
			continue
		}
		isDir, err := b.cover(b.root + p)
		if err != nil {
			return err
		}
		if isDir {
			done = append(done, p)
		}
	}
	return nil
}

// cover mounts something empty over a path, when it is there and no link.
func (b *builder) cover(p string) (isDir bool, err error) {
	fi, err := os.Lstat(p)
	if err != nil || fi.Mode()&os.ModeSymlink != 0 {
		return false, nil //nolint:nilerr // not there, or only another name for something else
	}
	if !fi.IsDir() {
		if err := unix.Mount("/dev/null", p, "", unix.MS_BIND, ""); err != nil {
			return false, fmt.Errorf("hide %s: %w", p, err)
		}
		return false, nil
	}
	mode := "mode=0755"
	if base := path.Base(p); base == "tmp" {
		mode = "mode=1777"
	}
	if err := unix.Mount("tmpfs", p, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, b.sized(mode)); err != nil {
		return false, fmt.Errorf("hide %s: %w", p, err)
	}
	return true, nil
}

func (b *builder) mountKernel() error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if fi, err := os.Lstat(b.root + dir); err == nil && !fi.IsDir() {
			return fmt.Errorf("%s of the image is no folder", dir)
		}
		if err := os.MkdirAll(b.root+dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", b.root+"/proc", "proc", safe, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, p := range readOnlyProc {
		p = b.root + "/proc/" + p
		if _, err := os.Lstat(p); err != nil {
			continue
		}
		if err := unix.Mount(p, p, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("protect %s: %w", p, err)
		}
		if err := protect(p); err != nil {
			return err
		}
	}
	if err := unix.Mount("sysfs", b.root+"/sys", "sysfs", safe|unix.MS_RDONLY, ""); err != nil {
		if !b.plan.Untrusted {
			return fmt.Errorf("mount /sys: %w", err)
		}
		// A user namespace may not mount it where it does not own the network.
		b.notes = append(b.notes, fmt.Sprintf("/sys is empty inside (%v)", err))
	}
	for _, p := range masked {
		if _, err := b.cover(b.root + p); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) mountDev() error {
	dev := b.root + "/dev"
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	if err := b.attachAll(treeDevice); err != nil {
		return err
	}
	for _, dir := range []string{"/pts", "/shm"} {
		if err := os.Mkdir(dev+dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if err := unix.Mount("tmpfs", dev+"/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, b.sized("mode=1777")); err != nil {
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

func (b *builder) makeDirs() error {
	for _, d := range b.plan.Dirs {
		dir, err := inside(b.root, d)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", d, err)
		}
	}
	return nil
}

func (b *builder) link() error {
	for _, l := range b.plan.Links {
		dir, err := inside(b.root, path.Dir(l.Path))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.To, dir+"/"+path.Base(l.Path)); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("link %s: %w", l.Path, err)
		}
	}
	return nil
}

// pivot makes root the root and lets go of the old one.
func (b *builder) pivot() error {
	if b.plan.ReadOnly {
		if err := protect(b.root); err != nil {
			return err
		}
	}
	if err := os.Chdir(b.root); err != nil {
		return err
	}
	// With both names the same, the old root is stacked on the new one and
	// can be detached by the same name (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir("/")
}

// mountPoints lists the mount points of this process, parents first.
func mountPoints() ([]string, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
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
