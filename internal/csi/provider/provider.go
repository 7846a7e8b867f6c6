// Package provider is the seam between the CSI driver and the secret stores.
//
// Input: a [Request], the parameters of a SecretProviderClass with what kubelet
// says about the pod. Output: a [Result], the files to mount and the versions
// of the objects they came from.
//
// Invariants: a Provider writes nothing to disk, keeps no values after it
// returned, and authorises each request by the pod's own identity. The shape
// follows the upstream gRPC contract (v1alpha1 CSIDriverProvider.Mount), so a
// provider behind a socket can implement it as well.
//
// Start reading at [Provider].
package provider

import (
	"context"
	"errors"
	"io/fs"

	"google.golang.org/grpc/codes"

	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
)

// Keys that kubelet adds to the attributes (podInfoOnMount) and secrets.
const (
	AttrPodName        = "csi.storage.k8s.io/pod.name"
	AttrPodNamespace   = "csi.storage.k8s.io/pod.namespace"
	AttrPodUID         = "csi.storage.k8s.io/pod.uid"
	AttrServiceAccount = "csi.storage.k8s.io/serviceAccount.name"
	// Tokens is a JSON map of audience to {token, expirationTimestamp}. Since
	// Kubernetes 1.35 it comes in the secrets, before in the attributes.
	Tokens = "csi.storage.k8s.io/serviceAccount.tokens"
)

// Provider fetches the objects of one kind of store.
type Provider interface {
	// Mount fetches everything the request asks for, or fails with an *Error.
	// It must return soon after ctx ends.
	Mount(ctx context.Context, req Request) (Result, error)
}

// Request asks for the content of one volume.
type Request struct {
	// Attributes are the class's parameters and the volume's context.
	Attributes map[string]string
	// Secrets come from nodePublishSecretRef and kubelet. Never log them.
	Secrets map[string]string
	// Mode is the permission of files that do not name their own.
	Mode fs.FileMode
	// Current are the object versions that the volume holds now, by id.
	Current map[string]string
}

// Result is the content of one volume.
type Result struct {
	Files []volume.File
	// Versions of the objects by id, such as "secret/db-password".
	Versions map[string]string
	// Source says in a few words where the objects came from and by whose
	// right, for people: `key vault "kv" as client id 1111…`.
	Source string
	// Warnings name what was ignored.
	Warnings []string
}

// Error is why a Mount failed, in words for the team that owns the pod.
type Error struct {
	Code    codes.Code
	Message string // what and why, one sentence without a full stop
	Hint    string // what to do, where that is known
}

// Error returns the message and the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// AsError finds the *Error in err's chain; other errors become internal ones.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	code := codes.Internal
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return &Error{Code: code, Message: err.Error()}
}
