// Package attest says signed things about images, where registries keep them.
//
// Input: an image in a registry, a predicate (an SBOM, a provenance), a key.
// Output: an in-toto statement in a DSSE envelope in a Sigstore bundle, attached
// to the image as an OCI referrer; and the way back: the verified statements of
// an image.
//
// Registries without the referrers API get the referrers tag schema (OCI
// Distribution 1.1, "Referrers Tag Schema"), which clients read as well.
//
// Invariants: what [Read] returns as verified was signed by the given key about
// exactly this digest.
//
// Start reading at [Attach].
package attest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	dssepb "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"google.golang.org/protobuf/encoding/protojson"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
)

// Media types and predicate types.
const (
	// BundleType is a Sigstore bundle (sigstore/protobuf-specs, cosign BUNDLE_SPEC).
	BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// StatementType is an in-toto statement (in-toto attestation framework v1).
	StatementType = "https://in-toto.io/Statement/v1"
	// ProvenanceType is SLSA provenance (slsa.dev/spec/v1.0/provenance).
	ProvenanceType = "https://slsa.dev/provenance/v1"

	payloadType         = "application/vnd.in-toto+json"
	annotationPredicate = "dev.sigstore.bundle.predicateType"
	annotationContent   = "dev.sigstore.bundle.content"
)

const (
	maxBundle    = 64 << 20 // bytes of a bundle that is read
	maxReferrers = 1000
)

// Statement is a predicate about images.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is an image by its digest.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"` // algorithm → hex
}

// NewStatement says predicate about an image: "registry/repository" and
// "sha256:…".
func NewStatement(name string, of digest.Digest, predicateType string, predicate []byte) Statement {
	return Statement{
		Type: StatementType, PredicateType: predicateType, Predicate: predicate,
		Subject: []Subject{{Name: name, Digest: map[string]string{of.Algorithm().String(): of.Encoded()}}},
	}
}

// Says reports whether the statement says the same as another.
func (s Statement) Says(other Statement) bool {
	var a, b bytes.Buffer
	return s.PredicateType == other.PredicateType && json.Compact(&a, s.Predicate) == nil && json.Compact(&b, other.Predicate) == nil &&
		bytes.Equal(a.Bytes(), b.Bytes()) && reflect.DeepEqual(s.Subject, other.Subject)
}

// about reports whether the statement is about a digest.
func (s Statement) about(d digest.Digest) bool {
	return slices.ContainsFunc(s.Subject, func(one Subject) bool { return one.Digest[d.Algorithm().String()] == d.Encoded() })
}

// Repository is one repository of a registry; *remote.Repository of oras.
type Repository interface {
	content.Pusher
	content.Fetcher
	content.Resolver
	registry.ReferrerLister
}

// Attach signs a statement and makes it a referrer of the image. It returns the
// descriptor of the referrer's manifest. An equal one that is there already is
// no error.
func Attach(ctx context.Context, repo Repository, image ocispec.Descriptor, s Statement, key dsse.SignerVerifier) (ocispec.Descriptor, error) {
	sealed, err := seal(ctx, s, key)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("sign %s of %s: %w", s.PredicateType, image.Digest, err)
	}
	blob := content.NewDescriptorFromBytes(BundleType, sealed)
	if err := repo.Push(ctx, blob, bytes.NewReader(sealed)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		return ocispec.Descriptor{}, fmt.Errorf("store the attestation of %s: %w", image.Digest, err)
	}
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	manifest, err := oras.PackManifest(ctx, repo, oras.PackManifestVersion1_1, BundleType, oras.PackManifestOptions{
		Subject: &subject, Layers: []ocispec.Descriptor{blob},
		ManifestAnnotations: map[string]string{annotationContent: "dsse-envelope", annotationPredicate: s.PredicateType},
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("attach the attestation to %s: %w", image.Digest, err)
	}
	return manifest, nil
}

