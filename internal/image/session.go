package image

import (
	"context"

	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
)

// credentials answers BuildKit's questions for one build. Tokens are fetched by
// BuildKit itself, which reaches the registries where we may not, so only
// Credentials is implemented.
type credentials struct {
	auth.UnimplementedAuthServer
	byHost map[string]Credential
}

// Register implements [session.Attachable].
func (c credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, c) }

// Credentials returns the credential of a host, or an empty one, which means
// to go on anonymously.
func (c credentials) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := req.Host
	if host == "registry-1.docker.io" {
		host = "docker.io"
	}
	cred := c.byHost[host]
	return &auth.CredentialsResponse{Username: cred.Username, Secret: cred.Password}, nil
}
