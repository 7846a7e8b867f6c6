package webhook

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
)

const (
	maxBody = 25 << 20 // as GitHub's limit
	atOnce  = 8        // bodies in memory
)

// Handler takes webhooks, as Argo CD's /api/webhook does, and calls pushed for
// each event. pushed must not block for long. secrets is asked per request.
func Handler(log *slog.Logger, secrets func() Secrets, pushed func(Event)) http.Handler {
	slots := make(chan struct{}, atOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "webhooks are sent by POST", http.StatusMethodNotAllowed)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "the body is too large or was cut", http.StatusBadRequest)
			return
		}
		events, err := Parse(r.Header, body, secrets())
		switch {
		case errors.Is(err, ErrForged):
			log.Warn("a webhook is not believed", "from", r.RemoteAddr)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, e := range events {
			pushed(e)
		}
		w.WriteHeader(http.StatusOK)
	})
}
