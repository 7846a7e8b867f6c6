package forge

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func (f *Forge) contentsRoutes(rt routes) {
	rt.handle("GET /repos/{owner}/{repo}/contents/{path...}", scopeContents, f.apiContents)
	rt.handle("GET /repos/{owner}/{repo}/contents", scopeContents, f.apiContents)
	rt.limited("PUT /repos/{owner}/{repo}/contents/{path...}", scopeContents, maxBlobBody, f.apiPutContent)
	rt.handle("DELETE /repos/{owner}/{repo}/contents/{path...}", scopeContents, f.apiDeleteContent)
	rt.handle("GET /repos/{owner}/{repo}/readme", scopeContents, f.apiReadme)
	rt.handle("GET /repos/{owner}/{repo}/readme/{dir...}", scopeContents, f.apiReadme)
	rt.handle("GET /repos/{owner}/{repo}/languages", "", f.apiLanguages)
	rt.handle("GET /repos/{owner}/{repo}/tags", scopeContents, f.apiTags)
}

type contentJSON struct {
	Type        string  `json:"type"` // file, dir, symlink, submodule
	Encoding    string  `json:"encoding,omitempty"`
	Size        int64   `json:"size"`
	Name        string  `json:"name"`
	Path        string  `json:"path"`
	Content     *string `json:"content,omitempty"`
	Target      string  `json:"target,omitempty"` // of a symlink
	SHA         string  `json:"sha"`
	URL         string  `json:"url"`
	HTMLURL     string  `json:"html_url"`
	GitURL      string  `json:"git_url"`
	DownloadURL *string `json:"download_url"`
}

// maxInlineContent is up to which size a file comes inside JSON, as on GitHub.
const maxInlineContent = 1 << 20

func (f *Forge) apiContents(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	rev := r.URL.Query().Get("ref")
	if rev == "" {
		rev = "HEAD"
	}
	commit, err := repo.git.Resolve(r.Context(), rev)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "No commit found for the ref "+rev)
	}
	file := strings.Trim(r.PathValue("path"), "/")
	entry, err := f.entryAt(r.Context(), repo, commit, file)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Not Found")
	}
	if entry.Kind == git.KindTree {
		entries, err := repo.git.ReadDir(r.Context(), commit, file)
		list := []contentJSON{}
		for _, e := range entries {
			list = append(list, f.contentJSON(r, repo, rev, e))
		}
		return list, err
	}
	j := f.contentJSON(r, repo, rev, entry)
	if entry.Kind == git.KindCommit {
		return j, nil
	}
	data, err := repo.git.ReadFile(r.Context(), commit, file)
	if errors.Is(err, git.ErrTooLarge) {
		return nil, fail(http.StatusForbidden, "This file has %d bytes, which is too large for the API: clone the repository", j.Size)
	}
	if err != nil {
		return nil, err
	}
	if strings.Contains(r.Header.Get("Accept"), "raw") {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(data)
		return nil, nil
	}
	j.Size = int64(len(data))
	content, encoding := "", "none"
	switch {
	case entry.Symlink():
		j.Target, encoding = string(data), ""
	case len(data) <= maxInlineContent:
		content, encoding = wrapBase64(data), "base64"
	}
	if encoding != "" {
		j.Encoding, j.Content = encoding, &content
	}
	return j, nil
}

// entryAt finds the entry of a path in a commit.
func (f *Forge) entryAt(ctx context.Context, repo *repository, commit, file string) (git.Entry, error) {
	if file == "" {
		return git.Entry{Kind: git.KindTree}, nil
	}
	dir := path.Dir(file)
	if dir == "." {
		dir = ""
	}
	entries, err := repo.git.ReadDir(ctx, commit, dir)
	if err != nil {
		return git.Entry{}, err
	}
	for _, e := range entries {
		if e.Name == path.Base(file) {
			return e, nil
		}
	}
	return git.Entry{}, fmt.Errorf("%s: %w", file, git.ErrNotFound)
}

func (f *Forge) contentJSON(r *http.Request, repo *repository, rev string, e git.Entry) contentJSON {
	kinds := map[git.Kind]string{git.KindBlob: "file", git.KindTree: "dir", git.KindCommit: "submodule"}
	base := apiBase(r) + "/repos/" + repo.full()
	escaped := (&url.URL{Path: e.Path}).EscapedPath()
	j := contentJSON{
		Type: kinds[e.Kind], Name: e.Name, Path: e.Path, SHA: e.ID,
		URL:     base + "/contents/" + escaped + "?ref=" + url.QueryEscape(rev),
		HTMLURL: f.cfg.URL + "/" + repo.full(), GitURL: base + "/git/blobs/" + e.ID,
	}
	if e.Symlink() {
		j.Type = "symlink"
	}
	if e.Kind == git.KindBlob {
		if _, _, size, err := repo.git.Stat(r.Context(), e.ID); err == nil {
			j.Size = size
		}
	}
	return j
}

// wrapBase64 breaks lines after 60 characters, as GitHub does.
func wrapBase64(data []byte) string {
	encoded := base64.StdEncoding.EncodeToString(data)
	var out bytes.Buffer
	for part := range slices.Chunk([]byte(encoded), 60) {
		out.Write(part)
		out.WriteByte('\n')
	}
	return out.String()
}
