// Package client asks a running platform over its control socket.
//
// Input: the socket's path. Output: the types of internal/server; every error
// is an *output.Error with what, why and what to try. Start reading at [New].
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// maxAnswer bounds an answer that is not a stream.
const maxAnswer = 64 << 20

// Client talks to one platform. It opens connections as needed.
type Client struct {
	socket, name string
	http         *http.Client
}

// New returns a client of the platform of that name at the socket.
func New(socket, name string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket, name, &http.Client{Transport: &http.Transport{DialContext: dial, IdleConnTimeout: 10 * time.Second}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the platform as a whole.
func (c *Client) Status(ctx context.Context) (server.Status, error) {
	return get[server.Status](ctx, c, "/status")
}

// Runs lists runs, newest first.
func (c *Client) Runs(ctx context.Context, q server.RunQuery) ([]server.Run, error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	if q.Repo != "" {
		v.Set("repo", q.Repo)
	}
	if q.Commit != "" {
		v.Set("commit", q.Commit)
	}
	list, err := get[server.RunList](ctx, c, "/runs?"+v.Encode())
	return list.Items, err
}

// Run returns one run with its jobs.
func (c *Client) Run(ctx context.Context, id int64) (server.Run, error) {
	return get[server.Run](ctx, c, fmt.Sprintf("/runs/%d", id))
}

// CancelRun asks a run to end.
func (c *Client) CancelRun(ctx context.Context, id int64) error {
	return c.do(ctx, http.MethodPost, fmt.Sprintf("/runs/%d/cancel", id), nil, nil)
}

// ForceCancelRun ends a run at once.
func (c *Client) ForceCancelRun(ctx context.Context, id int64) error {
	return c.do(ctx, http.MethodPost, fmt.Sprintf("/runs/%d/cancel?force=1", id), nil, nil)
}

// ReviewRun decides about the jobs of a run that wait for an environment, and
// returns their names.
func (c *Client) ReviewRun(ctx context.Context, id int64, r server.RunReview) ([]string, error) {
	var out server.ReviewedRun
	err := c.do(ctx, http.MethodPost, fmt.Sprintf("/runs/%d/review", id), r, &out)
	return out.Jobs, err
}

// DispatchRun starts a workflow by hand and returns its run.
func (c *Client) DispatchRun(ctx context.Context, d server.RunDispatch) (int64, error) {
	var out server.Rerun
	err := c.do(ctx, http.MethodPost, "/runs/dispatch", d, &out)
	return out.ID, err
}

// Rerun starts a run again and returns its ID.
func (c *Client) Rerun(ctx context.Context, id int64, onlyFailed bool) (int64, error) {
	path := fmt.Sprintf("/runs/%d/rerun", id)
	if onlyFailed {
		path += "?failed=1"
	}
	var out server.Rerun
	err := c.do(ctx, http.MethodPost, path, nil, &out)
	return out.ID, err
}

// RunLog opens the log of a run.
func (c *Client) RunLog(ctx context.Context, id int64, o server.RunLogOptions) (io.ReadCloser, error) {
	v := url.Values{}
	flag(v, "follow", o.Follow)
	flag(v, "failed", o.Failed)
	if o.Job != "" {
		v.Set("job", o.Job)
	}
	return c.stream(ctx, fmt.Sprintf("/runs/%d/logs?%s", id, v.Encode()))
}

// Trace returns the trace of a commit or a prefix of one.
func (c *Client) Trace(ctx context.Context, commit string) (trace.Trace, error) {
	return get[trace.Trace](ctx, c, "/traces/"+url.PathEscape(commit))
}

// Traces returns the traces of the newest pushes.
func (c *Client) Traces(ctx context.Context, repo string, limit int) ([]trace.Trace, error) {
	v := url.Values{"limit": {strconv.Itoa(limit)}}
	if repo != "" {
		v.Set("repo", repo)
	}
	list, err := get[server.TraceList](ctx, c, "/traces?"+v.Encode())
	return list.Items, err
}

// Secrets lists secrets without values.
func (c *Client) Secrets(ctx context.Context) ([]server.Secret, error) {
	list, err := get[server.SecretList](ctx, c, "/secrets")
	return list.Items, err
}

// SetSecret writes a Key Vault secret and returns its version.
func (c *Client) SetSecret(ctx context.Context, vault, name string, value []byte) (string, error) {
	var out server.SetSecretResult
	err := c.do(ctx, http.MethodPut, "/secrets/"+url.PathEscape(vault)+"/"+url.PathEscape(name), server.SetSecret{Value: value}, &out)
	return out.Version, err
}

// SetRepoSecret writes an Actions secret of the repository "owner/name".
func (c *Client) SetRepoSecret(ctx context.Context, repo, name string, value []byte) error {
	owner, short, _ := strings.Cut(repo, "/")
	path := fmt.Sprintf("/repos/%s/%s/secrets/%s", url.PathEscape(owner), url.PathEscape(short), url.PathEscape(name))
	return c.do(ctx, http.MethodPut, path, server.SetSecret{Value: value}, nil)
}

// Images lists the repositories of every registry with their tags.
func (c *Client) Images(ctx context.Context) ([]server.Image, error) {
	list, err := get[server.ImageList](ctx, c, "/images")
	return list.Items, err
}

// Image tells of one image.
func (c *Client) Image(ctx context.Context, reference string) (server.ImageDetail, error) {
	return get[server.ImageDetail](ctx, c, "/images/show?reference="+url.QueryEscape(reference))
}

// ImportImage puts the image in a file, an absolute path, into the registry
// that reference names, and returns its digest.
func (c *Client) ImportImage(ctx context.Context, file, reference string) (server.ImportedImage, error) {
	var out server.ImportedImage
	err := c.do(ctx, http.MethodPost, "/images/import", server.ImportImage{File: file, Reference: reference}, &out)
	return out, err
}

// Components lists the platform's parts.
func (c *Client) Components(ctx context.Context) ([]server.Component, error) {
	list, err := get[server.ComponentList](ctx, c, "/components")
	return list.Items, err
}

// ComponentLog opens the log of a component.
func (c *Client) ComponentLog(ctx context.Context, name string, o server.LogOptions) (io.ReadCloser, error) {
	v := url.Values{}
	flag(v, "follow", o.Follow)
	if !o.Since.IsZero() {
		v.Set("since", o.Since.UTC().Format(time.RFC3339Nano))
	}
	if o.Tail > 0 {
		v.Set("tail", strconv.Itoa(o.Tail))
	}
	return c.stream(ctx, "/components/"+url.PathEscape(name)+"/logs?"+v.Encode())
}

// Shutdown asks the platform to end.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/shutdown", nil, nil)
}

func appPath(namespace, name string) string {
	return "/apps/" + url.PathEscape(namespace) + "/" + url.PathEscape(name)
}

func flag(v url.Values, name string, on bool) {
	if on {
		v.Set(name, "1")
	}
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	return out, c.do(ctx, http.MethodGet, path, nil, &out)
}

// do makes one call: in and out are JSON, nil for none.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out); err != nil {
		return &output.Error{What: "the platform's answer cannot be read", Why: err.Error(), Try: "restart it: it may be of another version (lockstep down, lockstep up)", Err: err}
	}
	return nil
}

