package forge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const lfsSchema = `
create table if not exists lfs_object (repo text not null, oid text not null, size integer not null, primary key (repo, oid)) without rowid;
create table if not exists lfs_lock (
  id integer primary key autoincrement,
  repo text not null, path text not null, owner text not null, created integer not null, unique (repo, path)
);
`

const (
	lfsMedia       = "application/vnd.git-lfs+json"
	maxLFSBody     = 4 << 20 // of a request's JSON, in bytes
	maxLFSObjects  = 1000    // of one batch
	maxLFSLocks    = 100_000 // of one repository
	lfsActionAfter = time.Hour
)

var lfsOID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// lfsFile is where an LFS object is.
func (f *Forge) lfsFile(repo *repository, oid string) string {
	return filepath.Join(f.cfg.Dir, "lfs", strconv.FormatInt(repo.id, 10), oid[:2], oid)
}

// isLFS reports whether a path of the Git host is of the LFS API.
func isLFS(action string) bool { return strings.HasPrefix(action, "info/lfs/") }

// writesLFS reports whether a request of the LFS API changes something for sure.
func writesLFS(r *http.Request, action string) bool {
	return r.Method == http.MethodPut || r.Method == http.MethodPost && action != "info/lfs/objects/batch" && action != "info/lfs/locks/verify"
}

// serveLFS answers the LFS API of a repository that the identity may read.
func (f *Forge) serveLFS(w http.ResponseWriter, r *http.Request, repo *repository, id Identity, action string) {
	if writesLFS(r, action) && !id.mayWrite(repo.key) {
		f.refuseLFS(w, id)
		return
	}
	rest := strings.TrimPrefix(action, "info/lfs/")
	oid, isObject := strings.CutPrefix(rest, "objects/")
	unlock, isUnlock := strings.CutSuffix(strings.TrimPrefix(rest, "locks/"), "/unlock")
	var answer any
	var err error
	switch {
	case rest == "objects/batch" && r.Method == http.MethodPost:
		answer, err = f.lfsBatch(r, repo, id)
	case rest == "objects/verify" && r.Method == http.MethodPost:
		answer, err = f.lfsVerify(r, repo)
	case isObject && lfsOID.MatchString(oid) && r.Method == http.MethodPut:
		err = f.lfsUpload(w, r, repo, oid)
	case isObject && lfsOID.MatchString(oid) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		err = f.lfsDownload(w, r, repo, oid)
	case rest == "locks" && r.Method == http.MethodGet:
		answer, err = f.lfsLocks(r, repo)
	case rest == "locks" && r.Method == http.MethodPost:
		err = f.lfsLock(w, r, repo, id)
	case rest == "locks/verify" && r.Method == http.MethodPost:
		answer, err = f.lfsVerifyLocks(r, repo, id)
	case isUnlock && r.Method == http.MethodPost:
		answer, err = f.lfsUnlock(r, repo, id, unlock)
	default:
		err = fail(http.StatusNotFound, "Lockstep's forge has no such LFS endpoint")
	}
	f.answerLFS(w, r, answer, err)
}

func (f *Forge) refuseLFS(w http.ResponseWriter, id Identity) {
	if id.Anonymous() {
		w.Header().Set("LFS-Authenticate", `Basic realm="Lockstep (GitHub)"`)
		w.Header().Set("WWW-Authenticate", `Basic realm="Lockstep (GitHub)"`)
		writeLFS(w, http.StatusUnauthorized, map[string]string{"message": "Credentials needed: `lockstep env` prints a token"})
		return
	}
	writeLFS(w, http.StatusForbidden, map[string]string{"message": "Resource not accessible by this token: it may not write here"})
}

func (f *Forge) answerLFS(w http.ResponseWriter, r *http.Request, answer any, err error) {
	var known *apiError
	var tooLong *http.MaxBytesError
	switch {
	case err == nil && answer == nil:
	case err == nil:
		writeLFS(w, http.StatusOK, answer)
	case errors.As(err, &known):
		writeLFS(w, known.Status, map[string]string{"message": known.Message})
	case errors.As(err, &tooLong):
		writeLFS(w, http.StatusRequestEntityTooLarge, map[string]string{"message": "the request is too large"})
	default:
		if r.Context().Err() == nil {
			f.log.Error("LFS request failed", "path", r.URL.Path, "error", err)
		}
		writeLFS(w, http.StatusInternalServerError, map[string]string{"message": "lockstep: this failed inside; its log says why"})
	}
}

