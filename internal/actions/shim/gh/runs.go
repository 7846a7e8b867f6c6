package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

func runCommands() map[string]command {
	return map[string]command{
		"run list":     {shim.Flags{shim.F("--limit", "-L"), shim.F("--branch", "-b"), shim.F("--workflow", "-w"), shim.F("--status", "-s"), shim.F("--event", "-e"), shim.F("--commit", "-c"), shim.F("--user", "-u")}, runList},
		"run view":     {shim.Flags{shim.B("--log"), shim.B("--log-failed"), shim.F("--job", "-j"), shim.B("--exit-status"), shim.B("--verbose", "-v"), shim.F("--attempt", "-a"), shim.B("--web", "-w")}, runView},
		"run watch":    {shim.Flags{shim.F("--interval", "-i"), shim.B("--exit-status"), shim.B("--compact")}, runWatch},
		"workflow run": {shim.Flags{shim.F("--ref", "-r"), shim.F("--raw-field", "-f"), shim.F("--field", "-F")}, workflowRun},
	}
}

func runList(ctx context.Context, c *call) error {
	n, err := c.limit()
	if err != nil {
		return err
	}
	route, err := c.route(ctx, "/actions/runs")
	if err != nil {
		return err
	}
	if w := c.Get("workflow"); w != "" {
		if route, err = c.route(ctx, "/actions/workflows/%s/runs", url.PathEscape(w)); err != nil {
			return err
		}
	}
	q := url.Values{"per_page": {strconv.Itoa(min(n, 100))}}
	for option, field := range map[string]string{"branch": "branch", "status": "status", "event": "event", "commit": "head_sha", "user": "actor"} {
		if v := c.Get(option); v != "" {
			q.Set(field, v)
		}
	}
	var answer struct {
		Runs []object `json:"workflow_runs"`
	}
	if _, err := c.rest(ctx, http.MethodGet, route+"?"+q.Encode(), nil, &answer); err != nil {
		return err
	}
	found := append([]object{}, answer.Runs[:min(n, len(answer.Runs))]...)
	return c.show(found, func() error {
		for _, r := range found {
			if err := c.printf("%v\t%v\t%v\t%v\t%v\t%v\t%.0f", r["status"], text(r["conclusion"]), r["display_title"], r["name"], r["head_branch"], r["event"], r["id"]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *call) runOf(ctx context.Context) (object, string, error) {
	if len(c.Rest) != 1 {
		return nil, "", shim.Usagef("run ID required when not running interactively")
	}
	if _, err := strconv.ParseInt(c.Rest[0], 10, 64); err != nil {
		return nil, "", shim.Usagef("%q is no run ID", c.Rest[0])
	}
	route, err := c.route(ctx, "/actions/runs/%s", c.Rest[0])
	if err != nil {
		return nil, "", err
	}
	var r object
	_, err = c.rest(ctx, http.MethodGet, route, nil, &r)
	return r, route, err
}

func runView(ctx context.Context, c *call) error {
	r, route, err := c.runOf(ctx)
	if err != nil {
		return err
	}
	var answer struct {
		Jobs []object `json:"jobs"`
	}
	if _, err := c.rest(ctx, http.MethodGet, route+"/jobs?per_page=100", nil, &answer); err != nil {
		return err
	}
	if c.On("log") || c.On("log-failed") {
		return c.runLog(ctx, answer.Jobs)
	}
	r["jobs"] = answer.Jobs
	if err := c.show(r, func() error {
		_ = c.printf("%v %v · %.0f\n\nJOBS", r["display_title"], r["name"], r["id"])
		for _, j := range answer.Jobs {
			_ = c.printf("%s %v (ID %.0f)", sign(text(j["status"]), text(j["conclusion"])), j["name"], j["id"])
		}
		return nil
	}); err != nil {
		return err
	}
	return c.status(r)
}

func sign(status, conclusion string) string {
	switch {
	case status != "completed":
		return "*"
	case conclusion == "success":
		return "✓"
	case conclusion == "skipped" || conclusion == "neutral":
		return "-"
	}
	return "X"
}

// status turns a failed run into a failure when --exit-status is given.
func (c *call) status(r object) error {
	if c.On("exit-status") && text(r["status"]) == "completed" && text(r["conclusion"]) != "success" {
		return fmt.Errorf("run %v completed with '%s'", r["id"], text(r["conclusion"]))
	}
	return nil
}

func (c *call) runLog(ctx context.Context, jobs []object) error {
	for _, j := range jobs {
		id := fmt.Sprintf("%.0f", j["id"])
		if c.Has("job") && c.Get("job") != id || c.On("log-failed") && text(j["conclusion"]) != "failure" {
			continue
		}
		route, err := c.route(ctx, "/actions/jobs/%s/logs", id)
		if err != nil {
			return err
		}
		var log []byte
		if _, err := c.rest(ctx, http.MethodGet, route, nil, &log); err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			if _, err := fmt.Fprintf(c.Stdout, "%v\t%s", j["name"], line); err != nil {
				return err
			}
		}
	}
	return nil
}

// interval is --interval in seconds, or otherwise.
func (c *call) interval(otherwise time.Duration) (time.Duration, error) {
	if !c.Has("interval") {
		return otherwise, nil
	}
	n, err := strconv.Atoi(c.Get("interval"))
	if err != nil || n < 1 {
		return 0, shim.Usagef("could not parse `--interval`: %q", c.Get("interval"))
	}
	return time.Duration(n) * time.Second, nil
}

// every calls look until it is done or ctx ends.
func every(ctx context.Context, pause time.Duration, look func() (done bool, err error)) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if done, err := look(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func runWatch(ctx context.Context, c *call) error {
	pause, err := c.interval(3 * time.Second)
	if err != nil {
		return err
	}
	var last object
	err = every(ctx, pause, func() (bool, error) {
		r, _, err := c.runOf(ctx)
		last = r
		return err == nil && text(r["status"]) == "completed", err
	})
	if err != nil {
		return err
	}
	if err := c.printf("%s %v completed with '%v'", sign("completed", text(last["conclusion"])), last["name"], last["conclusion"]); err != nil {
		return err
	}
	return c.status(last)
}

func workflowRun(ctx context.Context, c *call) error {
	if len(c.Rest) != 1 {
		return shim.Usagef("workflow ID, name, or filename required when not running interactively")
	}
	inputs := map[string]string{}
	for _, f := range append(append([]string{}, c.All("raw-field")...), c.All("field")...) {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return shim.Usagef("field %q requires a value separated by an '=' sign", f)
		}
		inputs[k] = v
	}
	ref := c.Get("ref")
	if ref == "" {
		route, err := c.route(ctx, "")
		if err != nil {
			return err
		}
		var repo struct {
			DefaultBranch string `json:"default_branch"`
		}
		if _, err := c.rest(ctx, http.MethodGet, route, nil, &repo); err != nil {
			return err
		}
		ref = repo.DefaultBranch
	}
	route, err := c.route(ctx, "/actions/workflows/%s/dispatches", url.PathEscape(c.Rest[0]))
	if err != nil {
		return err
	}
	if _, err := c.rest(ctx, http.MethodPost, route, object{"ref": ref, "inputs": inputs}, nil); err != nil {
		return err
	}
	return c.printf("✓ Created workflow_dispatch event for %s at %s", c.Rest[0], ref)
}

func pullChecks(ctx context.Context, c *call) error {
	pause, err := c.interval(10 * time.Second)
	if err != nil {
		return err
	}
	p, _, err := c.pull(ctx)
	if err != nil {
		return err
	}
	head, _ := p["head"].(object)
	route, err := c.route(ctx, "/commits/%s/check-runs?per_page=100", text(head["sha"]))
	if err != nil {
		return err
	}
	var answer struct {
		Runs []object `json:"check_runs"`
	}
	pending, failed := 0, 0
	err = every(ctx, pause, func() (bool, error) {
		if _, err := c.rest(ctx, http.MethodGet, route, nil, &answer); err != nil {
			return false, err
		}
		pending, failed = 0, 0
		for _, r := range answer.Runs {
			switch sign(text(r["status"]), text(r["conclusion"])) {
			case "*":
				pending++
			case "X":
				failed++
			}
		}
		return !c.On("watch") || pending == 0 || c.On("fail-fast") && failed > 0, nil
	})
	if err != nil {
		return err
	}
	if len(answer.Runs) == 0 {
		return fmt.Errorf("no checks reported on the '%s' branch", text(head["ref"]))
	}
	words := map[string]string{"*": "pending", "X": "fail", "✓": "pass", "-": "skipping"}
	for _, r := range answer.Runs {
		if err := c.printf("%v\t%s\t%v", r["name"], words[sign(text(r["status"]), text(r["conclusion"]))], text(r["details_url"])); err != nil {
			return err
		}
	}
	switch {
	case failed > 0:
		return errors.New("some checks were not successful")
	case pending > 0:
		return errPending
	}
	return nil
}
