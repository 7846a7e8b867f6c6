package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// lookUser finds "user[:group]", as names of the files passwd and group in dir
// or as numbers.
func lookUser(spec, dir string) (*syscall.Credential, string, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	who := &syscall.Credential{}
	home, login := "/", ""
	found := false
	fields(filepath.Join(dir, "passwd"), func(f []string) bool {
		if len(f) < 6 || f[0] != name && f[2] != name {
			return true
		}
		uid, uidErr := strconv.ParseUint(f[2], 10, 32)
		gid, gidErr := strconv.ParseUint(f[3], 10, 32)
		if uidErr != nil || gidErr != nil {
			return true
		}
		who.Uid, who.Gid, home, login, found = uint32(uid), uint32(gid), f[5], f[0], true
		return false
	})
	if !found {
		uid, err := strconv.ParseUint(name, 10, 31)
		if err != nil {
			return nil, "", fmt.Errorf("unable to find user %s: no matching entries in passwd file", name)
		}
		who.Uid = uint32(uid)
	}
	foundGroup := false
	fields(filepath.Join(dir, "group"), func(f []string) bool {
		if len(f) < 4 {
			return true
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return true
		}
		if hasGroup && !foundGroup && (f[0] == group || f[2] == group) {
			who.Gid, foundGroup = uint32(gid), true
		}
		if !hasGroup && login != "" && slices.Contains(strings.Split(f[3], ","), login) {
			who.Groups = append(who.Groups, uint32(gid))
		}
		return true
	})
	if hasGroup && !foundGroup {
		gid, err := strconv.ParseUint(group, 10, 31)
		if err != nil {
			return nil, "", fmt.Errorf("unable to find group %s: no matching entries in group file", group)
		}
		who.Gid = uint32(gid)
	}
	if home == "" {
		home = "/"
	}
	return who, home, nil
}

// fields calls f with the fields of each line of file until it returns false.
func fields(file string, f func([]string) bool) {
	in, err := os.Open(file)
	if err != nil {
		return
	}
	defer func() { _ = in.Close() }()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if !f(strings.Split(lines.Text(), ":")) {
			return
		}
	}
}
