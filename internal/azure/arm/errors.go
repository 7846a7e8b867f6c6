package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// apiError is an answer in ARM's error form.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func badRequest(code, format string, args ...any) *apiError {
	return refuse(http.StatusBadRequest, code, format, args...)
}

// fail writes an error. Errors of our own become a 500 without details.
func (c *call) fail(err error) {
	var e *apiError
	if !errors.As(err, &e) {
		c.s.deps.Log.Error("resource manager", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
		e = refuse(http.StatusInternalServerError, "InternalServerError", "Lockstep could not finish the request; its log says why.")
	}
	writeJSON(c.w, e.status, map[string]any{"error": map[string]any{"code": e.code, "message": e.message}})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	// Every operation is finished when it is answered: clients need not wait.
	w.Header().Set("X-Go-Azure-Sdk-Skip-Polling-Delay", "true")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only when the client is gone
}
