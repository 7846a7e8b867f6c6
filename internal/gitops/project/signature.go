package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// signaturePolicy is whose signature the sources of some repositories need.
type signaturePolicy struct {
	repos []rule
	keys  []string // last 16 digits of the ids, upper case; nil for mode none
}

// signatures reads signatureKeys, the older field, and sourceIntegrity.
func (c *compiler) signatures(spec *v1alpha1.AppProjectSpec) []signaturePolicy {
	var out []signaturePolicy
	if len(spec.SourceIntegrity) > 0 {
		out = c.integrity(spec.SourceIntegrity)
	} else if len(spec.SignatureKeys) > 0 {
		var keys []string
		for _, k := range spec.SignatureKeys {
			keys = append(keys, k.KeyID)
		}
		out = []signaturePolicy{{repos: []rule{{matcher: c.glob("signatureKeys", "*", 0)}}, keys: c.keys("signatureKeys", keys)}}
	}
	return out
}

func (c *compiler) integrity(raw json.RawMessage) []signaturePolicy {
	var from struct {
		Git *struct {
			Policies []struct {
				Repos []struct{ URL string }
				GPG   *struct {
					Mode string
					Keys []string
				}
			}
		}
		Helm json.RawMessage
	}
	if err := json.Unmarshal(raw, &from); err != nil {
		c.bad("sourceIntegrity", "%w", err)
		return nil
	}
	if len(from.Helm) > 0 && string(from.Helm) != "null" {
		c.bad("sourceIntegrity.helm", "the provenance of charts is not verified by this engine; remove the field, or the charts from the project")
	}
	if from.Git == nil {
		return nil
	}
	var out []signaturePolicy
	for i, p := range from.Git.Policies {
		at := fmt.Sprintf("sourceIntegrity.git.policies[%d].", i)
		policy := signaturePolicy{}
		for j, r := range p.Repos {
			policy.repos = append(policy.repos, c.rule(fmt.Sprintf("%srepos[%d].url", at, j), r.URL))
		}
		switch {
		case p.GPG == nil:
			c.bad(at+"gpg", "is missing")
		case p.GPG.Mode == "head":
			policy.keys = c.keys(at+"gpg.keys", p.GPG.Keys)
		case p.GPG.Mode == "strict":
			c.bad(at+"gpg.mode", "strict, which verifies the whole history, is not supported; use head")
		case p.GPG.Mode != "none":
			c.bad(at+"gpg.mode", "%q is none of none, head, strict", p.GPG.Mode)
		}
		out = append(out, policy)
	}
	return out
}

// keys normalizes key ids and fingerprints to the last 16 digits.
func (c *compiler) keys(field string, ids []string) []string {
	out := []string{} // not nil: an empty list trusts nobody
	for i, id := range ids {
		id = strings.ToUpper(strings.TrimPrefix(strings.ReplaceAll(id, " ", ""), "0x"))
		if len(id) < 16 || strings.Trim(id, "0123456789ABCDEF") != "" {
			c.bad(fmt.Sprintf("%s[%d]", field, i), "%q is not the id (16 digits) or fingerprint of a key", ids[i])
			continue
		}
		out = append(out, id[len(id)-16:])
	}
	return out
}

