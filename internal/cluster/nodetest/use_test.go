//go:build linux

package nodetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lockstep-gitops/lockstep/internal/cluster"
)

// testImage builds the test program and wraps it into an image archive.
func testImage(t *testing.T, reference string) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "testapp")
	cmd := exec.Command("go", "build", "-o", program, "./testapp")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build test program: %v\n%s", err, out)
	}
	archive, err := cluster.OneFileImage(program, reference)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// deploy makes a Deployment and waits until all replicas are available.
func (n *node) deploy(t *testing.T, name, image string, replicas int32) {
	t.Helper()
	ctx := t.Context()
	labels := map[string]string{"app": name}
	grace := int64(1)
	begin := time.Now()
	_, err := n.client.AppsV1().Deployments("default").Create(ctx, &apps.Deployment{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: apps.DeploymentSpec{
			Replicas: &replicas,
			Selector: &meta.LabelSelector{MatchLabels: labels},
			Template: core.PodTemplateSpec{
				ObjectMeta: meta.ObjectMeta{Labels: labels},
				Spec: core.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []core.Container{{
					Name: "app", Image: image, ImagePullPolicy: core.PullIfNotPresent,
					Ports:          []core.ContainerPort{{ContainerPort: 8080}},
					ReadinessProbe: &core.Probe{PeriodSeconds: 1, ProbeHandler: core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Port: intstr.FromInt32(8080)}}},
				}}},
			},
		},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.available(t, name, replicas)
	t.Logf("deployment %s: %d replicas available after %.1f s", name, replicas, time.Since(begin).Seconds())
}

func (n *node) available(t *testing.T, name string, replicas int32) {
	t.Helper()
	eventually(t, "deployment "+name+" available", func() error {
		d, err := n.client.AppsV1().Deployments("default").Get(t.Context(), name, meta.GetOptions{})
		if err == nil && (d.Status.AvailableReplicas != replicas || d.Status.ObservedGeneration != d.Generation) {
			pods, _ := n.client.CoreV1().Pods("default").List(t.Context(), meta.ListOptions{LabelSelector: "app=" + name})
			err = fmt.Errorf("status %+v, pods %s", d.Status, podStates(pods))
		}
		return err
	})
}

func podStates(pods *core.PodList) string {
	var b strings.Builder
	for _, p := range pods.Items {
		fmt.Fprintf(&b, "%s %s %+v; ", p.Name, p.Status.Phase, p.Status.ContainerStatuses)
	}
	return b.String()
}

// expose makes a Service of type LoadBalancer and returns its addresses.
func (n *node) expose(t *testing.T, name string) (clusterIP, lbIP string) {
	t.Helper()
	_, err := n.client.CoreV1().Services("default").Create(t.Context(), &core.Service{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: core.ServiceSpec{
			Type: core.ServiceTypeLoadBalancer, Selector: map[string]string{"app": name},
			Ports: []core.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "address of service "+name, func() error {
		s, err := n.client.CoreV1().Services("default").Get(t.Context(), name, meta.GetOptions{})
		if err == nil && len(s.Status.LoadBalancer.Ingress) == 0 {
			err = fmt.Errorf("no address in status")
		}
		if err == nil {
			clusterIP, lbIP = s.Spec.ClusterIP, s.Status.LoadBalancer.Ingress[0].IP
		}
		return err
	})
	return clusterIP, lbIP
}

// eventually calls f until it returns nil, for at most 40 s.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 40 s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// get returns the body of a page, which must answer 200.
func get(ctx context.Context, address string) (string, error) {
	client := &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", address, res.Status, body)
	}
	return string(body), err
}

func (n *node) host() string  { return n.cfg.HostAddr().String() }
func (n *node) dnsAt() string { return net.JoinHostPort(n.cfg.NodeAddr().String(), "53") }

func (n *node) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, n.dnsAt())
	}}
}

