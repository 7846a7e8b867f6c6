package baseimage

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// rootfs is the small system that all base images share.
type rootfs struct {
	entries []entry
	key     string
}

// readRootfs collects it from this machine.
func readRootfs(ctx context.Context, cfg Config) (rootfs, error) {
	if err := checkStatic(cfg.Busybox); err != nil {
		return rootfs{}, err
	}
	program, err := os.ReadFile(cfg.Busybox)
	if err != nil {
		return rootfs{}, err
	}
	applets, err := listApplets(ctx, cfg.Busybox)
	if err != nil {
		return rootfs{}, err
	}
	certs, err := os.ReadFile(cfg.CACerts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return rootfs{}, err
	}
	var r rootfs
	dir := func(path string, mode int64) { r.entries = append(r.entries, entry{path: path, mode: mode, dir: true}) }
	file := func(path, data string, mode int64) {
		r.entries = append(r.entries, entry{path: path, mode: mode, data: []byte(data)})
	}
	link := func(path, to string) { r.entries = append(r.entries, entry{path: path, mode: 0o777, link: to}) }
	for _, d := range []string{"bin", "dev", "etc", "etc/ssl", "etc/ssl/certs", "home", "proc", "run", "sbin", "sys", "usr",
		"usr/bin", "usr/sbin", "usr/local", "usr/local/bin", "var"} {
		dir(d, 0o755)
	}
	dir("root", 0o700)
	dir("tmp", 0o1777)
	dir("var/tmp", 0o1777)
	file("bin/busybox", string(program), 0o755)
	for _, a := range applets {
		link("bin/"+a, "busybox")
	}
	link("usr/bin/env", "../../bin/busybox") // for #!/usr/bin/env
	file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)
	file("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)
	file("etc/nsswitch.conf", "hosts: files dns\n", 0o644)
	file("etc/os-release", "NAME=\"Lockstep base image\"\nID=lockstep\nPRETTY_NAME=\"Lockstep base image (busybox)\"\n", 0o644)
	if len(certs) > 0 {
		file("etc/ssl/certs/ca-certificates.crt", string(certs), 0o644)
	}
	r.key = keyOf(r.entries)
	return r, nil
}

// checkStatic refuses a busybox that needs libraries which the image lacks.
func checkStatic(path string) error {
	const hint = "install the package busybox-static (apt-get install busybox-static)"
	f, err := elf.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %s", path, hint)
	}
	if err != nil {
		return fmt.Errorf("%s is not a program: %w; %s", path, err, hint)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.Join(fmt.Errorf("%s is linked dynamically and would not run in an image: %s", path, hint), f.Close())
		}
	}
	return f.Close()
}

// listApplets asks busybox for the commands that it is.
func listApplets(ctx context.Context, busybox string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the applets of %s: %w", busybox, err)
	}
	var applets []string
	for _, a := range strings.Fields(string(out)) {
		if a != "busybox" && filepath.Base(a) == a {
			applets = append(applets, a)
		}
	}
	slices.Sort(applets)
	if !slices.Contains(applets, "sh") {
		return nil, fmt.Errorf("%s has no shell", busybox)
	}
	return applets, nil
}

// keyOf changes with every entry. Files on disk count by size and time.
func keyOf(entries []entry) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "recipe %d %s\n", recipe, runtime.GOARCH)
	for _, e := range entries {
		fmt.Fprintf(sum, "%s %o %t %q %d\n", e.path, e.mode, e.dir, e.link, e.size)
		if e.file != "" {
			if info, err := os.Stat(e.file); err == nil {
				fmt.Fprintln(sum, info.ModTime().UnixNano())
			}
		}
		sum.Write(e.data)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func busyboxImage(root rootfs) product {
	return product{
		name: "busybox", tags: []string{"docker.io/library/busybox:latest"}, key: root.key,
		make: func(scratch string) (v1.Image, error) {
			layer, err := writeLayer(filepath.Join(scratch, "root.tar"), root.entries)
			if err != nil {
				return nil, err
			}
			return assemble(v1.Config{
				Env: []string{"PATH=" + systemPath}, Cmd: []string{"sh"},
				Labels: labels("busybox", "busybox-static of this machine with CA certificates; no package manager"),
			}, layer)
		},
	}
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// labels say what an image is and that a machine made it.
func labels(title, description string) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       title,
		"org.opencontainers.image.description": "Made by Lockstep, not the image of that name on Docker Hub: " + description,
		"org.opencontainers.image.vendor":      "lockstep",
	}
}

// assemble makes an OCI image of layers. It depends on nothing but them.
func assemble(cfg v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, l := range layers {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCIUncompressedLayer,
			History: v1.History{CreatedBy: "lockstep", Created: v1.Time{Time: time.Unix(0, 0).UTC()}}})
		if err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, cfg
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	return mutate.ConfigFile(img, file)
}
