// Package credential turns Argo CD's repository Secrets into answers to "how is
// this repository read".
//
// Input: Secrets as name, labels and data (label
// argocd.argoproj.io/secret-type: repository or repo-creds), and the content of
// argocd-ssh-known-hosts-cm and argocd-tls-certs-cm. Output: [Store], which has
// the [Credential] of a URL for a project, and HTTP clients that use it.
//
// Invariants: parsing does no I/O; a value of a Secret never gets into a log,
// an error or a formatted string; a repository of a project is for that
// project only; an exact repository wins over the longest matching repo-creds.
//
// Start reading at [NewStore] and [Store.For].
package credential

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
)

// Kinds of repositories.
const (
	Git  = "git"
	Helm = "helm"
	OCI  = "oci"
)

// Credential says how one repository is read. The zero value is a public one.
type Credential struct {
	Secret  string // name of the Secret, "" for none
	URL     string // as the Secret has it
	Kind    string // Git, Helm or OCI
	Name    string // of a Helm repository: how charts refer to it, "@name"
	Project string // the only project that may use it, "" for all

	Username, Password, BearerToken string
	SSHPrivateKey                   string
	TLSCert, TLSKey                 string // PEM of the client certificate
	App                             GitHubApp

	Insecure        bool // do not check the server's certificate
	InsecureHostKey bool // do not check the server's SSH key
	PlainHTTP       bool // OCI without TLS
	EnableLFS       bool
	EnableOCI       bool // of a Helm repository: charts are in a registry
	Depth           int  // commits fetched of each ref, 0 for all
	Proxy, NoProxy  string

	CA         string // PEM of what the server's certificate is checked against, "" for the system's
	KnownHosts string // lines of known_hosts

	problem string // why it cannot be used
}

// GitHubApp is an App whose installation gives tokens.
type GitHubApp struct {
	ID, Installation int64
	PrivateKey       string
	BaseURL          string // "" for https://api.github.com
}

// HasSecret reports whether there is anything to sign in with.
func (c Credential) HasSecret() bool {
	return c.Username != "" || c.Password != "" || c.BearerToken != "" || c.SSHPrivateKey != "" || c.TLSCert != "" || c.App.PrivateKey != ""
}

// String names the credential without its values.
func (c Credential) String() string {
	var has []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"basic", c.Username != "" || c.Password != ""}, {"bearer", c.BearerToken != ""}, {"ssh", c.SSHPrivateKey != ""},
		{"tls", c.TLSCert != ""}, {"github-app", c.App.PrivateKey != ""},
	} {
		if f.set {
			has = append(has, f.name)
		}
	}
	if len(has) == 0 {
		has = []string{"anonymous"}
	}
	if c.Secret == "" {
		return strings.Join(has, "+")
	}
	return fmt.Sprintf("%s (Secret %s)", strings.Join(has, "+"), c.Secret)
}

// GoString is String: %#v shows no values either.
func (c Credential) GoString() string { return c.String() }

// Format is String for every verb.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, c.String()) }

// LogValue is String.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON is String.
func (c Credential) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", c.String()), nil }

// String hides the key.
func (a GitHubApp) String() string { return fmt.Sprintf("GitHub App %d", a.ID) }

// MarshalJSON hides the key.
func (a GitHubApp) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", a.String()), nil }

// GoString hides the key.
func (a GitHubApp) GoString() string { return a.String() }

// Fingerprint is equal for credentials that read alike. It gives nothing away.
func (c Credential) Fingerprint() string {
	type plain Credential // without the methods that hide the values
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", struct {
		plain
		app string
	}{plain(c), fmt.Sprintf("%d %d %s %s", c.App.ID, c.App.Installation, c.App.BaseURL, c.App.PrivateKey)}))
	return hex.EncodeToString(sum[:16])
}

// fill takes from o what c has none of, as a repository does from repo-creds.
func (c *Credential) fill(o Credential) {
	for _, f := range []struct{ to, from *string }{
		{&c.Username, &o.Username}, {&c.Password, &o.Password}, {&c.BearerToken, &o.BearerToken}, {&c.SSHPrivateKey, &o.SSHPrivateKey},
		{&c.TLSCert, &o.TLSCert}, {&c.TLSKey, &o.TLSKey}, {&c.Proxy, &o.Proxy}, {&c.NoProxy, &o.NoProxy},
	} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	if c.App.PrivateKey == "" {
		c.App = o.App
	}
	c.Insecure = c.Insecure || o.Insecure
	c.EnableOCI = c.EnableOCI || o.EnableOCI
	c.PlainHTTP = c.PlainHTTP || o.PlainHTTP
	if c.problem == "" {
		c.problem = o.problem
	}
}
