package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"path"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/service"
	"github.com/lockstep-gitops/lockstep/internal/azure"
	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/gateway"
	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// actionsBot is who a job's pushes are by, as on GitHub.
const actionsBot = "github-actions[bot]"

// newActions makes the workflow engine.
func (s *system) newActions() (*actions.Actions, error) {
	bundle := s.cfg.path("ca", "bundle.pem")
	results := s.cfg.URL(service.ResultsHost)
	services, err := service.New(service.Config{Dir: s.cfg.path("services"), URL: results, APIURL: s.cfg.URL("api.github.localhost")}, service.Deps{Log: s.named("services")})
	if err != nil {
		return nil, err
	}
	s.services = services
	return actions.New(actions.Config{
		Dir: s.cfg.path("actions"), Self: s.cfg.Self, StateDir: s.cfg.StateDir, Version: s.cfg.Version,
		ServerURL: s.cfg.URL("github.localhost"), APIURL: s.cfg.URL("api.github.localhost"),
		ProxyEnv: gateway.Env(s.cfg.Proxy(), bundle, "localhost"), CAFile: bundle, Env: s.cfg.JobEnv, Path: s.cfg.JobPath, GoBuildCache: s.cfg.goBuildCache(),
		Init: s.programs.Init, Relays: s.jobRelays(), Hosts: []string{service.ResultsHost, "uploads.github.localhost"}, Group: "lockstep-" + s.cfg.Name,
		Remote: "https://github.com",
	}, actions.Deps{
		Log: s.named("actions"), Journal: s.journal, Repositories: s.forge, Tokens: jobTokens{s.forge}, Services: services,
		Builder: builds{s}, Checks: checks{s.forge}, Deployments: deployments{s.forge}, Protection: s.forge, Events: forgeEvents{s.forge},
		Registry: registryTransport{local: s.gateway.Transport(), mirrors: s.registry.Transport(), hosts: s.gateway, remote: internet()},
	})
}

// jobRelays lead from a job's own network to the door of the jobs, under the
// addresses that its environment names.
func (s *system) jobRelays() []sandbox.Relay {
	door := s.jobDoor.Addr().String()
	relays := []sandbox.Relay{{Listen: "127.0.0.1:80", Dial: door}}
	if s.cfg.Port != 80 {
		relays = append(relays, sandbox.Relay{Listen: "127.0.0.1:" + portOf(s.cfg), Dial: door})
	}
	return relays
}

// issuerKeys are the keys of the tokens that workflow jobs get.
func (s *system) issuerKeys(_ context.Context, issuer string) ([]byte, error) {
	if issuer != service.Issuer || s.services == nil {
		return nil, azure.ErrUnknownIssuer
	}
	return s.services.JWKS()
}

// jobTokens are the tokens that workflow jobs get.
type jobTokens struct{ forge *forge.Forge }

// IssueJobToken implements actions.Tokens.
func (t jobTokens) IssueJobToken(ctx context.Context, spec actions.JobToken) (string, func(context.Context) error, error) {
	return t.forge.IssueToken(ctx, forge.TokenSpec{
		User: actionsBot, Actor: actionsBot, Repo: spec.Repo, Write: spec.Write("contents"), Scopes: spec.Permissions, Cause: spec.Commit,
	})
}

// builds hands image builds to the builder, once the node is there.
type builds struct{ s *system }

// Build implements actions.Builder.
func (b builds) Build(ctx context.Context, r actions.BuildRequest, progress io.Writer) (actions.BuildResult, error) {
	builder := b.s.node.builder()
	if builder == nil {
		return actions.BuildResult{}, errors.New("there is no image builder: the platform is still starting, or this lockstep carries none; `lockstep status` says which")
	}
	credentials := make(map[string]image.Credential, len(r.Credentials))
	for host, c := range r.Credentials {
		credentials[host] = image.Credential(c)
	}
	exports := make([]image.Export, len(r.Exports))
	for i, e := range r.Exports {
		exports[i] = image.Export(e)
	}
	result, err := builder.Build(ctx, image.Request{
		Repo: r.Repo, Commit: r.Commit, ContextDir: r.ContextDir, Dockerfile: r.Dockerfile, Path: r.Path, Tags: r.Tags, Push: r.Push, Load: r.Load,
		BuildArgs: r.BuildArgs, Labels: r.Labels, Target: r.Target, Platforms: r.Platforms, NoCache: r.NoCache,
		Secrets: r.Secrets, Credentials: credentials, Annotations: r.Annotations, CacheFrom: r.CacheFrom, CacheTo: r.CacheTo, Contexts: r.Contexts,
		SSH: r.SSH, NoCacheFilters: r.NoCacheFilters, Pull: r.Pull, Provenance: r.Provenance, SBOM: r.SBOM, Attests: r.Attests, AddHosts: r.AddHosts,
		Network: r.Network, Allow: r.Allow, ShmSize: r.ShmSize, Ulimits: r.Ulimits, CgroupParent: r.CgroupParent, Exports: exports,
		Source: b.s.sourceOf(r),
	}, progress)
	var failed *image.BuildError
	if errors.As(err, &failed) {
		err = &actions.LocatedError{Msg: failed.Message, Hint: failed.Hint, File: failed.File, Line: failed.Line}
	}
	return actions.BuildResult(result), err
}

