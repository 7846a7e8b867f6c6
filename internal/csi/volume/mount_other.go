//go:build !linux

package volume

import "errors"

var errNotLinux = errors.New("secret volumes need Linux (tmpfs)")

// Mounted reports whether a tmpfs is mounted on dir; never, here.
func Mounted(string) (bool, error) { return false, nil }

// Mount fails: there is no tmpfs here.
func Mount(string) error { return errNotLinux }

// Unmount fails: there is no tmpfs here.
func Unmount(string) error { return errNotLinux }
