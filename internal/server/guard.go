package server

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// guard is what stands at the loopback door. Any local program and any web
// page in a local browser can knock there, so: the Host must be a name of this
// machine (else a foreign site could point its name here), a request from
// another site is refused, and a change needs the token.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localName(r.Host) {
			fail(w, problemf(http.StatusMisdirectedRequest, "use http://localhost or a name that ends in .localhost",
				"the name %q does not belong to this machine", bounded(r.Host)))
			return
		}
		if !sameOrigin(r) {
			fail(w, problemf(http.StatusForbidden, "open the status page itself", "requests from other sites are refused"))
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !s.authorized(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="lockstep"`)
			fail(w, problemf(http.StatusUnauthorized, "use the lockstep command, which has the control socket",
				"changes through this door need the platform's token"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorized(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && s.config.Token != "" && subtle.ConstantTimeCompare([]byte(token), []byte(s.config.Token)) == 1
}

// localName reports whether a Host header names this machine by a name that no
// other site can have.
func localName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || name == "127.0.0.1" || strings.HasSuffix(name, ".localhost")
}

// sameOrigin reports whether a request comes from our own page, or from no
// page at all.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		// Following a link to the page is a navigation and shows nothing to
		// the site that has the link.
		return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

// bounded cuts what a client sent to what belongs in an answer.
func bounded(s string) string { return s[:min(len(s), 100)] }
