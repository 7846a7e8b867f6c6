package cluster

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"time"
)

// Lifetimes of certificates. A leaf is made anew at a start when it has less
// than renewBefore left; an authority lives as long as the state directory.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	renewBefore   = 30 * 24 * time.Hour
)

// The platform's certificate authorities. They are apart so that a client
// certificate for one door opens no other.
const (
	clusterCA = "ca"             // apiserver, kubelet and their clients
	etcdCA    = "etcd-ca"        // etcd and its only client
	proxyCA   = "front-proxy-ca" // the apiserver towards aggregated API servers
)

// serviceAccountKey is the file name of the key that signs tokens of pods.
const serviceAccountKey = "service-account.key"

// leaf describes one certificate.
type leaf struct {
	name   string // file name without .crt and .key
	ca     string
	cn     string
	org    string // Kubernetes takes it for the group
	server bool
	names  []string // DNS names and addresses of a server
}

// leaves lists the certificates of the node.
func (c Config) leaves() []leaf {
	node := c.NodeAddr().String()
	return []leaf{
		{name: "etcd-server", ca: etcdCA, cn: "etcd", server: true, names: []string{"localhost", "127.0.0.1"}},
		{name: "etcd-client", ca: etcdCA, cn: "kube-apiserver"},
		{name: "apiserver", ca: clusterCA, cn: "kube-apiserver", server: true, names: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
			"localhost", c.NodeName, node, "127.0.0.1", c.ServiceRange().Addr().Next().String(),
		}},
		{name: "apiserver-kubelet-client", ca: clusterCA, cn: "kube-apiserver-kubelet-client", org: "system:masters"},
		{name: "front-proxy-client", ca: proxyCA, cn: "front-proxy-client"},
		{name: "kubelet-server", ca: clusterCA, cn: "system:node:" + c.NodeName, org: "system:nodes", server: true, names: []string{c.NodeName, node, "127.0.0.1"}},
		{name: "admin", ca: clusterCA, cn: "lockstep-admin", org: "system:masters"},
		{name: "kubelet", ca: clusterCA, cn: "system:node:" + c.NodeName, org: "system:nodes"},
		{name: "kube-controller-manager", ca: clusterCA, cn: "system:kube-controller-manager"},
		{name: "kube-scheduler", ca: clusterCA, cn: "system:kube-scheduler"},
		{name: "kube-proxy", ca: clusterCA, cn: "system:kube-proxy"},
		{name: "coredns", ca: clusterCA, cn: "system:coredns"},
	}
}

// ensurePKI makes what is missing, about to expire or no longer fitting.
func (c Config) ensurePKI(now time.Time) error {
	l := c.layout()
	authorities := map[string]*authority{}
	for _, name := range []string{clusterCA, etcdCA, proxyCA} {
		ca, err := ensureAuthority(l, name, now)
		if err != nil {
			return fmt.Errorf("certificate authority %s: %w", name, err)
		}
		authorities[name] = ca
	}
	for _, want := range c.leaves() {
		if err := authorities[want.ca].ensure(l, want, now); err != nil {
			return fmt.Errorf("certificate %s: %w", want.name, err)
		}
	}
	if _, err := ensureServiceAccountKey(l); err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	return nil
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func ensureAuthority(l layout, name string, now time.Time) (*authority, error) {
	cert, key, err := readPair(l.pki(name+".crt"), l.pki(name+".key"))
	if err == nil && now.Add(renewBefore).Before(cert.NotAfter) {
		return &authority{cert, key}, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "lockstep " + name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		IsCA:     true, BasicConstraintsValid: true,
	}
	return writePair(l, name, template, nil)
}

// ensure keeps the certificate on disk if it still says what it should.
func (a *authority) ensure(l layout, want leaf, now time.Time) error {
	have, _, err := readPair(l.pki(want.name+".crt"), l.pki(want.name+".key"))
	if err == nil && want.matches(have) && now.Add(renewBefore).Before(have.NotAfter) && have.CheckSignatureFrom(a.cert) == nil {
		return nil
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: want.cn},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if want.org != "" {
		template.Subject.Organization = []string{want.org}
	}
	if want.server {
		// etcd's gateway presents its own server certificate as a client.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, name := range want.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	_, err = writePair(l, want.name, template, a)
	return err
}

func (want leaf) matches(have *x509.Certificate) bool {
	names := slices.Clone(have.DNSNames)
	for _, ip := range have.IPAddresses {
		names = append(names, ip.String())
	}
	wanted := slices.Clone(want.names)
	slices.Sort(names)
	slices.Sort(wanted)
	org := ""
	if len(have.Subject.Organization) > 0 {
		org = have.Subject.Organization[0]
	}
	return slices.Equal(names, wanted) && have.Subject.CommonName == want.cn && org == want.org
}

// writePair makes a key, signs the template (with the new key itself when
// signer is nil) and writes both.
func writePair(l layout, name string, template *x509.Certificate, signer *authority) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	if signer == nil {
		signer = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	// The key goes first: a crash in between leaves a pair that does not fit,
	// which readPair refuses and the next start replaces.
	if err := writeFile(l.pki(name+".key"), pemOf("PRIVATE KEY", secret), 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(l.pki(name+".crt"), pemOf("CERTIFICATE", der), 0o644); err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// readPair reads a certificate and its key. A pair whose halves do not fit
// counts as missing.
func readPair(certFile, keyFile string) (*x509.Certificate, crypto.Signer, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, nil, fmt.Errorf("%s holds no certificate; delete it to have it made again", certFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w; delete it to have it made again", certFile, err)
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(public, cert.RawSubjectPublicKeyInfo) {
		return nil, nil, fmt.Errorf("%s does not belong to %s: %w", keyFile, certFile, fs.ErrNotExist)
	}
	return cert, key, nil
}

func readKey(file string) (crypto.Signer, error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(body)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: key of type %T cannot sign", file, parsed)
	}
	return key, nil
}

// ensureServiceAccountKey returns the key that signs service account tokens.
// It is RSA because Entra ID accepts only RS256 of a federated issuer.
func ensureServiceAccountKey(l layout) (crypto.Signer, error) {
	file := l.pki(serviceAccountKey)
	key, err := readKey(file)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	made, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(made)
	if err != nil {
		return nil, err
	}
	return made, writeFile(file, pemOf("PRIVATE KEY", der), 0o600)
}

// jwks is the JSON Web Key Set of the service account issuer, with the same
// key id that the apiserver writes into tokens.
func jwks(key crypto.Signer) ([]byte, error) {
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("service account key is %T, want RSA", key)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	enc := base64.RawURLEncoding.EncodeToString
	return json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": enc(sum[:]),
		"n": enc(public.N.Bytes()), "e": enc(big.NewInt(int64(public.E)).Bytes()),
	}}})
}
