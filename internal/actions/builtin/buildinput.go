package builtin

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// outputs reads the exporters.
func outputs(c *Call, r *BuildRequest) error {
	for _, o := range c.list("outputs", false) {
		f := map[string]string{}
		for _, field := range splitFields(o) {
			key, value, ok := strings.Cut(field, "=")
			if !ok { // a bare path means type=local
				f["type"], f["dest"] = "local", field
				continue
			}
			f[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
		kind, dest := f["type"], f["dest"]
		switch kind {
		case "registry":
			r.Push = true
		case "image":
			r.Push = r.Push || f["push"] == "true"
		case "docker":
			r.Load = r.Load || dest == ""
		case "oci", "local", "tar":
			if dest == "" || dest == "-" {
				return c.errorf("add dest=", "input outputs: %q names no file", o)
			}
		case "cacheonly":
		default:
			return c.errorf("use image, registry, docker, oci, local, tar or cacheonly", "input outputs: %q has an unknown type", o)
		}
		if names := f["name"]; names != "" && len(r.Tags) == 0 {
			r.Tags = strings.Split(names, ",")
		}
		if dest == "" {
			continue
		}
		inside, err := within(c, dest)
		if err != nil {
			return err
		}
		if err := c.Job.Files.MkdirAll(path.Dir(inside), 0o755); err != nil {
			return c.errorf("", "input outputs: %w", err)
		}
		if err := c.plainPath(path.Dir(inside)); err != nil {
			return err
		}
		delete(f, "type")
		delete(f, "dest")
		r.Exports = append(r.Exports, Export{Type: kind, Dest: filepath.Join(c.Job.WorkspaceDir, filepath.FromSlash(inside)), Attrs: f})
	}
	return nil
}

// buildOptions reads the rarer inputs.
func buildOptions(ctx context.Context, c *Call, r *BuildRequest) (err error) {
	if call := c.With["call"]; call != "" && call != "build" {
		return c.errorf("leave it out", "input call: %s is not supported: the image is always built", call)
	}
	if r.Pull, err = c.flag("pull"); err != nil {
		return err
	}
	r.CacheFrom, r.CacheTo, r.Annotations = c.list("cache-from", false), c.list("cache-to", false), c.list("annotations", false)
	for _, entry := range append(append([]string{}, r.CacheFrom...), r.CacheTo...) {
		if err := cacheBackend(c, entry); err != nil {
			return err
		}
	}
	r.NoCacheFilters, r.Attests, r.AddHosts = c.list("no-cache-filters", true), c.list("attests", false), c.list("add-hosts", true)
	r.Allow, r.Ulimits = c.list("allow", true), c.list("ulimit", true)
	r.Provenance, r.SBOM = strings.TrimSpace(c.With["provenance"]), strings.TrimSpace(c.With["sbom"])
	r.Network, r.ShmSize, r.CgroupParent = c.With["network"], c.With["shm-size"], c.With["cgroup-parent"]
	if r.Contexts, err = buildContexts(ctx, c); err != nil {
		return err
	}
	r.SSH, err = sshKeys(ctx, c)
	return err
}

// cacheBackend refuses the stores of build cache that are not there. A bare
// reference means type=registry.
func cacheBackend(c *Call, entry string) error {
	for _, field := range splitFields(entry) {
		if kind, ok := strings.CutPrefix(field, "type="); ok {
			switch kind {
			case "registry", "inline", "local", "gha":
				return nil
			default:
				return c.errorf("use type=registry, inline, local or gha", "build cache %q is not supported", entry)
			}
		}
	}
	return nil
}

// buildContexts reads name=place.
func buildContexts(ctx context.Context, c *Call) (map[string]string, error) {
	out := map[string]string{}
	for _, line := range c.list("build-contexts", false) {
		name, place, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			return nil, c.errorf("", "input build-contexts: %q is not name=place", line)
		}
		switch {
		case strings.HasPrefix(place, "docker-image://"), strings.HasPrefix(place, "https://"), strings.HasPrefix(place, "target:"):
			out[name] = place
		case strings.Contains(place, "://"):
			return nil, c.errorf("use a path, docker-image:// or https://", "input build-contexts: %q is not supported", place)
		default:
			dir, _, err := directory(ctx, c, place)
			if err != nil {
				return nil, err
			}
			out[name] = dir
		}
	}
	return out, nil
}

// sshKeys reads id=key-file,key-file. An agent of the job cannot be reached by
// the builder, so that its keys have to be named.
func sshKeys(ctx context.Context, c *Call) (map[string][][]byte, error) {
	out := map[string][][]byte{}
	for _, line := range c.list("ssh", false) {
		id, files, ok := strings.Cut(line, "=")
		if !ok {
			return nil, c.errorf("write "+id+"=path/of/the/private/key", "input ssh: %q means the agent of the job, which the builder cannot reach", line)
		}
		for file := range strings.SplitSeq(files, ",") {
			t, opened, err := c.treeOf(ctx, c.inJob(file))
			if err != nil || t.root == nil {
				return nil, errors.Join(err, c.errorf("", "input ssh: there is no file %q", file))
			}
			key, err := readFile(t.root, path.Clean("./"+strings.TrimPrefix(c.inJob(file), t.at)), 1<<20)
			if opened {
				_ = t.root.Close()
			}
			if err != nil || !strings.Contains(string(key), "PRIVATE KEY") {
				return nil, c.errorf("write "+id+"=path/of/the/private/key", "input ssh: %q is no private key", file)
			}
			out[id] = append(out[id], key)
		}
	}
	return out, nil
}

// secrets collects the secrets of a build. A value may have several lines when
// it stands in double quotes.
func secrets(c *Call, into map[string][]byte) error {
	lines, err := quotedLines(c.With["secrets"])
	if err != nil {
		return c.errorf("", "input secrets must be lines of id=value")
	}
	for _, line := range lines {
		id, value, ok := strings.Cut(line, "=")
		if !ok || id == "" {
			return c.errorf("", "input secrets must be lines of id=value")
		}
		value = strings.Trim(value, `"`)
		into[id] = []byte(value)
		c.Job.Mask(value)
	}
	for _, line := range c.list("secret-envs", true) {
		id, name, ok := strings.Cut(line, "=")
		if !ok {
			name = id
		}
		value := c.env(name)
		if value == "" {
			return c.errorf("", "input secret-envs: the environment has no %q", name)
		}
		into[id] = []byte(value)
	}
	for _, line := range c.list("secret-files", true) {
		id, file, _ := strings.Cut(line, "=")
		inside, err := within(c, file)
		if err != nil {
			return err
		}
		if into[id], err = readFile(c.Job.Files, inside, 1<<20); err != nil {
			return c.errorf("", "input secret-files: %w", err)
		}
	}
	return nil
}

// quotedLines splits at line ends outside of double quotes.
func quotedLines(text string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\x1f', true, -1
	var out []string
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if line := strings.TrimSpace(strings.Join(record, "")); line != "" {
			out = append(out, line)
		}
	}
}

