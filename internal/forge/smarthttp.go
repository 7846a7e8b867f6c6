package forge

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// maxNegotiation bounds what a fetch may say about what it has, in bytes.
const maxNegotiation = 64 << 20

// Handler serves the whole forge: on a host named "api.…" GitHub's API at the
// root, on any other host Git at /{owner}/{repo} and the API at /api/v3 and
// /api/graphql.
func (f *Forge) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-f.ready:
		case <-r.Context().Done():
			return
		case <-f.base.Done():
			http.Error(w, "lockstep is shutting down", http.StatusServiceUnavailable)
			return
		}
		f.route(w, r)
	})
}

func (f *Forge) route(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	switch {
	case strings.HasPrefix(strings.ToLower(host), "api."):
		f.api.ServeHTTP(w, withAPIBase(r, ""))
	case r.URL.Path == "/api/v3" || strings.HasPrefix(r.URL.Path, "/api/v3/"):
		http.StripPrefix("/api/v3", f.api).ServeHTTP(w, withAPIBase(r, "/api/v3"))
	case strings.HasPrefix(strings.ToLower(host), "uploads."): // where GitHub takes the files of releases
		f.api.ServeHTTP(w, withAPIBase(r, ""))
	case strings.HasPrefix(r.URL.Path, "/api/uploads/"):
		http.StripPrefix("/api/uploads", f.api).ServeHTTP(w, withAPIBase(r, "/api/v3"))
	case r.URL.Path == "/api/graphql":
		http.StripPrefix("/api", f.api).ServeHTTP(w, withAPIBase(r, "/api/v3"))
	default:
		f.serveGit(w, r)
	}
}

// gitRoute is what a client of Git asks for.
type gitRoute struct {
	full    string // "owner/name"
	action  string // "info/refs", "git-upload-pack", "git-receive-pack", "" for a page
	service string // "upload-pack" or "receive-pack"
}

func parseGitRoute(r *http.Request) (gitRoute, bool) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) < 2 {
		return gitRoute{}, false
	}
	route := gitRoute{full: parts[0] + "/" + strings.TrimSuffix(parts[1], ".git")}
	if _, _, err := splitName(route.full); err != nil {
		return gitRoute{}, false
	}
	if len(parts) == 3 {
		route.action = parts[2]
	}
	switch route.action {
	case "info/refs":
		route.service = strings.TrimPrefix(r.URL.Query().Get("service"), "git-")
		return route, r.Method == http.MethodGet && (route.service == "upload-pack" || route.service == "receive-pack")
	case "git-upload-pack", "git-receive-pack":
		route.service = strings.TrimPrefix(route.action, "git-")
		return route, r.Method == http.MethodPost
	case "":
		return route, r.Method == http.MethodGet
	}
	if _, _, ok := parseArchive(route.action); ok || isDownload(route.action) {
		return route, r.Method == http.MethodGet
	}
	return route, isLFS(route.action)
}

func (f *Forge) serveGit(w http.ResponseWriter, r *http.Request) {
	route, ok := parseGitRoute(r)
	if !ok {
		http.Error(w, "lockstep: nothing here. Repositories are at "+f.cfg.URL+"/OWNER/NAME, GitHub's API at /api/v3/", http.StatusNotFound)
		return
	}
	id, err := f.authenticate(r)
	if errors.Is(err, errBadToken) {
		f.askForToken(w, "lockstep: this token isn't known here: it expired, was revoked or is of another platform. `lockstep env` prints a new one.")
		return
	}
	if err != nil {
		f.internalError(w, r, err)
		return
	}
	repo, err := f.find(r.Context(), route.full)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && !id.mayRead(repo):
		if route.service != "receive-pack" || repo != nil || !id.mayCreate() {
			f.refuseUnseen(w, route, id)
			return
		}
		repo = nil // a first push will create it
	case err != nil:
		f.internalError(w, r, err)
		return
	}
	if route.service == "receive-pack" && !id.mayWrite(strings.ToLower(route.full)) {
		if id.Anonymous() {
			f.askForToken(w, "lockstep: pushing needs a token: run `eval \"$(lockstep env)\"`, which tells git where to get it.")
			return
		}
		text := "lockstep: this token may not push to " + route.full
		if id.Scopes != nil {
			text += ": Resource not accessible by integration (the job needs `permissions: contents: write`)"
		}
		http.Error(w, text, http.StatusForbidden)
		return
	}
	if repo != nil && !id.mayFetch(repo) {
		http.Error(w, "lockstep: Resource not accessible by integration: the token of "+repo.full()+" lacks `contents: read`", http.StatusForbidden)
		return
	}
	switch route.action {
	case "info/refs":
		f.advertise(w, r, route, repo)
	case "git-upload-pack":
		f.uploadPack(w, r, repo)
	case "git-receive-pack":
		f.receivePack(w, r, route.full, id)
	default:
		if isLFS(route.action) {
			f.serveLFS(w, r, repo, id, route.action)
			return
		}
		if isDownload(route.action) {
			f.serveDownload(w, r, repo, route.action)
			return
		}
		if route.action != "" {
			f.serveArchive(w, r, repo, route.action)
			return
		}
		_, _ = fmt.Fprintf(w, "%s\n\n  git clone %s/%s.git\n", repo.full(), f.cfg.URL, repo.full())
	}
}

