//go:build linux

// Package gitopstest runs the engine against a real API server without a node.
//
// Input: a program that holds etcd, kube-apiserver and
// kube-controller-manager (by argv[0]), named by LOCKSTEP_HYPERKUBE. Output:
// [Cluster], the three on loopback ports in a temporary directory; [Repo], a
// bare repository whose commits are announced in the journal as the forge
// would; [World], both with an engine.
//
// Start reading at [NewWorld].
package gitopstest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Variable names the program in the environment.
const Variable = "LOCKSTEP_HYPERKUBE"

const token = "gitopstest" // of the throw-away API server only

// Cluster is a control plane without nodes.
type Cluster struct {
	Config *rest.Config
	Client dynamic.Interface

	dir     string
	program string
}

// StartCluster starts a control plane that ends with the test. It skips the
// test when the program is not named.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	program := os.Getenv(Variable)
	if program == "" {
		t.Skipf("%s does not name a program with etcd and kube-apiserver", Variable)
	}
	c := &Cluster{dir: t.TempDir(), program: program}
	etcd, peer, api := freePort(t), freePort(t), freePort(t)
	etcdURL := "http://127.0.0.1:" + etcd
	c.start(t, "etcd", "--data-dir", filepath.Join(c.dir, "etcd"), "--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", "http://127.0.0.1:"+peer, "--initial-advertise-peer-urls", "http://127.0.0.1:"+peer,
		"--initial-cluster", "default=http://127.0.0.1:"+peer, "--unsafe-no-fsync", "--log-level", "error")
	key := c.write(t, "sa.key", serviceAccountKey(t))
	tokens := c.write(t, "tokens.csv", []byte(token+",admin,admin,system:masters\n"))
	c.start(t, "kube-apiserver", "--etcd-servers", etcdURL, "--bind-address", "127.0.0.1", "--secure-port", api,
		"--cert-dir", filepath.Join(c.dir, "certs"), "--token-auth-file", tokens, "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--service-cluster-ip-range", "10.0.0.0/24", "--disable-admission-plugins", "ServiceAccount", "--v", "0")
	c.Config = &rest.Config{Host: "https://127.0.0.1:" + api, BearerToken: token, QPS: -1, WarningHandler: rest.NoWarnings{}, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	c.await(t)
	kubeconfig := c.write(t, "kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%s", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, api, token))
	c.start(t, "kube-controller-manager", "--kubeconfig", kubeconfig, "--leader-elect=false", "--bind-address", "127.0.0.1",
		"--secure-port", freePort(t), "--cert-dir", filepath.Join(c.dir, "kcm"), "--controllers", "garbagecollector,namespace,garbage-collector-controller,namespace-controller",
		"--kube-api-qps", "500", "--kube-api-burst", "500", "--v", "0")
	client, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	c.Client = client
	return c
}

func (c *Cluster) write(t testing.TB, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(c.dir, name)
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func serviceAccountKey(t testing.TB) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// start runs a program of the control plane until the test ends; it cannot
// outlive the test's process.
func (c *Cluster) start(t testing.TB, name string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{
		Path: c.program, Args: append([]string{name}, args...), Stdout: log, Stderr: log, Dir: c.dir,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			if data, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("last lines of %s:\n%s", name, data[max(0, len(data)-1500):])
			}
		}
	})
}

// await returns when the API server answers.
func (c *Cluster) await(t testing.TB) {
	t.Helper()
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Config.Host+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err == nil {
			body, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			last = string(body)
		} else {
			last = err.Error()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the API server is not ready: %s", last)
		}
	}
}
