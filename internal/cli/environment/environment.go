// Package environment is the sheet of facts that a running platform leaves for
// the commands of its user: where its services answer and which credentials
// open them.
//
// Input: the platform writes the sheet once it knows its addresses. Output:
// `lockstep env` prints it as exports, `lockstep up --example` and the Git
// credential helper use it. The file holds secrets: mode 0600, in the
// platform's own folder, never copied elsewhere.
//
// Start reading at [Sheet].
package environment

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/gateway"
)

// FileName is the name of the sheet in the platform's folder.
const FileName = "environment.json"

// Sheet is what a client of the platform has to know.
type Sheet struct {
	Name     string `json:"name"`     // of the platform
	Context  string `json:"context"`  // in the user's kubeconfig
	Page     string `json:"page"`     // URL of the status page
	Forge    string `json:"forge"`    // URL that stands for https://github.com
	ForgeAPI string `json:"forgeAPI"` // URL that stands for https://api.github.com
	Registry string `json:"registry"` // host:port of the default registry
	Proxy    string `json:"proxy"`    // URL of the intercepting proxy
	CABundle string `json:"caBundle"` // PEM file: the system's roots and the local CA

	// Kubeconfig is the platform's own file, not the user's.
	Kubeconfig string `json:"kubeconfig"`

	TenantID       string `json:"tenantID"`
	SubscriptionID string `json:"subscriptionID"`
	Region         string `json:"region"`
	ClientID       string `json:"clientID"`     // of the owner's service principal
	ClientSecret   string `json:"clientSecret"` // secret
	OIDCIssuer     string `json:"oidcIssuer"`   // of the cluster's service accounts

	ForgeUser  string `json:"forgeUser"`
	ForgeToken string `json:"forgeToken"` // secret
}

// Read reads the sheet of the platform in dir.
func Read(dir string) (Sheet, error) {
	var s Sheet
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("no platform has run in %s; start one with `lockstep up`", dir)
	}
	if err != nil {
		return s, fmt.Errorf("read the platform's addresses: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read the platform's addresses: %s: %w", FileName, err)
	}
	return s, nil
}

// Encode gives the sheet's file content.
func (s Sheet) Encode() ([]byte, error) { return json.MarshalIndent(s, "", "  ") }

// Client returns an HTTP client for which every host that the platform stands
// for answers locally, and every other host as usual.
func (s Sheet) Client() (*http.Client, error) {
	proxy, err := url.Parse(s.Proxy)
	if err != nil {
		return nil, fmt.Errorf("proxy address of the platform: %w", err)
	}
	pem, err := os.ReadFile(s.CABundle)
	if err != nil {
		return nil, fmt.Errorf("read the platform's certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the platform's certificates: %s holds none", s.CABundle)
	}
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			Proxy:           http.ProxyURL(proxy),
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		},
	}, nil
}

// Exports returns the environment variables that make unmodified clients use
// the platform.
func (s Sheet) Exports() map[string]string {
	vars := gateway.Env(s.Proxy, s.CABundle, "10.0.0.0/8")
	maps.Copy(vars, map[string]string{
		"AZURE_TENANT_ID": s.TenantID, "AZURE_SUBSCRIPTION_ID": s.SubscriptionID,
		"AZURE_CLIENT_ID": s.ClientID, "AZURE_CLIENT_SECRET": s.ClientSecret,
		"ARM_TENANT_ID": s.TenantID, "ARM_SUBSCRIPTION_ID": s.SubscriptionID,
		"ARM_CLIENT_ID": s.ClientID, "ARM_CLIENT_SECRET": s.ClientSecret,
		// The provider's waits are for a cloud that needs minutes.
		"GO_AZURE_SDK_SKIP_POLLING_DELAY": "true",

		"GH_HOST": "github.localhost", "GH_ENTERPRISE_TOKEN": s.ForgeToken, "GH_TOKEN": s.ForgeToken, "GITHUB_TOKEN": s.ForgeToken,
		// A header rather than a credential helper: gh puts a helper of its own
		// in front, which does not answer for http.
		"GIT_CONFIG_COUNT":   "1",
		"GIT_CONFIG_KEY_0":   "http." + s.Forge + "/.extraHeader",
		"GIT_CONFIG_VALUE_0": "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+s.ForgeToken)),

		"LOCKSTEP_NAME": s.Name,
	})
	return vars
}