func writeLFS(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", lfsMedia)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// lfsRequest is the body of objects/batch.
type lfsRequest struct {
	Operation string      `json:"operation"`
	Transfers []string    `json:"transfers"`
	Objects   []lfsObject `json:"objects"`
	HashAlgo  string      `json:"hash_algo"`
}

type lfsObject struct {
	OID  string `json:"oid"`
	Size int64  `json:"size"`
}

// readLFSRequest decodes and checks the body of objects/batch.
func readLFSRequest(data []byte) (lfsRequest, error) {
	var in lfsRequest
	if err := json.Unmarshal(data, &in); err != nil {
		return in, fail(http.StatusUnprocessableEntity, "the request is no JSON: %s", err)
	}
	switch {
	case in.Operation != "upload" && in.Operation != "download":
		return in, fail(http.StatusUnprocessableEntity, "operation %.20q is not upload or download", in.Operation)
	case in.HashAlgo != "" && in.HashAlgo != "sha256":
		return in, fail(http.StatusConflict, "hash_algo %.20q is not sha256", in.HashAlgo)
	case len(in.Objects) > maxLFSObjects:
		return in, fail(http.StatusRequestEntityTooLarge, "a batch may have %d objects", maxLFSObjects)
	}
	return in, nil
}

func (f *Forge) lfsBatch(r *http.Request, repo *repository, id Identity) (any, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxLFSBody))
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	in, err := readLFSRequest(data)
	if err != nil {
		return nil, err
	}
	upload := in.Operation == "upload"
	if upload && !id.mayWrite(repo.key) {
		if id.Anonymous() {
			return nil, fail(http.StatusUnauthorized, "Credentials needed: `lockstep env` prints a token")
		}
		return nil, fail(http.StatusForbidden, "Resource not accessible by this token: it may not write here")
	}
	var used int64
	if err := f.db.QueryRowContext(r.Context(), `select coalesce(sum(size), 0) from lfs_object where repo = ?`, repo.key).Scan(&used); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	objects := []map[string]any{}
	for _, o := range in.Objects {
		j := map[string]any{"oid": o.OID, "size": o.Size, "authenticated": true}
		if refusal := f.lfsActions(r, repo, o, upload, &used, j); refusal != nil {
			j["error"] = map[string]any{"code": refusal.Status, "message": refusal.Message}
		}
		objects = append(objects, j)
	}
	return map[string]any{"transfer": "basic", "objects": objects, "hash_algo": "sha256"}, nil
}

// lfsActions says what the client is to do for an object.
func (f *Forge) lfsActions(r *http.Request, repo *repository, o lfsObject, upload bool, used *int64, j map[string]any) *apiError {
	if !lfsOID.MatchString(o.OID) || o.Size < 0 {
		return &apiError{Status: http.StatusUnprocessableEntity, Message: "oid must be 64 hexadecimal digits and size not negative"}
	}
	info, err := os.Stat(f.lfsFile(repo, o.OID))
	there := err == nil
	action := func(href string) map[string]any {
		header := map[string]string{}
		if auth := r.Header.Get("Authorization"); auth != "" {
			header["Authorization"] = auth
		}
		return map[string]any{"href": href, "header": header, "expires_in": int(lfsActionAfter.Seconds())}
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	base := scheme + "://" + r.Host + "/" + repo.full() + ".git/info/lfs/objects/"
	switch {
	case !upload && !there:
		return &apiError{Status: http.StatusNotFound, Message: "Object does not exist on the server"}
	case !upload && info.Size() != o.Size:
		return &apiError{Status: http.StatusUnprocessableEntity, Message: fmt.Sprintf("the object has %d bytes", info.Size())}
	case !upload:
		j["actions"] = map[string]any{"download": action(base + o.OID)}
	case there:
		return nil // nothing to do
	case *used+o.Size > f.cfg.MaxLFSBytes:
		return &apiError{Status: http.StatusInsufficientStorage, Message: "the LFS objects of a repository may have " + sizeText(f.cfg.MaxLFSBytes)}
	default:
		*used += o.Size
		j["actions"] = map[string]any{"upload": action(base + o.OID), "verify": action(base + "verify")}
	}
	return nil
}

// lfsUpload takes the content of an object if its hash is right.
func (f *Forge) lfsUpload(w http.ResponseWriter, r *http.Request, repo *repository, oid string) error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(f.cfg.PushTimeout))
	_ = control.SetWriteDeadline(time.Time{})
	var used int64
	if err := f.db.QueryRowContext(r.Context(), `select coalesce(sum(size), 0) from lfs_object where repo = ? and oid != ?`, repo.key, oid).Scan(&used); err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	file, err := os.CreateTemp(f.tmp(), "lfs-")
	if err != nil {
		return fmt.Errorf("store LFS object: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	sum := sha256.New()
	room := max(0, f.cfg.MaxLFSBytes-used)
	n, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(r.Body, room+1))
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("store LFS object: %w", err)
	}
	if n > room {
		return fail(http.StatusInsufficientStorage, "the LFS objects of a repository may have %s", sizeText(f.cfg.MaxLFSBytes))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != oid {
		return fail(http.StatusUnprocessableEntity, "the content's SHA-256 is %s, not %s", got, oid)
	}
	place := f.lfsFile(repo, oid)
	if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
		return fmt.Errorf("store LFS object: %w", err)
	}
	if err := os.Rename(file.Name(), place); err != nil {
		return fmt.Errorf("store LFS object: %w", err)
	}
	if _, err := f.db.ExecContext(r.Context(), `insert or replace into lfs_object (repo, oid, size) values (?,?,?)`, repo.key, oid, n); err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (f *Forge) lfsDownload(w http.ResponseWriter, r *http.Request, repo *repository, oid string) error {
	file, err := os.Open(f.lfsFile(repo, oid))
	if errors.Is(err, fs.ErrNotExist) {
		return fail(http.StatusNotFound, "Object does not exist on the server")
	}
	if err != nil {
		return fmt.Errorf("LFS object: %w", err)
	}
	defer func() { _ = file.Close() }()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, file)
	return nil
}

func (f *Forge) lfsVerify(r *http.Request, repo *repository) (any, error) {
	var o lfsObject
	if err := json.NewDecoder(io.LimitReader(r.Body, maxLFSBody)).Decode(&o); err != nil || !lfsOID.MatchString(o.OID) {
		return nil, fail(http.StatusUnprocessableEntity, "name an object by oid and size")
	}
	info, err := os.Stat(f.lfsFile(repo, o.OID))
	if err != nil || info.Size() != o.Size {
		return nil, fail(http.StatusNotFound, "the object isn't here with this size")
	}
	return map[string]any{}, nil
}
