package destination

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// clusterConfig is the JSON in the field config of a cluster Secret.
type clusterConfig struct {
	Username           string          `json:"username"`
	Password           string          `json:"password"`
	BearerToken        string          `json:"bearerToken"`
	TLS                tlsConfig       `json:"tlsClientConfig"`
	AWS                json.RawMessage `json:"awsAuthConfig"`
	Exec               *execConfig     `json:"execProviderConfig"`
	ProxyURL           string          `json:"proxyUrl"`
	DisableCompression bool            `json:"disableCompression"`
}

type tlsConfig struct {
	Insecure   bool   `json:"insecure"`
	ServerName string `json:"serverName"`
	CA         []byte `json:"caData"`
	Cert       []byte `json:"certData"`
	Key        []byte `json:"keyData"`
}

type execConfig struct {
	Command     string            `json:"command"`
	Args        []string          `json:"args"`
	Env         map[string]string `json:"env"`
	APIVersion  string            `json:"apiVersion"`
	InstallHint string            `json:"installHint"`
}

// parseConfig reads config; nothing is a config without credentials.
func parseConfig(data []byte) (*clusterConfig, error) {
	c := &clusterConfig{}
	if len(data) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, jsonProblem(err)
	}
	return c, c.check()
}

// jsonProblem says where JSON is bad, without what is there.
func jsonProblem(err error) error {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("config: %s is not a %s", kind.Field, kind.Type.Kind())
	case errors.As(err, &syntax):
		return fmt.Errorf("config is not JSON: it breaks at byte %d", syntax.Offset)
	}
	return errors.New("config: a field does not hold what it should (certificates and keys are base64)")
}

func (c *clusterConfig) check() error {
	switch {
	case given(c.AWS) && c.Exec == nil:
		return errors.New(`config.awsAuthConfig is not supported; use execProviderConfig with the command "aws" and the arguments "eks", "get-token", "--cluster-name", …`)
	case c.Exec != nil && c.Exec.Command == "":
		return errors.New("config.execProviderConfig.command is missing")
	case c.Exec != nil && c.Exec.APIVersion == "":
		return errors.New(`config.execProviderConfig.apiVersion is missing; write "client.authentication.k8s.io/v1"`)
	case c.TLS.Insecure && len(c.TLS.CA) > 0:
		return errors.New("config.tlsClientConfig has both insecure and caData; keep one of them")
	case len(c.TLS.Cert) == 0 != (len(c.TLS.Key) == 0):
		return errors.New("config.tlsClientConfig needs certData and keyData together")
	case c.BearerToken != "" && c.Username != "":
		return errors.New("config has both bearerToken and username; keep one of them")
	}
	if c.ProxyURL != "" {
		u, err := url.Parse(c.ProxyURL)
		if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme) {
			return errors.New("config.proxyUrl is not an address such as http://proxy:3128 (http, https or socks5)")
		}
	}
	return nil
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// anonymous reports whether nothing of the config says who asks.
func (c *clusterConfig) anonymous() bool {
	return c.Username == "" && c.Password == "" && c.BearerToken == "" && len(c.TLS.Cert) == 0 && c.Exec == nil
}

// rest is the config for client-go, without rate limits.
func (c *clusterConfig) rest(server string) (*rest.Config, error) {
	out := &rest.Config{
		Host: server, Username: c.Username, Password: c.Password, BearerToken: c.BearerToken, DisableCompression: c.DisableCompression,
		TLSClientConfig: rest.TLSClientConfig{Insecure: c.TLS.Insecure, ServerName: c.TLS.ServerName, CAData: c.TLS.CA, CertData: c.TLS.Cert, KeyData: c.TLS.Key},
		QPS:             -1, WarningHandler: rest.NoWarnings{},
	}
	if c.ProxyURL != "" {
		u, err := url.Parse(c.ProxyURL)
		if err != nil {
			return nil, errors.New("config.proxyUrl is not an address")
		}
		out.Proxy = http.ProxyURL(u)
	}
	if e := c.Exec; e != nil {
		out.ExecProvider = &clientcmdapi.ExecConfig{
			Command: e.Command, Args: e.Args, APIVersion: e.APIVersion, InstallHint: e.InstallHint, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		}
		for _, name := range slices.Sorted(maps.Keys(e.Env)) {
			out.ExecProvider.Env = append(out.ExecProvider.Env, clientcmdapi.ExecEnvVar{Name: name, Value: e.Env[name]})
		}
	}
	if _, err := rest.TLSConfigFor(out); err != nil { // certificates that do not parse
		return nil, errors.New("config.tlsClientConfig: the certificates or the key are not PEM, or do not belong together")
	}
	return out, nil
}
