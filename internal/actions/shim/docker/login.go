package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// hubKey is the name of Docker Hub in the configuration.
const hubKey = "https://index.docker.io/v1/"

// configFile is config.json; what it holds besides logins is kept.
type configFile struct {
	path  string
	auths map[string]map[string]string
	rest  map[string]json.RawMessage
}

func readConfig(p *shim.Process, dir string) (*configFile, error) {
	if dir == "" {
		dir = p.Getenv("DOCKER_CONFIG")
	}
	if dir == "" {
		dir = filepath.Join(p.Getenv("HOME"), ".docker")
	}
	c := &configFile{path: filepath.Join(p.Path(dir), "config.json"), auths: map[string]map[string]string{}, rest: map[string]json.RawMessage{}}
	data, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c.rest)
	}
	if raw := c.rest["auths"]; err == nil && raw != nil {
		err = json.Unmarshal(raw, &c.auths)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.path, err)
	}
	return c, nil
}

func (c *configFile) write() error {
	auths, err := json.Marshal(c.auths)
	if err != nil {
		return err
	}
	c.rest["auths"] = auths
	data, err := json.MarshalIndent(c.rest, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.path), ".config-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Host is the registry that a login or reference means.
func Host(registry string) string {
	host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(registry, "https://"), "http://"), "/")
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io", "index.docker.io/v1":
		return "docker.io"
	}
	host, _, _ = strings.Cut(host, "/")
	return strings.ToLower(host)
}

func key(host string) string {
	if host == "docker.io" {
		return hubKey
	}
	return host
}

// StoreLogin writes a login into the docker configuration of a process.
func StoreLogin(p *shim.Process, registry, user, password string) error {
	config, err := readConfig(p, "")
	if err != nil {
		return err
	}
	config.auths[key(Host(registry))] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	return config.write()
}

// logins are all logins of the configuration by host.
func (c *call) logins() (map[string]Login, error) {
	config, err := readConfig(c.Process, c.config)
	if err != nil {
		return nil, err
	}
	out := map[string]Login{}
	for k, a := range config.auths {
		l := Login{a["username"], a["password"]}
		if decoded, err := base64.StdEncoding.DecodeString(a["auth"]); err == nil && a["auth"] != "" {
			l.Username, l.Password, _ = strings.Cut(string(decoded), ":")
		}
		out[Host(k)] = l
	}
	return out, nil
}

// maxPassword bounds what --password-stdin reads, in bytes.
const maxPassword = 64 << 10

func login(ctx context.Context, c *call) (int, error) {
	user, password := c.Get("username"), c.Get("password")
	if c.On("password-stdin") {
		data, err := io.ReadAll(io.LimitReader(c.Stdin, maxPassword))
		if err != nil {
			return 0, err
		}
		password = strings.TrimRight(string(data), "\r\n")
	}
	if user == "" || password == "" {
		return 0, errors.New("cannot perform an interactive login from a non TTY device: give --username and --password-stdin")
	}
	host := Host(strings.Join(c.Rest, ""))
	registry, err := name.NewRegistry(strings.Replace(host, "docker.io", name.DefaultRegistry, 1))
	if err != nil {
		return 0, shim.Usagef("%q is no registry: %v", host, err)
	}
	base := c.Client().Transport
	if _, err := transport.NewWithContext(ctx, registry, &authn.Basic{Username: user, Password: password}, base, nil); err != nil {
		return 0, fmt.Errorf("Error response from daemon: Get \"https://%s/v2/\": %w", host, err) //nolint:staticcheck // the text of docker
	}
	config, err := readConfig(c.Process, c.config)
	if err != nil {
		return 0, err
	}
	config.auths[key(host)] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	if err := config.write(); err != nil {
		return 0, err
	}
	_, err = fmt.Fprintln(c.Stdout, "Login Succeeded")
	return 0, err
}

func logout(_ context.Context, c *call) (int, error) {
	host := Host(strings.Join(c.Rest, ""))
	config, err := readConfig(c.Process, c.config)
	if err != nil {
		return 0, err
	}
	delete(config.auths, key(host))
	_, _ = fmt.Fprintf(c.Stdout, "Removing login credentials for %s\n", host)
	return 0, config.write()
}
