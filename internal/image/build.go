package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/grpcerrors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/lockstep-gitops/lockstep/internal/image/attest"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// maxDockerfile bounds the Dockerfile that is read here for its syntax line.
const maxDockerfile = 1 << 20

// Build builds the image and, with req.Push, pushes it. Lines about its
// progress go to progress. An input that does not build gives a [*BuildError].
func (b *Builder) Build(ctx context.Context, req Request, progress io.Writer) (Result, error) {
	plan, err := newPlan(req)
	if err != nil {
		return Result{}, err
	}
	for _, note := range plan.notes {
		if _, err := fmt.Fprintln(progress, note); err != nil {
			return Result{}, fmt.Errorf("write build progress: %w", err)
		}
	}
	event := journal.Event{
		Repo: req.Repo, Commit: req.Commit, Stage: journal.StageImage, Subject: plan.subject,
		Status: journal.StatusStarted, Message: "building from " + plan.file,
		Data: map[string]string{journal.DataImage: plan.subject},
	}
	b.daemon.append(ctx, event)
	started := time.Now()
	res, steps, err := b.solve(ctx, plan, progress)
	if err == nil && req.Push && b.deps.Attester != nil {
		err = b.attest(ctx, plan, res, started, progress)
	}
	event = closing(event, plan, res, steps, err)
	if err != nil && ctx.Err() != nil {
		event.Status = journal.StatusCancelled
	}
	b.daemon.append(context.WithoutCancel(ctx), event)
	if err != nil {
		return Result{}, err
	}
	return res, nil
}

// attest says of the pushed image what is in it and how it came to be, once in
// each repository. A failure is told, and the image stays.
func (b *Builder) attest(ctx context.Context, p plan, res Result, started time.Time, progress io.Writer) error {
	build := p.provenanceOf(started, time.Now())
	said := map[string]bool{}
	for _, tag := range p.req.Tags {
		ref, err := parseRef(tag)
		if err != nil || said[ref.name()] {
			continue
		}
		said[ref.name()] = true
		text := fmt.Sprintf("attested %s: SBOM (SPDX) and provenance (SLSA), signed", ref.name())
		if err := b.deps.Attester.Attest(ctx, ref.name(), res.Digest, build); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("build image: %w", context.Cause(ctx))
			}
			b.deps.Log.Warn("an image has no attestations", "image", ref.name(), "digest", res.Digest, "error", err)
			text = "note: the image was pushed without SBOM and provenance: " + err.Error()
		}
		if _, err := fmt.Fprintln(progress, text); err != nil {
			return fmt.Errorf("write build progress: %w", err)
		}
	}
	return nil
}

// provenanceOf is what is known of a build.
func (p plan) provenanceOf(started, finished time.Time) attest.Build {
	parameters := map[string]any{"dockerfile": p.file}
	if p.req.Target != "" {
		parameters["target"] = p.req.Target
	}
	if len(p.req.Platforms) > 0 {
		parameters["platforms"] = p.req.Platforms
	}
	s := p.req.Source
	return attest.Build{
		Type: attest.BuildType, Builder: s.Builder, Invocation: s.Invocation, Repository: s.Repository, Ref: s.Ref, Commit: p.req.Commit, Workflow: s.Workflow,
		Parameters: parameters, Started: started, Finished: finished,
	}
}

// closing is the event that ends the span of e.
func closing(e journal.Event, p plan, res Result, steps tally, err error) journal.Event {
	e.Data = map[string]string{
		journal.DataImage: p.subject,
		"steps":           strconv.Itoa(steps.total), "cached": strconv.Itoa(steps.cached),
	}
	if run := p.req.Source.Invocation; run != "" {
		e.Data["run"] = run
	}
	if err == nil {
		e.Status, e.Data[journal.DataDigest] = journal.StatusSucceeded, res.Digest
		e.Message = fmt.Sprintf("built %s, %d of %d steps from the cache", strings.Join(p.req.Tags, ", "), steps.cached, steps.total)
		return e
	}
	e.Status, e.Message = journal.StatusFailed, err.Error()
	var be *BuildError
	if errors.As(err, &be) {
		e.Message, e.File, e.Line, e.Hint = be.Message, be.File, be.Line, be.Hint
	}
	return e
}

