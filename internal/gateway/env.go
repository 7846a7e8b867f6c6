package gateway

import (
	"slices"
	"strings"
)

// Env returns the variables that send a child process through the proxy at
// proxyURL ("http://127.0.0.1:8080") and make it trust the bundle file. Hosts,
// addresses and CIDR ranges in direct are reached without the proxy.
//
// The name "localhost" is never among them: most clients would then take
// "github.localhost" for a direct name as well. The proxy passes requests for
// localhost on.
func Env(proxyURL, caBundle string, direct ...string) map[string]string {
	noProxy := strings.Join(slices.Concat([]string{"127.0.0.1", "::1"}, direct), ",")
	return map[string]string{
		"HTTP_PROXY": proxyURL, "http_proxy": proxyURL,
		"HTTPS_PROXY": proxyURL, "https_proxy": proxyURL,
		"NO_PROXY": noProxy, "no_proxy": noProxy,
		"SSL_CERT_FILE":       caBundle, // Go, OpenSSL, Python's ssl
		"CURL_CA_BUNDLE":      caBundle,
		"REQUESTS_CA_BUNDLE":  caBundle, // Python requests, the Azure CLI
		"GIT_SSL_CAINFO":      caBundle,
		"NODE_EXTRA_CA_CERTS": caBundle,
		"NODE_USE_ENV_PROXY":  "1",
		"DENO_CERT":           caBundle,
		"CARGO_HTTP_CAINFO":   caBundle,
		"NIX_SSL_CERT_FILE":   caBundle,
	}
}

// realCredentials are the variables by which Azure's clients find a secret, a
// certificate or a token of a real tenant.
var realCredentials = map[string]bool{
	"ARM_ACCESS_KEY":                    true,
	"ARM_CLIENT_CERTIFICATE":            true,
	"ARM_CLIENT_CERTIFICATE_PASSWORD":   true,
	"ARM_CLIENT_CERTIFICATE_PATH":       true,
	"ARM_CLIENT_SECRET":                 true,
	"ARM_CLIENT_SECRET_FILE_PATH":       true,
	"ARM_OIDC_TOKEN":                    true,
	"ARM_OIDC_TOKEN_FILE_PATH":          true,
	"ARM_SAS_TOKEN":                     true,
	"AZURE_CLIENT_CERTIFICATE_PASSWORD": true,
	"AZURE_CLIENT_CERTIFICATE_PATH":     true,
	"AZURE_CLIENT_SECRET":               true,
	"AZURE_CREDENTIALS":                 true,
	"AZURE_FEDERATED_TOKEN_FILE":        true,
	"AZURE_PASSWORD":                    true,
	"AZURE_STORAGE_CONNECTION_STRING":   true,
	"AZURE_STORAGE_KEY":                 true,
}

// RealAzureCredentials returns the names, sorted, of the variables in environ
// ("NAME=value", as os.Environ gives them) that hold credentials of an Azure
// tenant: sent through the gateway they would reach Lockstep instead, and a
// process that loses its proxy variables would reach the real Azure with them.
func RealAzureCredentials(environ []string) []string {
	var found []string
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		if ok && value != "" && realCredentials[strings.ToUpper(name)] {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
