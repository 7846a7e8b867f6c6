package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/process"
)

// prepare writes BuildKit's configuration and describes the child.
func (d *daemon) prepare() (process.Spec, error) {
	c := d.cfg
	for _, program := range []string{c.Buildkitd, c.Runc} {
		if _, err := os.Stat(program); err != nil {
			return process.Spec{}, fmt.Errorf("%w; the bundled programs were not extracted, or the state directory was cleared while running", err)
		}
	}
	tmp := filepath.Join(c.Dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return process.Spec{}, err
	}
	snapshotter, err := chooseSnapshotter(c)
	if err != nil {
		return process.Spec{}, err
	}
	if snapshotter != overlayfs && c.Snapshotter == "" {
		d.deps.Log.Warn("overlayfs does not work here; builds copy files instead and are slower", "dir", c.Dir)
	}
	file := filepath.Join(c.Dir, tomlName)
	if err := os.WriteFile(file, []byte(settings(c, snapshotter)), 0o600); err != nil {
		return process.Spec{}, err
	}
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + c.Dir, "TMPDIR=" + tmp,
	}
	if c.Proxy != "" {
		env = append(env, "HTTPS_PROXY="+c.Proxy, "NO_PROXY=localhost,127.0.0.1,::1")
	}
	if c.CAFile != "" {
		// Go adds the directory of the system's certificates by itself.
		env = append(env, "SSL_CERT_FILE="+c.CAFile)
	}
	return process.Spec{
		Name: "buildkitd", Path: c.Buildkitd, Args: []string{"buildkitd", "--config", file},
		Env: env, Dir: c.Dir, NetNS: c.NetNS,
		Log: filepath.Join(c.Dir, logName), PIDFile: filepath.Join(c.Dir, pidName),
		StopTimeout: 10 * time.Second,
	}, nil
}

// settings is buildkitd.toml. Go's quoted strings are valid TOML for paths and
// host names.
func settings(c Config, snapshotter string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by Lockstep at each start of buildkitd.")
	line("root = %q", filepath.Join(c.Dir, rootName))
	line("provenanceEnvDir = %q", filepath.Join(c.Dir, "provenance.d"))
	line("[grpc]")
	line("  address = [%q]", "unix://"+filepath.Join(c.Dir, socketName))
	line("[cdi]")
	line("  disabled = true")
	line("[history]")
	line("  maxAge = %d", int((24 * time.Hour).Seconds()))
	line("  maxEntries = 20")
	if len(c.DNS) > 0 {
		line("[dns]")
		line("  nameservers = [%s]", quoted(c.DNS))
	}
	line("[worker.containerd]")
	line("  enabled = false")
	line("[worker.oci]")
	line("  enabled = true")
	line("  snapshotter = %q", snapshotter)
	line("  binary = %q", c.Runc)
	line("  networkMode = \"host\"")
	line("  defaultCgroupParent = %q", "/"+cgroupName(c.Dir))
	line("  max-parallelism = %d", max(2, runtime.NumCPU()))
	line("  gc = true")
	line("  maxUsedSpace = %q", strconv.FormatInt(c.CacheBytes, 10))
	line("  reservedSpace = %q", strconv.FormatInt(c.CacheBytes/2, 10))
	if c.RegistryMirror == "" {
		return b.String()
	}
	for _, host := range c.Mirrors {
		line("[registry.%q]", host)
		line("  mirrors = [%q]", c.RegistryMirror)
	}
	line("[registry.%q]", c.RegistryMirror)
	line("  http = true")
	return b.String()
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(s)
	}
	return strings.Join(out, ", ")
}

// cgroupName is the parent of the cgroups of all build steps, one per state
// directory so that two platforms never touch each other's.
func cgroupName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "lockstep-build-" + hex.EncodeToString(sum[:4])
}

// lastLines returns the last n lines of a log file as one line, "" when there
// is none.
func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const tail = 4096
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size > tail {
		_, err = f.Seek(-tail, io.SeekEnd)
		if err != nil {
			return ""
		}
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