// plan is a request that was checked.
type plan struct {
	req     Request
	dir     string // of the Dockerfile, on this machine
	base    string // its file name there
	file    string // its name for people
	subject string // image name without tag
	notes   []string
	keep    bool // only into the cache: no image comes of it

	cacheFrom, cacheTo []client.CacheOptionsEntry
}

// newPlan checks the request before anything is started.
func newPlan(req Request) (plan, error) {
	if req.Dockerfile == "" {
		req.Dockerfile = "Dockerfile"
	}
	p := plan{req: req, file: filepath.ToSlash(filepath.Join(req.Path, req.Dockerfile)), subject: "untagged"}
	if !filepath.IsLocal(req.Dockerfile) {
		return p, &BuildError{File: req.Dockerfile, Message: "the Dockerfile must lie inside the build context", Hint: "set `context` to a directory that holds it"}
	}
	path := filepath.Join(req.ContextDir, req.Dockerfile)
	p.dir, p.base = filepath.Dir(path), filepath.Base(path)
	content, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, &BuildError{File: p.file, Message: "there is no such Dockerfile", Hint: "check `context` and `file` of the build step, and that the repository was checked out"}
	}
	if err != nil {
		return p, fmt.Errorf("read Dockerfile: %w", err)
	}
	for i, tag := range req.Tags {
		ref, err := parseRef(tag)
		if err != nil {
			return p, fmt.Errorf("build image: tag %w", err)
		}
		if ref.digest != "" {
			return p, fmt.Errorf("build image: tag %q: an image that is yet to be built has no digest", tag)
		}
		if i == 0 {
			p.subject = ref.name()
		}
	}
	if req.Push && len(req.Tags) == 0 {
		return p, errors.New("build image: push needs at least one tag, such as storefront.azurecr.io/web:v1")
	}
	if ref, _, _, ok := parser.DetectSyntax(content); ok {
		p.notes = append(p.notes, fmt.Sprintf("note: `# syntax=%s` asks for a frontend image; the one built into BuildKit is used", ref))
	}
	if err := p.readOptions(); err != nil {
		return p, fmt.Errorf("build image: %w", err)
	}
	if req.Load && !req.Push {
		p.notes = append(p.notes, "note: `load` has no Docker engine to load into; the image stays in the build cache. Push it to use it")
	}
	return p, nil
}

// readOptions checks the parts of the request that are texts of buildx.
func (p *plan) readOptions() (err error) {
	var from, to []string
	if p.cacheFrom, from, err = caches(p.req.CacheFrom); err != nil {
		return err
	}
	if p.cacheTo, to, err = caches(p.req.CacheTo); err != nil {
		return err
	}
	p.notes = append(p.notes, slices.Compact(append(from, to...))...)
	if _, err := p.frontendAttrs(); err != nil {
		return err
	}
	if _, err := p.exports(); err != nil {
		return err
	}
	if wantsSBOM(p.req) {
		p.notes = append(p.notes, "note: the SBOM is attached to the image as a referrer when it is pushed")
	}
	return entitled(p.req.Allow)
}

func wantsSBOM(r Request) bool {
	return r.SBOM != "" && r.SBOM != "false" || slices.ContainsFunc(r.Attests, func(a string) bool { return strings.HasPrefix(a, "type=sbom") })
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxDockerfile))
	return content, errors.Join(err, f.Close())
}

// solve lets BuildKit do it, a second time when BuildKit died meanwhile.
func (b *Builder) solve(ctx context.Context, p plan, progress io.Writer) (Result, tally, error) {
	res, steps, err := b.solveOnce(ctx, p, progress)
	if !errors.Is(err, errDied) {
		return res, steps, err
	}
	if _, err := fmt.Fprintln(progress, "note: buildkitd ended unexpectedly; the build starts again from its cache"); err != nil {
		return Result{}, steps, fmt.Errorf("write build progress: %w", err)
	}
	return b.solveOnce(ctx, p, progress)
}

