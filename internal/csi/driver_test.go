package csi

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/lockstep-gitops/lockstep/internal/csi/azuretest"
	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The journal's database closes its opener after the test ended.
		goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"),
		// The sanity suite's runner waits for signals as long as it lives.
		goleak.IgnoreAnyFunction("github.com/onsi/ginkgo/v2/internal/interrupt_handler.(*InterruptHandler).registerForInterrupts.func2"))
}

const clientID = "aaaaaaaa-0000-0000-0000-000000000001"

// house is a running driver with an apiserver and an Azure around it.
type house struct {
	*Driver
	t       *testing.T
	api     *apiServer
	azure   *azuretest.Azure
	events  *journal.Journal
	node    csispec.NodeClient
	conn    *grpc.ClientConn
	clock   *clock
	restart func()
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const class = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: web, namespace: shop}
spec:
  provider: azure
  parameters:
    keyvaultName: shop-kv
    clientID: ` + clientID + `
    tenantId: ` + azuretest.Tenant + `
    objects: |
      array:
        - |
          objectName: db-password
          objectType: secret
`

const classPath = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/secretproviderclasses/web"
const statusPath = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/secretproviderclasspodstatuses/web-1-shop-web"

func newHouse(t *testing.T, change ...func(*Config)) *house {
	if os.Geteuid() != 0 {
		t.Skip("mounting tmpfs needs root")
	}
	dir, err := os.MkdirTemp("", "csi") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		targets, _ := filepath.Glob(dir + "/pods/*/mount")
		for _, target := range targets {
			if err := volume.Unmount(target); err != nil {
				t.Error(err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	h := &house{t: t, api: newAPIServer(t), azure: azuretest.New(t), clock: &clock{now: time.Now()}}
	h.azure.Put("shop-kv", "db-password", azuretest.Secret{Value: "hunter2", Version: "v1"})
	h.azure.Register(clientID, azuretest.App{ObjectID: "oid", Subjects: []string{"system:serviceaccount:shop:web"}, Vaults: []string{"shop-kv"}})
	h.api.put(t, classPath, class)
	h.api.put(t, "/api/v1/namespaces/shop/pods/web-1", "{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, uid: u1, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: rs1, controller: true}]}}")
	if h.events, err = journal.Open(t.Context(), filepath.Join(t.TempDir(), "journal")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.events.Close() })
	config := Config{NodeName: "node-1", KubeletDir: dir, TenantID: azuretest.Tenant, WebhookURL: "https://10.1.0.1", WebhookCA: []byte("pem")}
	for _, f := range change {
		f(&config)
	}
	var stop func()
	h.restart = func() {
		if stop != nil {
			stop()
		}
		h.Driver, stop = h.start(config)
	}
	h.restart()
	t.Cleanup(func() { stop() })
	if h.conn, err = grpc.NewClient("unix://"+config.socket(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.conn.Close() })
	h.node = csispec.NewNodeClient(h.conn)
	return h
}

// start runs a driver until stop is called.
func (h *house) start(config Config) (*Driver, func()) {
	h.t.Helper()
	d, err := New(config, Deps{Log: slog.New(slog.DiscardHandler), Journal: h.events, Kube: h.api.kube, Dynamic: h.api.dynamic, Azure: h.azure.Transport, Now: h.clock.Now})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	select {
	case <-d.Ready():
	case err := <-done:
		h.t.Fatalf("Run ended: %v", err)
	case <-time.After(10 * time.Second):
		h.t.Fatal("not ready")
	}
	return d, func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run = %v", err)
		}
	}
}

// request is what kubelet sends for the pod shop/web-1.
func (h *house) request() *csispec.NodePublishVolumeRequest {
	return &csispec.NodePublishVolumeRequest{
		VolumeId: "csi-1", TargetPath: h.target("u1"), Readonly: true,
		VolumeCapability: &csispec.VolumeCapability{AccessType: &csispec.VolumeCapability_Mount{Mount: &csispec.VolumeCapability_MountVolume{}}},
		VolumeContext: map[string]string{attrClass: "web", provider.AttrPodName: "web-1", provider.AttrPodNamespace: "shop",
			provider.AttrPodUID: "u1", provider.AttrServiceAccount: "web", "csi.storage.k8s.io/ephemeral": "true"},
		Secrets: map[string]string{provider.Tokens: azuretest.AccountToken(h.t, "shop", "web")},
	}
}

func (h *house) target(uid string) string {
	return filepath.Join(h.config.KubeletDir, "pods", uid, "mount")
}

func (h *house) publish(req *csispec.NodePublishVolumeRequest) error {
	_, err := h.node.NodePublishVolume(h.t.Context(), req)
	return err
}

func (h *house) mustPublish(req *csispec.NodePublishVolumeRequest) {
	h.t.Helper()
	if err := h.publish(req); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) unpublish() {
	h.t.Helper()
	if _, err := h.node.NodeUnpublishVolume(h.t.Context(), &csispec.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: h.target("u1")}); err != nil {
		h.t.Fatal(err)
	}
}

// content is what the pod reads.
func (h *house) content(name string) string {
	data, _ := os.ReadFile(filepath.Join(h.target("u1"), name))
	return string(data)
}

// messages are the journal's events, "status: message | hint".
func (h *house) messages() []string {
	h.t.Helper()
	events, err := h.events.Events(h.t.Context(), journal.Query{})
	if err != nil {
		h.t.Fatal(err)
	}
	var all []string
	for _, e := range events {
		if e.Stage != journal.StageSecret {
			h.t.Errorf("event of stage %s", e.Stage)
		}
		for _, text := range append([]string{e.Message, e.Hint}, valuesOf(e.Data)...) {
			if strings.Contains(text, "hunter") || strings.Contains(text, "eyJ") {
				h.t.Errorf("the journal shows a secret: %+v", e)
			}
		}
		all = append(all, string(e.Status)+": "+e.Message+" | "+e.Hint)
	}
	return all
}

func valuesOf(m map[string]string) []string {
	var all []string
	for v := range maps.Values(m) {
		all = append(all, v)
	}
	return all
}

func TestRunInstalls(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/secretproviderclasses.secrets-store.csi.x-k8s.io",
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io",
	} {
		if h.api.get(path) == nil {
			t.Errorf("%s is missing", path)
		}
	}
	spec, _ := h.api.get("/apis/storage.k8s.io/v1/csidrivers/secrets-store.csi.k8s.io")["spec"].(map[string]any)
	for key, want := range map[string]bool{"attachRequired": false, "podInfoOnMount": true, "requiresRepublish": true, "serviceAccountTokenInSecrets": true} {
		if spec[key] != want {
			t.Errorf("CSIDriver %s = %v, want %v", key, spec[key], want)
		}
	}
	hooks, _ := h.api.get("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/azure-wi-webhook-mutating-webhook-configuration")["webhooks"].([]any)
	if len(hooks) != 1 || hooks[0].(map[string]any)["clientConfig"].(map[string]any)["url"] != "https://10.1.0.1/mutate-v1-pod" {
		t.Errorf("webhooks = %v", hooks)
	}
	for _, a := range h.api.applied {
		if !strings.HasSuffix(a, " lockstep-csi") {
			t.Errorf("applied by another manager: %s", a)
		}
	}
}

func TestRegistration(t *testing.T) {
	h := newHouse(t)
	conn, err := grpc.NewClient("unix://"+h.config.registrationSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := registration.NewRegistrationClient(conn)
	info, err := client.GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Type != "CSIPlugin" || info.Name != "secrets-store.csi.k8s.io" || info.Endpoint != h.config.socket() || len(info.SupportedVersions) != 1 || info.SupportedVersions[0] != "1.0.0" {
		t.Errorf("info = %v", info)
	}
	for _, s := range []*registration.RegistrationStatus{{PluginRegistered: true}, {Error: "version too old"}} {
		if _, err := client.NotifyRegistrationStatus(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	if got := h.messages(); len(got) != 1 || !strings.Contains(got[0], "version too old") {
		t.Errorf("journal = %q", got)
	}
	if info, err := os.Stat(h.config.registrationSocket()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket's mode is %v, %v", info.Mode(), err)
	}
}

// TestRunReplacesStaleSockets: a killed driver leaves its sockets behind.
func TestRunReplacesStaleSockets(t *testing.T) {
	h := newHouse(t)
	h.mustPublish(h.request())
	h.restart()
	if _, err := os.Stat(h.config.socket()); err != nil {
		t.Error(err)
	}
	other := Config{NodeName: "n", KubeletDir: h.config.KubeletDir, DriverName: "other"}
	l, err := listen(t.Context(), other.withDefaults().registrationSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The file stays when its process is killed.
	again, err := listen(t.Context(), other.withDefaults().registrationSocket())
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
	file := filepath.Join(h.config.KubeletDir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), file); err == nil {
		t.Error("replaced a file that is no socket")
	}
}

func TestConfigValidate(t *testing.T) {
	ok := Config{NodeName: "n", KubeletDir: "/var/lib/kubelet"}
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"NodeName is empty":         func(c *Config) { c.NodeName = "" },
		"is not absolute":           func(c *Config) { c.KubeletDir = "kubelet" },
		"Linux allows 107":          func(c *Config) { c.KubeletDir = "/" + strings.Repeat("d", 90) },
		"without a path":            func(c *Config) { c.WebhookURL, c.WebhookCA = "https://h/p", []byte("x") },
		"WebhookCA is empty":        func(c *Config) { c.WebhookURL = "https://h" },
		"AuthorityHost":             func(c *Config) { c.AuthorityHost = "http://login" },
		"must not be negative":      func(c *Config) { c.Parallel = -1 },
		`WebhookURL "http://h:1" i`: func(c *Config) { c.WebhookURL = "http://h:1" },
	} {
		c := ok
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q in it", err, want)
		}
	}
}
