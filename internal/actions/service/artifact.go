package service

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// zipType is what an archived artifact is stored as.
const zipType = "application/zip"

// Artifact is one that was finalized. Artifacts never change.
type Artifact struct {
	ID      int64
	Repo    string
	Run     int64
	Attempt int
	Job     int64
	Name    string
	MIME    string
	Size    int64  // bytes as stored: of the archive
	Digest  string // "sha256:…" of these bytes
	Created time.Time
	Expires time.Time

	RepositoryID int64
	Branch       string // head of the run
	Commit       string

	blob string
}

// Expired says whether the retention time was over at now.
func (a Artifact) Expired(now time.Time) bool { return !now.Before(a.Expires) }

// IsZip says whether the content is an archive, as opposed to one raw file.
func (a Artifact) IsZip() bool { return a.MIME == zipType }

// FileName is what a download is called.
func (a Artifact) FileName() string {
	if a.IsZip() && !strings.HasSuffix(strings.ToLower(a.Name), ".zip") {
		return a.Name + ".zip"
	}
	return a.Name
}

// Blob is content that can be read at any place. Close it.
type Blob interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// ArtifactSpec is what a new artifact is to be.
type ArtifactSpec struct {
	Name          string
	MIME          string // "" is a zip archive
	RetentionDays int    // 0: the longest that is configured
	Overwrite     bool   // delete one of that name of the same attempt first
}

// checkName refuses what GitHub refuses.
func checkName(name string) error {
	if name == "" || len(name) > 255 || !utf8.ValidString(name) || name == "." || name == ".." {
		return fmt.Errorf("artifact name %q: it has to be 1 to 255 bytes of UTF-8: %w", name, ErrInvalid)
	}
	if i := strings.IndexAny(name, "\":<>|*?\r\n\\/\x00"); i >= 0 {
		return fmt.Errorf("artifact name %q holds %q, which some file systems cannot store; GitHub refuses \" : < > | * ? \\ / and line ends: %w", name, name[i], ErrInvalid)
	}
	return nil
}

// newArtifact begins an upload of an artifact. A zero expires takes the
// configured retention; a later one is cut to it, as GitHub does.
func (s *Service) newArtifact(ctx context.Context, owner string, scope Scope, name, mimeType string, expires time.Time) (*upload, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if mimeType == "" {
		mimeType = zipType
	}
	if _, _, err := mime.ParseMediaType(mimeType); err != nil || len(mimeType) > 255 {
		return nil, fmt.Errorf("artifact %q has the media type %.60q, which is none: %w", name, mimeType, ErrInvalid)
	}
	now := s.now()
	latest := now.AddDate(0, 0, s.cfg.ArtifactDays)
	if expires.IsZero() || expires.After(latest) {
		expires = latest
	}
	if !expires.After(now) {
		return nil, fmt.Errorf("artifact %q would expire at %s, which is over: retention is at least one day: %w", name, expires.Format(time.RFC3339), ErrInvalid)
	}
	var n int
	if err := s.db.QueryRowContext(ctx, `select count(*) from artifact where run = ? and attempt = ? and name = ?`, scope.Run, scope.Attempt, name).Scan(&n); err != nil {
		return nil, fmt.Errorf("look for artifact: %w", err)
	}
	if n > 0 {
		return nil, nameTaken(name)
	}
	room, err := s.room(ctx, account{kindArtifact, scope.Repo})
	if err != nil {
		return nil, err
	}
	if room <= 0 {
		return nil, fmt.Errorf("insufficient usage to create artifact %q: %s keeps %s of artifacts, which is its quota; delete some: %w", name, scope.Repo, bytesText(s.cfg.ArtifactQuota), ErrQuota)
	}
	u := &upload{owner: owner, scope: scope, account: account{kind: kindArtifact}, name: name, mime: mimeType, expires: expires}
	return u, s.begin(u)
}

func nameTaken(name string) error {
	return fmt.Errorf("an artifact named %q exists on this workflow run: artifacts do not change; give it another name, or upload with `overwrite: true`: %w", name, ErrExists)
}

