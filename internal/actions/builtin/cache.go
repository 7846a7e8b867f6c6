package builtin

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxCache bounds one unpacked cache, in bytes.
const maxCache = 10 << 30

func cacheInputs(more ...string) map[string]string {
	in := map[string]string{"path": "", "key": "", "enablecrossosarchive": "false"}
	for i := 0; i+1 < len(more); i += 2 {
		in[more[i]] = more[i+1]
	}
	return in
}

var cacheNoEffect = map[string]string{"upload-chunk-size": "caches are on this machine", "save-always": "a cache is saved when the job succeeds"}

func cacheAction() Action {
	return Action{Name: "actions/cache", Inputs: cacheInputs("restore-keys", "", "fail-on-cache-miss", "false", "lookup-only", "false"), NoEffect: cacheNoEffect,
		Run: restoreCache,
		Post: func(ctx context.Context, c *Call) error {
			if c.State["key"] == "" || c.State["key"] == c.State["matched"] {
				if c.State["key"] != "" {
					c.Logf("Cache hit occurred on the primary key %s, not saving cache.", c.State["key"])
				}
				return nil
			}
			if c.Job.Succeeded != nil && !c.Job.Succeeded() {
				c.Logf("The job failed, not saving cache.")
				return nil
			}
			return saveCache(ctx, c)
		}}
}

func cacheRestore() Action {
	return Action{Name: "actions/cache/restore", Inputs: cacheInputs("restore-keys", "", "fail-on-cache-miss", "false", "lookup-only", "false"), NoEffect: cacheNoEffect, Run: restoreCache}
}

func cacheSave() Action {
	return Action{Name: "actions/cache/save", Inputs: cacheInputs(), NoEffect: cacheNoEffect, Run: func(ctx context.Context, c *Call) error {
		if err := checkCache(c); err != nil {
			return err
		}
		return saveCache(ctx, c)
	}}
}

func checkCache(c *Call) error {
	switch {
	case c.Job.Store == nil:
		return c.errorf("start Lockstep with its runner services", "there are no caches here")
	case len(c.list("path", false)) == 0:
		return c.errorf("", "input path is required")
	case c.With["key"] == "":
		return c.errorf("", "input key is required, and empty")
	}
	keys := append([]string{c.With["key"]}, c.list("restore-keys", false)...)
	if len(keys) > 10 {
		return c.errorf("", "%d keys: at most 10 are allowed", len(keys))
	}
	for _, k := range keys {
		if len(k) > 512 || strings.Contains(k, ",") {
			return c.errorf("", "key %q: a key has at most 512 characters and no comma", k)
		}
	}
	return nil
}

// cacheVersion is what the npm client makes of the paths and the compression,
// so that both find each other's caches.
func cacheVersion(paths []string, method string) string {
	sum := sha256.Sum256([]byte(strings.Join(append(append([]string{}, paths...), method, "1.0"), "|")))
	return hex.EncodeToString(sum[:])
}

// cacheMethod is the compression that the npm client would use in this job.
func (c *Call) cacheMethod(ctx context.Context) string {
	if _, err := c.capture(ctx, c.Job.Workspace, "sh", "-c", "command -v zstd"); err == nil {
		return "zstd-without-long"
	}
	return "gzip"
}

func restoreCache(ctx context.Context, c *Call) error {
	if err := checkCache(c); err != nil {
		return err
	}
	lookup, err := c.flag("lookup-only")
	if err != nil {
		return err
	}
	must, err := c.flag("fail-on-cache-miss")
	if err != nil {
		return err
	}
	key, paths := c.With["key"], c.list("path", false)
	c.State["key"] = key
	c.SetOutput("cache-primary-key", key)
	keys := append([]string{key}, c.list("restore-keys", false)...)
	found, ok, err := c.Job.Store.FindCache(ctx, keys, cacheVersion(paths, c.cacheMethod(ctx)))
	if err != nil {
		return c.errorf("", "look for a cache: %w", err)
	}
	if !ok {
		if must {
			return c.errorf("run the workflow that saves it first", "Failed to restore cache entry. Exiting as fail-on-cache-miss is set. Input key: %s", key)
		}
		c.Logf("Cache not found for input keys: %s", strings.Join(keys, ", "))
		return nil
	}
	if !lookup {
		if err := c.unpackCache(ctx, found); err != nil {
			c.Logf("##[warning]Failed to restore: %v", err) // a cache is never needed
			return nil
		}
	}
	c.State["matched"] = found.Key
	c.SetOutput("cache-matched-key", found.Key)
	c.SetOutput("cache-hit", strconv.FormatBool(strings.EqualFold(found.Key, key)))
	c.Logf("Cache %s from key: %s (%d bytes)", map[bool]string{true: "found and can be restored", false: "restored"}[lookup], found.Key, found.Size)
	return nil
}

