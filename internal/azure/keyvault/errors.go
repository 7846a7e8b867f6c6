package keyvault

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// apiError is an answer in Key Vault's error form.
type apiError struct {
	status  int
	code    string
	message string
	inner   string // code of the innererror, "" without one
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func badParameter(format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, code: "BadParameter", message: fmt.Sprintf(format, args...)}
}

func forbidden(inner, format string, args ...any) *apiError {
	return &apiError{status: http.StatusForbidden, code: "Forbidden", message: fmt.Sprintf(format, args...), inner: inner}
}

func conflict(inner, format string, args ...any) *apiError {
	return &apiError{status: http.StatusConflict, code: "Conflict", message: fmt.Sprintf(format, args...), inner: inner}
}

func secretNotFound(id string) *apiError {
	return &apiError{status: http.StatusNotFound, code: "SecretNotFound",
		message: fmt.Sprintf("A secret with (name/id) %s was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182", id)}
}

// fail writes an error. Errors of our own become a 500 without details.
func (c *call) fail(err error) {
	var e *apiError
	if !errors.As(err, &e) {
		c.s.deps.Log.Error("key vault", "method", c.r.Method, "host", c.r.Host, "path", c.r.URL.Path, "err", err)
		e = &apiError{status: http.StatusInternalServerError, code: "InternalError", message: "Lockstep could not finish the request; its log says why."}
	}
	body := map[string]any{"code": e.code, "message": e.message}
	if e.inner != "" {
		body["innererror"] = map[string]any{"code": e.inner}
	}
	c.json(e.status, map[string]any{"error": body})
}

func (c *call) json(status int, body any) {
	h := c.w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("Pragma", "no-cache")
	c.w.WriteHeader(status)
	_ = json.NewEncoder(c.w).Encode(body) // fails only when the client is gone
}
