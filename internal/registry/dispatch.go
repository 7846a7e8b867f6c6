package registry

import (
	"fmt"
	"net/http"
	"strings"
)

// dispatch lets Distribution do the request, and adds the two things that it
// does not: word of a push, and words for an image that is not there.
func (r *Registry) dispatch(w http.ResponseWriter, req *http.Request, h *host, t target, who Principal) {
	// Distribution would put the parameter into its pagination links.
	if req.URL.Query().Has("ns") {
		u := *req.URL
		q := u.Query()
		q.Del("ns")
		u.RawQuery = q.Encode()
		clone := *req
		clone.URL = &u
		req = &clone
	}
	if t.kind == manifests && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		r.fetch(req.Context(), h, t)
	}
	switch {
	case t.kind == manifests && req.Method == http.MethodPut:
		rec := &recorder{ResponseWriter: w}
		h.app.handler.ServeHTTP(rec, req)
		if rec.status == http.StatusCreated && r.deps.OnPush != nil {
			r.deps.OnPush(req.Context(), pushOf(h.name, t, w.Header(), req, who))
		}
	case t.kind == manifests && req.Method == http.MethodGet:
		g := &missing{ResponseWriter: w, write: func() {
			writeError(w, http.StatusNotFound, codeManifestUnknown, r.notHere(h.name, t))
		}}
		h.app.handler.ServeHTTP(g, req)
	default:
		h.app.handler.ServeHTTP(w, req)
	}
}

// pushOf describes a manifest that Distribution has stored.
func pushOf(host string, t target, answer http.Header, req *http.Request, who Principal) Push {
	p := Push{
		Host: host, Repo: t.repo, Digest: answer.Get("Docker-Content-Digest"),
		MediaType: req.Header.Get("Content-Type"), Actor: who.Name,
	}
	if !strings.Contains(t.reference, ":") {
		p.Tag = t.reference
	}
	return p
}

// notHere says what to do about an image that the registry does not hold.
func (r *Registry) notHere(host string, t target) string {
	sep := ":"
	if strings.Contains(t.reference, ":") {
		sep = "@"
	}
	image := name(host, t.repo) + sep + t.reference
	if host != DefaultHost && r.known[host] {
		return fmt.Sprintf("%s is not on this machine: Lockstep holds a mirror of %s with what was imported. Import it with `lockstep image import <file.tar> %s`", image, host, image)
	}
	return fmt.Sprintf("%s is not in the registry: nobody has built and pushed it. Let the workflow that builds it run, or push it with `docker push %s`", image, image)
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// missing replaces the body of a 404.
type missing struct {
	http.ResponseWriter
	write    func()
	replaced bool
}

func (w *missing) WriteHeader(status int) {
	if status == http.StatusNotFound && !w.replaced {
		w.replaced = true
		w.write()
		return
	}
	if !w.replaced {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *missing) Write(p []byte) (int, error) {
	if w.replaced {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func (w *missing) Unwrap() http.ResponseWriter { return w.ResponseWriter }
