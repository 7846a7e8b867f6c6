//go:build linux

// Package plane starts a real Kubernetes control plane without nodes, for tests
// and benchmarks.
//
// Input: a program that holds etcd, kube-apiserver and
// kube-controller-manager (by argv[0]), named by LOCKSTEP_HYPERKUBE. Output:
// [Cluster], the three on loopback ports in a temporary directory; they end
// with the process that started them at the latest.
//
// Start reading at [StartCluster].
package plane

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Variable names the program in the environment.
const Variable = "LOCKSTEP_HYPERKUBE"

// Token is what the API server lets its administrator in by.
const Token = "plane" // of the throw-away API server only

// Cluster is a control plane without nodes.
type Cluster struct {
	Config *rest.Config
	Client dynamic.Interface

	dir, program string
	programs     []program
}

// program is a running part of the control plane.
type program struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
}

// Options say how a control plane is started outside of a test.
type Options struct {
	Program string // holds etcd, kube-apiserver and kube-controller-manager by argv[0]
	Dir     string // exists, empty
	// Controllers of kube-controller-manager that run besides the garbage
	// collector and the one of namespaces, such as "deployment-controller".
	Controllers []string
}

// StartCluster starts a control plane that ends with the test. It skips the
// test when the program is not named.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	program := os.Getenv(Variable)
	if program == "" {
		t.Skipf("%s does not name a program with etcd and kube-apiserver", Variable)
	}
	c, err := Start(t.Context(), Options{Program: program, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			t.Log(c.logs())
		}
	})
	return c
}

// Start starts a control plane and returns when its API server answers. It
// runs until Stop, or until this process ends.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	c := &Cluster{dir: o.Dir, program: o.Program}
	defer func() {
		if err != nil {
			c.Stop()
			err = fmt.Errorf("%w\n%s", err, c.logs())
		}
	}()
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	etcd, peer, api, manager := ports[0], ports[1], ports[2], ports[3]
	key, err := serviceAccountKey()
	if err != nil {
		return nil, err
	}
	kubeconfig := fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%s", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, api, Token)
	for name, data := range map[string][]byte{"sa.key": key, "tokens.csv": []byte(Token + ",admin,admin,system:masters\n"), "kubeconfig": kubeconfig} {
		if err := os.WriteFile(c.path(name), data, 0o600); err != nil {
			return nil, err
		}
	}
	etcdURL, peerURL := "http://127.0.0.1:"+etcd, "http://127.0.0.1:"+peer
	if err := c.start("etcd", "--data-dir", c.path("etcd"), "--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL,
		"--initial-cluster", "default="+peerURL, "--unsafe-no-fsync", "--log-level", "error"); err != nil {
		return nil, err
	}
	if err := c.start("kube-apiserver", "--etcd-servers", etcdURL, "--bind-address", "127.0.0.1", "--secure-port", api,
		"--cert-dir", c.path("certs"), "--token-auth-file", c.path("tokens.csv"), "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", c.path("sa.key"), "--service-account-signing-key-file", c.path("sa.key"),
		"--service-cluster-ip-range", "10.0.0.0/16", "--disable-admission-plugins", "ServiceAccount", "--v", "0"); err != nil {
		return nil, err
	}
	c.Config = &rest.Config{Host: "https://127.0.0.1:" + api, BearerToken: Token, QPS: -1, WarningHandler: rest.NoWarnings{}, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	if err := c.await(ctx); err != nil {
		return nil, err
	}
	controllers := append([]string{"garbagecollector", "namespace", "garbage-collector-controller", "namespace-controller"}, o.Controllers...)
	if err := c.start("kube-controller-manager", "--kubeconfig", c.path("kubeconfig"), "--leader-elect=false", "--bind-address", "127.0.0.1",
		"--secure-port", manager, "--cert-dir", c.path("kcm"), "--controllers", strings.Join(controllers, ","),
		"--kube-api-qps", "500", "--kube-api-burst", "500", "--v", "0"); err != nil {
		return nil, err
	}
	if c.Client, err = dynamic.NewForConfig(c.Config); err != nil {
		return nil, err
	}
	return c, nil
}

// Stop ends the control plane and waits for it. It can be called twice.
func (c *Cluster) Stop() {
	for _, p := range c.programs {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		_ = p.log.Close()
	}
}

// Processes returns the process ids of the control plane by program.
func (c *Cluster) Processes() map[string]int {
	ids := map[string]int{}
	for _, p := range c.programs {
		ids[p.name] = p.cmd.Process.Pid
	}
	return ids
}

// logs returns the last lines that each program wrote.
func (c *Cluster) logs() string {
	var b strings.Builder
	for _, p := range c.programs {
		if data, err := os.ReadFile(p.log.Name()); err == nil {
			fmt.Fprintf(&b, "last lines of %s:\n%s\n", p.name, data[max(0, len(data)-1500):])
		}
	}
	return b.String()
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

func serviceAccountKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), nil
}

// freePorts finds n ports of the loopback that nobody uses now.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only after the last, so that all differ
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// start runs a program of the control plane; it cannot outlive this process.
func (c *Cluster) start(name string, args ...string) error {
	log, err := os.Create(c.path(name + ".log"))
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{
		Path: c.program, Args: append([]string{name}, args...), Stdout: log, Stderr: log, Dir: c.dir,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	c.programs = append(c.programs, program{name, cmd, log})
	return nil
}

// await returns when the API server answers.
func (c *Cluster) await(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Config.Host+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			body, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			last = string(body)
		} else {
			last = err.Error()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready: %s", last)
		}
	}
}
