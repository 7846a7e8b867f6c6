// Package shim holds what the programs of the job's PATH share that stand in
// for those that the machine lacks: az, gh, docker.
//
// Input: a [Process]: arguments, environment, streams, as a program gets them.
// Output: an exit code, and what the real program would print.
//
// Invariants: a shim says once per job that it is one; what it does not know
// fails with exit code 2 and says so; it reaches the network by the proxy of
// its environment only.
//
// Start reading at [Process] and [Flags].
package shim

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUnknown = 2 // a verb or option that the shim does not know
)

// Process is what a program gets from its caller.
type Process struct {
	Args      []string // without the program's name
	Env       []string // NAME=value
	Dir       string   // "" is the current directory
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer
	Transport http.RoundTripper // nil: by the proxy of Env
}

// Getenv is a variable of the process, "" when it is not set.
func (p *Process) Getenv(name string) string {
	for i := len(p.Env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(p.Env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// Path makes a path of the arguments absolute.
func (p *Process) Path(name string) string {
	if filepath.IsAbs(name) || p.Dir == "" {
		return name
	}
	return filepath.Join(p.Dir, name)
}

// Announce says once per job that program is a stand-in.
func (p *Process) Announce(program string) {
	if dir := p.Getenv("RUNNER_TEMP"); dir != "" {
		mark := filepath.Join(dir, "_lockstep", "emulated-"+program)
		if err := os.MkdirAll(filepath.Dir(mark), 0o755); err == nil {
			f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if errors.Is(err, os.ErrExist) {
				return
			}
			if err == nil {
				_ = f.Close()
			}
		}
	}
	_, _ = fmt.Fprintf(p.Stderr, "%s: emulated by lockstep\n", program)
}

// Client makes requests as the process may.
func (p *Process) Client() *http.Client {
	if p.Transport != nil {
		return &http.Client{Transport: p.Transport, Timeout: 10 * time.Minute}
	}
	first := func(names ...string) string {
		for _, n := range names {
			if v := p.Getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	proxy := (&httpproxy.Config{HTTPProxy: first("http_proxy", "HTTP_PROXY"), HTTPSProxy: first("https_proxy", "HTTPS_PROXY"), NoProxy: first("no_proxy", "NO_PROXY")}).ProxyFunc()
	return &http.Client{Timeout: 10 * time.Minute, Transport: &http.Transport{
		Proxy:           func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}}
}

// UsageError is a verb or an option that the shim does not know.
type UsageError struct{ Message string }

func (e *UsageError) Error() string { return e.Message }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// Code is the exit code for an error.
func Code(err error) int {
	var usage *UsageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usage):
		return ExitUnknown
	}
	return ExitFailed
}

// StatusError is an answer of a service that is no success.
type StatusError struct {
	Status int
	Method string
	URL    string
	Body   []byte
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.URL, e.Status, strings.TrimSpace(string(e.Body[:min(len(e.Body), 500)])))
}

// maxAnswer bounds an answer of a service, in bytes.
const maxAnswer = 64 << 20

// Do sends a request and reads the answer. body may be nil, url.Values for a
// form, []byte as it is, or anything for JSON. out may be nil.
func (p *Process) Do(ctx context.Context, method, address string, header http.Header, body, out any) (http.Header, error) {
	var data io.Reader
	kind := ""
	switch b := body.(type) {
	case nil:
	case url.Values:
		data, kind = strings.NewReader(b.Encode()), "application/x-www-form-urlencoded"
	case []byte:
		data = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		data, kind = bytes.NewReader(encoded), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, address, data)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if kind != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := p.Client().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return resp.Header, &StatusError{resp.StatusCode, method, address, answer}
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = answer
		return resp.Header, nil
	}
	if out == nil || len(bytes.TrimSpace(answer)) == 0 {
		return resp.Header, nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return resp.Header, fmt.Errorf("%s %s: the answer is not JSON: %w", method, address, err)
	}
	return resp.Header, nil
}
