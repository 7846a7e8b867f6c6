package credential

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// sshURL matches ssh://user@host/… and the short form user@host:path.
var sshURL = regexp.MustCompile(`^(?:ssh://)?([^/:@]*)@[^@]+$`)

// Normalize returns the form by which repository URLs are compared, as Argo CD
// does: lower case, without ".git", the short form of SSH with a slash. What
// cannot be parsed is "".
func Normalize(repoURL string) string {
	s := strings.ToLower(strings.TrimSpace(repoURL))
	if sshURL.MatchString(s) && !strings.HasPrefix(s, "ssh://") {
		s = "ssh://" + strings.Replace(s, ":", "/", 1)
	}
	if s != "" && !strings.Contains(s, "://") {
		s = "//" + s // a registry: "host:port/path" has no scheme
	}
	u, err := url.Parse(strings.TrimSuffix(s, ".git"))
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(u.String(), "ssh:"), "//")
}

// Same reports whether two URLs are the same repository for Argo CD.
func Same(a, b string) bool {
	n := Normalize(a)
	return n != "" && n == Normalize(b)
}

// Location is where a repository is.
type Location struct {
	Scheme   string // https, http, ssh, git, file or oci; "" for "host/path" without one
	User     string // of SSH, or what the URL has before "@"
	Password string // what the URL has, else ""
	Host     string // lower case, with the port when there is one
	Path     string // without leading slash and ".git"; its case is kept
	Suffix   string // ".git" when the URL ends so
	Short    bool   // of SSH: user@host:path
}

// Parse splits a repository URL, in any form that Git takes from a network:
// https://host/path, ssh://user@host:port/path, user@host:path, file:///path.
// Its errors do not repeat a password.
func Parse(repoURL string) (Location, error) {
	s := strings.TrimSpace(repoURL)
	if s == "" || strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\x00\n\r\t ") {
		return Location{}, fmt.Errorf("repoURL %q is not a URL of a repository", Redact(repoURL))
	}
	if !strings.Contains(s, "://") {
		if at := sshURL.FindStringSubmatch(s); at != nil {
			host, path, ok := strings.Cut(s[strings.Index(s, "@")+1:], ":")
			if !ok {
				return Location{}, fmt.Errorf("repoURL %q has no path; write user@host:path or ssh://user@host/path", Redact(repoURL))
			}
			return finish(Location{Scheme: "ssh", User: at[1], Host: host, Path: path, Short: true}, repoURL)
		}
		host, path, _ := strings.Cut(s, "/")
		return finish(Location{Host: host, Path: path}, repoURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		return Location{}, fmt.Errorf("repoURL %q cannot be parsed as a URL", Redact(repoURL))
	}
	l := Location{Scheme: strings.ToLower(u.Scheme), User: u.User.Username(), Host: u.Host, Path: u.Path}
	l.Password, _ = u.User.Password()
	switch l.Scheme {
	case "https", "http", "ssh", "git", "file", "oci":
		return finish(l, repoURL)
	}
	return Location{}, fmt.Errorf("repoURL %q: scheme %q is not supported; use https, http, ssh, git or oci", Redact(repoURL), l.Scheme)
}

func finish(l Location, repoURL string) (Location, error) {
	l.Host = strings.ToLower(l.Host)
	if l.Path = strings.TrimSuffix(l.Path, "/"); !l.Short {
		l.Path = strings.TrimLeft(l.Path, "/")
	}
	if path, ok := strings.CutSuffix(l.Path, ".git"); ok {
		l.Path, l.Suffix = path, ".git"
	}
	if l.Host == "" && l.Scheme != "file" {
		return Location{}, fmt.Errorf("repoURL %q has no host", Redact(repoURL))
	}
	if strings.HasPrefix(l.Host, "-") || strings.HasPrefix(l.User, "-") { // ssh would take it for an option
		return Location{}, fmt.Errorf("repoURL %q: a host or user must not start with a dash", Redact(repoURL))
	}
	return l, nil
}

// Name is how people name the repository: host and path, "github.com/o/r".
func (l Location) Name() string {
	if l.Host == "" {
		return l.Path
	}
	return strings.TrimSuffix(l.Host+"/"+strings.TrimLeft(l.Path, "/"), "/")
}

var (
	userInfo = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/@\s]*@`)
	queries  = regexp.MustCompile(`([?&](?:token|sig|access_token|key|password|X-Amz-Signature)=)[^&\s]+`)
)

// Redact takes passwords and tokens out of URLs in a text.
func Redact(text string) string {
	return queries.ReplaceAllString(userInfo.ReplaceAllString(text, "$1"), "${1}***")
}
