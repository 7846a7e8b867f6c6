package execute

import (
	"maps"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
)

func (j *job) cancelled() bool { return j.deadline != nil && j.deadline.Err() != nil }

func (j *job) currentStatus() schedule.Result {
	if j.cancelled() {
		return schedule.Cancelled
	}
	return j.status
}

// statusFunction answers success() and the like: for the job's own steps by the
// job, in a composite action by its steps so far.
func (j *job) statusFunction(f *frame, name string) bool {
	failed := j.status == schedule.Failure
	if f.parent != nil {
		failed = f.failed != nil
	}
	switch name {
	case "always":
		return true
	case "cancelled":
		return j.cancelled()
	case "failure":
		return !j.cancelled() && failed
	}
	return !j.cancelled() && !failed
}

func (j *job) jobContext() *expr.Object {
	c := expr.NewObject().Set("status", string(j.currentStatus()))
	if j.jobInfo != nil {
		for _, k := range j.jobInfo.Keys() {
			v, _ := j.jobInfo.Get(k)
			c.Set(k, v)
		}
	}
	return c
}

func (j *job) runnerContext() *expr.Object {
	debug := ""
	if j.debug {
		debug = "1"
	}
	return expr.NewObject().Set("name", "lockstep").Set("os", "Linux").Set("arch", runnerArch()).Set("temp", tempDir).
		Set("tool_cache", toolDir).Set("workspace", path.Dir(j.workspace())).Set("environment", "self-hosted").Set("debug", debug)
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
	triggering := p.TriggeringActor
	if triggering == "" {
		triggering = p.Actor
	}
	head, base := "", ""
	if pr := at(payload, "pull_request"); pr != nil && strings.HasPrefix(p.Event, "pull_request") {
		head, base = expr.Text(at(payload, "pull_request", "head", "ref")), expr.Text(at(payload, "pull_request", "base", "ref"))
	}
	c := expr.NewObject()
	for _, kv := range [][2]string{
		{"token", p.Token}, {"job", p.Job.ID}, {"ref", p.Ref}, {"sha", p.Commit}, {"repository", p.Repo}, {"repository_owner", owner},
		{"repository_id", expr.Text(at(payload, "repository", "id"))}, {"repository_owner_id", expr.Text(at(payload, "repository", "owner", "id"))},
		{"repository_visibility", visibility(payload)},
		{"repositoryUrl", strings.Replace(j.Config.ServerURL, "http://", "git://", 1) + "/" + p.Repo + ".git"},
		{"run_id", strconv.FormatInt(p.RunID, 10)}, {"run_number", strconv.FormatInt(p.RunNumber, 10)}, {"run_attempt", strconv.Itoa(p.Attempt)},
		{"actor", p.Actor}, {"actor_id", expr.Text(at(payload, "sender", "id"))}, {"triggering_actor", triggering},
		{"workflow", p.Workflow.Name}, {"head_ref", head}, {"base_ref", base}, {"event_name", p.Event},
		{"server_url", j.Config.ServerURL}, {"api_url", j.Config.APIURL}, {"graphql_url", j.Config.APIURL + "/graphql"},
		{"ref_name", short}, {"ref_type", kind},
		{"workflow_ref", p.Repo + "/" + p.Workflow.File + "@" + p.Ref}, {"workflow_sha", p.Commit},
		{"workspace", j.workspace()}, {"event_path", tempDir + "/_github_workflow/event.json"}, {"retention_days", "90"}, {"secret_source", "Actions"},
	} {
		c.Set(kv[0], kv[1])
	}
	for k, v := range p.GitHub {
		c.Set(k, v)
	}
	return c.Set("ref_protected", p.RefProtected).Set("event", payload)
}

func visibility(payload *expr.Object) string {
	if v := expr.Text(at(payload, "repository", "visibility")); v != "" {
		return v
	}
	if expr.Truthy(at(payload, "repository", "private")) {
		return "private"
	}
	return "public"
}

// at walks down objects; what is not there is nil.
func at(v any, keys ...string) any {
	for _, k := range keys {
		o, ok := v.(*expr.Object)
		if !ok || o == nil {
			return nil
		}
		v, _ = o.Get(k)
	}
	return v
}

func refName(ref string) (kind, short string) {
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		return "tag", tag
	}
	return "branch", strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/pull/")
}

// processEnv is the whole environment of a step's process. extra wins: the
// environment files of the step, the inputs of an action.
func (j *job) processEnv(f *frame, stepEnv *expr.Object, extra ...map[string]string) []string {
	env := map[string]string{"HOME": homeDir, "LANG": "C.UTF-8", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash",
		"XDG_CACHE_HOME": homeDir + "/.cache", "CI": "true"}
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
	maps.Copy(env, j.Config.Env)
	pathSet := false
	for _, k := range stepEnv.Keys() {
		v, _ := stepEnv.Get(k)
		env[k] = expr.Text(v)
		pathSet = pathSet || k == "PATH"
	}
	if !pathSet {
		env["PATH"] = strings.Join(append(slices.Clone(j.paths), j.machinePath()), ":")
	} else if len(j.paths) > 0 {
		env["PATH"] = strings.Join(append(slices.Clone(j.paths), env["PATH"]), ":")
	}
	maps.Copy(env, j.defaults(f))
	maps.Copy(env, j.socketEnv())
	for _, m := range extra {
		maps.Copy(env, m)
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

// machinePath is where steps find programs: the machine's win over those that
// the engine stands in for, but for those in firstDir.
func (j *job) machinePath() string { return firstDir + ":" + j.Config.Path + ":" + shimDir }

func isProxy(key string) bool {
	switch strings.ToUpper(key) {
	case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY":
		return true
	}
	return false
}

// fromGitHub are the parts of the github context that are variables too.
var fromGitHub = []string{"ref", "sha", "repository", "repository_owner", "repository_id", "repository_owner_id", "run_id", "run_number", "run_attempt",
	"actor", "actor_id", "triggering_actor", "workflow", "head_ref", "base_ref", "event_name", "server_url", "api_url", "graphql_url", "ref_name",
	"ref_type", "ref_protected", "workflow_ref", "workflow_sha", "workspace", "event_path", "job", "retention_days", "action", "action_path",
	"action_repository", "action_ref"}

// defaults are the variables that GitHub sets for every step.
func (j *job) defaults(f *frame) map[string]string {
	env := map[string]string{
		"GITHUB_ACTIONS": "true", "RUNNER_OS": "Linux", "RUNNER_ARCH": runnerArch(), "RUNNER_NAME": "lockstep",
		"RUNNER_ENVIRONMENT": "self-hosted", "RUNNER_TEMP": tempDir, "RUNNER_TOOL_CACHE": toolDir, "RUNNER_WORKSPACE": path.Dir(j.workspace()),
		"AGENT_TOOLSDIRECTORY": toolDir,
	}
	if j.debug {
		env["RUNNER_DEBUG"] = "1"
	}
	for _, k := range fromGitHub {
		if v, ok := f.github.Get(k); ok {
			env["GITHUB_"+strings.ToUpper(k)] = expr.Text(v)
		}
	}
	for k, v := range j.plan.ServiceEnv { // GitHub gives the rest only to actions
		if strings.HasPrefix(k, "ACTIONS_ID_TOKEN_REQUEST_") {
			env[k] = v
		}
	}
	return env
}