// finalizeArtifact makes the uploaded content an artifact. size and digest are
// checked unless they are -1 and "".
func (s *Service) finalizeArtifact(ctx context.Context, u *upload, size int64, digest string) (Artifact, error) {
	if err := u.check(size, digest); err != nil {
		return Artifact{}, err
	}
	s.finalizing.RLock()
	defer s.finalizing.RUnlock()
	id, b, err := s.keep(u)
	if err != nil {
		return Artifact{}, err
	}
	a := Artifact{Repo: u.scope.Repo, Run: u.scope.Run, Attempt: u.scope.Attempt, Job: u.scope.Job, Name: u.name, MIME: u.mime,
		Size: b.size, Digest: b.digest, Created: fromMillis(millis(s.now())), Expires: fromMillis(millis(u.expires)), blob: id,
		RepositoryID: u.scope.Identity.RepositoryID, Branch: u.scope.headBranch(), Commit: u.scope.Identity.Commit}
	err = s.db.QueryRowContext(ctx, `insert into artifact (repo, run, attempt, job, name, mime, size, digest, blob, branch, sha, repo_id, created, expires)
		values (?,?,?,?,?,?,?,?,?,?,?,?,?,?) on conflict (run, attempt, name) do nothing returning id`,
		a.Repo, a.Run, a.Attempt, a.Job, a.Name, a.MIME, a.Size, a.Digest, a.blob, a.Branch, a.Commit, a.RepositoryID, millis(a.Created), millis(a.Expires)).Scan(&a.ID)
	if err != nil {
		s.removeBlobs([]string{id})
		if errors.Is(err, sql.ErrNoRows) {
			return Artifact{}, nameTaken(u.name)
		}
		return Artifact{}, fmt.Errorf("store artifact %q: %w", u.name, err)
	}
	s.drop(u)
	return a, nil
}

// check compares what a client says it sent with what arrived.
func (u *upload) check(size int64, digest string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.blob == nil:
		return fmt.Errorf("nothing was uploaded for %s %q: send the content before it is finalized: %w", u.kind, u.name, ErrInvalid)
	case size >= 0 && size != u.blob.size:
		return fmt.Errorf("%s %q: %d bytes arrived, the client says %d: upload it again: %w", u.kind, u.name, u.blob.size, size, ErrInvalid)
	case digest != "" && !strings.EqualFold(digest, u.blob.digest):
		return fmt.Errorf("%s %q: what arrived has the digest %s, the client says %.80s: upload it again: %w", u.kind, u.name, u.blob.digest, digest, ErrInvalid)
	}
	return nil
}

// SaveArtifact stores what write writes as an artifact of the scope's run. It
// is for built-in actions; errors wrap [ErrExists], [ErrQuota], [ErrInvalid].
func (s *Service) SaveArtifact(ctx context.Context, scope Scope, spec ArtifactSpec, write func(io.Writer) error) (Artifact, error) {
	var expires time.Time
	if spec.RetentionDays > 0 {
		expires = s.now().AddDate(0, 0, spec.RetentionDays)
	}
	if spec.Overwrite {
		if err := s.deleteNamed(ctx, scope, spec.Name); err != nil {
			return Artifact{}, err
		}
	}
	u, err := s.newArtifact(ctx, "", scope, spec.Name, spec.MIME, expires)
	if err != nil {
		return Artifact{}, err
	}
	defer s.drop(u)
	if err := s.fill(ctx, u, write); err != nil {
		return Artifact{}, err
	}
	return s.finalizeArtifact(ctx, u, -1, "")
}

// fill uploads what write writes.
func (s *Service) fill(ctx context.Context, u *upload, write func(io.Writer) error) error {
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(pw)
		_ = pw.CloseWithError(err) // never fails; nil ends the stream
		done <- err
	}()
	err := s.putBlob(ctx, u, pr, nil)
	_ = pr.CloseWithError(err) // never fails; a writer that goes on ends with err
	if werr := <-done; err == nil || (werr != nil && !errors.Is(werr, err)) {
		err = werr // the writer's own failure is the cause
	}
	return err
}

const artifactColumns = `id, repo, run, attempt, job, name, mime, size, digest, blob, branch, sha, repo_id, created, expires`

func scanArtifact(scan func(...any) error) (a Artifact, err error) {
	var created, expires int64
	err = scan(&a.ID, &a.Repo, &a.Run, &a.Attempt, &a.Job, &a.Name, &a.MIME, &a.Size, &a.Digest, &a.blob, &a.Branch, &a.Commit, &a.RepositoryID, &created, &expires)
	a.Created, a.Expires = fromMillis(created), fromMillis(expires)
	return a, err
}

// ArtifactFilter chooses artifacts of a repository. Zero values choose all.
type ArtifactFilter struct {
	Repo   string
	Run    int64
	Name   string
	Offset int
	Limit  int // at most 1000, which is also the meaning of 0
}

// Artifacts lists artifacts, newest first, and how many there are without
// Offset and Limit. Expired ones are left out.
func (s *Service) Artifacts(ctx context.Context, f ArtifactFilter) ([]Artifact, int, error) {
	where, args := `repo = ? and expires > ?`, []any{f.Repo, millis(s.now())}
	if f.Run != 0 {
		where, args = where+` and run = ?`, append(args, f.Run)
	}
	if f.Name != "" {
		where, args = where+` and name = ?`, append(args, f.Name)
	}
	var total int
	if err := s.db.QueryRowContext(ctx, `select count(*) from artifact where `+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count artifacts: %w", err)
	}
	list, err := collect(ctx, s.db, scanArtifact, `select `+artifactColumns+` from artifact where `+where+` order by id desc limit ? offset ?`,
		append(args, pageSize(f.Limit), f.Offset)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list artifacts: %w", err)
	}
	return list, total, nil
}