// Signatures returns the ids of the keys of which one must have signed what is
// synced from a Git repository. required is false when none is needed. More
// than one policy for a repository is an error, as it is not clear which holds.
func (p *Project) Signatures(repoURL string) (keys []string, required bool, err error) {
	var found []signaturePolicy
	for _, s := range p.signatures {
		if s.covers(repoURL) {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 0:
		return nil, false, nil
	case len(found) > 1:
		return nil, true, fmt.Errorf("AppProject %s has %d policies for the repository %s (sourceIntegrity.git); keep one", p.Name, len(found), repoURL)
	}
	return found[0].keys, found[0].keys != nil, nil
}

// covers: one pattern must match and none with "!" may.
func (s signaturePolicy) covers(url string) bool {
	hit := false
	for _, r := range s.repos {
		switch {
		case r.deny && r.match(url):
			return false
		case !r.deny && r.match(url):
			hit = true
		}
	}
	return hit
}

// Keyring is the public keys that the administrator imported.
type Keyring struct{ entities openpgp.EntityList }

// ParseKeyring reads armored public keys, the values of the ConfigMap
// argocd-gpg-keys-cm by their key ids. Keys that cannot be read come back as
// errors; the others count.
func ParseKeyring(data map[string]string) (*Keyring, []error) {
	k := &Keyring{}
	var errs []error
	for id, armored := range data {
		list, err := openpgp.ReadArmoredKeyRing(strings.NewReader(armored))
		if err != nil {
			errs = append(errs, fmt.Errorf("argocd-gpg-keys-cm, key %s: %w", id, err))
			continue
		}
		k.entities = append(k.entities, list...)
	}
	return k, errs
}

// maxObject bounds a commit or tag that is verified, in bytes.
const maxObject = 1 << 20

// Verify checks the signature of a Git object: raw is what `git cat-file
// commit` (or tag) prints. keys are those of [Project.Signatures]; the signer
// must be in the keyring and among them, by its primary key or by the subkey
// that signed. Expired and revoked keys do not count.
func (k *Keyring) Verify(raw []byte, keys []string) error {
	if len(raw) > maxObject {
		return fmt.Errorf("the commit has %d bytes; at most %d are verified", len(raw), maxObject)
	}
	payload, signature, err := split(raw)
	if err != nil {
		return err
	}
	signer, err := openpgp.CheckArmoredDetachedSignature(k.entities, bytes.NewReader(payload), bytes.NewReader(signature), nil)
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return errors.New("it is signed by a key that was not imported; add the public key to argocd-gpg-keys-cm")
	case err != nil:
		return fmt.Errorf("its signature does not hold: %w", err)
	}
	ids := []string{fmt.Sprintf("%016X", signer.PrimaryKey.KeyId)}
	for _, sub := range signer.Subkeys {
		ids = append(ids, fmt.Sprintf("%016X", sub.PublicKey.KeyId))
	}
	if !slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(keys, id) }) {
		return fmt.Errorf("it is signed by key %s, which the project does not trust", ids[0])
	}
	return nil
}

// split separates a commit or tag from its signature.
func split(raw []byte) (payload, signature []byte, err error) {
	const begin = "-----BEGIN PGP SIGNATURE-----"
	header, _, _ := bytes.Cut(raw, []byte("\n\n"))
	if bytes.HasPrefix(header, []byte("object ")) { // a tag: at its end
		if i := bytes.LastIndex(raw, []byte("\n"+begin)); i >= 0 {
			return raw[:i+1], raw[i+1:], nil
		}
		return nil, nil, errors.New("the tag is not signed with GPG")
	}
	var out, sig bytes.Buffer
	inside := false
	for line := range bytes.Lines(header) {
		rest, starts := bytes.CutPrefix(line, []byte("gpgsig "))
		switch {
		case starts:
			inside = true
			sig.Write(rest)
		case inside && line[0] == ' ':
			sig.Write(line[1:])
		default:
			inside = false
			out.Write(line)
		}
	}
	if sig.Len() == 0 {
		return nil, nil, errors.New("the commit is not signed")
	}
	if !bytes.HasPrefix(sig.Bytes(), []byte(begin)) {
		return nil, nil, errors.New("the commit is signed, but not with GPG")
	}
	out.Write(raw[len(header):])
	// The signature is the last header more often than not: then the line
	// before it has its end, and header's own last line had none.
	payload = out.Bytes()
	if n := out.Len() - (len(raw) - len(header)); n > 0 && payload[n-1] == '\n' {
		payload = append(payload[:n-1:n-1], payload[n:]...)
	}
	return payload, sig.Bytes(), nil
}
