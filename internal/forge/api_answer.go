package forge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// apiError is an answer in GitHub's form.
type apiError struct {
	Status  int
	Message string
	Errors  []fieldError // of 422
}

// fieldError says which field of a request is wrong, in GitHub's words.
type fieldError struct {
	Resource string `json:"resource"`
	Code     string `json:"code"` // missing, missing_field, invalid, already_exists, custom, …
	Field    string `json:"field,omitempty"`
	Message  string `json:"message,omitempty"`
}

// Error implements error.
func (e *apiError) Error() string { return e.Message }

func fail(status int, format string, args ...any) error {
	return &apiError{Status: status, Message: fmt.Sprintf(format, args...)}
}

// invalid is GitHub's answer to a request with a wrong field. message may be "".
func invalid(resource, code, field, message string) error {
	e := &apiError{Status: http.StatusUnprocessableEntity, Message: "Validation Failed",
		Errors: []fieldError{{Resource: resource, Code: code, Field: field, Message: message}}}
	if message != "" {
		e.Message += ": " + message
	}
	return e
}

// respond sends an answer or an error in GitHub's form. An answer of nil without
// an error was sent by the handler itself.
func (f *Forge) respond(w http.ResponseWriter, r *http.Request, answer any, err error) {
	if err == nil {
		if answer != nil {
			writeTagged(w, r, answer)
		}
		return
	}
	var known *apiError
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &known):
	case errors.Is(err, ErrNotFound):
		known = &apiError{Status: http.StatusNotFound, Message: "Not Found"}
	case errors.As(err, &tooLong):
		known = &apiError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the request has more than %d bytes", tooLong.Limit)}
	default:
		if r.Context().Err() == nil {
			f.log.Error("API request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		known = &apiError{Status: http.StatusInternalServerError, Message: "lockstep: this failed inside; its log says why"}
	}
	body := map[string]any{"message": known.Message, "documentation_url": docsURL, "status": strconv.Itoa(known.Status)}
	if len(known.Errors) > 0 {
		body["errors"] = known.Errors
	}
	writeJSON(w, known.Status, body)
}

// writeTagged sends an answer with an ETag, or 304 when the client has it.
func writeTagged(w http.ResponseWriter, r *http.Request, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "lockstep: the answer can't be written", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		sum := sha256.Sum256(data)
		tag := `"` + hex.EncodeToString(sum[:]) + `"`
		h.Set("ETag", "W/"+tag)
		h.Set("Cache-Control", "private, max-age=0, must-revalidate")
		h.Set("Vary", "Accept, Authorization")
		for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
			if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == tag || known == "*" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
	}
	_, _ = w.Write(append(data, '\n'))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// readJSON decodes the request's body into v. Unknown fields are GitHub's.
func readJSON(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fail(http.StatusBadRequest, "Problems parsing JSON: %s", err)
	}
	return nil
}

func (f *Forge) unsupported(_ http.ResponseWriter, r *http.Request) (any, error) {
	return nil, fail(http.StatusNotFound, "Not Found: Lockstep's forge doesn't support %s %s", r.Method, r.URL.Path)
}

// revisionError turns a missing commit into GitHub's answer.
func revisionError(err error, rev string) error {
	if errors.Is(err, git.ErrNotFound) {
		return fail(http.StatusUnprocessableEntity, "No commit found for SHA: %s", rev)
	}
	return err
}

// page is the part of a list that a request asks for.
type page struct{ number, size int }

func pageOf(r *http.Request) page {
	q := r.URL.Query()
	p := page{number: 1, size: 30}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 0 {
		p.number = min(n, 1_000_000)
	}
	if n, err := strconv.Atoi(q.Get("per_page")); err == nil && n > 0 {
		p.size = min(n, 100)
	}
	return p
}

func (p page) skip() int { return (p.number - 1) * p.size }

// link tells the client where the next and the previous page are.
func (p page) link(w http.ResponseWriter, r *http.Request, more bool) { p.links(w, r, more, 0) }

// links is link that names the last page too, when its number is known.
func (p page) links(w http.ResponseWriter, r *http.Request, more bool, last int) {
	at := func(number int, rel string) string {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(number))
		u := url.URL{Path: r.URL.Path, RawQuery: q.Encode()}
		return fmt.Sprintf("<%s%s>; rel=%q", apiBase(r), u.String(), rel)
	}
	var links []string
	if p.number > 1 {
		links = append(links, at(p.number-1, "prev"), at(1, "first"))
	}
	if more {
		links = append(links, at(p.number+1, "next"))
		if last > 0 {
			links = append(links, at(last, "last"))
		}
	}
	if len(links) > 0 {
		w.Header().Set("Link", strings.Join(links, ", "))
	}
}

// cutPage is the part of all that the request asks for.
func cutPage[T any](w http.ResponseWriter, r *http.Request, all []T) []T {
	p := pageOf(r)
	from := min(p.skip(), len(all))
	to := min(from+p.size, len(all))
	p.links(w, r, to < len(all), (len(all)+p.size-1)/p.size)
	return append([]T{}, all[from:to]...) // never null
}
