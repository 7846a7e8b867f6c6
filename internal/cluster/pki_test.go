package cluster

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func fingerprints(t *testing.T, l layout) map[string]string {
	t.Helper()
	found := map[string]string{}
	files, _ := filepath.Glob(l.pki("*"))
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(file)] = string(body)
	}
	return found
}

func TestPKIIsKeptAndRenewed(t *testing.T) {
	cfg, now := sample(t), time.Now()
	ensure := func(cfg Config, at time.Time) map[string]string {
		t.Helper()
		if err := cfg.ensurePKI(at); err != nil {
			t.Fatal(err)
		}
		return fingerprints(t, cfg.layout())
	}
	first := ensure(cfg, now)
	if got, want := len(first), 2*(3+len(cfg.leaves()))+1; got != want {
		t.Errorf("%d files, want %d", got, want)
	}
	differing := func(a, b map[string]string) (names []string) {
		for name := range a {
			if a[name] != b[name] {
				names = append(names, name)
			}
		}
		return names
	}
	if changed := differing(first, ensure(cfg, now.Add(24*time.Hour))); len(changed) > 0 {
		t.Errorf("changed after a day: %v", changed)
	}
	other := cfg
	other.NodeName = "other"
	if changed := differing(first, ensure(other, now)); len(changed) != 6 {
		t.Errorf("another node name changed %v, want the three pairs that hold it", changed)
	}
	second := ensure(cfg, now)
	late := ensure(cfg, now.Add(leafLife-renewBefore+time.Hour))
	if changed := differing(second, late); len(changed) != 2*len(cfg.leaves()) {
		t.Errorf("near expiry changed %d files, want all %d leaf files", len(changed), 2*len(cfg.leaves()))
	}
	if err := os.Remove(cfg.layout().pki("ca.key")); err != nil {
		t.Fatal(err)
	}
	if changed := differing(late, ensure(cfg, now.Add(leafLife))); len(changed) < 16 {
		t.Errorf("a lost authority key changed only %v", changed)
	}
}

func TestPKIVerifies(t *testing.T) {
	cfg := sample(t)
	if err := cfg.ensurePKI(time.Now()); err != nil {
		t.Fatal(err)
	}
	l := cfg.layout()
	for _, want := range cfg.leaves() {
		ca, _, err := readPair(l.pki(want.ca+".crt"), l.pki(want.ca+".key"))
		if err != nil {
			t.Fatal(err)
		}
		cert, _, err := readPair(l.pki(want.name+".crt"), l.pki(want.name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		usage := x509.ExtKeyUsageClientAuth
		if want.server {
			usage = x509.ExtKeyUsageServerAuth
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s: %v", want.name, err)
		}
		for _, name := range want.names {
			if err := cert.VerifyHostname(name); err != nil {
				t.Errorf("%s: %v", want.name, err)
			}
		}
		if info, err := os.Stat(l.pki(want.name + ".key")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s.key: %v %v, want mode 0600", want.name, info.Mode(), err)
		}
	}
}

func TestJWKS(t *testing.T) {
	c, err := New(sample(t), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.ServiceAccountJWKS()
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(first, &set); err != nil || len(set.Keys) != 1 || set.Keys[0]["kid"] == "" || set.Keys[0]["e"] != "AQAB" {
		t.Errorf("%s, %v", first, err)
	}
	if again, err := c.ServiceAccountJWKS(); err != nil || string(again) != string(first) {
		t.Errorf("second time %s, %v, want the same", again, err)
	}
}
