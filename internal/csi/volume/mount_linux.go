package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// sizeLimit bounds a volume: two generations of the largest sensible class.
const sizeLimit = "size=64m,mode=0755"

// maxStacked bounds how many mounts on one directory Unmount takes off.
const maxStacked = 8

// Mounted reports whether a tmpfs is mounted on dir. A missing dir is not an
// error. It asks the kernel, so it is right after a restart, too.
func Mounted(dir string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 { // Linux before 5.8
		return mountedByDevice(dir)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, nil
	}
	var sfs unix.Statfs_t
	if err := unix.Statfs(dir, &sfs); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	return sfs.Type == unix.TMPFS_MAGIC, nil
}

// mountedByDevice tells a mount point by its device, which for a tmpfs of its
// own always differs from its parent's.
func mountedByDevice(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := errors.Join(unix.Lstat(dir, &here), unix.Lstat(dir+"/..", &above)); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	return here.Dev != above.Dev, nil
}

// Mount makes dir, where it is missing, and mounts an empty tmpfs on it.
func Mount(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	// noswap keeps secrets off the disk; kernels before 6.4 do not know it.
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, sizeLimit+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, sizeLimit)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// Unmount empties and unmounts dir and removes it. It succeeds when there is
// nothing left to do. A directory that is no mount is removed only if empty.
func Unmount(dir string) error {
	for range maxStacked {
		mounted, err := Mounted(dir)
		if err != nil {
			return err
		}
		if !mounted {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove mount point: %w", err)
			}
			return nil
		}
		if err := empty(dir); err != nil {
			return err
		}
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) { // the content is gone; let go of the name
			err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return fmt.Errorf("unmount %s: more than %d mounts lie on it", dir, maxStacked)
}

func empty(dir string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("empty volume: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("empty volume %s: %w", dir, err)
	}
	for _, e := range entries {
		if err := root.RemoveAll(e.Name()); err != nil {
			return fmt.Errorf("empty volume %s: %w", dir, err)
		}
	}
	return nil
}
