package image

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
)

// BuildError is a Dockerfile, or what it refers to, that does not build.
type BuildError struct {
	File        string // path in the repository
	Line        int    // from 1; 0 when it is about no single line
	Instruction string // the text of that line, "" when Line is 0
	Message     string // what went wrong, with the last output of the step
	Hint        string // what to try, "" when there is nothing to say
	Err         error  // what BuildKit said; may be nil
}

// Error implements error.
func (e *BuildError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": " + e.Message)
	if e.Hint != "" {
		b.WriteString("\ntry: " + e.Hint)
	}
	return b.String()
}

// Unwrap returns what BuildKit said.
func (e *BuildError) Unwrap() error { return e.Err }

// explain turns an error of BuildKit into one for the author of the Dockerfile.
func (b *Builder) explain(p plan, w *watch, err error) error {
	e := &BuildError{File: p.file, Err: err, Message: lastCause(err)}
	e.Line, e.Instruction = location(err, p.base)
	var step *errdefs.VertexError
	if errors.As(err, &step) {
		if lines := w.output(step.Digest); len(lines) > 0 {
			e.Message += "\n  " + strings.Join(lines, "\n  ")
		}
	}
	text := err.Error()
	switch {
	case missingImage.MatchString(text):
		b.explainMissing(e, missingImage.FindStringSubmatch(text)[1], text)
	case strings.Contains(text, "failed to push"):
		b.explainPush(e, text)
	case strings.Contains(text, "failed to authorize") || strings.Contains(text, "401 Unauthorized"):
		e.Hint = "log in to the registry before the build, with docker/login-action or azure/docker-login"
	case strings.Contains(text, "failed to calculate checksum") && strings.Contains(text, "not found"):
		explainPath(e, text)
	case strings.Contains(text, "exec format error"):
		e.Hint = "the step's program is for another architecture; use `FROM --platform=$BUILDPLATFORM` and cross-compile"
	case networkTrouble.MatchString(strings.Join(w.allOutput(), "\n")):
		e.Hint = "the step needs the network; without internet use files from the repository (vendored modules) or a base image that has them"
	}
	return e
}

// missingPath finds the path that a COPY, ADD or mount did not find.
var missingPath = regexp.MustCompile(`failed to calculate checksum of ref \S+: ("[^\n]*"): not found`)

// copiedFrom finds the stage or image that an instruction takes files from.
var copiedFrom = regexp.MustCompile(`(?:--|,)from=([^\s,]+)`)

// explainPath says where a path was looked for.
func explainPath(e *BuildError, text string) {
	place := "the build context"
	e.Hint = "the path is looked up in the build context; check `context`, the spelling and .dockerignore"
	if from := copiedFrom.FindStringSubmatch(e.Instruction); from != nil {
		place = fmt.Sprintf("the stage or image %q", from[1])
		e.Hint = "check the spelling, and that the steps of " + from[1] + " make it"
	}
	if path := missingPath.FindStringSubmatch(text); path != nil {
		e.Message = path[1] + " is not in " + place
	}
}

// missingImage finds the image whose manifest could not be had.
var missingImage = regexp.MustCompile(`failed to resolve source metadata for ([^\s:]+(?::[0-9]+/[^\s:]+)?(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?):`)

// networkTrouble finds what programs say when there is no network.
var networkTrouble = regexp.MustCompile(`(?i)temporary failure in name resolution|could not resolve host|no such host|network is unreachable|bad address '|NXDOMAIN`)

// explainMissing says where a base image would have come from.
func (b *Builder) explainMissing(e *BuildError, image, text string) {
	named, err := parseRef(image)
	if err != nil {
		return
	}
	host, short := named.host, named.short()
	e.Message = fmt.Sprintf("the base image %s is not on this machine", short)
	switch {
	case slices.Contains(b.cfg.Mirrors, host):
		e.Hint = fmt.Sprintf("import it once with `lockstep image import <file.tar> %s` (made elsewhere with `docker save`), or use one that is here, such as busybox or golang:1", named)
	case strings.Contains(text, "401") || strings.Contains(text, "failed to authorize") || strings.Contains(text, "insufficient_scope"):
		e.Message = fmt.Sprintf("%s does not let this build pull %s", host, short)
		e.Hint = "log in to " + host + " before the build, with docker/login-action or azure/docker-login"
	case strings.Contains(text, "not found"):
		e.Hint = fmt.Sprintf("nobody has pushed %s: let the workflow that builds it run first", named)
	default:
		e.Message = fmt.Sprintf("the base image %s cannot be had: %s", short, lastLine(lastCause(e.Err)))
		e.Hint = fmt.Sprintf("no registry %s is served here; import the image under one of %s", host, strings.Join(b.cfg.Mirrors, ", "))
	}
}

// explainPush says why an image that was built did not reach its registry.
func (b *Builder) explainPush(e *BuildError, text string) {
	e.Line, e.Instruction = 0, ""
	switch {
	case strings.Contains(text, "401") || strings.Contains(text, "403") || strings.Contains(text, "authoriz") ||
		strings.Contains(text, "failed to fetch") || strings.Contains(text, "insufficient_scope") || strings.Contains(text, "no basic auth"):
		e.Message = "the image was built, but the registry refused the push: " + e.Message
		e.Hint = "log in before the build with docker/login-action or azure/docker-login, as somebody with the role AcrPush"
	default:
		e.Message = "the image was built, but could not be pushed: " + e.Message
		e.Hint = "check that the registry exists (terraform apply) and that the tag names it"
	}
}

// location is the line of the Dockerfile that err is about.
func location(err error, base string) (int, string) {
	for _, s := range errdefs.Sources(err) {
		if s.Info == nil || filepath.Base(s.Info.Filename) != base || len(s.Ranges) == 0 || s.Ranges[0].Start == nil {
			continue
		}
		line := int(s.Ranges[0].Start.Line)
		lines := strings.Split(string(s.Info.Data), "\n")
		if line < 1 || line > len(lines) {
			continue
		}
		return line, strings.TrimSpace(lines[line-1])
	}
	return 0, ""
}

// lastCause is BuildKit's message without the layers that it wraps around.
func lastCause(err error) string {
	s := err.Error()
	for _, prefix := range []string{"failed to solve: ", "rpc error: code = Unknown desc = "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }
