package credential

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
)

const (
	maxClients    = 256
	headerTimeout = 60 * time.Second
)

// Clients makes HTTP clients that trust, prove and go by proxy as a credential
// says, and keeps them, so that connections are reused. See [NewClients].
type Clients struct {
	base *http.Transport

	mu   sync.Mutex
	made map[string]*http.Client // by fingerprint
}

// NewClients makes clients from a base transport; nil is Go's default without
// a proxy from the environment.
func NewClients(base *http.Transport) *Clients {
	if base == nil {
		base = http.DefaultTransport.(*http.Transport).Clone()
		base.Proxy = nil
	}
	return &Clients{base: base, made: map[string]*http.Client{}}
}

// For returns the client of a credential. It adds no Authorization header.
func (s *Clients) For(c Credential) (*http.Client, error) {
	key := Credential{CA: c.CA, TLSCert: c.TLSCert, TLSKey: c.TLSKey, Insecure: c.Insecure, Proxy: c.Proxy, NoProxy: c.NoProxy}.Fingerprint()
	s.mu.Lock()
	defer s.mu.Unlock()
	if client, ok := s.made[key]; ok {
		return client, nil
	}
	t, err := transport(s.base, c)
	if err != nil {
		return nil, err
	}
	if len(s.made) >= maxClients {
		s.closeLocked()
	}
	client := &http.Client{Transport: t}
	s.made[key] = client
	return client, nil
}

// Close ends idle connections.
func (s *Clients) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
}

func (s *Clients) closeLocked() {
	for _, client := range s.made {
		client.CloseIdleConnections()
	}
	clear(s.made)
}

func transport(base *http.Transport, c Credential) (*http.Transport, error) {
	t := base.Clone()
	if t.ResponseHeaderTimeout == 0 {
		t.ResponseHeaderTimeout = headerTimeout
	}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.TLSClientConfig.InsecureSkipVerify = c.Insecure // as the Secret says
	if c.CA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(c.CA)) {
			return nil, errors.New("argocd-tls-certs-cm has no certificate for this server that can be read; it must be PEM")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if c.TLSCert != "" {
		cert, err := tls.X509KeyPair([]byte(c.TLSCert), []byte(c.TLSKey))
		if err != nil {
			return nil, fmt.Errorf("Secret %s: tlsClientCertData and tlsClientCertKey are no pair of PEM certificate and key", c.Secret)
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{cert}
	}
	if c.Proxy != "" {
		proxy, err := proxyOf(c)
		if err != nil {
			return nil, err
		}
		t.Proxy = proxy
	}
	return t, nil
}

func proxyOf(c Credential) (func(*http.Request) (*url.URL, error), error) {
	u, err := url.Parse(c.Proxy)
	if err != nil || u.Host == "" || !strings.Contains("http https socks5 socks5h", u.Scheme) {
		return nil, fmt.Errorf("Secret %s: its proxy must be a URL like http://proxy:3128", c.Secret)
	}
	ask := (&httpproxy.Config{HTTPProxy: c.Proxy, HTTPSProxy: c.Proxy, NoProxy: c.NoProxy}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return ask(r.URL) }, nil
}