// seal makes the bundle of a signed statement.
func seal(ctx context.Context, s Statement, key dsse.SignerVerifier) ([]byte, error) {
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(ctx, dsse.PAE(payloadType, payload))
	if err != nil {
		return nil, err
	}
	id, err := key.KeyID()
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(&bundlepb.Bundle{
		MediaType: BundleType,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{Hint: id}},
		},
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			Payload: payload, PayloadType: payloadType, Signatures: []*dssepb.Signature{{Sig: signature}},
		}},
	})
}

// Attestation is a statement that an image has.
type Attestation struct {
	Statement
	Referrer ocispec.Descriptor
	KeyID    string // as the bundle names it
	// Unverified is why the statement cannot be trusted, nil when the key
	// signed it about this image.
	Unverified error
}

// Read lists the attestations of an image, in the order of their predicate
// types. Referrers of other kinds are left out.
func Read(ctx context.Context, repo Repository, image ocispec.Descriptor, key dsse.Verifier) ([]Attestation, error) {
	var referrers []ocispec.Descriptor
	if err := repo.Referrers(ctx, image, BundleType, func(some []ocispec.Descriptor) error {
		referrers = append(referrers, some...)
		if len(referrers) > maxReferrers {
			return fmt.Errorf("the image has more than %d attestations", maxReferrers)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("list what refers to %s: %w", image.Digest, err)
	}
	var out []Attestation
	for _, r := range referrers {
		a, err := read(ctx, repo, image.Digest, r, key)
		if err != nil {
			return nil, fmt.Errorf("read attestation %s of %s: %w", r.Digest, image.Digest, err)
		}
		out = append(out, a)
	}
	slices.SortStableFunc(out, func(a, b Attestation) int { return cmp.Compare(a.PredicateType, b.PredicateType) })
	return out, nil
}

func read(ctx context.Context, repo Repository, of digest.Digest, referrer ocispec.Descriptor, key dsse.Verifier) (Attestation, error) {
	a := Attestation{Referrer: referrer}
	text, err := content.FetchAll(ctx, repo, referrer)
	if err != nil {
		return a, err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		return a, err
	}
	if len(manifest.Layers) != 1 || manifest.Layers[0].Size > maxBundle {
		a.Unverified = fmt.Errorf("it has %d layers, or one that is too large: one bundle is wanted", len(manifest.Layers))
		return a, nil
	}
	sealed, err := content.FetchAll(ctx, repo, manifest.Layers[0])
	if err != nil {
		return a, err
	}
	a.Statement, a.KeyID, a.Unverified = open(ctx, sealed, of, key)
	if a.PredicateType == "" { // for people, who see that it is not verified
		a.PredicateType = manifest.Annotations[annotationPredicate]
	}
	return a, nil
}

// open checks a bundle and returns what it says.
func open(ctx context.Context, sealed []byte, of digest.Digest, key dsse.Verifier) (s Statement, keyID string, err error) {
	var b bundlepb.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(sealed, &b); err != nil {
		return s, "", fmt.Errorf("not a Sigstore bundle: %w", err)
	}
	keyID = b.GetVerificationMaterial().GetPublicKey().GetHint()
	envelope := b.GetDsseEnvelope()
	if envelope == nil || envelope.GetPayloadType() != payloadType {
		return s, keyID, errors.New("the bundle holds no in-toto statement")
	}
	if err := json.Unmarshal(envelope.GetPayload(), &s); err != nil {
		return s, keyID, fmt.Errorf("not an in-toto statement: %w", err)
	}
	signed := dsse.PAE(envelope.GetPayloadType(), envelope.GetPayload())
	for _, signature := range envelope.GetSignatures() {
		if key.Verify(ctx, signed, signature.GetSig()) == nil {
			if !s.about(of) {
				return s, keyID, fmt.Errorf("it is signed, but about another image than %s", of)
			}
			return s, keyID, nil
		}
	}
	want, _ := key.KeyID()
	return s, keyID, fmt.Errorf("not signed by key %s", want)
}
