package builtin

import (
	"context"
	"io"
)

// BuildRequest is one image to build.
type BuildRequest struct {
	Repo, Commit      string // for the journal
	Ref, Workflow     string // for the provenance, with Run
	Run               int64
	ContextDir        string   // directory on this machine
	Dockerfile        string   // path relative to ContextDir, default "Dockerfile"
	Path              string   // of ContextDir in the repository, "" for its root
	Tags              []string // full references
	Push, Load        bool
	BuildArgs, Labels map[string]string
	Target            string
	Platforms         []string
	NoCache           bool
	Secrets           map[string][]byte
	Credentials       map[string]Credential // by registry host

	Annotations    []string            // "[level:]key=value"
	CacheFrom      []string            // "type=registry,ref=…", as buildx writes them
	CacheTo        []string            // the same
	Contexts       map[string]string   // further contexts: a directory on this machine, docker-image://…, https://…
	SSH            map[string][][]byte // private keys (PEM) by id
	NoCacheFilters []string            // stages that are always built
	Pull           bool                // ask the registry for newer bases
	Provenance     string              // "", "true", "false", "mode=max", …
	SBOM           string              // "", "true", "false", …
	Attests        []string            // "type=sbom,…"
	AddHosts       []string            // "name:address"
	Network        string              // of RUN: "", "default", "none", "host"
	Allow          []string            // entitlements: "network.host", "security.insecure"
	ShmSize        string              // "1g"
	Ulimits        []string            // "nofile=1024:1024"
	CgroupParent   string
	// Exports are what is written besides pushing: OCI layouts, tar files,
	// directories.
	Exports []Export
}

// Export writes what was built to this machine.
type Export struct {
	Type  string            // "oci", "docker", "local", "tar"
	Dest  string            // file or directory on this machine
	Attrs map[string]string // further fields of the exporter
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
