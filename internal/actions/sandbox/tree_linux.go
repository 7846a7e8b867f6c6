package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// openTrees opens all that the host gives to a sandbox. With users, a user
// namespace, the owners of files are mapped to it.
func openTrees(spec Spec, users *os.File) (trees []tree, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	add := func(t tree, source string, of *Session) error {
		var f *os.File
		var dir bool
		open := func() (err error) {
			// A path of the host may end in a folder that a job writes.
			f, dir, err = openTree(source, of != nil || t.Kind != treeBind)
			return err
		}
		var err error
		if of == nil {
			err = open()
		} else {
			err = of.inMounts(func() error {
				err := open()
				if errors.Is(err, os.ErrNotExist) { // as Docker does
					err = errors.Join(os.MkdirAll(source, 0o755), open())
				}
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("show %s in the sandbox: %w", source, err)
		}
		files, t.Dir = append(files, f), dir
		trees = append(trees, t)
		if users == nil || t.Kind == treeDevice || of != nil {
			return nil // of the same job: the owners are mapped already
		}
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
		if err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("map the owners of %s into a user namespace (the file system must support it): %w", source, err)
		}
		return nil
	}
	lower := spec.Layers
	if len(lower) == 0 {
		lower = []string{"/"}
	}
	for _, l := range lower {
		if err := add(tree{Kind: treeLower}, l, nil); err != nil {
			return nil, files, err
		}
	}
	if len(spec.Layers) == 0 {
		shown, err := hostMounts()
		if err != nil {
			return nil, files, err
		}
		for _, m := range shown {
			if err := add(tree{Kind: treeShown, Target: m, ReadOnly: true}, m, nil); err != nil {
				return nil, files, err
			}
		}
	}
	for _, d := range devices {
		if err := add(tree{Kind: treeDevice, Target: "/dev/" + d}, "/dev/"+d, nil); err != nil {
			return nil, files, err
		}
	}
	for _, b := range spec.Binds {
		if err := add(tree{Kind: treeBind, Target: b.Target, ReadOnly: b.ReadOnly}, b.Source, b.Of); err != nil {
			return nil, files, err
		}
	}
	return trees, files, nil
}

// openTree copies the mount at source. It follows a link there only when told to.
func openTree(source string, follow bool) (f *os.File, dir bool, err error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if !follow {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return nil, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, errors.Join(err, unix.Close(fd))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil, false, errors.Join(errors.New("it is a symbolic link"), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), source), st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// inMounts calls f on a thread that sees the files of the sandbox.
func (s *Session) inMounts(f func() error) error {
	return onThread(func() (bool, error) {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", s.PID()))
		if err != nil {
			return false, err
		}
		defer func() { _ = ns.Close() }()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return false, fmt.Errorf("leave the own folder: %w", err)
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return false, fmt.Errorf("enter the sandbox: %w", err)
		}
		return false, f()
	})
}

// onThread calls f on a thread of its own, which ends with it unless f says
// that it is clean.
func onThread(f func() (clean bool, err error)) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end. It waits here, so that f gets another.
			err := onThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		clean, err := f()
		if clean {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// hostMounts are the mounts of the host within hostTrees, parents first.
func hostMounts() ([]string, error) {
	points, err := mountPoints()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(points, func(m string) bool {
		return !slices.ContainsFunc(hostTrees, func(tree string) bool { return m == tree || strings.HasPrefix(m, tree+"/") })
	}), nil
}

// attach mounts t at target, which it creates when it is missing.
func (t tree) attach(f *os.File, target string) error {
	if _, err := os.Lstat(target); err != nil {
		if err := create(target, t.Dir); err != nil {
			return fmt.Errorf("show %s: %w", t.Target, err)
		}
	}
	if err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("show %s: %w", t.Target, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	switch {
	case t.Kind == treeDevice:
		return nil
	case t.ReadOnly:
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	case t.Kind == treeBind:
	default:
		return nil
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, 0, &attr); err != nil {
		return fmt.Errorf("protect %s: %w", t.Target, err)
	}
	return nil
}

// inside is where a path of the sandbox is below root, with the links of the
// sandbox followed as it sees them, so that no image can send a mount outside.
func inside(root, target string) (string, error) {
	done, left := "/", strings.Split(strings.Trim(filepath.Clean(target), "/"), "/")
	for links := 0; len(left) > 0; {
		part := left[0]
		left = left[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, part)
		to, err := os.Readlink(root + next)
		if err != nil {
			done = next
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("%s: too many links", target)
		}
		if filepath.IsAbs(to) {
			done = "/"
		}
		left = append(strings.Split(to, "/"), left...)
	}
	return root + done, nil
}