func TestNode(t *testing.T) {
	cfg := config(t)
	n := boot(t, cfg)
	if _, err := n.ImportImage(t.Context(), bytes.NewReader(testImage(t, "storefront.azurecr.io/web:1"))); err != nil {
		t.Fatal(err)
	}
	n.deploy(t, "web", "storefront.azurecr.io/web:1", 2)
	clusterIP, lbIP := n.expose(t, "web")

	t.Run("host reaches the Service", func(t *testing.T) {
		for _, ip := range []string{clusterIP, lbIP} {
			eventually(t, ip, func() error {
				body, err := get(t.Context(), "http://"+ip)
				if err == nil && !strings.HasPrefix(body, "web-") {
					err = fmt.Errorf("answer %q, want a pod's name", body)
				}
				return err
			})
		}
	})
	t.Run("pod reaches Services and the host", func(t *testing.T) {
		l, err := net.Listen("tcp", net.JoinHostPort(n.host(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "host for "+r.RemoteAddr) })}
		go server.Serve(l)
		defer server.Close()
		for target, want := range map[string]string{
			"http://web.default.svc.cluster.local": "web-", "http://web": "web-", "http://" + lbIP: "web-",
			"http://" + l.Addr().String(): "host for " + strings.TrimSuffix(cfg.PodRange().Addr().String(), "0"),
		} {
			for range 6 { // both pods, also one's own
				body, err := get(t.Context(), "http://"+clusterIP+"/get?url="+url.QueryEscape(target))
				if err != nil || !strings.HasPrefix(body, want) {
					t.Errorf("pod -> %s: %q, %v, want %q…", target, body, err, want)
				}
			}
		}
	})
	t.Run("DNS", func(t *testing.T) { testDNS(t, n, clusterIP) })
	t.Run("logs through the apiserver", func(t *testing.T) {
		pods, err := n.client.CoreV1().Pods("default").List(t.Context(), meta.ListOptions{})
		if err != nil || len(pods.Items) == 0 {
			t.Fatal(len(pods.Items), err)
		}
		if _, err := n.client.CoreV1().Pods("default").GetLogs(pods.Items[0].Name, &core.PodLogOptions{}).DoRaw(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("pull through the registry mirror", func(t *testing.T) { testPull(t, n) })
	t.Run("kubelet killed", func(t *testing.T) { testKubeletKilled(t, n) })
	n.shutdown(t)
	checkNothingLeft(t, cfg)
}

func testDNS(t *testing.T, n *node, clusterIP string) {
	for query, want := range map[string]string{
		"web.default.svc.cluster.local.":        clusterIP,
		"kubernetes.default.svc.cluster.local.": n.cfg.ServiceRange().Addr().Next().String(),
		"management.azure.com.":                 n.host(),
		"storefront-kv.vault.azure.net.":        n.host(),
	} {
		begin := time.Now()
		addrs, err := n.resolver().LookupHost(t.Context(), query)
		if err != nil || len(addrs) != 1 || addrs[0] != want {
			t.Errorf("host: %s = %v, %v, want %s", query, addrs, err, want)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("host: %s took %s", query, took)
		}
		body, err := get(t.Context(), "http://"+clusterIP+"/lookup?name="+query)
		if err != nil || body != want {
			t.Errorf("pod: %s = %q, %v, want %s", query, body, err, want)
		}
	}
	for _, query := range []string{"example.com.", "vault.azure.net.", "xmanagement.azure.com.", "no.default.svc.cluster.local."} {
		_, err := n.resolver().LookupHost(t.Context(), query)
		if dnsErr, ok := err.(*net.DNSError); !ok || !dnsErr.IsNotFound {
			t.Errorf("host: %s: %v, want that it does not exist", query, err)
		}
	}
}

// testPull serves a registry where the platform's is and runs an image of
// some other registry's name.
func testPull(t *testing.T, n *node) {
	l, err := net.Listen("tcp", net.JoinHostPort(n.host(), "80"))
	if err != nil {
		t.Fatal(err)
	}
	namespaces := make(chan string, 64)
	handler := registry.New()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case namespaces <- r.URL.Query().Get("ns"):
		default:
		}
		handler.ServeHTTP(w, r)
	})}
	go server.Serve(l)
	defer server.Close()
	archive := testImage(t, n.host()+"/pulled:1")
	image, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(n.host()+"/pulled:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	for len(namespaces) > 0 {
		<-namespaces
	}
	n.deploy(t, "pulled", "contoso.azurecr.io/pulled:1", 1)
	if ns := <-namespaces; ns != "contoso.azurecr.io" {
		t.Errorf("registry was asked with ns=%q, want the name of the registry that was meant", ns)
	}
}

func component(t *testing.T, n *node, name string) cluster.Component {
	t.Helper()
	for _, part := range n.Components() {
		if part.Name == name {
			return part
		}
	}
	t.Fatalf("no component %s", name)
	return cluster.Component{}
}

