package credential

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	typeLabel      = "argocd.argoproj.io/secret-type"
	typeRepository = "repository"
	typeTemplate   = "repo-creds"
	maxProblems    = 20
)

// Secret is a Kubernetes Secret, as far as it matters here.
type Secret struct {
	Name   string
	Labels map[string]string
	Data   map[string][]byte
}

// Input is what a store is made of. Secrets with other labels are left out.
type Input struct {
	Secrets    []Secret
	KnownHosts string            // ssh_known_hosts of argocd-ssh-known-hosts-cm
	TLSCerts   map[string]string // argocd-tls-certs-cm: host name → PEM
}

// Store has the credentials of all repositories. It does not change; a nil
// store has none.
type Store struct {
	exact     map[string][]Credential // by normalized URL; sorted by Secret
	templates []Credential            // repo-creds, the longest URL first
	input     Input
	problems  []error
}

// NewStore reads the Secrets. What is wrong with one of them is in Problems and
// in the answers about its URL; the others work.
func NewStore(in Input) *Store {
	s := &Store{exact: map[string][]Credential{}, input: Input{KnownHosts: in.KnownHosts, TLSCerts: in.TLSCerts}}
	secrets := slices.Clone(in.Secrets)
	slices.SortStableFunc(secrets, func(a, b Secret) int { return strings.Compare(a.Name, b.Name) })
	for _, secret := range secrets {
		kind := secret.Labels[typeLabel]
		if kind != typeRepository && kind != typeTemplate {
			continue
		}
		c := parse(secret)
		url := Normalize(c.URL)
		if url == "" {
			c.problem = "its url is missing or cannot be parsed"
		}
		if c.problem != "" && len(s.problems) < maxProblems {
			s.problems = append(s.problems, fmt.Errorf("Secret %s: %s", c.Secret, c.problem))
		}
		switch {
		case url == "":
		case kind == typeTemplate:
			c.Project = ""
			s.templates = append(s.templates, c)
		default:
			s.exact[url] = append(s.exact[url], c)
		}
	}
	slices.SortStableFunc(s.templates, func(a, b Credential) int { return len(Normalize(b.URL)) - len(Normalize(a.URL)) })
	return s
}

// Problems returns what is wrong with the Secrets, without their values.
func (s *Store) Problems() []error {
	if s == nil {
		return nil
	}
	return s.problems
}

// For returns how the repository is read by the project: its own repository
// Secret, or the one that has no project, completed by the longest repo-creds
// whose URL the repository's starts with. A repository without any is public:
// the zero Credential, with the server's certificates and host keys. The error
// says why the Secret that was found cannot be used.
func (s *Store) For(project, repoURL string) (Credential, error) {
	var c Credential
	url := Normalize(repoURL)
	if s != nil && url != "" {
		c = s.repository(project, url)
		if !c.HasSecret() {
			for _, t := range s.templates {
				if matches(Normalize(t.URL), url) {
					c.fill(t)
					if c.Secret == "" {
						c.Secret, c.Kind = t.Secret, t.Kind
					}
					break
				}
			}
		}
		s.trust(&c, repoURL)
	}
	if l, err := Parse(repoURL); err == nil && l.Scheme != "ssh" && (l.User != "" || l.Password != "") && !c.HasSecret() {
		c.Username, c.Password = l.User, l.Password
	}
	if c.problem != "" {
		return c, fmt.Errorf("Secret %s of repository %s: %s", c.Secret, Redact(repoURL), c.problem)
	}
	return c, nil
}

// matches reports whether a template is for the URL: it starts so, and its host
// is the whole host. Both are normalized.
func matches(template, url string) bool {
	if !strings.HasPrefix(url, template) {
		return false
	}
	_, path, scheme := strings.Cut(template, "://")
	if !scheme {
		path = template
	}
	return strings.Contains(path, "/") || len(url) == len(template) || url[len(template)] == '/'
}

func (s *Store) repository(project, url string) Credential {
	var found Credential
	for _, c := range s.exact[url] {
		if c.Project == project {
			return c
		}
		if c.Project == "" && found.Secret == "" {
			found = c
		}
	}
	return found
}

