package action

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	boxed "github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

const (
	importTimeout = 5 * time.Minute
	// maxArchive bounds an archive that is downloaded, in bytes.
	maxArchive = 512 << 20
)

// source is what --from names.
type source struct {
	git     string // a URL or folder that git can fetch from
	dir     string // a folder without Git
	archive string // a file
	url     string // of an archive
}

// parseSource says what --from means.
func parseSource(from, repo string) (source, error) {
	if from == "" {
		return source{git: "https://github.com/" + repo}, nil
	}
	if u, err := url.Parse(from); err == nil && u.Scheme != "" && u.Host != "" {
		switch {
		case (u.Scheme == "http" || u.Scheme == "https") && isArchive(u.Path):
			return source{url: from}, nil
		case u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "ssh" || u.Scheme == "git":
			return source{git: from}, nil
		}
		return source{}, &output.Error{What: fmt.Sprintf("--from %s", from), Why: "this kind of URL is not known", Try: "an https URL, a folder or a .tar.gz file"}
	}
	path, err := filepath.Abs(from)
	if err != nil {
		return source{}, err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return source{}, &output.Error{What: fmt.Sprintf("there is no folder or file %q", from), Try: "a folder, a .tar.gz file or a URL", Err: err}
	case info.IsDir() && isRepository(path):
		return source{git: path}, nil
	case info.IsDir():
		return source{dir: path}, nil
	case isArchive(path):
		return source{archive: path}, nil
	}
	return source{}, &output.Error{What: fmt.Sprintf("%q is no archive", from), Why: "only .tar.gz, .tgz and .tar are read", Try: "a folder, or repack it as .tar.gz"}
}

func isArchive(path string) bool {
	path = strings.ToLower(path)
	return strings.HasSuffix(path, ".tar.gz") || strings.HasSuffix(path, ".tgz") || strings.HasSuffix(path, ".tar")
}

func isRepository(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		return true
	}
	_, headErr := os.Stat(filepath.Join(dir, "HEAD"))
	_, objectsErr := os.Stat(filepath.Join(dir, "objects"))
	return headErr == nil && objectsErr == nil
}

// unpack writes an archive into dir and returns the folder with its content:
// GitHub's archives have one folder at the top.
func unpack(r io.Reader, compressed bool, dir string) (string, error) {
	if compressed {
		z, err := gzip.NewReader(r)
		if err != nil {
			return "", fmt.Errorf("the archive is not compressed by gzip: %w", err)
		}
		r = z
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if err := boxed.Unpack(r, root, "tree"); err != nil {
		return "", err
	}
	top := filepath.Join(dir, "tree")
	entries, err := os.ReadDir(top)
	if err != nil {
		return "", err
	}
	if len(entries) == 1 && entries[0].IsDir() {
		return filepath.Join(top, entries[0].Name()), nil
	}
	return top, nil
}

// content makes a folder of a source without Git.
func (s source) content(ctx context.Context, client *http.Client, dir string) (string, error) {
	switch {
	case s.dir != "":
		return s.dir, nil
	case s.archive != "":
		f, err := os.Open(s.archive)
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }()
		return unpack(f, !strings.HasSuffix(strings.ToLower(s.archive), ".tar"), dir)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("download %s: %w", s.url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("download %s: %s", s.url, resp.Status)
	}
	body := &counted{r: resp.Body, left: maxArchive}
	return unpack(body, !strings.HasSuffix(strings.ToLower(req.URL.Path), ".tar"), dir)
}

// counted fails when more than left bytes come.
type counted struct {
	r    io.Reader
	left int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, errors.New("the archive is larger than 512 MiB")
	}
	return n, err
}
