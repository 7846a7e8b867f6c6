package mirror

import (
	"errors"
	"fmt"
	"strings"
)

// The reasons why a repository cannot be read. Errors of the store are one of
// them under errors.Is where the reason is known.
var (
	ErrUnknown     = errors.New("the repository does not exist, or these credentials may not see it")
	ErrRefused     = errors.New("access was refused")
	ErrUnreachable = errors.New("the server cannot be reached")
	ErrUntrusted   = errors.New("the server is not trusted")
)

// gitError is a git that failed.
type gitError struct {
	verb, message string
	err           error
}

// Error has the line that matters of what git said.
func (e *gitError) Error() string {
	line := ""
	for l := range strings.Lines(e.message) {
		l = strings.TrimSpace(l)
		if line == "" || strings.HasPrefix(l, "fatal:") || strings.HasPrefix(l, "remote:") && len(l) > 10 {
			line = l
		}
		if strings.HasPrefix(l, "fatal:") || strings.Contains(l, "ermission denied") || strings.Contains(l, "Host key verification") {
			line = l
			break
		}
	}
	if line == "" {
		line = e.err.Error()
	}
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	return fmt.Sprintf("git %s: %s", e.verb, line)
}

var reasons = []struct {
	is   error
	hint string
	says []string // in lower case
}{
	{ErrUntrusted, "add its key to argocd-ssh-known-hosts-cm", []string{"host key verification failed", "host key is known", "no matching host key"}},
	{ErrUntrusted, "add its certificate to argocd-tls-certs-cm", []string{"ssl certificate problem", "certificate verification failed", "server certificate", "unable to get local issuer", "tls handshake"}},
	{ErrRefused, "check its repository Secret", []string{"authentication failed", "could not read username", "could not read password", "permission denied", "returned error: 401", "returned error: 403", "access denied", "invalid credentials"}},
	{ErrUnknown, "check repoURL and its repository Secret", []string{"repository not found", "returned error: 404", "does not appear to be a git repository", "does not exist", "project you were looking for could not be found", "' not found"}},
	{ErrUnreachable, "it is asked again by itself", []string{"could not resolve host", "could not resolve proxy", "connection refused", "connection timed out", "operation timed out", "network is unreachable", "no route to host", "connection reset", "failed to connect", "returned error: 5", "early eof", "unexpected disconnect", "operation too slow", "remote end hung up", "connection closed", "empty reply"}},
}

// explain makes an error of a round one that says what, why and what to do.
func (m *mirror) explain(err error) error {
	var g *gitError
	if !errors.As(err, &g) {
		return fmt.Errorf("repository %s: %w", m.address, err)
	}
	text := strings.ToLower(g.message)
	for _, r := range reasons {
		for _, s := range r.says {
			if strings.Contains(text, s) {
				return fmt.Errorf("repository %s: %w (%w); %s", m.address, r.is, err, r.hint)
			}
		}
	}
	return fmt.Errorf("repository %s: %w", m.address, err)
}

// ours reports whether a failed fetch may be the fault of the mirror on disk.
func (m *mirror) ours(err error) bool {
	var g *gitError
	if !errors.As(err, &g) {
		return false
	}
	err = m.explain(err)
	return !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrUntrusted)
}