const cacheDir = "_lockstep/cache"

// unpackCache unpacks an archive in the sandbox, with the sandbox's rights.
func (c *Call) unpackCache(ctx context.Context, found Cache) (err error) {
	archive, err := c.Job.Store.OpenCache(ctx, found.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	plain, done, err := decompress(archive)
	if err != nil {
		return err
	}
	defer done()
	if err := c.Job.Temp.MkdirAll(cacheDir, 0o755); err != nil {
		return err
	}
	name := path.Join(cacheDir, "restore.tar")
	file, err := c.Job.Temp.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Job.Temp.Remove(name)) }()
	n, err := io.Copy(file, io.LimitReader(plain, maxCache+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if n > maxCache {
		return fmt.Errorf("the cache has more than %d bytes", int64(maxCache))
	}
	return c.run(ctx, c.Job.Workspace, "tar", "-xPf", path.Join(c.Job.TempPath, name), "-C", c.Job.Workspace)
}

// decompress reads zstd or gzip, whichever it is.
func decompress(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(4)
	if err != nil {
		return nil, nil, fmt.Errorf("the cache is empty: %w", err)
	}
	if string(magic) == "\x28\xb5\x2f\xfd" {
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, nil, err
	}
	return z, func() { _ = z.Close() }, nil
}

// listCached prints the paths of a cache that exist, relative to the workspace.
const listCached = `shopt -s globstar nullglob dotglob
IFS=; out=(); not=()
for p in "$@"; do
	n=; case $p in !*) n=1; p=${p#!};; esac
	case $p in "~") p=$HOME;; "~/"*) p=$HOME/${p#"~/"};; esac
	if [ $n ]; then not+=("$PWD/$p" "$p"); continue; fi
	for f in $p; do [ -e "$f" ] && out+=("$f"); done
done
for f in "${out[@]}"; do
	skip=; for x in "${not[@]}"; do [[ $f == $x || $PWD/$f == $x ]] && skip=1; done
	[ $skip ] || realpath -sm --relative-to=. -- "$f"
done`

// saveCache packs the paths in the sandbox and stores them compressed.
func saveCache(ctx context.Context, c *Call) (err error) {
	key, paths := c.With["key"], c.list("path", false)
	if err := c.Job.Temp.MkdirAll(cacheDir, 0o755); err != nil {
		return err
	}
	files, err := c.capture(ctx, c.Job.Workspace, append([]string{"bash", "-c", listCached, "bash"}, paths...)...)
	if err != nil {
		return c.errorf("", "save cache: %w", err)
	}
	if strings.TrimSpace(files) == "" {
		c.Logf("##[warning]Path Validation Error: Path(s) specified in the action for caching do(es) not exist, hence no cache is being saved.")
		return nil
	}
	list, archive := path.Join(cacheDir, "manifest.txt"), path.Join(cacheDir, "save.tar")
	if err := c.Job.Temp.WriteFile(list, []byte(files), 0o644); err != nil {
		return err
	}
	defer func() { _, _ = c.Job.Temp.Remove(list), c.Job.Temp.Remove(archive) }()
	if err := c.run(ctx, c.Job.Workspace, "tar", "--posix", "-cPf", path.Join(c.Job.TempPath, archive), "-C", c.Job.Workspace, "--files-from", path.Join(c.Job.TempPath, list)); err != nil {
		return c.errorf("", "save cache: %w", err)
	}
	file, err := c.Job.Temp.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if fi, err := file.Stat(); err != nil || fi.Size() > maxCache {
		return errors.Join(err, c.errorf("cache less", "the cache would have more than %d bytes", int64(maxCache)))
	}
	method := c.cacheMethod(ctx)
	r, w := io.Pipe()
	go func() { w.CloseWithError(compress(w, file, method)) }()
	err = c.Job.Store.SaveCache(ctx, key, cacheVersion(paths, method), r)
	_ = r.CloseWithError(errors.New("the store stopped reading"))
	if errors.Is(err, ErrExists) {
		c.Logf("Failed to save: Unable to reserve cache with key %s, another job may be creating this cache.", key)
		return nil
	}
	if err != nil {
		c.Logf("##[warning]Failed to save: %v", err) // as the real action: no failure
		return nil
	}
	c.Logf("Cache saved with key: %s", key)
	return nil
}

func compress(w io.Writer, r io.Reader, method string) error {
	var z io.WriteCloser = gzip.NewWriter(w)
	if method != "gzip" {
		var err error
		if z, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)); err != nil {
			return err
		}
	}
	_, err := io.Copy(z, r)
	return errors.Join(err, z.Close())
}
