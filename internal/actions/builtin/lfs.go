package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// lfsPointer is what Git holds of a large file.
var lfsPointer = regexp.MustCompile(`\Aversion https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n`)

const (
	maxPointer   = 1024
	lfsBatch     = 100 // objects per request
	maxLFSObject = 8 << 30
)

type lfsObject struct {
	OID  string `json:"oid"`
	Size int64  `json:"size"`
}

// largeFiles replaces the pointers of a work tree by their files: with the
// machine's git-lfs, or without it by the same protocol.
func largeFiles(ctx context.Context, c *Call, p checkoutPlan, basic string) error {
	if _, err := c.capture(ctx, p.dir, "git", "lfs", "version"); err == nil {
		if err := c.script(ctx, p.dir, `git lfs install --local && git lfs pull`); err != nil {
			return c.errorf("", "fetch the LFS files of %s: %w", p.repo, err)
		}
		return nil
	}
	c.Logf("This machine has no git-lfs: the files are fetched by the engine itself.")
	names, err := c.capture(ctx, p.dir, "git", "grep", "--cached", "-lzI", "^version https://git-lfs.github.com/spec/v1$")
	if err != nil || names == "" {
		c.Logf("The repository has no LFS files.")
		return nil
	}
	inside, err := within(c, p.dir)
	if err != nil {
		return err
	}
	files := map[string][]string{} // by object
	var objects []lfsObject
	var touched []string
	for name := range strings.SplitSeq(strings.TrimRight(names, "\x00"), "\x00") {
		file := path.Join(inside, name)
		data, err := readFile(c.Job.Files, file, maxPointer)
		if err != nil {
			continue // left out by a sparse checkout, or no pointer
		}
		m := lfsPointer.FindSubmatch(data)
		if m == nil {
			continue
		}
		size, err := strconv.ParseInt(string(m[2]), 10, 64)
		if err != nil || size > maxLFSObject {
			return c.errorf("", "%s is an LFS file of %s bytes", name, m[2])
		}
		oid := string(m[1])
		if files[oid] == nil {
			objects = append(objects, lfsObject{oid, size})
		}
		files[oid] = append(files[oid], file)
		touched = append(touched, name)
	}
	for len(objects) > 0 {
		n := min(lfsBatch, len(objects))
		if err := fetchObjects(ctx, c, p, basic, objects[:n], files); err != nil {
			return c.errorf("push the files with git lfs push, and check that the token may read them", "fetch the LFS files of %s: %w", p.repo, err)
		}
		objects = objects[n:]
	}
	c.Logf("Fetched %d LFS files", len(touched))
	if len(touched) == 0 {
		return nil
	}
	// Without the filter Git would show them as changed.
	return c.run(ctx, p.dir, append([]string{"git", "update-index", "--skip-worktree", "--"}, touched...)...)
}

// fetchObjects asks for one batch and writes what comes.
func fetchObjects(ctx context.Context, c *Call, p checkoutPlan, basic string, objects []lfsObject, files map[string][]string) error {
	var answer struct {
		Objects []struct {
			lfsObject
			Actions map[string]struct {
				Href   string            `json:"href"`
				Header map[string]string `json:"header"`
			} `json:"actions"`
			Error *struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		} `json:"objects"`
	}
	const media = "application/vnd.git-lfs+json"
	err := c.request(ctx, http.MethodPost, p.url+".git/info/lfs/objects/batch", map[string]string{"Authorization": "Basic " + basic, "Accept": media, "Content-Type": media},
		map[string]any{"operation": "download", "transfers": []string{"basic"}, "objects": objects, "hash_algo": "sha256"}, &answer)
	if err != nil {
		return err
	}
	got := map[string]bool{}
	for _, o := range answer.Objects {
		switch {
		case o.Error != nil:
			return fmt.Errorf("%s: %s (%d)", files[o.OID], o.Error.Message, o.Error.Code)
		case files[o.OID] == nil:
			continue
		case o.Actions["download"].Href == "":
			return fmt.Errorf("%s: the server offers no download", files[o.OID])
		}
		header := o.Actions["download"].Header
		if len(header) == 0 && strings.HasPrefix(o.Actions["download"].Href, c.Job.ServerURL+"/") {
			header = map[string]string{"Authorization": "Basic " + basic}
		}
		for _, file := range files[o.OID] {
			if err := download(ctx, c, o.Actions["download"].Href, header, file, o.lfsObject); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		got[o.OID] = true
	}
	for _, o := range objects {
		if !got[o.OID] {
			return fmt.Errorf("%s: the server did not answer for it", files[o.OID])
		}
	}
	return nil
}

// download writes one object over its pointer, when it is what the pointer says.
func download(ctx context.Context, c *Call, address string, header map[string]string, file string, want lfsObject) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := (&http.Client{Transport: c.transport()}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the download answered %s", resp.Status)
	}
	partial := file + ".lockstep-lfs"
	f, err := c.Job.Files.Create(partial)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = c.Job.Files.Remove(partial)
		}
	}()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(resp.Body, want.Size+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if n != want.Size || hex.EncodeToString(sum.Sum(nil)) != want.OID {
		return errors.New("the server sent something else than the pointer names")
	}
	if fi, err := c.Job.Files.Stat(file); err == nil {
		if err := c.Job.Files.Chmod(partial, fi.Mode().Perm()); err != nil {
			return err
		}
	}
	return c.Job.Files.Rename(partial, file)
}
