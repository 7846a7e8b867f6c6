package builtin

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hubKey is the name of Docker Hub in docker's configuration.
const hubKey = "https://index.docker.io/v1/"

func dockerLogin() Action {
	return Action{
		Name:   "docker/login-action",
		Inputs: map[string]string{"registry": "", "username": "", "password": "", "logout": "true", "registry-auth": ""},
		NoEffect: map[string]string{"ecr": "Amazon's registries have no special login here",
			"scope": "the login is for the whole registry"},
		Run: runLogins, Post: postLogin,
	}
}

// runLogins logs in to one registry, or to all of registry-auth.
func runLogins(ctx context.Context, c *Call) error {
	text := c.With["registry-auth"]
	if text == "" {
		return runLogin(ctx, c)
	}
	var list []struct{ Registry, Username, Password string }
	if err := yaml.Unmarshal([]byte(text), &list); err != nil {
		// The text of the error may hold a part of a password.
		return c.errorf("write a list of registry, username and password", "input registry-auth is no YAML list")
	}
	var hosts []string
	for _, l := range list {
		c.With["registry"], c.With["username"], c.With["password"] = l.Registry, l.Username, l.Password
		if err := runLogin(ctx, c); err != nil {
			return err
		}
		hosts = append(hosts, c.State["host"])
	}
	c.State["host"] = strings.Join(hosts, " ")
	return nil
}

func runLogin(ctx context.Context, c *Call) error {
	user, password := c.With["username"], c.With["password"]
	c.Job.Mask(password)
	if user == "" || password == "" {
		missing := "username"
		if user != "" {
			missing = "password"
		}
		return c.errorf("set the secret or variable that the workflow takes it from", "%s is required to log in to %q, and is empty", missing, c.With["registry"])
	}
	host := registryHost(c.With["registry"])
	if strings.ContainsAny(host, " /\t") {
		return c.errorf("give a host name such as example.azurecr.io", "input registry %q is not a host", c.With["registry"])
	}
	c.Logf("Logging into %s...", host)
	if c.Job.RegistryProbe == nil {
		c.Logf("The login is checked at its first use.")
	} else if err := probe(ctx, c.Job.RegistryProbe, host, user, password); err != nil {
		return c.errorf("check the user name and the password of the registry", "log in to %s: %w", host, err)
	}
	config, err := readDockerConfig(c.Job.Home)
	if err != nil {
		return err
	}
	config.Auths[configKey(host)] = dockerAuth{Auth: base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	if err := config.write(c.Job.Home); err != nil {
		return err
	}
	c.State["host"] = host
	c.Logf("Login Succeeded!")
	return nil
}

func postLogin(_ context.Context, c *Call) error {
	logout, err := c.flag("logout")
	if err != nil || !logout || c.State["host"] == "" {
		return err
	}
	config, err := readDockerConfig(c.Job.Home)
	if err != nil {
		return err
	}
	for host := range strings.FieldsSeq(c.State["host"]) {
		delete(config.Auths, configKey(host))
		c.Logf("Removing login credentials for %s", host)
	}
	return config.write(c.Job.Home)
}

func registryHost(input string) string {
	host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(input), "https://"), "http://"), "/")
	switch host {
	case "", "index.docker.io", "registry-1.docker.io", "index.docker.io/v1":
		return "docker.io"
	}
	return strings.ToLower(host)
}

func configKey(host string) string {
	if host == "docker.io" {
		return hubKey
	}
	return host
}

// dockerConfig is ~/.docker/config.json; fields that are not ours are kept.
type dockerConfig struct {
	Auths map[string]dockerAuth
	rest  map[string]json.RawMessage
}

type dockerAuth struct {
	Auth     string `json:"auth,omitempty"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

const (
	dockerConfigFile = ".docker/config.json"
	maxDockerConfig  = 1 << 20
)

func readDockerConfig(home *os.Root) (dockerConfig, error) {
	config := dockerConfig{Auths: map[string]dockerAuth{}, rest: map[string]json.RawMessage{}}
	data, err := readFile(home, dockerConfigFile, maxDockerConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return config, fmt.Errorf("read ~/%s: %w", dockerConfigFile, err)
	}
	if err := json.Unmarshal(data, &config.rest); err != nil {
		return config, fmt.Errorf("read ~/%s: %w", dockerConfigFile, err)
	}
	if raw, ok := config.rest["auths"]; ok {
		if err := json.Unmarshal(raw, &config.Auths); err != nil {
			return config, fmt.Errorf("read ~/%s: %w", dockerConfigFile, err)
		}
	}
	if config.Auths == nil {
		config.Auths = map[string]dockerAuth{}
	}
	return config, nil
}

func (d dockerConfig) write(home *os.Root) error {
	auths, err := json.Marshal(d.Auths)
	if err != nil {
		return err
	}
	d.rest["auths"] = auths
	data, err := json.MarshalIndent(d.rest, "", "\t")
	if err != nil {
		return err
	}
	if err := home.MkdirAll(".docker", 0o700); err != nil {
		return fmt.Errorf("write ~/%s: %w", dockerConfigFile, err)
	}
	if err := home.WriteFile(dockerConfigFile, data, 0o600); err != nil {
		return fmt.Errorf("write ~/%s: %w", dockerConfigFile, err)
	}
	return nil
}

// credentials turns the configuration into logins by registry host.
func (d dockerConfig) credentials() map[string]Credential {
	out := map[string]Credential{}
	for key, a := range d.Auths {
		cred := Credential{Username: a.Username, Password: a.Password}
		if decoded, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Auth != "" {
			cred.Username, cred.Password, _ = strings.Cut(string(decoded), ":")
		}
		host := registryHost(key)
		if key == hubKey {
			host = "docker.io"
		}
		out[host] = cred
	}
	return out
}

// readFile reads a bounded file of the job.
func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, nil
}

var challengePart = regexp.MustCompile(`(\w+)="([^"]*)"`)

// probe asks a registry whether it takes the login, by the distribution
// protocol's own rules.
func probe(ctx context.Context, transport http.RoundTripper, host, user, password string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	client := &http.Client{Transport: transport}
	address := "https://" + host + "/v2/"
	if host == "docker.io" {
		address = "https://registry-1.docker.io/v2/"
	}
	status, header, err := get(ctx, client, address, "", "")
	if err != nil || status == http.StatusOK {
		return err
	}
	challenge := header.Get("WWW-Authenticate")
	scheme, _, _ := strings.Cut(challenge, " ")
	switch {
	case strings.EqualFold(scheme, "basic"):
	case strings.EqualFold(scheme, "bearer"):
		parts := map[string]string{}
		for _, m := range challengePart.FindAllStringSubmatch(challenge, -1) {
			parts[strings.ToLower(m[1])] = m[2]
		}
		realm, err := url.Parse(parts["realm"])
		if err != nil || realm.Host == "" {
			return fmt.Errorf("the registry asks for a token at %q, which is no address", parts["realm"])
		}
		q := realm.Query()
		q.Set("service", parts["service"])
		q.Set("account", user)
		realm.RawQuery = q.Encode()
		address = realm.String()
	default:
		return fmt.Errorf("the registry answered %d to %s", status, cmp.Or(challenge, "no credentials"))
	}
	status, _, err = get(ctx, client, address, user, password)
	if err != nil || status == http.StatusOK {
		return err
	}
	return fmt.Errorf("the registry refused the login with status %d", status)
}

func get(ctx context.Context, client *http.Client, address, user, password string) (int, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, nil, err
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, resp.Header, resp.Body.Close()
}