// sourceOf is what an image's provenance says of its workflow run.
func (s *system) sourceOf(r actions.BuildRequest) image.Source {
	if r.Repo == "" {
		return image.Source{}
	}
	url := s.cfg.URL("github.localhost") + "/" + r.Repo
	source := image.Source{Repository: "git+" + url, Ref: r.Ref, Workflow: r.Workflow, Builder: s.cfg.URL("github.localhost") + "/lockstep/runner"}
	if r.Run != 0 {
		source.Invocation = fmt.Sprintf("%s/actions/runs/%d", url, r.Run)
	}
	return source
}

// checks puts the state of jobs on commits.
type checks struct{ forge *forge.Forge }

// SetCheck implements actions.Checks.
func (t checks) SetCheck(ctx context.Context, c actions.Check) error {
	run := forge.CheckRun{
		Commit: c.Commit, Name: c.Name, ExternalID: c.ExternalID, Suite: fmt.Sprint(c.Run), Status: c.Status, Conclusion: c.Conclusion, DetailsURL: c.DetailsURL,
		Started: c.Started, Completed: c.Completed, Title: c.Title, Summary: c.Summary, Workflow: c.Workflow,
	}
	for _, a := range c.Annotations {
		if a.File == "" {
			continue // GitHub's are of files
		}
		level := a.Level
		if level == "error" {
			level = "failure"
		}
		run.Annotations = append(run.Annotations, forge.Annotation{
			Path: a.File, StartLine: max(a.Line, 1), EndLine: max(a.Line, a.EndLine, 1), StartColumn: a.Column, EndColumn: a.EndColumn, Level: level, Message: a.Message, Title: a.Title,
		})
	}
	_, err := t.forge.SetCheckRun(ctx, c.Repo, run)
	return err
}

// deployments records the deployments of jobs.
type deployments struct{ forge *forge.Forge }

// CreateDeployment implements actions.Deployments.
func (t deployments) CreateDeployment(ctx context.Context, d actions.Deployment) (int64, error) {
	return t.forge.CreateDeployment(ctx, d.Repo, forge.Deployment{
		Ref: d.Ref, SHA: d.Commit, Environment: d.Environment, Creator: d.Creator, Cause: d.Commit,
		ProductionEnvironment: strings.HasPrefix(strings.ToLower(d.Environment), "prod"),
	})
}

// SetDeploymentStatus implements actions.Deployments.
func (t deployments) SetDeploymentStatus(ctx context.Context, repo string, id int64, state, url string) error {
	if state == "waiting" {
		state = "pending" // REST has no other word for it
	}
	return t.forge.SetDeploymentStatus(ctx, repo, id, forge.DeploymentStatus{State: state, EnvironmentURL: url, Creator: actionsBot})
}

// forgeEvents are the forge's events for the engine.
type forgeEvents struct{ forge *forge.Forge }

// FollowEvents implements actions.Events.
func (t forgeEvents) FollowEvents(ctx context.Context, after int64) iter.Seq[actions.Event] {
	return func(yield func(actions.Event) bool) {
		for e := range t.forge.FollowEvents(ctx, after) {
			if !yield(actions.Event(e)) {
				return
			}
		}
	}
}

// runs shows the engine's runs.
type runs struct{ actions *actions.Actions }

// List implements server.Runs.
func (r runs) List(ctx context.Context, q server.RunQuery) ([]server.Run, error) {
	found, err := r.actions.Runs(ctx, actions.Filter{Repo: q.Repo, Commit: q.Commit, Before: q.Before, Limit: q.Limit})
	if err != nil {
		return nil, err
	}
	list := make([]server.Run, len(found))
	for i, run := range found {
		list[i] = runOf(run)
	}
	return list, nil
}

// Get implements server.Runs.
func (r runs) Get(ctx context.Context, id int64) (server.Run, error) {
	run, err := r.actions.GetRun(ctx, id)
	if err != nil {
		return server.Run{}, noRun(err)
	}
	return runOf(run), nil
}

// Cancel implements server.Runs.
func (r runs) Cancel(ctx context.Context, id int64) error { return noRun(r.actions.Cancel(ctx, id)) }

// Rerun implements server.Runs.
func (r runs) Rerun(ctx context.Context, id int64, onlyFailed bool) (int64, error) {
	next, err := r.actions.Rerun(ctx, id, onlyFailed)
	return next, noRun(err)
}

// ForceCancel implements server.Runs.
func (r runs) ForceCancel(ctx context.Context, id int64) error {
	return noRun(r.actions.ForceCancel(ctx, id))
}