func pageSize(n int) int {
	if n <= 0 || n > 1000 {
		return 1000
	}
	return n
}

// Artifact finds one of a repository. [ErrExpired] comes with the artifact.
func (s *Service) Artifact(ctx context.Context, repo string, id int64) (Artifact, error) {
	list, err := collect(ctx, s.db, scanArtifact, `select `+artifactColumns+` from artifact where repo = ? and id = ?`, repo, id)
	switch {
	case err != nil:
		return Artifact{}, fmt.Errorf("find artifact %d: %w", id, err)
	case len(list) == 0:
		return Artifact{}, fmt.Errorf("artifact %d of %s: %w", id, repo, ErrNotFound)
	case list[0].Expired(s.now()):
		return list[0], fmt.Errorf("artifact %q of %s was kept until %s: %w", list[0].Name, repo, list[0].Expires.Format(time.RFC3339), ErrExpired)
	}
	return list[0], nil
}

// OpenArtifact opens the content of an artifact.
func (s *Service) OpenArtifact(ctx context.Context, repo string, id int64) (Artifact, Blob, error) {
	a, err := s.Artifact(ctx, repo, id)
	if err != nil {
		return a, nil, err
	}
	b, err := s.openBlob(a.blob)
	if err != nil {
		return a, nil, fmt.Errorf("artifact %q: %w", a.Name, err)
	}
	return a, b, nil
}

func (s *Service) openBlob(id string) (*os.File, error) {
	f, err := os.Open(s.blobPath(id))
	if errors.Is(err, fs.ErrNotExist) { // deleted since it was found
		return nil, fmt.Errorf("content of %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	return f, nil
}

// ArtifactURL is a URL from which the content can be read without further
// proof for some minutes. It is a secret.
func (s *Service) ArtifactURL(ctx context.Context, repo string, id int64) (string, error) {
	a, err := s.Artifact(ctx, repo, id)
	if err != nil {
		return "", err
	}
	return s.downloadURL(kindArtifact, a.ID, a.FileName()), nil
}

// DeleteArtifact deletes an artifact with its content.
func (s *Service) DeleteArtifact(ctx context.Context, repo string, id int64) error {
	blobs, err := collect(ctx, s.db, scanString, `delete from artifact where repo = ? and id = ? returning blob`, repo, id)
	if err != nil {
		return fmt.Errorf("delete artifact %d: %w", id, err)
	}
	if len(blobs) == 0 {
		return fmt.Errorf("artifact %d of %s: %w", id, repo, ErrNotFound)
	}
	s.removeBlobs(blobs)
	return nil
}

// DeleteRun deletes the artifacts of a run that is being deleted.
func (s *Service) DeleteRun(ctx context.Context, run int64) error {
	blobs, err := collect(ctx, s.db, scanString, `delete from artifact where run = ? returning blob`, run)
	if err != nil {
		return fmt.Errorf("delete artifacts of run %d: %w", run, err)
	}
	s.removeBlobs(blobs)
	return nil
}

// deleteNamed deletes the artifact of that name of the scope's attempt, if any.
func (s *Service) deleteNamed(ctx context.Context, scope Scope, name string) error {
	blobs, err := collect(ctx, s.db, scanString, `delete from artifact where run = ? and attempt = ? and name = ? returning blob`, scope.Run, scope.Attempt, name)
	if err != nil {
		return fmt.Errorf("delete artifact %q: %w", name, err)
	}
	s.removeBlobs(blobs)
	return nil
}

// named finds an artifact of the scope's run: of the job with that backend ID
// when there is one, or else the newest.
func (s *Service) named(ctx context.Context, scope Scope, name, job string) (Artifact, error) {
	list, _, err := s.Artifacts(ctx, ArtifactFilter{Repo: scope.Repo, Run: scope.Run, Name: name})
	if err != nil {
		return Artifact{}, err
	}
	if len(list) == 0 {
		return Artifact{}, fmt.Errorf("artifact %q of run %d: %w", name, scope.Run, ErrNotFound)
	}
	for _, a := range list {
		if a.jobBackend() == job {
			return a, nil
		}
	}
	return list[0], nil
}

func (a Artifact) jobBackend() string {
	return Scope{Run: a.Run, Attempt: a.Attempt, Job: a.Job}.jobBackend()
}

// ArtifactUsage counts the artifacts of a repository and their bytes.
func (s *Service) ArtifactUsage(ctx context.Context, repo string) (count int, bytes int64, err error) {
	err = s.db.QueryRowContext(ctx, `select count(*), coalesce(sum(size), 0) from artifact where repo = ?`, repo).Scan(&count, &bytes)
	if err != nil {
		return 0, 0, fmt.Errorf("count artifacts: %w", err)
	}
	return count, bytes, nil
}
