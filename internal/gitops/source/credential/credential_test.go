package credential

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func secret(name, kind string, data ...string) Secret {
	s := Secret{Name: name, Labels: map[string]string{typeLabel: kind}, Data: map[string][]byte{}}
	for i := 0; i < len(data); i += 2 {
		s.Data[data[i]] = []byte(data[i+1])
	}
	return s
}

func TestNormalize(t *testing.T) {
	for _, c := range [][2]string{
		{"https://GitHub.com/Org/Repo.git", "https://github.com/org/repo"}, {"git@github.com:Org/repo.git", "git@github.com/org/repo"},
		{"ssh://git@github.com/org/repo", "git@github.com/org/repo"}, {" https://h/r ", "https://h/r"}, {"ssh://git@h:2222/r", "git@h:2222/r"},
		{"ghcr.io/org/charts", "ghcr.io/org/charts"}, {"127.0.0.1:5000/org", "127.0.0.1:5000/org"}, {"", ""}, {"://", ""},
	} {
		if got := Normalize(c[0]); got != c[1] {
			t.Errorf("Normalize(%q) = %q, want %q", c[0], got, c[1])
		}
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Location
		name string
	}{
		{"https://GitHub.com/O/r.git", Location{Scheme: "https", Host: "github.com", Path: "O/r", Suffix: ".git"}, "github.com/O/r"},
		{"git@github.com:o/r.git", Location{Scheme: "ssh", User: "git", Host: "github.com", Path: "o/r", Suffix: ".git", Short: true}, "github.com/o/r"},
		{"ssh://git@h:2222/o/r/", Location{Scheme: "ssh", User: "git", Host: "h:2222", Path: "o/r"}, "h:2222/o/r"},
		{"https://u:p@h/o/r", Location{Scheme: "https", User: "u", Password: "p", Host: "h", Path: "o/r"}, "h/o/r"},
		{"ghcr.io/org", Location{Host: "ghcr.io", Path: "org"}, "ghcr.io/org"},
		{"file:///srv/r.git", Location{Scheme: "file", Path: "srv/r", Suffix: ".git"}, "srv/r"},
	} {
		got, err := Parse(c.in)
		if err != nil || got != c.want || got.Name() != c.name {
			t.Errorf("Parse(%q) = %#v %q, %v", c.in, got, got.Name(), err)
		}
	}
	for _, in := range []string{"", "-upload-pack=x", "https://", "ext::sh -c x", "ssh://-oProxyCommand=x/r", "foo://h/r", "https://u:hunter2@h\x7f/%zz", "a b"} {
		_, err := Parse(in)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Parse(%q): %v", in, err)
		}
	}
}

