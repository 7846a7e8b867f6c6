package service

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	kindArtifact = "artifact"
	kindCache    = "cache"
)

// maxBlocks is Azure's bound of blocks in one blob.
const maxBlocks = 50_000

// upload is something that is being written. It lives in memory and below
// staging/, and ends by being finalized or dropped.
type upload struct {
	id    string
	owner string // ID of the scope, empty for a Go caller
	scope Scope
	account
	name    string // artifact name, cache key
	version string // of a cache
	mime    string
	expires time.Time

	mu     sync.Mutex
	blocks map[string]block
	next   int
	list   []string // block list of the blob, once committed
	blob   *blob    // once written whole
	gone   bool
}

type block struct {
	file string
	size int64
}

// blob is the whole content of an upload.
type blob struct {
	path   string
	size   int64
	digest string // "sha256:…"
}

func (u *upload) same(o *upload) bool {
	if u.account != o.account || u.name != o.name {
		return false
	}
	if u.kind == kindCache {
		return u.version == o.version && u.scope.Ref == o.scope.Ref
	}
	return u.scope.Run == o.scope.Run && u.scope.Attempt == o.scope.Attempt
}

// begin registers an upload. ErrExists says that another one of that name is
// under way.
func (s *Service) begin(u *upload) error {
	u.id, u.blocks = randomID(), map[string]block{}
	u.repo = strings.ToLower(u.scope.Repo)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.uploads {
		if u.same(o) {
			return fmt.Errorf("%s %q is being uploaded by another step or job: %w", u.kind, u.name, ErrExists)
		}
	}
	if err := os.Mkdir(u.dir(s), 0o700); err != nil {
		return fmt.Errorf("begin upload: %w", err)
	}
	s.uploads[u.id] = u
	return nil
}

func (u *upload) dir(s *Service) string { return filepath.Join(s.stagingDir(), u.id) }

// drop forgets an upload and its files.
func (s *Service) drop(u *upload) {
	s.mu.Lock()
	delete(s.uploads, u.id)
	s.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return
	}
	u.gone = true
	for _, b := range u.blocks {
		s.release(u.account, b.size)
	}
	if u.blob != nil {
		s.release(u.account, u.blob.size)
	}
	if err := os.RemoveAll(u.dir(s)); err != nil {
		s.log.Warn("remove upload", "upload", u.id, "err", err)
	}
}

func (s *Service) release(a account, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged[a] -= n; s.staged[a] <= 0 {
		delete(s.staged, a)
	}
}

// room is how many bytes the account may stage in all.
func (s *Service) room(ctx context.Context, a account) (int64, error) {
	if a.kind == kindCache {
		return s.cfg.CacheQuota, nil // older entries give way when it is finalized
	}
	_, used, err := s.ArtifactUsage(ctx, a.repo)
	return s.cfg.ArtifactQuota - used, err
}

// stage writes one file of an upload. Its bytes count against the quota until
// they are released.
func (s *Service) stage(ctx context.Context, u *upload, name string, r io.Reader, also ...io.Writer) (n int64, err error) {
	room, err := s.room(ctx, u.account)
	if err != nil {
		return 0, err
	}
	f, err := os.OpenFile(filepath.Join(u.dir(s), name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("stage upload: %w", err)
	}
	counted := &quotaWriter{s: s, u: u, room: room}
	n, err = io.Copy(io.MultiWriter(append([]io.Writer{counted, f}, also...)...), r)
	if err = errors.Join(err, f.Close()); err != nil {
		s.release(u.account, counted.n)
		return 0, errors.Join(err, os.Remove(f.Name()))
	}
	return n, nil
}

// quotaWriter refuses what would exceed the room.
type quotaWriter struct {
	s    *Service
	u    *upload
	room int64
	n    int64
}

func (w *quotaWriter) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.staged[w.u.account]+int64(len(p)) > w.room {
		quota := w.s.cfg.ArtifactQuota
		if w.u.kind == kindCache {
			quota = w.s.cfg.CacheQuota
		}
		return 0, fmt.Errorf("%s %q does not fit: %s may keep %s of %ss; delete old ones or store less: %w",
			w.u.kind, w.u.name, w.u.scope.Repo, bytesText(quota), w.u.kind, ErrQuota)
	}
	w.s.staged[w.u.account] += int64(len(p))
	w.n += int64(len(p))
	return len(p), nil
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

// putBlock stages one block. A block of the same ID is replaced. wantMD5 is
// checked when it is not nil.
func (s *Service) putBlock(ctx context.Context, u *upload, id string, r io.Reader, wantMD5 []byte) error {
	u.mu.Lock()
	if _, again := u.blocks[id]; u.gone || (!again && len(u.blocks) >= maxBlocks) {
		u.mu.Unlock()
		return fmt.Errorf("block %d of upload: a blob has at most %d blocks: %w", maxBlocks+1, maxBlocks, ErrInvalid)
	}
	u.next++
	name := fmt.Sprintf("block-%d", u.next)
	u.mu.Unlock()
	size, err := s.stageChecked(ctx, u, name, r, wantMD5)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	old, replaced := u.blocks[id]
	if u.gone { // closed meanwhile: its folder is gone too
		s.release(u.account, size)
		return fmt.Errorf("the job has ended: %w", ErrNotFound)
	}
	u.blocks[id] = block{name, size}
	if replaced {
		s.release(u.account, old.size)
		return os.Remove(filepath.Join(u.dir(s), old.file))
	}
	return nil
}

func (s *Service) stageChecked(ctx context.Context, u *upload, name string, r io.Reader, wantMD5 []byte, also ...io.Writer) (int64, error) {
	var sum hash.Hash
	if wantMD5 != nil {
		sum = md5.New() // Azure's Content-MD5: against faults of the wire, not for security
		also = append(also, sum)
	}
	size, err := s.stage(ctx, u, name, r, also...)
	if err == nil && sum != nil && !bytes.Equal(sum.Sum(nil), wantMD5) {
		s.release(u.account, size)
		return 0, errors.Join(errMD5, os.Remove(filepath.Join(u.dir(s), name)))
	}
	return size, err
}

var errMD5 = errors.New("the content does not match its Content-MD5")

// putBlob stages the whole content at once.
func (s *Service) putBlob(ctx context.Context, u *upload, r io.Reader, wantMD5 []byte) error {
	u.mu.Lock()
	u.next++
	name := fmt.Sprintf("blob-%d", u.next)
	u.mu.Unlock()
	sum := sha256.New()
	size, err := s.stageChecked(ctx, u, name, r, wantMD5, sum)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		s.release(u.account, size)
		return fmt.Errorf("the job has ended: %w", ErrNotFound)
	}
	return s.setBlob(u, &blob{filepath.Join(u.dir(s), name), size, digestOf(sum)}, nil)
}

