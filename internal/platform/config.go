package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// DefaultName is the platform that commands mean when none is named.
const DefaultName = "lockstep"

// The identifiers of the one tenant and subscription that a platform has. They
// are the same everywhere, so that a repository that names them works on every
// machine.
const (
	TenantID       = "6c6f636b-7374-6570-8000-74656e616e74"
	SubscriptionID = "6c6f636b-7374-6570-8000-737562736372"
	Region         = "westeurope"
)

// Config is what one platform is started with. The fields below Name are
// remembered in its folder, so that a later `up` comes back the same.
type Config struct {
	// Name tells platforms on one machine apart: lower-case letters, digits
	// and '-', at most 20 characters.
	Name string `json:"name"`
	// StateDir holds everything that the platform keeps, in <StateDir>/<Name>.
	StateDir string `json:"-"`
	// Port is the TCP port of the front door on 127.0.0.1; 0 chooses 80 when
	// it is free, else the first free port from 8080 on.
	Port int `json:"port"`
	// Kubeconfig, when set, names an existing cluster to use instead of
	// running one.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// UserKubeconfig is the file into which the context is merged.
	UserKubeconfig string `json:"userKubeconfig,omitempty"`
	// Self is the path of the lockstep program, for its child programs.
	Self string `json:"-"`
	// Version is shown by the status page.
	Version string `json:"-"`
	// JobEnv is passed to workflow jobs, whose environment is otherwise
	// built from nothing: how this machine reaches its module proxy, say.
	JobEnv map[string]string `json:"-"`
	// JobPath is the PATH of workflow steps; "" is the usual one.
	JobPath string `json:"-"`
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// Dir is the folder of this platform.
func (c Config) Dir() string { return filepath.Join(c.StateDir, c.Name) }

// Socket is the path of the control socket.
func (c Config) Socket() string { return filepath.Join(c.Dir(), "lockstep.sock") }

// LogFile is where the supervisor writes its log when it runs in the background.
func (c Config) LogFile() string { return filepath.Join(c.Dir(), "logs", "lockstep.log") }

// path joins elements to the platform's folder.
func (c Config) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir()}, elem...)...)
}

// goBuildCache is the compiled standard library that `make build` leaves beside
// the program; "" when there is none.
func (c Config) goBuildCache() string {
	dir := filepath.Join(filepath.Dir(c.Self), "gocache")
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

// Context is the name of the kubeconfig context.
func (c Config) Context() string {
	if c.Name == DefaultName {
		return DefaultName
	}
	return "lockstep-" + c.Name
}

// URL is the address of a host behind the front door, "http://github.localhost"
// or "http://github.localhost:8080".
func (c Config) URL(host string) string {
	if c.Port == 80 {
		return "http://" + host
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(c.Port))
}

// Proxy is the address of the front door as a proxy. Its port is always named:
// clients differ in what they take for the default of a proxy.
func (c Config) Proxy() string { return "http://127.0.0.1:" + strconv.Itoa(c.Port) }

// Validate says what is wrong with the configuration and what to write instead.
func (c Config) Validate() error {
	switch {
	case !validName.MatchString(c.Name):
		return fmt.Errorf("platform name %q: use 1 to 20 lower-case letters, digits or '-', and no '-' at the ends", c.Name)
	case c.StateDir == "" || !filepath.IsAbs(c.StateDir):
		return fmt.Errorf("state folder %q: it has to be an absolute path", c.StateDir)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("port %d: choose one from 1 to 65535", c.Port)
	}
	return nil
}

// Remembered fills the fields that c leaves open with what an earlier start of
// the same platform was given.
func (c Config) Remembered() (Config, error) {
	data, err := os.ReadFile(c.path("platform.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the platform's settings: %w", err)
	}
	var old Config
	if err := json.Unmarshal(data, &old); err != nil {
		return c, fmt.Errorf("read the platform's settings: %s: %w; move the file away to start with defaults", c.path("platform.json"), err)
	}
	if c.Port == 0 {
		c.Port = old.Port
	}
	if c.Kubeconfig == "" {
		c.Kubeconfig = old.Kubeconfig
	}
	if c.UserKubeconfig == "" {
		c.UserKubeconfig = old.UserKubeconfig
	}
	return c, nil
}

// remember writes the configuration for the next start.
func (c Config) remember() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write the platform's settings: %w", err)
	}
	return durable.WriteFile(c.path("platform.json"), data, 0o600)
}

// choosePort settles Port. A port that was asked for or remembered has to be
// free; otherwise 80 is tried, then 8080 to 8180.
func (c Config) choosePort() (Config, net.Listener, error) {
	listen := func(port int) (net.Listener, error) {
		return net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	if c.Port != 0 {
		l, err := listen(c.Port)
		if err != nil {
			return c, nil, &PortError{Port: c.Port, Err: err}
		}
		return c, l, nil
	}
	candidates := []int{80}
	for p := 8080; p <= 8180; p++ {
		candidates = append(candidates, p)
	}
	var err error
	for _, port := range candidates {
		var l net.Listener
		if l, err = listen(port); err == nil {
			c.Port = port
			return c, l, nil
		}
	}
	return c, nil, &PortError{Port: candidates[len(candidates)-1], Err: err}
}

// PortError says that the front door's port cannot be used.
type PortError struct {
	Port int
	Err  error
}

// Error implements error.
func (e *PortError) Error() string {
	return fmt.Sprintf("the front door cannot listen on 127.0.0.1:%d: %v; see who holds it with `ss -ltnp 'sport = :%d'`, or choose another with `lockstep up --port N`",
		e.Port, e.Err, e.Port)
}

// Unwrap gives the error of the listen call.
func (e *PortError) Unwrap() error { return e.Err }
