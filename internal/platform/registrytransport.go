package platform

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/gateway"
	"github.com/lockstep-gitops/lockstep/internal/registry"
)

// internet reaches what this machine does not stand for, as this machine does.
// A machine that is offline learns it within a second.
func internet() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 900 * time.Millisecond}).DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 4,
	}
}

// registryTransport reaches registries for jobs: those of Azure as their own
// clients would, with a login; what is read of public registries from the
// mirrors; everything else where it is.
type registryTransport struct {
	local   http.RoundTripper
	mirrors http.RoundTripper // has every right: for reading only
	hosts   *gateway.Gateway
	remote  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t registryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	host := strings.ToLower(r.URL.Hostname())
	switch {
	case mirrored(host) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return t.mirrors.RoundTrip(r)
	case t.hosts.Serves(host):
		return t.local.RoundTrip(r)
	}
	return t.remote.RoundTrip(r)
}

// mirrored reports whether a host is a registry that has a mirror here.
func mirrored(host string) bool {
	return strings.HasSuffix(host, ".docker.io") || slices.Contains(registry.PublicHosts(), host)
}
