package service

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	blobVersion = "2025-11-05" // of Azure's storage protocol, as told to clients
	uploadLife  = 6 * time.Hour
	readLife    = 15 * time.Minute
	kindUpload  = "upload"
	// maxList bounds the XML of a block list: 50,000 IDs of 64 bytes and their tags.
	maxList = 8 << 20
)

func (s *Service) uploadURL(u *upload) string {
	return s.signedURL(kindUpload, u.id, "", "cw", uploadLife)
}

func (s *Service) downloadURL(kind string, id int64, name string) string {
	return s.signedURL(kind, strconv.FormatInt(id, 10), name, "r", readLife)
}

// signedURL has the parameters of a shared access signature: clients mask the
// value of `sig` in logs, and nothing else of it.
func (s *Service) signedURL(kind, id, name, permissions string, life time.Duration) string {
	end := s.now().Add(life).UTC().Format(time.RFC3339)
	path := "/blobs/" + kind + "/" + id
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	q := url.Values{"sv": {blobVersion}, "sr": {"b"}, "sp": {permissions}, "se": {end}, "sig": {s.signature(kind, id, permissions, end)}}
	return s.cfg.URL + path + "?" + q.Encode()
}

func (s *Service) signature(kind, id, permissions, end string) string {
	h := hmac.New(sha256.New, s.secret)
	_, _ = io.WriteString(h, strings.Join([]string{kind, id, permissions, end}, "\n")) // never fails
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// azureError is an error in Azure Blob Storage's form.
type azureError struct {
	Status int
	Code   string
	Msg    string
}

func (e *azureError) Error() string { return e.Msg }

func writeAzureError(w http.ResponseWriter, r *http.Request, e *azureError) {
	w.Header().Set("x-ms-error-code", e.Code)
	w.Header().Set("Content-Type", "application/xml")
	body, _ := xml.Marshal(struct { // two strings: cannot fail
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: e.Code, Message: e.Msg})
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		_, _ = fmt.Fprintf(w, "%s%s", xml.Header, body) // a client that left needs no answer
	}
}

// serveBlob is the storage behind signed URLs: Put Blob, Put Block and Put
// Block List for uploads, Get Blob with ranges and HEAD for downloads.
func (s *Service) serveBlob(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("x-ms-version", blobVersion)
	h.Set("x-ms-request-id", randomID())
	if id := r.Header.Get("x-ms-client-request-id"); id != "" && len(id) <= 1024 {
		h.Set("x-ms-client-request-id", id)
	}
	err := s.authorizeBlob(r)
	if err == nil {
		if r.PathValue("kind") == kindUpload {
			err = s.writeBlob(w, r)
		} else {
			err = s.readBlob(w, r)
		}
	}
	if err == nil {
		return
	}
	writeAzureError(w, r, s.asAzure(err))
}

func (s *Service) asAzure(err error) *azureError {
	var a *azureError
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &a):
		return a
	case errors.Is(err, ErrQuota):
		return &azureError{http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", err.Error()}
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrExpired):
		return &azureError{http.StatusNotFound, "BlobNotFound", err.Error()}
	case errors.Is(err, errBlockList):
		return &azureError{http.StatusBadRequest, "InvalidBlockList", err.Error()}
	case errors.Is(err, errMD5):
		return &azureError{http.StatusBadRequest, "Md5Mismatch", err.Error()}
	case errors.Is(err, ErrInvalid), errors.As(err, &tooLong):
		return &azureError{http.StatusBadRequest, "InvalidInput", err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &azureError{http.StatusBadRequest, "IncompleteBody", "the request ended before its content"}
	}
	s.log.Error("blob of the runner service", "err", err)
	return &azureError{http.StatusInternalServerError, "InternalError", "the service failed: see the log of `lockstep`"}
}

func (s *Service) authorizeBlob(r *http.Request) error {
	const hint = "ask the artifact or cache service for a new URL"
	q := r.URL.Query()
	permissions, end := q.Get("sp"), q.Get("se")
	want := s.signature(r.PathValue("kind"), r.PathValue("id"), permissions, end)
	if !hmac.Equal([]byte(want), []byte(q.Get("sig"))) {
		return &azureError{http.StatusForbidden, "AuthenticationFailed", "the signature of the URL is not valid here: " + hint}
	}
	if t, err := time.Parse(time.RFC3339, end); err != nil || !s.now().Before(t) {
		return &azureError{http.StatusForbidden, "AuthenticationFailed", "the URL was valid until " + end + ": " + hint}
	}
	return nil
}

