// Package lfs shows the content of files that Git LFS keeps elsewhere.
//
// Input: the files of a commit, in which such a file is a small pointer, and
// the place and credentials of the LFS server. Output: [Files], in which it
// has its content.
//
// Invariants: the id of a file stays that of its pointer, so what readers
// depend on does not change; content is what the pointer says by SHA-256, or
// an error; its size is bounded; credentials go to the host of the repository
// only.
//
// Start reading at [Files.Object].
package lfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/gitconfig"
)

const (
	maxPointer  = 1024     // bytes; a larger file is no pointer
	maxContent  = 64 << 20 // as for other files
	maxAnswer   = 1 << 20
	mediaType   = "application/vnd.git-lfs+json"
	httpTimeout = 2 * time.Minute
)

// Pointer is what the repository has instead of the content.
type Pointer struct {
	OID  string // 64 hexadecimal digits of a SHA-256
	Size int64
}

// ParsePointer reads a file; ok is false when it is no pointer.
func ParsePointer(data []byte) (p Pointer, ok bool) {
	if len(data) > maxPointer || !bytes.HasPrefix(data, []byte("version https://git-lfs.github.com/spec/v1\n")) {
		return p, false
	}
	p.Size = -1
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "oid":
			if blobs.Valid(value) {
				p.OID = strings.TrimPrefix(value, "sha256:")
			}
		case "size":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				p.Size = n
			}
		}
	}
	return p, p.OID != "" && p.Size >= 0
}

// Server is where the content of a repository is.
type Server struct {
	RepoURL    string
	Credential credential.Credential // signed
	Clients    *credential.Clients
	Kept       *blobs.Cache
}

// Files shows content for pointers. See [Of].
type Files struct {
	source.Files
	server Server
}

// Of returns files with the content of LFS.
func Of(files source.Files, server Server) *Files { return &Files{Files: files, server: server} }

// Object implements source.Files.
func (f *Files) Object(ctx context.Context, id string) ([]byte, error) {
	data, err := f.Files.Object(ctx, id)
	if err != nil {
		return nil, err
	}
	p, ok := ParsePointer(data)
	if !ok {
		return data, nil
	}
	if p.Size == 0 {
		return nil, nil
	}
	content, err := f.content(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("Git LFS object %s of %s: %w", p.OID[:12], credential.Redact(f.server.RepoURL), err)
	}
	return content, nil
}

func (f *Files) content(ctx context.Context, p Pointer) ([]byte, error) {
	if data, ok := f.server.Kept.Get("sha256:" + p.OID); ok {
		return data, nil
	}
	if p.Size > maxContent {
		return nil, fmt.Errorf("it has %d bytes, more than %d MiB", p.Size, maxContent>>20)
	}
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	at, err := f.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	data, err := f.server.download(ctx, at, p)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != p.Size || blobs.Digest(data) != "sha256:"+p.OID {
		return nil, errors.New("the server returned other content than the pointer says")
	}
	_ = f.server.Kept.Put(data) // it is there now, kept or not
	return data, nil
}

// endpoint is the server's URL: what .lfsconfig says, else the repository's.
func (f *Files) endpoint(ctx context.Context) (*url.URL, error) {
	entries, err := f.ReadDir(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name != ".lfsconfig" || e.Kind != git.KindBlob || e.Symlink() {
			continue
		}
		data, err := f.Files.Object(ctx, e.ID)
		if err != nil {
			return nil, err
		}
		settings, err := gitconfig.Parse(data)
		if err != nil {
			return nil, fmt.Errorf(".lfsconfig: %w", err)
		}
		for _, s := range settings {
			if s.Section == "lfs" && s.Subsection == "" && s.Key == "url" {
				return parse(s.Value)
			}
		}
	}
	where, err := credential.Parse(f.server.RepoURL)
	if err != nil {
		return nil, err
	}
	if where.Scheme != "https" && where.Scheme != "http" {
		return nil, errors.New("LFS over SSH is not supported; use an https URL, or set lfs.url in .lfsconfig")
	}
	return parse(where.Scheme + "://" + where.Host + "/" + where.Path + ".git/info/lfs")
}

func parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("the LFS server %q is no http or https URL", credential.Redact(text))
	}
	u.User = nil
	return u, nil
}

type action struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header"`
}

// download asks where the object is, and gets it.
func (s Server) download(ctx context.Context, at *url.URL, p Pointer) ([]byte, error) {
	type object struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	}
	body, err := json.Marshal(map[string]any{
		"operation": "download", "transfers": []string{"basic"}, "hash_algo": "sha256", "objects": []object{{p.OID, p.Size}},
	})
	if err != nil {
		return nil, err
	}
	data, err := s.request(ctx, http.MethodPost, at.JoinPath("objects", "batch"), body, map[string]string{"Accept": mediaType, "Content-Type": mediaType}, maxAnswer)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Objects []struct {
			OID     string
			Actions struct{ Download *action }
			Error   *struct {
				Code    int
				Message string
			}
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, errors.New("the answer of the LFS server is no JSON")
	}
	for _, o := range answer.Objects {
		switch {
		case o.OID != p.OID:
		case o.Error != nil:
			return nil, fmt.Errorf("the LFS server says %d: %.200s", o.Error.Code, o.Error.Message)
		case o.Actions.Download != nil:
			href, err := parse(o.Actions.Download.Href)
			if err != nil {
				return nil, err
			}
			return s.request(ctx, http.MethodGet, href, nil, o.Actions.Download.Header, p.Size)
		}
	}
	return nil, errors.New("the LFS server does not say where it is")
}

// request sends the credentials to the repository's own host, unless the server
// gave other ones.
func (s Server) request(ctx context.Context, method string, at *url.URL, body []byte, header map[string]string, most int64) ([]byte, error) {
	where := credential.Redact(at.Scheme + "://" + at.Host + at.Path)
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: not a URL", where)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	c := s.Credential
	if repo, err := credential.Parse(s.RepoURL); err != nil || repo.Host != strings.ToLower(at.Host) || repo.Scheme != at.Scheme {
		c = credential.Credential{Insecure: c.Insecure, Proxy: c.Proxy, NoProxy: c.NoProxy}
	}
	if req.Header.Get("Authorization") == "" {
		switch {
		case c.BearerToken != "":
			req.Header.Set("Authorization", "Bearer "+c.BearerToken)
		case c.Username != "" || c.Password != "":
			req.SetBasicAuth(c.Username, c.Password)
		}
	}
	client, err := s.Clients.For(c)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, errors.New(credential.Redact(err.Error()))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", where, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %s", where, credential.Redact(err.Error()))
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", where, most)
	}
	return data, nil
}