// trust adds what servers are checked against.
func (s *Store) trust(c *Credential, repoURL string) {
	c.KnownHosts = s.input.KnownHosts
	l, err := Parse(repoURL)
	if err != nil {
		return
	}
	host := l.Host
	if pem, ok := s.input.TLSCerts[host]; ok {
		c.CA = pem
		return
	}
	if i := strings.LastIndexByte(host, ':'); i > 0 {
		host = host[:i]
	}
	c.CA = s.input.TLSCerts[host]
}

// Named returns the URL of the Helm repository that charts call "@name" or
// "alias:name", for the project.
func (s *Store) Named(project, name string) (string, bool) {
	if s == nil || name == "" {
		return "", false
	}
	found := ""
	for _, list := range s.exact {
		for _, c := range list {
			if c.Name != name || c.Kind == Git || (c.Project != "" && c.Project != project) {
				continue
			}
			if c.Project == project && project != "" {
				return c.URL, true
			}
			if found == "" || c.URL < found {
				found = c.URL
			}
		}
	}
	return found, found != ""
}

// parse reads one Secret. Its problem names a field, never a value.
func parse(secret Secret) Credential {
	f := fields{data: secret.Data}
	c := Credential{
		Secret: secret.Name, URL: f.text("url"), Kind: strings.ToLower(f.text("type")), Name: f.text("name"), Project: f.text("project"),
		Username: f.text("username"), Password: f.text("password"), BearerToken: f.text("bearerToken"),
		SSHPrivateKey: f.raw("sshPrivateKey"), TLSCert: f.raw("tlsClientCertData"), TLSKey: f.raw("tlsClientCertKey"),
		App: GitHubApp{
			ID: f.number("githubAppID"), Installation: f.number("githubAppInstallationID"),
			PrivateKey: f.raw("githubAppPrivateKey"), BaseURL: f.text("githubAppEnterpriseBaseUrl"),
		},
		Insecure: f.flag("insecure"), InsecureHostKey: f.flag("insecureIgnoreHostKey"), PlainHTTP: f.flag("insecureOCIForceHttp"),
		EnableLFS: f.flag("enableLfs"), EnableOCI: f.flag("enableOCI"), Depth: int(f.number("depth")),
		Proxy: f.text("proxy"), NoProxy: f.text("noProxy"),
	}
	f.flag("forceHttpBasicAuth") // always so: git is not asked to negotiate
	if c.Kind == "" {
		c.Kind = Git
	}
	switch {
	case f.err != nil:
		c.problem = f.err.Error()
	case c.Kind != Git && c.Kind != Helm && c.Kind != OCI:
		c.problem = "its type must be git, helm or oci"
	case c.Depth < 0:
		c.problem = "its depth must not be negative"
	case (c.TLSCert == "") != (c.TLSKey == ""):
		c.problem = "tlsClientCertData and tlsClientCertKey must both be there"
	case c.App.PrivateKey != "" && c.App.ID == 0:
		c.problem = "githubAppPrivateKey needs githubAppID"
	case f.text("gcpServiceAccountKey") != "":
		c.problem = "gcpServiceAccountKey is not supported; use username and password, or an SSH key"
	case f.flag("useAzureWorkloadIdentity") || f.text("azureServicePrincipalClientId") != "":
		c.problem = "Azure identities for repositories are not supported; use a personal access token as password"
	}
	return c
}

type fields struct {
	data map[string][]byte
	err  error
}

func (f *fields) raw(key string) string  { return string(f.data[key]) }
func (f *fields) text(key string) string { return strings.TrimSpace(string(f.data[key])) }

func (f *fields) flag(key string) bool {
	text := f.text(key)
	if text == "" {
		return false
	}
	v, err := strconv.ParseBool(text)
	if err != nil && f.err == nil {
		f.err = errors.New("its field " + key + " must be true or false")
	}
	return v
}

func (f *fields) number(key string) int64 {
	text := f.text(key)
	if text == "" {
		return 0
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil && f.err == nil {
		f.err = errors.New("its field " + key + " must be a number")
	}
	return v
}
