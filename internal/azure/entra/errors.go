package entra

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// oauthError is an answer of the token endpoint: number is the AADSTS code.
type oauthError struct {
	status int
	code   string // OAuth's error: "invalid_client"
	number int
	text   string
}

func (e *oauthError) Error() string { return fmt.Sprintf("AADSTS%d: %s", e.number, e.text) }

// Refused reports whether err means bad credentials, and not a trouble of this
// machine's own.
func Refused(err error) bool {
	var oauth *oauthError
	var token *TokenError
	return errors.As(err, &oauth) || errors.As(err, &token)
}

func invalidClient(number int, format string, args ...any) *oauthError {
	return &oauthError{status: http.StatusUnauthorized, code: "invalid_client", number: number, text: fmt.Sprintf(format, args...)}
}

func invalidRequest(number int, format string, args ...any) *oauthError {
	return &oauthError{status: http.StatusBadRequest, code: "invalid_request", number: number, text: fmt.Sprintf(format, args...)}
}

// fail writes an error in Entra's form. Errors of our own side become a plain 503,
// which clients retry.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var e *oauthError
	if !errors.As(err, &e) {
		s.deps.Log.Error("token service", "err", err)
		e = &oauthError{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", number: 90033, text: "A transient error has occurred. Please try again."}
	} else {
		s.deps.Log.Info("sign-in refused", "code", e.number, "why", e.text)
	}
	trace, correlation := uuid.NewString(), r.Header.Get("client-request-id")
	if uuid.Validate(correlation) != nil {
		correlation = uuid.NewString()
	}
	now := s.deps.Now().UTC().Format(time.DateTime) + "Z"
	writeJSON(w, e.status, map[string]any{
		"error":             e.code,
		"error_description": fmt.Sprintf("%v Trace ID: %s Correlation ID: %s Timestamp: %s", e, trace, correlation, now),
		"error_codes":       []int{e.number},
		"timestamp":         now,
		"trace_id":          trace,
		"correlation_id":    correlation,
		"error_uri":         fmt.Sprintf("https://%s/error?code=%d", Host, e.number),
	})
}