// refuseUnseen answers for a repository that is not there or not for this
// identity; the two can't be told apart.
func (f *Forge) refuseUnseen(w http.ResponseWriter, route gitRoute, id Identity) {
	if id.Anonymous() {
		f.askForToken(w, "lockstep: "+route.full+" isn't here or isn't public: `eval \"$(lockstep env)\"` gives git a token.")
		return
	}
	text := "lockstep: there is no repository " + route.full + "."
	if id.mayCreate() {
		text += " The first push creates it."
	}
	http.Error(w, text, http.StatusNotFound)
}

func (f *Forge) askForToken(w http.ResponseWriter, text string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="Lockstep (GitHub)"`)
	http.Error(w, text, http.StatusUnauthorized)
}

func (f *Forge) internalError(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		f.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	http.Error(w, "lockstep: this failed inside; its log says why", http.StatusInternalServerError)
}

var protocolHeader = regexp.MustCompile(`^[a-z0-9=:.-]{1,200}$`)

// protocolOf is the GIT_PROTOCOL for a request. Pushes have no version 2.
func protocolOf(r *http.Request, service string) string {
	p := r.Header.Get("Git-Protocol")
	if service == "receive-pack" || !protocolHeader.MatchString(p) {
		return ""
	}
	return p
}

// advertise answers what refs there are. A nil repo is one that a first push
// will create.
func (f *Forge) advertise(w http.ResponseWriter, r *http.Request, route gitRoute, repo *repository) {
	dir := f.empty()
	if repo != nil {
		dir = repo.git.Dir()
	}
	protocol := protocolOf(r, route.service)
	w.Header().Set("Content-Type", "application/x-git-"+route.service+"-advertisement")
	w.Header().Set("Cache-Control", "no-cache")
	out := &answer{w: w}
	if !strings.Contains(protocol, "version=2") {
		writePkt(&out.prefix, "# service=git-"+route.service+"\n")
		out.prefix.WriteString("0000")
	}
	f.serveProcess(w, r, dir, protocol, nil, out, route.service, "--stateless-rpc", "--advertise-refs", ".")
}

func (f *Forge) uploadPack(w http.ResponseWriter, r *http.Request, repo *repository) {
	body, err := requestBody(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// A clone takes as long as its client does.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
	w.Header().Set("Cache-Control", "no-cache")
	f.serveProcess(w, r, repo.git.Dir(), protocolOf(r, "upload-pack"), io.LimitReader(body, maxNegotiation), &answer{w: w},
		"upload-pack", "--stateless-rpc", ".")
}

// serveProcess answers a request with what git writes.
func (f *Forge) serveProcess(w http.ResponseWriter, r *http.Request, dir, protocol string, stdin io.Reader, out *answer, args ...string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(f.base, cancel)()
	if err := f.acquire(ctx); err != nil {
		return
	}
	defer f.release()
	cmd := gitCommand(ctx, dir, args...)
	if protocol != "" {
		cmd.Env = append(cmd.Env, "GIT_PROTOCOL="+protocol)
	}
	cmd.Stdin = stdin
	var stderr head
	cmd.Stdout, cmd.Stderr = out, &stderr
	err := run(cmd)
	if err == nil {
		err = out.finish()
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	f.log.Info("git "+args[0]+" failed", "path", r.URL.Path, "error", err, "stderr", stderr.String())
	if !out.started {
		w.Header().Del("Content-Type")
		http.Error(w, "lockstep: git "+args[0]+": "+strings.TrimSpace(stderr.String()), http.StatusInternalServerError)
		return
	}
	panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
}

// answer streams what git writes. It flushes when git writes little, which is
// progress that people wait for, and not more often than ten times a second.
type answer struct {
	w       http.ResponseWriter
	prefix  strings.Builder // written before git's first byte
	started bool
	flushed time.Time
}

func (a *answer) finish() error {
	if a.started || a.prefix.Len() == 0 {
		return nil
	}
	_, err := a.Write(nil)
	return err
}

func (a *answer) Write(p []byte) (int, error) {
	if !a.started {
		a.started = true
		if _, err := io.WriteString(a.w, a.prefix.String()); err != nil {
			return 0, err
		}
	}
	n, err := a.w.Write(p)
	if err == nil && len(p) < 4096 && time.Since(a.flushed) > 100*time.Millisecond {
		if flusher, ok := a.w.(http.Flusher); ok {
			flusher.Flush()
		}
		a.flushed = time.Now()
	}
	return n, err
}

// requestBody is the body as the client meant it.
func requestBody(r *http.Request) (io.Reader, error) {
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return r.Body, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, fmt.Errorf("lockstep: the request says that it is gzip and isn't: %w", err)
		}
		return z, nil
	default:
		return nil, fmt.Errorf("lockstep: requests in %q can't be read: send gzip or none", encoding)
	}
}