// setBlob makes b the content; u.mu is held.
func (s *Service) setBlob(u *upload, b *blob, list []string) error {
	old := u.blob
	u.blob, u.list = b, list
	if old != nil {
		s.release(u.account, old.size)
		return os.Remove(old.path)
	}
	return nil
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// errBlockList is Azure's answer to a list with a block that was not put.
var errBlockList = errors.New("the block list names a block that was not uploaded")

// commitBlocks makes the blocks, in this order, the content. The same list may
// be committed again: clients repeat requests whose answer was lost.
func (s *Service) commitBlocks(u *upload, ids []string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return fmt.Errorf("the job has ended: %w", ErrNotFound)
	}
	if u.blob != nil && u.list != nil && slices.Equal(u.list, ids) {
		return nil
	}
	var files []string
	var total int64
	uses := map[string]int{} // of each file; a list may name a block twice
	for _, id := range ids {
		b, ok := u.blocks[id]
		if !ok {
			return errBlockList
		}
		files, total = append(files, b.file), total+b.size
		uses[b.file]++
	}
	u.next++
	path := filepath.Join(u.dir(s), fmt.Sprintf("blob-%d", u.next))
	digest, err := s.join(u, path, files, uses)
	if err != nil {
		return fmt.Errorf("commit blocks: %w", errors.Join(err, os.Remove(path)))
	}
	for id, b := range u.blocks { // Azure too drops blocks that the list leaves out
		if _, used := uses[b.file]; used {
			continue
		}
		s.release(u.account, b.size)
		if err := os.Remove(filepath.Join(u.dir(s), b.file)); err != nil {
			s.log.Warn("remove block", "block", id, "err", err)
		}
	}
	clear(u.blocks)
	return s.setBlob(u, &blob{path, total, digest}, slices.Clone(ids))
}

// join appends the files to path, deleting each after it was read, so that the
// content is on disk little more than once.
func (s *Service) join(u *upload, path string, files []string, uses map[string]int) (digest string, err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	for _, name := range files {
		in, err := os.Open(filepath.Join(u.dir(s), name))
		if err != nil {
			return "", err
		}
		_, err = io.Copy(io.MultiWriter(out, sum), in)
		if err = errors.Join(err, in.Close()); err != nil {
			return "", err
		}
		if uses[name]--; uses[name] == 0 {
			if err := os.Remove(in.Name()); err != nil {
				return "", err
			}
		}
	}
	return digestOf(sum), nil
}

// keep moves the content to where blobs live and returns its name there. The
// file is durable when keep returns; the row that names it comes after.
func (s *Service) keep(u *upload) (string, *blob, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.blob == nil || u.gone {
		return "", nil, fmt.Errorf("nothing was uploaded for %s %q: send the content before it is finalized: %w", u.kind, u.name, ErrInvalid)
	}
	id := randomID()
	to := s.blobPath(id)
	err := errors.Join(syncPath(u.blob.path), os.MkdirAll(filepath.Dir(to), 0o700))
	if err == nil {
		err = os.Rename(u.blob.path, to)
	}
	if err == nil {
		err = errors.Join(syncPath(filepath.Dir(to)), syncPath(s.blobDir()))
	}
	if err != nil {
		return "", nil, fmt.Errorf("keep %s %q: %w", u.kind, u.name, err)
	}
	b := u.blob
	s.release(u.account, b.size)
	u.blob = nil
	return id, b, nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
