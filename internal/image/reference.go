package image

import (
	"fmt"
	"regexp"
	"strings"
)

// imageRef is an image reference in Docker's sense: the host is docker.io and
// the repository "library/…" where the text leaves them out.
type imageRef struct {
	host, repo  string
	tag, digest string // at least one is set
}

var (
	repoPattern   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	hostPattern   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$`)
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// maxRepo is Docker's limit on host and repository together.
const maxRepo = 255

func parseRef(s string) (imageRef, error) {
	r := imageRef{host: "docker.io", repo: s}
	var hasDigest, hasTag bool
	if r.repo, r.digest, hasDigest = strings.Cut(r.repo, "@"); hasDigest && !digestPattern.MatchString(r.digest) {
		return r, fmt.Errorf("%q: %q is not a sha256 digest", s, r.digest)
	}
	if i := strings.LastIndexByte(r.repo, ':'); i > strings.LastIndexByte(r.repo, '/') {
		r.repo, r.tag, hasTag = r.repo[:i], r.repo[i+1:], true
	}
	if hasTag && !tagPattern.MatchString(r.tag) {
		return r, fmt.Errorf("%q: %q is not a tag: up to 128 letters, digits, '.', '_' and '-'", s, r.tag)
	}
	if !hasTag && !hasDigest {
		r.tag = "latest"
	}
	if host, rest, ok := strings.Cut(r.repo, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		r.host, r.repo = host, rest
		if !hostPattern.MatchString(host) {
			return r, fmt.Errorf("%q: %q is not a registry host", s, host)
		}
	}
	if len(r.host)+len(r.repo) > maxRepo || !repoPattern.MatchString(r.repo) {
		return r, fmt.Errorf("%q: %q is not a repository name: lower case letters, digits, and single '.', '_', '-' and '/' between them", s, r.repo)
	}
	if r.host == "docker.io" && !strings.Contains(r.repo, "/") {
		r.repo = "library/" + r.repo
	}
	return r, nil
}

// name is the reference without tag and digest.
func (r imageRef) name() string { return r.host + "/" + r.repo }

// String is the whole reference.
func (r imageRef) String() string {
	s := r.name()
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

// short is the reference as people write it.
func (r imageRef) short() string {
	return strings.TrimPrefix(strings.TrimPrefix(r.String(), "docker.io/"), "library/")
}