func (b *Builder) solveOnce(ctx context.Context, p plan, progress io.Writer) (Result, tally, error) {
	child, ctx, release, err := b.daemon.acquire(ctx)
	if err != nil {
		return Result{}, tally{}, fmt.Errorf("build image: %w", err)
	}
	defer release()
	opt, done, err := p.solveOpt()
	if err != nil {
		return Result{}, tally{}, fmt.Errorf("build image: %w", err)
	}
	defer done()
	watch := newWatch(progress)
	statuses := make(chan *client.SolveStatus)
	var response *client.SolveResponse
	var group errgroup.Group
	group.Go(func() (err error) {
		response, err = child.client.Solve(ctx, nil, opt, statuses)
		return err
	})
	printErr := watch.follow(statuses)
	if err := group.Wait(); err != nil {
		if grpcerrors.Code(err) == codes.Unavailable {
			awaitDeath(ctx, child)
		}
		if cause := context.Cause(ctx); cause != nil {
			return Result{}, watch.tally(), fmt.Errorf("build image: %w", cause)
		}
		return Result{}, watch.tally(), b.explain(p, watch, err)
	}
	if printErr != nil {
		return Result{}, watch.tally(), fmt.Errorf("write build progress: %w", printErr)
	}
	if p.keep {
		return Result{}, watch.tally(), nil
	}
	res, err := p.result(response.ExporterResponse)
	return res, watch.tally(), err
}

// deathNotice is how long the end of a process may take to be known after its
// connections broke.
const deathNotice = 2 * time.Second

// awaitDeath gives ctx the time to learn that the child died.
func awaitDeath(ctx context.Context, child *buildkitd) {
	timer := time.NewTimer(deathNotice)
	defer timer.Stop()
	select {
	case <-child.Done():
		<-ctx.Done() // it follows, see acquire
	case <-ctx.Done():
	case <-timer.C:
	}
}

// solveOpt says to BuildKit what the request says to us. done ends what the
// options hold on to.
func (p plan) solveOpt() (opt client.SolveOpt, done func(), err error) {
	opt = client.SolveOpt{Frontend: "dockerfile.v0", SharedKey: p.req.ContextDir, AllowedEntitlements: p.req.Allow, CacheImports: p.cacheFrom, CacheExports: p.cacheTo}
	if opt.FrontendAttrs, err = p.frontendAttrs(); err != nil {
		return opt, nil, err
	}
	if opt.LocalMounts, err = p.mounts(); err != nil {
		return opt, nil, err
	}
	if opt.Exports, err = p.exports(); err != nil {
		return opt, nil, err
	}
	keys, done, err := p.agents()
	if err != nil {
		return opt, nil, err
	}
	opt.Session = []session.Attachable{credentials{byHost: p.req.Credentials}, secretsprovider.FromMap(p.req.Secrets)}
	if len(keys) > 0 {
		agent, err := sshprovider.NewSSHAgentProvider(keys)
		if err != nil {
			done()
			return opt, nil, fmt.Errorf("offer SSH keys: %w", err)
		}
		opt.Session = append(opt.Session, agent)
	}
	return opt, done, nil
}

// result reads what the exporter answered.
func (p plan) result(answer map[string]string) (Result, error) {
	res := Result{Digest: answer["containerimage.digest"], ImageID: answer["containerimage.config.digest"]}
	if res.Digest == "" {
		return Result{}, errors.New("build image: BuildKit named no digest for the image")
	}
	metadata := map[string]any{}
	for k, v := range answer {
		metadata[k] = v
		// Structured values come as JSON in base64.
		if raw, err := base64.StdEncoding.DecodeString(v); err == nil && json.Valid(raw) {
			metadata[k] = json.RawMessage(raw)
		}
	}
	text, err := json.MarshalIndent(metadata, "", "  ")
	if err != nil {
		return Result{}, fmt.Errorf("build image: %w", err)
	}
	res.Metadata = string(text)
	return res, nil
}
