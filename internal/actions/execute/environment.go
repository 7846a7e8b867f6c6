package execute

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// exprEnv is what expressions of a step see. stepEnv may be nil.
func (j *job) exprEnv(stepEnv *expr.Object) expr.Env {
	contexts := j.plan.Contexts()
	env := j.env
	if stepEnv != nil {
		env = stepEnv
	}
	contexts["github"], contexts["env"], contexts["steps"] = j.github, env, j.steps
	contexts["job"] = expr.NewObject().Set("status", string(j.currentStatus()))
	contexts["runner"] = expr.NewObject().Set("name", "lockstep").Set("os", "Linux").Set("arch", runnerArch()).
		Set("temp", tempDir).Set("tool_cache", toolDir).Set("environment", "self-hosted").Set("debug", "")
	return expr.Env{Contexts: contexts, Status: j.statusFunction, HashFiles: j.hashFiles}
}

func (j *job) cancelled() bool { return j.deadline != nil && j.deadline.Err() != nil }

func (j *job) currentStatus() schedule.Result {
	if j.cancelled() {
		return schedule.Cancelled
	}
	return j.status
}

func (j *job) statusFunction(name string) bool {
	switch name {
	case "always":
		return true
	case "cancelled":
		return j.cancelled()
	case "failure":
		return !j.cancelled() && j.status == schedule.Failure
	}
	return !j.cancelled() && j.status == schedule.Success
}

// addEnv evaluates a block of variables into one context; each sees the ones
// of the blocks before.
func (j *job) addEnv(into *expr.Object, block syntax.Env, stepEnv *expr.Object) error {
	env := j.exprEnv(stepEnv)
	if block.Expr.IsSet() {
		v, err := env.Value(block.Expr.Value)
		if err != nil {
			return fmt.Errorf("env at line %d: %w", block.Expr.Line, err)
		}
		if o, ok := v.(*expr.Object); ok {
			for _, k := range o.Keys() {
				value, _ := o.Get(k)
				into.Set(k, expr.Text(value))
			}
		}
	}
	values := make([]string, len(block.Vars))
	for i, v := range block.Vars {
		value, err := env.Interpolate(v.Value.Value)
		if err != nil {
			return fmt.Errorf("env %s at line %d: %w", v.Name, v.Value.Line, err)
		}
		values[i] = value
	}
	for i, v := range block.Vars {
		into.Set(v.Name, values[i])
	}
	return nil
}

func copyObject(o *expr.Object) *expr.Object {
	out := expr.NewObject()
	for _, k := range o.Keys() {
		v, _ := o.Get(k)
		out.Set(k, v)
	}
	return out
}

func runnerArch() string {
	if runtime.GOARCH == "arm64" {
		return "ARM64"
	}
	return "X64"
}

// githubContext is the `github` context of the job.
func (j *job) githubContext() *expr.Object {
	p := j.plan
	owner, _, _ := strings.Cut(p.Repo, "/")
	kind, short := refName(p.Ref)
	payload := p.Payload
	if payload == nil {
		payload = expr.NewObject()
	}
	c := expr.NewObject()
	for _, kv := range [][2]string{
		{"token", p.Token}, {"job", p.Job.ID}, {"ref", p.Ref}, {"sha", p.Commit}, {"repository", p.Repo}, {"repository_owner", owner},
		{"repositoryUrl", strings.Replace(j.Config.ServerURL, "http://", "git://", 1) + "/" + p.Repo + ".git"},
		{"run_id", strconv.FormatInt(p.RunID, 10)}, {"run_number", strconv.FormatInt(p.RunNumber, 10)}, {"run_attempt", strconv.Itoa(p.Attempt)},
		{"actor", p.Actor}, {"triggering_actor", p.Actor}, {"workflow", p.Workflow.Name}, {"head_ref", ""}, {"base_ref", ""}, {"event_name", p.Event},
		{"server_url", j.Config.ServerURL}, {"api_url", j.Config.APIURL}, {"graphql_url", j.Config.APIURL + "/graphql"},
		{"ref_name", short}, {"ref_type", kind},
		{"workflow_ref", p.Repo + "/" + p.Workflow.File + "@" + p.Ref}, {"workflow_sha", p.Commit},
		{"workspace", j.workspace()}, {"event_path", tempDir + "/_github_workflow/event.json"}, {"retention_days", "90"}, {"secret_source", "Actions"},
	} {
		c.Set(kv[0], kv[1])
	}
	return c.Set("ref_protected", false).Set("event", payload)
}

func refName(ref string) (kind, short string) {
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		return "tag", tag
	}
	return "branch", strings.TrimPrefix(ref, "refs/heads/")
}

// processEnv is the whole environment of a step's process. files are the
// environment files of the step.
func (j *job) processEnv(stepEnv *expr.Object, files map[string]string) []string {
	env := map[string]string{"HOME": homeDir, "LANG": "C.UTF-8", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash",
		"XDG_CACHE_HOME": homeDir + "/.cache"}
	for k, v := range j.Config.ProxyEnv {
		if v == j.Config.CAFile && v != "" {
			v = caBundle // the host's path is not there inside
		}
		env[k] = v
		if isProxy(k) { // some programs read only one spelling
			env[strings.ToLower(k)], env[strings.ToUpper(k)] = v, v
		}
	}
	if j.Config.CAFile != "" {
		for _, k := range []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
			env[k] = caBundle
		}
	}
	for k, v := range j.Config.Env {
		env[k] = v
	}
	pathSet := false
	for _, k := range stepEnv.Keys() {
		v, _ := stepEnv.Get(k)
		env[k] = expr.Text(v)
		pathSet = pathSet || k == "PATH"
	}
	if !pathSet {
		// The engine's own programs come last: the machine's win.
		env["PATH"] = strings.Join(append(slices.Clone(j.paths), j.Config.Path, shimDir), ":")
	}
	for k, v := range j.defaults() {
		env[k] = v
	}
	for k, v := range files {
		env[k] = v
	}
	out := make([]string, 0, len(env))
	for k, v := range env {
		if k != "" && !strings.ContainsAny(k, "=\x00") && !strings.Contains(v, "\x00") {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return out
}

func isProxy(key string) bool {
	switch strings.ToUpper(key) {
	case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY":
		return true
	}
	return false
}

// defaults are the variables that GitHub sets for every step.
func (j *job) defaults() map[string]string {
	env := map[string]string{
		"CI": "true", "GITHUB_ACTIONS": "true", "RUNNER_OS": "Linux", "RUNNER_ARCH": runnerArch(), "RUNNER_NAME": "lockstep",
		"RUNNER_ENVIRONMENT": "self-hosted", "RUNNER_TEMP": tempDir, "RUNNER_TOOL_CACHE": toolDir, "RUNNER_WORKSPACE": parent(j.workspace()),
		"AGENT_TOOLSDIRECTORY": toolDir,
	}
	for _, k := range []string{"ref", "sha", "repository", "repository_owner", "run_id", "run_number", "run_attempt", "actor", "triggering_actor",
		"workflow", "head_ref", "base_ref", "event_name", "server_url", "api_url", "graphql_url", "ref_name", "ref_type", "workflow_ref",
		"workflow_sha", "workspace", "event_path", "job", "retention_days", "action"} {
		if v, ok := j.github.Get(k); ok {
			env["GITHUB_"+strings.ToUpper(k)] = expr.Text(v)
		}
	}
	env["GITHUB_REF_PROTECTED"] = "false"
	return env
}

func parent(p string) string { return p[:strings.LastIndexByte(p, '/')] }
