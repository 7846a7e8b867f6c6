package server

import (
	"context"
	"net/http"
	"time"
)

// callTimeout bounds every answer that is not a stream.
const callTimeout = 30 * time.Second

// mux holds every route of a door. The doors differ in how they answer an import.
func (s *Server) mux(importImage func(*http.Request) (any, error)) http.Handler {
	m := http.NewServeMux()
	get := func(path string, h func(r *http.Request) (any, error)) { m.HandleFunc("GET /api/v1"+path, call(h)) }
	do := func(pattern string, h func(r *http.Request) (any, error)) {
		m.HandleFunc(pattern, call(h))
	}
	get("/status", s.status)
	get("/apps", s.listApps)
	get("/apps/{namespace}/{name}", s.getApp)
	get("/apps/{namespace}/{name}/diff", s.diffApp)
	do("POST /api/v1/apps/{namespace}/{name}/sync", s.syncApp)
	do("POST /api/v1/apps/{namespace}/{name}/refresh", s.refreshApp)
	s.appRoutes(do)
	get("/runs", s.listRuns)
	get("/runs/{id}", s.getRun)
	m.HandleFunc("GET /api/v1/runs/{id}/logs", s.runLog)
	do("POST /api/v1/runs/{id}/cancel", s.cancelRun)
	do("POST /api/v1/runs/{id}/rerun", s.rerunRun)
	do("POST /api/v1/runs/{id}/review", s.reviewRun)
	do("POST /api/v1/runs/dispatch", s.dispatchRun)
	get("/traces", s.listTraces)
	get("/traces/{sha}", s.getTrace)
	m.HandleFunc("GET /api/v1/events", s.events)
	get("/secrets", s.listSecrets)
	do("PUT /api/v1/secrets/{vault}/{name}", s.setSecret)
	do("PUT /api/v1/repos/{owner}/{repo}/secrets/{name}", s.setRepoSecret)
	get("/images", s.listImages)
	get("/images/show", s.showImage)
	m.HandleFunc("POST /api/v1/images/import", long(importTimeout, importImage))
	get("/components", s.listComponents)
	m.HandleFunc("GET /api/v1/components/{name}/logs", s.componentLog)
	do("POST /api/v1/shutdown", s.shutdown)
	m.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, problemf(http.StatusNotFound, "", "there is no %s %s", r.Method, bounded(r.URL.Path)))
	})
	if s.config.Page != nil {
		m.Handle("/", page(s.config.Page))
	}
	return headers(m)
}

// call turns a function into a handler: a bounded body, a deadline, JSON out.
func call(h func(r *http.Request) (any, error)) http.HandlerFunc { return within(callTimeout, h) }

// long is call for what takes longer than a connection may be silent.
func long(limit time.Duration, h func(r *http.Request) (any, error)) http.HandlerFunc {
	answer := within(limit, h)
	return func(w http.ResponseWriter, r *http.Request) {
		// The connection's read deadline would end the request's context.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limit)) // not every writer has deadlines
		answer(w, r)
	}
}

func within(limit time.Duration, h func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := h(r)
		if err != nil {
			fail(w, err)
			return
		}
		if v == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		reply(w, v)
	}
}

// headers keeps browsers from guessing, framing and caching.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", contentPolicy)
		next.ServeHTTP(w, r)
	})
}