func (c *Client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	res, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// send makes a request and turns every failure into words.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://lockstep.localhost/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode < 400 {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	p := &server.Problem{Title: "the platform answered " + res.Status}
	if text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20)); err == nil {
		_ = json.Unmarshal(text, p) // the title above stands when it is no problem+json
	}
	p.Status = res.StatusCode
	e := &output.Error{What: p.Title, Why: p.Detail, Try: p.Hint, Err: p}
	if p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden {
		e.Code = output.ExitAuth
	}
	return nil, e
}

// NotFound reports whether the platform has no such thing.
func NotFound(err error) bool {
	var p *server.Problem
	return errors.Is(err, server.ErrNotFound) || errors.As(err, &p) && p.Status == http.StatusNotFound
}

// NotRunning reports whether no platform answers.
func NotRunning(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func (c *Client) unreachable(err error) error {
	up := "lockstep up"
	if c.name != "lockstep" {
		up += " --name " + c.name
	}
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrPermission):
		return &output.Error{What: fmt.Sprintf("platform %q belongs to another user", c.name), Why: "its control socket " + c.socket + " cannot be opened",
			Try: "the same as that user, perhaps with sudo", Code: output.ExitAuth, Err: err}
	case NotRunning(err):
		return &output.Error{What: fmt.Sprintf("platform %q is not running", c.name), Why: "nothing answers at " + c.socket,
			Try: "start it with `" + up + "`", Err: err}
	}
	return &output.Error{What: fmt.Sprintf("platform %q does not answer", c.name), Why: err.Error(), Try: "lockstep logs, or restart it with `lockstep down` and `" + up + "`", Err: err}
}
