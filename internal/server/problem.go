package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
)

// Problem is an error on the wire: RFC 9457's members, and what to try. Parts
// may return a *Problem to choose the status and the words.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`            // what
	Detail string `json:"detail,omitempty"` // why
	Hint   string `json:"hint,omitempty"`   // what to try
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Title + ": " + p.Detail
}

func problemf(status int, hint, title string, args ...any) *Problem {
	return &Problem{Status: status, Title: fmt.Sprintf(title, args...), Hint: hint}
}

// missing answers for a part that this platform was composed without.
func missing(part string) *Problem {
	return problemf(http.StatusNotImplemented, "", "this platform runs without %s", part)
}

// asProblem gives an error its status.
func asProblem(err error) *Problem {
	var p *Problem
	var ambiguous *trace.AmbiguousError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &ambiguous):
		return &Problem{http.StatusConflict, "the commit is ambiguous", err.Error(), "give more digits"}
	case errors.Is(err, trace.ErrUnknown):
		return &Problem{http.StatusNotFound, "no such commit", err.Error(), "see `lockstep trace` for the commits that were pushed"}
	case errors.Is(err, ErrNotFound):
		return &Problem{Status: http.StatusNotFound, Title: err.Error()}
	case errors.As(err, &large):
		return &Problem{Status: http.StatusRequestEntityTooLarge, Title: fmt.Sprintf("the body is larger than %d bytes", large.Limit)}
	case errors.Is(err, context.DeadlineExceeded):
		return &Problem{http.StatusGatewayTimeout, "it took too long", err.Error(), "look at `lockstep status` for a part that hangs"}
	}
	return &Problem{Status: http.StatusInternalServerError, Title: "it failed", Detail: err.Error()}
}

// fail writes the error as problem+json.
func fail(w http.ResponseWriter, err error) {
	p := asProblem(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client has gone if this fails
}

// reply writes a value as JSON.
func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client has gone if this fails
}
