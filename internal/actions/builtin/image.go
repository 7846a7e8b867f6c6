package builtin

import (
	"context"
	"io"
)

// BuildRequest is one image to build.
type BuildRequest struct {
	Repo, Commit      string   // for the journal
	ContextDir        string   // directory on this machine
	Dockerfile        string   // path relative to ContextDir, default "Dockerfile"
	Tags              []string // full references
	Push, Load        bool
	BuildArgs, Labels map[string]string
	Target            string
	Platforms         []string
	NoCache           bool
	Secrets           map[string][]byte
	Credentials       map[string]Credential // by registry host
}

// Credential is a login at a registry.
type Credential struct{ Username, Password string }

// BuildResult is what became of a build.
type BuildResult struct{ Digest, ImageID, Metadata string }

// Builder builds images. A failure at a line of the Dockerfile is an *Error
// with that File (relative to the context) and Line.
type Builder interface {
	Build(ctx context.Context, r BuildRequest, progress io.Writer) (BuildResult, error)
}
