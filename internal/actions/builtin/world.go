package builtin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// env is a variable of the step's environment, "" when it is not set.
func (c *Call) env(name string) string {
	for _, kv := range slices.Backward(c.Env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// withEnv is the step's environment with more variables, "NAME=value".
func (c *Call) withEnv(more ...string) []string { return append(slices.Clone(c.Env), more...) }

// maxEvent bounds event.json.
const maxEvent = 32 << 20

// event decodes the payload of the event that started the run into out. A run
// without one leaves out as it is.
func (c *Call) event(out any) error {
	data, err := readFile(c.Job.Temp, "_github_workflow/event.json", maxEvent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		return fmt.Errorf("read event.json: %w", err)
	}
	return nil
}

// script runs a shell script in the sandbox; its output goes to the log.
func (c *Call) script(ctx context.Context, dir, script string, args ...string) error {
	code, err := c.Job.Exec(ctx, dir, c.Env, append([]string{"sh", "-c", script, "sh"}, args...), c.Out)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	return err
}

// inJob turns a path of a step, relative to the workspace, into an absolute one.
func (c *Call) inJob(p string) string {
	switch {
	case p == "~" || strings.HasPrefix(p, "~/"):
		return path.Join(c.Job.HomePath, p[1:])
	case path.IsAbs(p):
		return path.Clean(p)
	}
	return path.Join(c.Job.Workspace, p)
}

// transport reaches what the job reaches.
func (c *Call) transport() http.RoundTripper {
	if c.Job.HTTP != nil {
		return c.Job.HTTP
	}
	if c.Job.RegistryProbe != nil {
		return c.Job.RegistryProbe
	}
	return unreachable{}
}

// unreachable is the network of a job that was given none.
type unreachable struct{}

// RoundTrip implements http.RoundTripper.
func (unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s cannot be reached: this engine was started without its services", r.URL.Host)
}

// maxAnswer bounds what an API may answer, in bytes.
const maxAnswer = 16 << 20

// statusError is an answer that is no success.
type statusError struct {
	Status  int
	Message string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Message) }

// request sends JSON and reads JSON. body and out may be nil.
func (c *Call) request(ctx context.Context, method, address string, header map[string]string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var data io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		data = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, data)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := (&http.Client{Transport: c.transport()}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var said struct{ Message, Error, ErrorDescription string }
		_ = json.Unmarshal(answer, &said) // an answer without JSON is shown as it is
		text := strings.TrimSpace(string(answer))
		return &statusError{resp.StatusCode, cmp.Or(said.Message, text[:min(len(text), 300)])}
	}
	if out == nil || len(answer) == 0 {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// api calls the forge's REST API at a path such as "/repos/o/r/pulls".
func (c *Call) api(ctx context.Context, method, token, route string, body, out any) error {
	base := c.env("GITHUB_API_URL")
	if base == "" {
		u, err := url.Parse(c.Job.ServerURL)
		if err != nil {
			return err
		}
		u.Host = "api." + u.Host
		base = u.String()
	}
	header := map[string]string{"Authorization": "Bearer " + cmp.Or(token, c.Job.Token), "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
	return c.request(ctx, method, base+route, header, body, out)
}

// unsupported refuses inputs that would change what the action does.
func (c *Call) unsupported(reasons map[string]string) error {
	for _, name := range sorted(reasons) {
		if v := c.With[name]; v != "" && v != "false" {
			return c.errorf(reasons[name], "input %s: %s is not supported", name, v)
		}
	}
	return nil
}