func TestStore(t *testing.T) {
	s := NewStore(Input{
		Secrets: []Secret{
			secret("a-global", typeRepository, "url", "https://git.example.com/org/app.git", "username", "u", "password", "global"),
			secret("b-team", typeRepository, "url", "https://git.example.com/Org/App", "username", "u", "password", "team", "project", "team"),
			secret("c-bare", typeRepository, "url", "https://git.example.com/org/bare", "depth", "1", "enableLfs", "true"),
			secret("d-only", typeRepository, "url", "https://git.example.com/private", "password", "x", "project", "team"),
			secret("t-short", typeTemplate, "url", "https://git.example.com/", "username", "short", "password", "p", "insecure", "true"),
			secret("t-long", typeTemplate, "url", "https://git.example.com/org", "username", "long", "password", "p"),
			secret("t-host", typeTemplate, "url", "https://other.example", "password", "host"),
			secret("t-ssh", typeTemplate, "url", "git@git.example.com:", "sshPrivateKey", "KEY\n"),
			secret("z-bad", typeRepository, "url", "https://bad.example/r", "password", "hunter2", "insecure", "hunter2"),
			secret("z-gcp", typeRepository, "url", "https://gcp.example/r", "gcpServiceAccountKey", "hunter2"),
			secret("helm", typeRepository, "url", "https://charts.example.com", "type", "helm", "name", "stable"),
			secret("cluster", "cluster", "url", "https://git.example.com/none", "password", "no"),
		},
		KnownHosts: "h ssh-ed25519 AAAA", TLSCerts: map[string]string{"git.example.com": "PEM", "port.example.com:8443": "PORT"},
	})
	for _, c := range []struct{ project, url, secret, user, password string }{
		{"", "https://git.example.com/org/app", "a-global", "u", "global"},
		{"team", "https://git.example.com/org/app", "b-team", "u", "team"},
		{"other", "HTTPS://git.example.com/org/app.git", "a-global", "u", "global"},
		{"team", "https://git.example.com/org/bare", "c-bare", "long", "p"},
		{"", "https://git.example.com/x", "t-short", "short", "p"},
		{"other", "https://git.example.com/private", "t-short", "short", "p"},
		{"team", "https://git.example.com/private", "d-only", "", "x"},
		{"", "https://other.example/r", "t-host", "", "host"},
		{"", "https://other.example.evil.org/r", "", "", ""},
		{"", "https://unknown.example/r", "", "", ""},
		{"", "https://me:pw@unknown.example/r", "", "me", "pw"},
	} {
		got, err := s.For(c.project, c.url)
		if err != nil || got.Secret != c.secret || got.Username != c.user || got.Password != c.password {
			t.Errorf("For(%q, %q) = %v user %q, %v", c.project, c.url, got, got.Username, err)
		}
	}
	bare, _ := s.For("", "https://git.example.com/org/bare")
	if bare.Depth != 1 || !bare.EnableLFS || bare.CA != "PEM" || bare.KnownHosts == "" || bare.Insecure {
		t.Errorf("bare: depth %d lfs %v ca %q insecure %v", bare.Depth, bare.EnableLFS, bare.CA, bare.Insecure)
	}
	if c, _ := s.For("", "git@git.example.com:org/app.git"); c.SSHPrivateKey != "KEY\n" || c.CA != "PEM" {
		t.Errorf("ssh: %v", c)
	}
	if c, _ := s.For("", "https://port.example.com:8443/r"); c.CA != "PORT" {
		t.Error("the certificate of a port is not found")
	}
	for _, url := range []string{"https://bad.example/r", "https://gcp.example/r"} {
		if c, err := s.For("", url); err == nil || strings.Contains(err.Error()+fmt.Sprint(c), "hunter2") || !strings.Contains(err.Error(), "Secret z-") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if n := len(s.Problems()); n != 2 {
		t.Errorf("problems: %v", s.Problems())
	}
	if url, ok := s.Named("any", "stable"); !ok || url != "https://charts.example.com" {
		t.Errorf("Named: %q, %v", url, ok)
	}
	var none *Store
	if c, err := none.For("p", "https://x.example/r"); err != nil || c.HasSecret() {
		t.Errorf("nil store: %v, %v", c, err)
	}
}

func TestValuesAreNeverShown(t *testing.T) {
	c := Credential{Secret: "s", Username: "hunter2", Password: "hunter2", BearerToken: "hunter2", SSHPrivateKey: "hunter2", TLSCert: "hunter2", TLSKey: "hunter2", App: GitHubApp{ID: 1, PrivateKey: "hunter2"}, Proxy: "http://hunter2@p"}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "c", c, "p", &c, "app", c.App)
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x %v %+v %v %#v", c, c, c, c, c, c, &c, struct{ C Credential }{c}, c.App, []any{c, c.App})
	if b, err := json.Marshal(struct{ C Credential }{c}); err != nil {
		t.Error(err)
	} else {
		out.Write(b)
	}
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "68756e74657232") {
		t.Errorf("a value is shown: %s", out.String())
	}
	if got := Redact("fatal: https://u:hunter2@h/r?token=hunter2&x=1"); strings.Contains(got, "hunter2") || !strings.Contains(got, "h/r") {
		t.Errorf("Redact: %s", got)
	}
	d := c
	d.App.PrivateKey = "other"
	if c.Fingerprint() == d.Fingerprint() || strings.Contains(c.Fingerprint(), "hunter2") {
		t.Error("fingerprint")
	}
}

func TestGitHubAppTokens(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var issued atomic.Int32
	now := time.Now()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims := jwt.RegisteredClaims{}
		_, err := jwt.ParseWithClaims(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), &claims,
			func(*jwt.Token) (any, error) { return &key.PublicKey, nil }, jwt.WithTimeFunc(func() time.Time { return now }))
		switch {
		case err != nil || claims.Issuer != "42":
			http.Error(w, "bad", http.StatusUnauthorized)
		case r.URL.Path == "/api/v3/users/org/installation":
			fmt.Fprint(w, `{"id": 7}`)
		case r.Method == http.MethodPost && r.URL.Path == "/api/v3/app/installations/7/access_tokens":
			fmt.Fprintf(w, `{"token": "ghs_%d", "expires_at": %q}`, issued.Add(1), now.Add(time.Hour).UTC().Format(time.RFC3339))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	pemKey := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	clients := NewClients(nil)
	defer clients.Close()
	tokens := NewTokens(clients, func() time.Time { return now })
	c := Credential{Secret: "app", App: GitHubApp{ID: 42, Installation: 7, PrivateKey: pemKey, BaseURL: server.URL + "/api/v3/"}}
	want := func(c Credential, url, token string) {
		t.Helper()
		got, err := tokens.Sign(t.Context(), c, url)
		if err != nil || got.Username != "x-access-token" || got.Password != token {
			t.Errorf("%q, %v; want %q", got.Password, err, token)
		}
	}
	want(c, "https://h/org/r", "ghs_1")
	want(c, "https://h/org/other", "ghs_1")
	now = now.Add(56 * time.Minute)
	want(c, "https://h/org/r", "ghs_2")
	c.App.Installation = 0
	want(c, "https://h/org/r", "ghs_3")
	if _, err := tokens.Sign(t.Context(), c, "https://h/nobody/r"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("no installation: %v", err)
	}
	c.App.ID = 43
	if _, err := tokens.Sign(t.Context(), c, "https://h/org/r"); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("wrong App: %v", err)
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://u:p@h/r.git", "git@h:o/r", "ssh://h:1/x", "%zz://", "a@b@c:d", "oci://ghcr.io/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := Parse(s); err == nil && (strings.HasPrefix(l.Host, "-") || strings.HasPrefix(l.Name(), "/")) {
			t.Errorf("%q: %+v", s, l)
		}
		NewStore(Input{Secrets: []Secret{secret("s", typeRepository, "url", s), secret("t", typeTemplate, "url", s)}}).For("p", s)
	})
}
