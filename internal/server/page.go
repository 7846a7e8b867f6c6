package server

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
)

// contentPolicy lets the page load only its own files and call only its own
// door.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves the embedded files. A browser may keep them, but asks each time
// whether they changed.
func page(files fs.FS) http.Handler {
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			fail(w, problemf(http.StatusMethodNotAllowed, "", "the status page only shows"))
			return
		}
		name := r.URL.Path[1:]
		if name == "" {
			name = "index.html"
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			fail(w, problemf(http.StatusNotFound, "the status page is at /", "there is no page %s", bounded(r.URL.Path)))
			return
		}
		sum := sha256.Sum256(body)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
		w.Header().Set("Cache-Control", "no-cache")
		server.ServeHTTP(w, r)
	})
}