func (s *Service) writeBlob(w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	u := s.uploads[r.PathValue("id")]
	s.mu.Unlock()
	if u == nil {
		return fmt.Errorf("the upload was finalized, or its job has ended: %w", ErrNotFound)
	}
	if r.Method != http.MethodPut {
		return &azureError{http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "an upload URL takes PUT only, not " + r.Method}
	}
	for _, name := range []string{"x-ms-structured-body", "x-ms-copy-source", "x-ms-content-crc64"} {
		if r.Header.Get(name) != "" {
			return &azureError{http.StatusNotImplemented, "UnsupportedHeader", "the header " + name + " is not supported by this storage; Content-MD5 is"}
		}
	}
	if err := s.put(r, u); err != nil {
		return err
	}
	h := w.Header()
	h.Set("ETag", `"0x`+u.id[:16]+`"`)
	h.Set("Last-Modified", s.now().UTC().Format(http.TimeFormat))
	h.Set("x-ms-request-server-encrypted", "false")
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Service) put(r *http.Request, u *upload) error {
	sum, err := contentMD5(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	switch comp := q.Get("comp"); comp {
	case "block":
		id := q.Get("blockid")
		if raw, err := base64.StdEncoding.DecodeString(id); err != nil || len(raw) == 0 || len(raw) > 64 {
			return &azureError{http.StatusBadRequest, "InvalidQueryParameterValue", fmt.Sprintf("blockid %.80q is not base64 of 1 to 64 bytes", id)}
		}
		return s.putBlock(r.Context(), u, id, r.Body, sum)
	case "blocklist":
		ids, err := blockList(http.MaxBytesReader(nil, r.Body, maxList))
		if err != nil {
			return err
		}
		return s.commitBlocks(u, ids)
	case "":
		if kind := r.Header.Get("x-ms-blob-type"); kind != "BlockBlob" {
			return &azureError{http.StatusBadRequest, "InvalidHeaderValue", fmt.Sprintf("x-ms-blob-type is %.40q: only BlockBlob is stored here", kind)}
		}
		return s.putBlob(r.Context(), u, r.Body, sum)
	default:
		return &azureError{http.StatusNotImplemented, "InvalidQueryParameterValue", fmt.Sprintf("comp=%.40s is not supported by this storage: block, blocklist and whole blobs are", comp)}
	}
}

func contentMD5(r *http.Request) ([]byte, error) {
	text := r.Header.Get("Content-MD5")
	if text == "" {
		return nil, nil
	}
	sum, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(sum) != 16 {
		return nil, &azureError{http.StatusBadRequest, "InvalidMd5", "Content-MD5 is not base64 of 16 bytes"}
	}
	return sum, nil
}

// blockList reads the body of Put Block List: IDs in their order.
func blockList(r io.Reader) ([]string, error) {
	d := xml.NewDecoder(r)
	ids, depth := []string{}, 0
	invalid := func(why string) error {
		return &azureError{http.StatusBadRequest, "InvalidXmlDocument", "the block list is not valid: " + why}
	}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && depth == 0 {
			return ids, nil
		}
		if err != nil {
			return nil, invalid(err.Error())
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch {
			case depth == 0 && t.Name.Local == "BlockList":
				depth++
			case depth == 1 && (t.Name.Local == "Latest" || t.Name.Local == "Uncommitted" || t.Name.Local == "Committed"):
				var id string
				if err := d.DecodeElement(&id, &t); err != nil {
					return nil, invalid(err.Error())
				}
				if ids = append(ids, strings.TrimSpace(id)); len(ids) > maxBlocks {
					return nil, &azureError{http.StatusBadRequest, "BlockListTooLong", fmt.Sprintf("a blob has at most %d blocks", maxBlocks)}
				}
			default:
				return nil, invalid("unexpected element " + t.Name.Local)
			}
		case xml.EndElement:
			depth--
		}
	}
}

func (s *Service) readBlob(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &azureError{http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "a download URL takes GET and HEAD only, not " + r.Method}
	}
	found, err := s.stored(r)
	if err != nil {
		return err
	}
	f, err := s.openBlob(found.blob)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	h := w.Header()
	h.Set("Content-Type", found.mime)
	h.Set("ETag", `"0x`+found.blob[:16]+`"`)
	h.Set("x-ms-blob-type", "BlockBlob")
	h.Set("x-ms-creation-time", found.created.Format(http.TimeFormat))
	h.Set("Content-Disposition", disposition(found.name))
	if v := r.Header.Get("x-ms-range"); v != "" { // Azure's own spelling wins
		r.Header.Set("Range", v)
	}
	http.ServeContent(w, r, "", found.created, f)
	return nil
}

// storedBlob is what the answer to a download says.
type storedBlob struct {
	blob, mime, name string
	created          time.Time
}

func (s *Service) stored(r *http.Request) (storedBlob, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return storedBlob{}, fmt.Errorf("blob %.40q: %w", r.PathValue("id"), ErrNotFound)
	}
	switch kind := r.PathValue("kind"); kind {
	case kindArtifact:
		list, err := collect(r.Context(), s.db, scanArtifact, `select `+artifactColumns+` from artifact where id = ?`, id)
		if err != nil || len(list) == 0 || list[0].Expired(s.now()) {
			return storedBlob{}, errors.Join(err, fmt.Errorf("artifact %d was deleted: %w", id, ErrNotFound))
		}
		a := list[0]
		return storedBlob{a.blob, a.MIME, a.FileName(), a.Created}, nil
	case kindCache:
		list, err := collect(r.Context(), s.db, scanCache, `select `+cacheColumns+` from cache where id = ?`, id)
		if err != nil || len(list) == 0 {
			return storedBlob{}, errors.Join(err, fmt.Errorf("cache entry %d was evicted: %w", id, ErrNotFound))
		}
		return storedBlob{list[0].blob, "application/octet-stream", "cache", list[0].Created}, nil
	default:
		return storedBlob{}, fmt.Errorf("blobs of kind %.40q: %w", kind, ErrNotFound)
	}
}

// disposition names the file twice: for all clients in ASCII, and in UTF-8.
func disposition(name string) string {
	ascii := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\'' || r == ';' || r == '\\' || r == '%' {
			return '_'
		}
		return r
	}, name)
	plain := mime.FormatMediaType("attachment", map[string]string{"filename": ascii})
	if ascii == name {
		return plain
	}
	return plain + "; filename*=UTF-8''" + url.PathEscape(name)
}
