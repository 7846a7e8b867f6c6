package image

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

	"golang.org/x/sys/unix"

	"github.com/lockstep-gitops/lockstep/internal/process"
)

// chooseSnapshotter is overlayfs where it works on the disk of the state.
func chooseSnapshotter(c Config) (string, error) {
	if c.Snapshotter != "" {
		return c.Snapshotter, nil
	}
	root := filepath.Join(c.Dir, rootName)
	if err := os.MkdirAll(root, 0o711); err != nil {
		return "", err
	}
	if tryOverlay(root) != nil {
		return native, nil
	}
	return overlayfs, nil
}

// tryOverlay mounts an overlay in dir and takes it away again.
func tryOverlay(dir string) error {
	tmp, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // an empty tree; the next sweep of the state takes it
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o700); err != nil {
			return err
		}
	}
	merged := filepath.Join(tmp, "merged")
	opts := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", tmp)
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		return err
	}
	return unix.Unmount(merged, unix.MNT_DETACH)
}

// sweep kills processes whose root file system lies under dir, unmounts what is
// mounted under dir and removes the cgroups of the build steps. Without
// leftovers it changes nothing.
func sweep(dir, cgroup string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(killIn(dir), unmountUnder(dir), removeCgroups(cgroup))
}

// killIn ends the processes of build steps that outlived buildkitd.
func killIn(dir string) error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that ends while we look is what we want.
		ns, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/mnt"))
		if err != nil || ns == own {
			continue
		}
		info, err := os.ReadFile(filepath.Join("/proc", e.Name(), "mountinfo"))
		if err != nil || !rootedIn(info, dir) {
			continue
		}
		if err := process.End(pid, 0); err != nil {
			errs = append(errs, fmt.Errorf("end process %d of a build step: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// rootedIn reports whether the root mount of a mountinfo is a snapshot under
// dir: an overlay with such an upper directory, or a bind mount.
func rootedIn(mountinfo []byte, dir string) bool {
	s := bufio.NewScanner(bytes.NewReader(mountinfo))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 6 || f[4] != "/" {
			continue
		}
		if strings.HasPrefix(f[3], dir+"/") {
			return true
		}
		return strings.Contains(f[len(f)-1], "upperdir="+dir+"/")
	}
	return false
}

// unmountUnder detaches every mount below dir, the latest first.
func unmountUnder(dir string) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	s := bufio.NewScanner(bytes.NewReader(info))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) > 5 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	var errs []error
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", points[i], err))
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes the cgroups called name, and those in them, from every
// hierarchy. One that is still busy is left: it ends with its last process.
func removeCgroups(name string) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		return err
	}
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		var dirs []string
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = unix.Rmdir(dirs[i])
		}
	}
	return nil
}
