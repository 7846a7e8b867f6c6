package gateway

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	leafLife   = 90 * 24 * time.Hour
	leafRenew  = 30 * 24 * time.Hour // a leaf with less life left is replaced
	leafCached = 512
	caCertFile = "ca.crt"
	caKeyFile  = "ca.key"
)

// CAConfig says where the authority lives and what it may sign.
type CAConfig struct {
	// Dir holds ca.crt (0644) and ca.key (0600). It is created when missing.
	Dir string
	// Domains are the DNS names below which, and with which, the authority may
	// issue; clients enforce it (X.509 name constraints). Default: the domains
	// of the services that Lockstep stands for, and localhost.
	Domains []string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// defaultDomains are wide enough for every host that Lockstep serves.
var defaultDomains = []string{
	"azure.com", "microsoftonline.com", "microsoft.com", "windows.net", "azure.net", "azurecr.io",
	"githubusercontent.com", "github.com", "ghcr.io", "localhost", "lockstep.internal", "cluster.local", "svc",
}

// CA is a local certificate authority, trusted only by processes that get its
// bundle. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time

	leafKey crypto.Signer
	mu      sync.Mutex
	leaves  map[string]*tls.Certificate
	recent  []string // names in leaves, oldest use first
}

// OpenCA reads the authority in cfg.Dir, or makes a new one when there is none,
// when it has under a year to live, or when cfg.Domains changed.
func OpenCA(cfg CAConfig) (*CA, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open local CA: no directory given")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Domains) == 0 {
		cfg.Domains = defaultDomains
	}
	cert, key, err := readCA(cfg)
	if err != nil {
		return nil, fmt.Errorf("open local CA: %w", err)
	}
	if cert == nil {
		if cert, key, err = createCA(cfg); err != nil {
			return nil, fmt.Errorf("create local CA in %s: %w", cfg.Dir, err)
		}
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("open local CA: %w", err)
	}
	return &CA{cert: cert, key: key, now: cfg.Now, leafKey: leafKey, leaves: map[string]*tls.Certificate{}}, nil
}

// readCA returns nil when there is no usable authority.
func readCA(cfg CAConfig) (*x509.Certificate, crypto.Signer, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(cfg.Dir, caCertFile), filepath.Join(cfg.Dir, caKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w; delete %s and %s in %s to make a new one", err, caCertFile, caKeyFile, cfg.Dir)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || pair.Leaf == nil || !pair.Leaf.IsCA {
		return nil, nil, fmt.Errorf("%s in %s is not a certificate authority; delete it to make a new one", caCertFile, cfg.Dir)
	}
	if cfg.Now().Add(caLife/10).After(pair.Leaf.NotAfter) || !slices.Equal(pair.Leaf.PermittedDNSDomains, cfg.Domains) {
		return nil, nil, nil
	}
	return pair.Leaf, key, nil
}

func createCA(cfg CAConfig) (*x509.Certificate, crypto.Signer, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := cfg.Now()
	serial := newSerial()
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial keeps the names of two authorities apart: some clients
		// look issuers up by name alone.
		Subject:                     pkix.Name{Organization: []string{"Lockstep"}, CommonName: fmt.Sprintf("Lockstep local CA %x", serial.Bytes()[:4])},
		NotBefore:                   now.Add(-time.Hour),
		NotAfter:                    now.Add(caLife),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         cfg.Domains,
		PermittedIPRanges: []*net.IPNet{
			{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
			{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
			{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	// The certificate goes last: with it the authority exists.
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := os.Remove(filepath.Join(cfg.Dir, caCertFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err := durable.WriteFile(filepath.Join(cfg.Dir, caKeyFile), keyPEM, 0o600); err != nil {
		return nil, nil, err
	}
	if err := durable.WriteFile(filepath.Join(cfg.Dir, caCertFile), encodeCert(der), 0o644); err != nil {
		return nil, nil, err
	}
	return cert, key, nil
}

// Leaf returns a certificate for one host name or IP address, from the cache
// or newly signed.
func (ca *CA) Leaf(host string) (*tls.Certificate, error) {
	if !validHost(host) {
		return nil, fmt.Errorf("local CA: %q is not a host name", host)
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	now := ca.now()
	if leaf := ca.leaves[host]; leaf != nil && leaf.Leaf.NotAfter.Sub(now) > leafRenew && !now.Before(leaf.Leaf.NotBefore) {
		ca.touch(host)
		return leaf, nil
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: host[:min(len(host), 64)]},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, ca.leafKey.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("local CA: sign %s: %w", host, err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("local CA: sign %s: %w", host, err)
	}
	leaf := &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: ca.leafKey, Leaf: parsed}
	ca.leaves[host] = leaf
	ca.touch(host)
	if len(ca.recent) > leafCached {
		delete(ca.leaves, ca.recent[0])
		ca.recent = ca.recent[1:]
	}
	return leaf, nil
}

// touch moves host to the recently used end.
func (ca *CA) touch(host string) {
	if i := slices.Index(ca.recent, host); i >= 0 {
		ca.recent = slices.Delete(ca.recent, i, i+1)
	}
	ca.recent = append(ca.recent, host)
}

// Pool trusts only this authority.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// PEM is the authority's certificate.
func (ca *CA) PEM() []byte { return encodeCert(ca.cert.Raw) }

// systemBundles are where Linux systems keep their roots, most common first.
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// Bundle writes one PEM file with this authority and the system's roots, for
// SSL_CERT_FILE and its like. The roots are those of the first file in roots
// that can be read (pass the user's own SSL_CERT_FILE here), else those of the
// usual places; a machine without any gets a bundle with this authority alone.
// Nothing is written when the file is already so.
func (ca *CA) Bundle(path string, roots ...string) error {
	out := ca.PEM()
	for _, file := range append(slices.Clone(roots), systemBundles...) {
		if file == "" || file == path {
			continue
		}
		system, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(system, []byte("BEGIN CERTIFICATE")) {
			continue
		}
		out = append(append(out, '\n'), system...)
		break
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, out) {
		return nil
	}
	if err := durable.WriteFile(path, out, 0o644); err != nil {
		return fmt.Errorf("write CA bundle: %w", err)
	}
	return nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// newSerial is a random positive number of 127 bits, its top bit set.
func newSerial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}