func testKubeletKilled(t *testing.T, n *node) {
	before := component(t, n, "kubelet")
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "kubelet runs again", func() error {
		now := component(t, n, "kubelet")
		if now.State != cluster.StateRunning || now.PID == before.PID || now.Restarts != before.Restarts+1 {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	if reason := component(t, n, "kubelet").Reason; !strings.Contains(reason, "signal killed") {
		t.Errorf("reason %q does not name the signal", reason)
	}
	n.deploy(t, "after", "storefront.azurecr.io/web:1", 1)
}

// killedSupervisor boots a node in a process of its own with one deployment,
// and kills that process with SIGKILL.
func killedSupervisor(t *testing.T) (cfg cluster.Config, state string) {
	t.Helper()
	state = *keepDir
	if state == "" {
		config(t) // skips
		state = filepath.Join(t.TempDir(), strconv.Itoa(os.Getpid()))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestHold$", "-hold=10m", "-state="+state, "-programs="+*programs)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	keep := *keepDir
	*keepDir = state
	defer func() { *keepDir = keep }()
	eventually(t, "subnet picked", func() error { _, err := os.Stat(filepath.Join(state, "subnet")); return err })
	cfg = config(t)
	n := &node{cfg: cfg}
	if n.Cluster, err = cluster.New(cfg, cluster.Deps{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node of the other process", func() error {
		if err := n.connect(); err != nil {
			return err
		}
		_, err := n.client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", meta.GetOptions{})
		if err == nil {
			_, err = n.ImportImage(t.Context(), bytes.NewReader(testImage(t, "storefront.azurecr.io/web:1")))
		}
		return err
	})
	n.deploy(t, "web", "storefront.azurecr.io/web:1", 2)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cfg, state
}

func TestSupervisorKilled(t *testing.T) {
	cfg, _ := killedSupervisor(t)
	n := boot(t, cfg)
	eventually(t, "pods adopted", func() error {
		pods, err := n.client.CoreV1().Pods("default").List(t.Context(), meta.ListOptions{})
		if err != nil {
			return err
		}
		if len(pods.Items) != 2 {
			return fmt.Errorf("%d pods, want 2", len(pods.Items))
		}
		for _, p := range pods.Items {
			s := p.Status.ContainerStatuses
			if len(s) != 1 || !s[0].Ready || s[0].RestartCount != 0 {
				return fmt.Errorf("%s", podStates(pods))
			}
			if body, err := get(t.Context(), "http://"+p.Status.PodIP+":8080"); err != nil || body != p.Name {
				return fmt.Errorf("pod %s answers %q, %v", p.Name, body, err)
			}
		}
		return nil
	})
	n.deploy(t, "after", "storefront.azurecr.io/web:1", 1)
	n.shutdown(t)
	checkNothingLeft(t, cfg)

	n = boot(t, cfg) // warm: the state is still there, the pods come back
	n.available(t, "web", 2)
	n.available(t, "after", 1)
	n.shutdown(t)
	checkNothingLeft(t, cfg)
}

func TestDownWithoutSupervisor(t *testing.T) {
	cfg, _ := killedSupervisor(t)
	for range 2 { // the second time there is nothing to do
		if err := cluster.Down(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		checkNothingLeft(t, cfg)
	}
}

// checkNothingLeft looks for what a node might leave on the machine.
func checkNothingLeft(t *testing.T, cfg cluster.Config) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		for _, mark := range []string{cfg.StateDir + "/", cfg.RunDir + "/", cfg.NetNS()} {
			if strings.Contains(line, mark) {
				t.Errorf("mount is left: %s", line)
			}
		}
	}
	for _, pattern := range []string{cfg.RunDir, cfg.NetNS(), "/sys/fs/cgroup" + cfg.CgroupRoot(), "/sys/fs/cgroup/*" + cfg.CgroupRoot()} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		body, _ := os.ReadFile(file)
		line := strings.ReplaceAll(string(body), "\x00", " ")
		if strings.Contains(line, cfg.RunDir+"/") || strings.Contains(line, "="+cfg.StateDir+"/") {
			t.Errorf("process is left: %s %s", file, line)
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == fmt.Sprintf("lks%dh", cfg.Subnet.Addr().As4()[1]) {
			t.Errorf("interface is left: %s", l.Name)
		}
	}
	if entries, err := os.ReadDir("/var/log/containers"); err == nil {
		for _, e := range entries {
			if to, _ := os.Readlink(filepath.Join("/var/log/containers", e.Name())); strings.HasPrefix(to, cfg.StateDir) {
				t.Errorf("link is left: %s", e.Name())
			}
		}
	}
}