// Review implements server.Runs.
func (r runs) Review(ctx context.Context, id int64, review server.RunReview) ([]string, error) {
	jobs, err := r.actions.Review(ctx, id, actions.ReviewOptions{Approve: review.Approve, Comment: review.Comment, User: forgeUser, Bypass: true})
	names := make([]string, len(jobs))
	for i, j := range jobs {
		names[i] = j.Name
	}
	return names, noRun(err)
}

// Dispatch implements server.Runs.
func (r runs) Dispatch(ctx context.Context, d server.RunDispatch) (int64, error) {
	ref := d.Ref
	if ref == "" {
		var err error
		if ref, err = r.actions.DefaultBranch(ctx, d.Repo); err != nil {
			return 0, noRun(err)
		}
	}
	run, err := r.actions.Dispatch(ctx, d.Repo, d.Workflow, ref, forgeUser, d.Inputs)
	return run.ID, noRun(err)
}

// Log implements server.Runs: the steps' logs one after the other, each under
// a line with its job and name.
func (r runs) Log(ctx context.Context, id int64, o server.RunLogOptions) (io.ReadCloser, error) {
	if _, err := r.actions.GetRun(ctx, id); err != nil {
		return nil, noRun(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	out, in := io.Pipe()
	go func() { in.CloseWithError(r.copyLogs(ctx, in, id, o)) }()
	return pipe{out, cancel}, nil
}

// pipe ends its writer when its reader goes.
type pipe struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (p pipe) Close() error {
	p.cancel()
	return p.PipeReader.Close()
}

func (r runs) copyLogs(ctx context.Context, w io.Writer, id int64, o server.RunLogOptions) error {
	type key struct {
		job  int64
		step int
	}
	shown := map[key]bool{}
	for {
		run, err := r.actions.GetRun(ctx, id)
		if err != nil {
			return err
		}
		for _, job := range run.Jobs {
			if o.Job != "" && o.Job != job.Key && o.Job != job.Name && o.Job != fmt.Sprint(job.ID) {
				continue
			}
			for _, step := range job.Steps {
				k := key{job.ID, step.Number}
				begun := step.Status == "in_progress" || step.Status == "completed" && step.Conclusion != "skipped"
				if shown[k] || !begun || o.Failed && step.Conclusion != "failure" {
					continue
				}
				shown[k] = true
				if err := r.copyStep(ctx, w, run.ID, job, step, o.Follow); err != nil {
					return err
				}
			}
		}
		if !o.Follow || run.Status == "completed" {
			return nil
		}
		if err := pause(ctx); err != nil {
			return nil // the reader has gone
		}
	}
}

func (r runs) copyStep(ctx context.Context, w io.Writer, run int64, job actions.Job, step actions.Step, follow bool) error {
	if _, err := fmt.Fprintf(w, "── %s / %s\n", job.Name, step.Name); err != nil {
		return err
	}
	log, err := r.actions.Logs(ctx, run, job.ID, step.Number, follow)
	if errors.Is(err, actions.ErrNotFound) {
		return nil // it wrote nothing
	}
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	_, err = io.Copy(w, log)
	return err
}

func noRun(err error) error {
	if errors.Is(err, actions.ErrNotFound) {
		return fmt.Errorf("%w: %w", server.ErrNotFound, err)
	}
	if errors.Is(err, actions.ErrConflict) {
		return &server.Problem{Status: http.StatusConflict, Title: err.Error(), Hint: "lockstep run view"}
	}
	var located *actions.LocatedError
	if errors.As(err, &located) {
		return &server.Problem{Status: http.StatusUnprocessableEntity, Title: "the workflow cannot be started", Detail: located.Error(), Hint: located.Hint}
	}
	return err
}

// runOf turns the engine's run into the server's.
func runOf(r actions.Run) server.Run {
	out := server.Run{
		ID: r.ID, Number: r.Number, Attempt: r.Attempt, Repo: r.Repo, Workflow: path.Base(r.File), Name: r.Name, Title: r.Title,
		Event: r.Event, Ref: r.Ref, Commit: r.Commit, Actor: r.Actor, Status: string(r.Status), Conclusion: r.Conclusion,
		Message: r.Note, Created: r.Created, Started: r.Started, Ended: r.Ended,
	}
	if p := r.Problem; p != nil {
		out.Message, out.Hint, out.File, out.Line = p.Message, p.Hint, p.File, p.Line
	}
	for _, j := range r.Jobs {
		job := server.Job{ID: j.Key, Name: j.Name, Status: string(j.Status), Conclusion: j.Conclusion, Message: j.Note, Started: j.Started, Ended: j.Ended}
		if j.Problem != nil {
			job.Message = j.Problem.Message
		}
		for _, s := range j.Steps {
			step := server.JobStep{Number: s.Number, Name: s.Name, Status: string(s.Status), Conclusion: s.Conclusion, Started: s.Started, Ended: s.Ended}
			if p := j.Problem; p != nil && p.Step == s.Number {
				step.Message, step.File, step.Line = p.Message, p.File, p.Line
			}
			job.Steps = append(job.Steps, step)
		}
		out.Jobs = append(out.Jobs, job)
	}
	return out
}