// contextDir finds the build context on this machine. Without the input it is
// the commit itself, as the real action's Git context is.
func contextDir(ctx context.Context, c *Call) (dir, repoDir string, err error) {
	input := c.With["context"]
	rest, isDefault := strings.CutPrefix(input, "{{defaultContext}}")
	commit, sub := c.Job.Commit, strings.TrimPrefix(rest, ":")
	own := c.Job.ServerURL + "/" + c.Job.Repo
	switch {
	case input == "" || isDefault:
	case input == own || input == own+".git" || strings.HasPrefix(input, own+".git#") || strings.HasPrefix(input, own+"#"):
		_, fragment, _ := strings.Cut(input, "#")
		ref := ""
		if ref, sub, _ = strings.Cut(fragment, ":"); ref != "" && ref != c.Job.Ref && ref != strings.TrimPrefix(c.Job.Ref, "refs/heads/") {
			commit = ref
		}
	case strings.Contains(input, "://") || strings.HasPrefix(input, "git@"):
		return "", "", c.errorf("check the repository out and use its path", "build context %q: remote contexts other than the run's own repository are not supported yet", input)
	default:
		return directory(ctx, c, input)
	}
	if !filepath.IsLocal(path.Join(".", sub)) || strings.HasPrefix(commit, "-") {
		return "", "", c.errorf("", "build context %q is not valid", input)
	}
	c.Logf("Building from commit %s as it is in the repository.", commit)
	dir = filepath.Join(c.Job.ScratchDir, "context-"+strings.ReplaceAll(commit, "/", "_"))
	if err := unpackCommit(ctx, c, commit, dir); err != nil {
		return "", "", err
	}
	if sub == "" {
		return dir, "", nil
	}
	// The commit may hold links: only a plain folder is a context.
	for part := path.Clean(sub); part != "."; part = path.Dir(part) {
		if fi, err := os.Lstat(filepath.Join(dir, part)); err != nil || !fi.IsDir() {
			return "", "", c.errorf("", "build context %q: the commit has no folder %q", input, sub)
		}
	}
	return filepath.Join(dir, path.Clean(sub)), path.Clean(sub), nil
}

// directory turns a path of the job into a folder on this machine. What is not
// in the workspace is copied first.
func directory(ctx context.Context, c *Call, input string) (dir, repoDir string, err error) {
	abs := c.inJob(input)
	if abs != c.Job.Workspace && !strings.HasPrefix(abs, c.Job.Workspace+"/") {
		if !path.IsAbs(input) && !strings.HasPrefix(input, "~") {
			return "", "", c.errorf("use a path in the workspace", "%q is outside of the workspace", input)
		}
		t, opened, err := c.treeOf(ctx, abs)
		if err != nil {
			return "", "", err
		}
		if t.root == nil {
			return "", "", c.errorf("", "build context %q is not a directory", input)
		}
		inside := path.Clean("./" + strings.TrimPrefix(abs, t.at))
		if opened {
			inside = path.Join("_lockstep/copies", path.Base(t.root.Name()), path.Base(abs))
			_ = t.root.Close()
		}
		if err := c.plainIn(c.Job.Temp, inside); err != nil {
			return "", "", err
		}
		dir := filepath.Join(c.Job.Temp.Name(), filepath.FromSlash(inside))
		if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() {
			return "", "", c.errorf("", "build context %q is not a directory", input)
		}
		return dir, "", nil
	}
	inside, err := within(c, abs)
	if err != nil {
		return "", "", err
	}
	fi, err := c.Job.Files.Stat(inside)
	if err != nil || !fi.IsDir() {
		return "", "", c.errorf("check the repository out before, and check the input context", "build context %q is not a directory of the workspace", input)
	}
	if err := c.plainPath(inside); err != nil {
		return "", "", err
	}
	return filepath.Join(c.Job.WorkspaceDir, filepath.FromSlash(inside)), inside, nil
}

// plainPath refuses a path of the workspace with a link in it.
func (c *Call) plainPath(inside string) error { return c.plainIn(c.Job.Files, inside) }

// plainIn refuses a path with a link in it: the builder works on this machine,
// not in the sandbox.
func (c *Call) plainIn(root *os.Root, inside string) error {
	for part := inside; part != "."; part = path.Dir(part) {
		if fi, err := root.Lstat(part); err != nil || fi.Mode()&os.ModeSymlink != 0 {
			return c.errorf("use the real path", "path %q goes through the symbolic link %q", inside, part)
		}
	}
	return nil
}
