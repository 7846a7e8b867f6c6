package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"go.yaml.in/yaml/v3"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

const maxFile = 10 << 20

// index is what matters of an index.yaml.
type index struct {
	charts map[string][]entry
	etag   string
	asked  time.Time
}

type entry struct {
	Version string   `yaml:"version" json:"version"`
	Digest  string   `yaml:"digest" json:"digest"`
	URLs    []string `yaml:"urls" json:"urls"`
}

// parseIndex reads an index.yaml; JSON is YAML too, and faster.
func parseIndex(data []byte) (map[string][]entry, error) {
	var doc struct {
		Entries map[string][]entry `yaml:"entries" json:"entries"`
	}
	decode := yaml.Unmarshal
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		decode = json.Unmarshal
	}
	if err := decode(data, &doc); err != nil {
		return nil, fmt.Errorf("index.yaml cannot be read: %w", err)
	}
	if doc.Entries == nil {
		return nil, errors.New("index.yaml has no entries: this is no Helm repository")
	}
	return doc.Entries, nil
}

// index returns the index of a repository, from memory when it is fresh.
func (s *Store) index(ctx context.Context, r Ref, c credential.Credential) (*index, error) {
	key := r.RepoURL + " " + c.Fingerprint()
	s.mu.Lock()
	have := s.indexes[key]
	s.mu.Unlock()
	if have != nil && !r.Again && s.deps.Now().Sub(have.asked) < s.cfg.Fresh {
		return have, nil
	}
	got, err, _ := s.flight.Do(key, func() (any, error) {
		return s.fetchIndex(context.WithoutCancel(ctx), r, c, have)
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.indexes) >= maxIndexes && s.indexes[key] == nil {
		oldest := ""
		for k, x := range s.indexes {
			if oldest == "" || x.asked.Before(s.indexes[oldest].asked) {
				oldest = k
			}
		}
		delete(s.indexes, oldest)
	}
	s.indexes[key] = got.(*index)
	return got.(*index), nil
}

func (s *Store) fetchIndex(ctx context.Context, r Ref, c credential.Credential, have *index) (*index, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	base, err := url.Parse(strings.TrimSuffix(r.RepoURL, "/") + "/")
	if err != nil {
		return nil, errors.New("repoURL cannot be parsed")
	}
	base.User = nil
	header := http.Header{}
	if have != nil && have.etag != "" {
		header.Set("If-None-Match", have.etag)
	}
	data, resp, err := s.get(ctx, base.JoinPath("index.yaml"), c, header, s.cfg.MaxIndex)
	if err != nil {
		return nil, err
	}
	now := s.deps.Now()
	if resp.StatusCode == http.StatusNotModified && have != nil {
		return &index{charts: have.charts, etag: have.etag, asked: now}, nil
	}
	charts, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	return &index{charts: charts, etag: resp.Header.Get("ETag"), asked: now}, nil
}

// get reads a URL with the credentials, at most so many bytes.
func (s *Store) get(ctx context.Context, u *url.URL, c credential.Credential, header http.Header, most int64) ([]byte, *http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: not a URL", credential.Redact(u.String()))
	}
	req.Header = header.Clone()
	req.Header.Set("User-Agent", "lockstep")
	switch {
	case c.BearerToken != "":
		req.Header.Set("Authorization", "Bearer "+c.BearerToken)
	case c.Username != "" || c.Password != "":
		req.SetBasicAuth(c.Username, c.Password)
	}
	client, err := s.deps.Clients.For(c)
	if err != nil {
		return nil, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, errors.New(credential.Redact(err.Error()))
	}
	defer resp.Body.Close()
	where := credential.Redact(u.Redacted())
	switch {
	case resp.StatusCode == http.StatusNotModified:
		return nil, resp, nil
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return nil, nil, fmt.Errorf("%s: %s: %w", where, resp.Status, ErrRefused)
	case resp.StatusCode == http.StatusNotFound:
		return nil, nil, fmt.Errorf("%s: %s: %w", where, resp.Status, ErrNotFound)
	case resp.StatusCode != http.StatusOK:
		return nil, nil, fmt.Errorf("%s: %s", where, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %s", where, credential.Redact(err.Error()))
	}
	if int64(len(data)) > most {
		return nil, nil, fmt.Errorf("%s is larger than %d MiB", where, most>>20)
	}
	return data, resp, nil
}

// File returns a file by its URL, without credentials, as Helm gets remote
// value files.
func (s *Store) File(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("%q is no http or https URL of a file", credential.Redact(address))
	}
	c, err := s.deps.Credential("", u.Scheme+"://"+u.Host)
	if err != nil {
		c = credential.Credential{}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	data, _, err := s.get(ctx, u, credential.Credential{CA: c.CA, Insecure: c.Insecure, Proxy: c.Proxy, NoProxy: c.NoProxy}, http.Header{}, maxFile)
	return data, err
}

func (s *Store) resolveHTTP(ctx context.Context, r Ref) (Version, error) {
	c, err := s.credentials(r)
	if err != nil {
		return Version{}, err
	}
	x, err := s.index(ctx, r, c)
	if err != nil {
		return Version{}, err
	}
	entries := x.charts[r.Chart]
	if len(entries) == 0 {
		return Version{}, fmt.Errorf("the index of %s has no chart %q: %w", credential.Redact(r.RepoURL), r.Chart, ErrNotFound)
	}
	versions := make([]string, len(entries))
	for i, e := range entries {
		versions[i] = e.Version
	}
	i := pick(r.Constraint, versions)
	if i < 0 {
		return Version{}, fmt.Errorf("none of its %d versions is that (the newest is %s): %w", len(entries), newest(versions), ErrNotFound)
	}
	e := entries[i]
	if len(e.URLs) == 0 {
		return Version{}, fmt.Errorf("version %s has no URL in the index", e.Version)
	}
	v := Version{Version: e.Version, url: e.URLs[0]}
	if d := strings.TrimPrefix(strings.ToLower(e.Digest), "sha256:"); len(d) == 64 {
		v.Digest = "sha256:" + d
	}
	return v, nil
}

// pick returns which of the versions the constraint means, -1 for none. As in
// Helm, a version means itself when it is there, and else is a constraint:
// "1.2" is the newest 1.2.x, and "1.2.0" is also "v1.2.0".
func pick(constraint string, versions []string) int {
	if constraint == "" {
		constraint = "*"
	}
	for i, v := range versions {
		if v == constraint {
			return i
		}
	}
	c, err := semver.NewConstraint(constraint)
	if err != nil {
		return -1
	}
	best, at := (*semver.Version)(nil), -1
	for i, text := range versions {
		v, err := semver.NewVersion(text)
		if err == nil && c.Check(v) && (best == nil || v.GreaterThan(best)) {
			best, at = v, i
		}
	}
	return at
}

func newest(versions []string) string {
	if i := pick("*-0", versions); i >= 0 {
		return versions[i]
	}
	return "no version at all"
}

func (s *Store) archiveHTTP(ctx context.Context, r Ref, v Version) (data []byte, packed bool, err error) {
	repo, err := url.Parse(strings.TrimSuffix(r.RepoURL, "/") + "/")
	if err != nil {
		return nil, false, errors.New("repoURL cannot be parsed")
	}
	at, err := repo.Parse(v.url)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" {
		return nil, false, fmt.Errorf("the index names %q as its URL, which is not http or https", credential.Redact(v.url))
	}
	s.mu.Lock()
	digest := v.Digest
	if digest == "" {
		digest = s.digests[at.String()]
	}
	s.mu.Unlock()
	if data, ok := s.kept.Get(digest); ok {
		return data, true, nil
	}
	c, err := s.credentials(r)
	if err != nil {
		return nil, false, err
	}
	if (at.Host != repo.Host || at.Scheme != repo.Scheme) && !r.PassCredentials {
		other, err := s.deps.Credential("", at.Scheme+"://"+at.Host)
		if err != nil {
			other = credential.Credential{}
		}
		c = credential.Credential{CA: other.CA, Insecure: c.Insecure, Proxy: c.Proxy, NoProxy: c.NoProxy}
	}
	at.User = nil
	got, err, _ := s.flight.Do("archive "+at.String()+" "+c.Fingerprint(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
		defer cancel()
		data, _, err := s.get(ctx, at, c, http.Header{}, s.cfg.MaxArchive)
		return data, err
	})
	if err != nil {
		return nil, false, err
	}
	data = got.([]byte)
	found := blobs.Digest(data)
	if v.Digest != "" && found != v.Digest {
		return nil, false, fmt.Errorf("%s has digest %s, the index says %s", credential.Redact(at.String()), found, v.Digest)
	}
	s.mu.Lock()
	if len(s.digests) >= maxDigests {
		clear(s.digests)
	}
	s.digests[at.String()] = found
	s.mu.Unlock()
	s.keep(data)
	return data, true, nil
}

func (s *Store) keep(data []byte) {
	if err := s.kept.Put(data); err != nil {
		s.deps.Log.Warn("keep a chart", "error", err)
	}
}
