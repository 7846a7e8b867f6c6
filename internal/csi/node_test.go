package csi

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lockstep-gitops/lockstep/internal/csi/azuretest"
	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
)

func TestPublish(t *testing.T) {
	h := newHouse(t)
	h.mustPublish(h.request())
	if got := h.content("db-password"); got != "hunter2" {
		t.Errorf("the pod reads %q", got)
	}
	if mounted, err := volume.Mounted(h.target("u1")); !mounted || err != nil {
		t.Errorf("mounted = %v, %v", mounted, err)
	}
	s := h.api.get(statusPath)
	body, _ := s["status"].(map[string]any)
	objects, _ := body["objects"].([]any)
	meta, _ := s["metadata"].(map[string]any)
	owners, _ := meta["ownerReferences"].([]any)
	if body["podName"] != "web-1" || body["secretProviderClassName"] != "web" || body["mounted"] != true || body["targetPath"] != h.target("u1") ||
		len(objects) != 1 || objects[0].(map[string]any)["id"] != "secret/db-password" || objects[0].(map[string]any)["version"] != "v1" {
		t.Errorf("status = %v", body)
	}
	if len(owners) != 1 || owners[0].(map[string]any)["uid"] != "u1" || meta["labels"].(map[string]any)["internal.secrets-store.csi.k8s.io/node-name"] != "node-1" {
		t.Errorf("metadata = %v", meta)
	}
	h.unpublish()
	h.unpublish() // idempotent
	if _, err := os.Lstat(h.target("u1")); !os.IsNotExist(err) {
		t.Errorf("target is still there: %v", err)
	}
	if got := h.messages(); len(got) != 2 || !strings.HasPrefix(got[0], "started: ") || !strings.HasPrefix(got[1], "succeeded: mounted secret/db-password from key vault \"shop-kv\" as client id") {
		t.Errorf("journal = %q", got)
	}
}

func TestPublishGroup(t *testing.T) {
	h := newHouse(t)
	req := h.request()
	req.VolumeCapability.GetMount().VolumeMountGroup = "2000"
	h.mustPublish(req)
	info, err := os.Stat(filepath.Join(h.target("u1"), "db-password"))
	if err != nil {
		t.Fatal(err)
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; gid != 2000 {
		t.Errorf("group of the file is %d", gid)
	}
	if got := h.api.get(statusPath)["status"].(map[string]any)["fsGroup"]; got != "2000" {
		t.Errorf("fsGroup = %v", got)
	}
}

func TestPublishBadRequests(t *testing.T) {
	h := newHouse(t)
	for name, change := range map[string]func(*csispec.NodePublishVolumeRequest){
		"no capability":   func(r *csispec.NodePublishVolumeRequest) { r.VolumeCapability = nil },
		"no volume id":    func(r *csispec.NodePublishVolumeRequest) { r.VolumeId = "" },
		"no target":       func(r *csispec.NodePublishVolumeRequest) { r.TargetPath = "" },
		"no context":      func(r *csispec.NodePublishVolumeRequest) { r.VolumeContext = nil },
		"writable":        func(r *csispec.NodePublishVolumeRequest) { r.Readonly = false },
		"no class":        func(r *csispec.NodePublishVolumeRequest) { delete(r.VolumeContext, attrClass) },
		"no pod":          func(r *csispec.NodePublishVolumeRequest) { delete(r.VolumeContext, "csi.storage.k8s.io/pod.name") },
		"foreign target":  func(r *csispec.NodePublishVolumeRequest) { r.TargetPath = "/etc" },
		"target climbs":   func(r *csispec.NodePublishVolumeRequest) { r.TargetPath += "/../../../../etc" },
		"kubelet's own":   func(r *csispec.NodePublishVolumeRequest) { r.TargetPath = h.config.KubeletDir },
		"group by a name": func(r *csispec.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().VolumeMountGroup = "staff" },
	} {
		t.Run(name, func(t *testing.T) {
			req := h.request()
			change(req)
			if err := h.publish(req); status.Code(err) != codes.InvalidArgument {
				t.Errorf("error = %v", err)
			}
		})
	}
	_, err := h.node.NodeUnpublishVolume(t.Context(), &csispec.NodeUnpublishVolumeRequest{VolumeId: "x", TargetPath: "/etc"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("unpublish of /etc = %v", err)
	}
}

// TestPublishFailures: a pod without its secrets must not start, nothing stays
// mounted, and the message that becomes the pod's event says what to do.
func TestPublishFailures(t *testing.T) {
	tests := []struct {
		name   string
		breaks func(h *house)
		code   codes.Code
		want   []string
	}{
		{"no class", func(h *house) { h.api.remove(classPath) }, codes.NotFound, []string{"secretproviderclass shop/web", "does not exist"}},
		{"other provider", func(h *house) { h.api.put(t, classPath, strings.Replace(class, "azure", "vault", 1)) }, codes.InvalidArgument, []string{`provider "vault" is not supported`, "supported: azure"}},
		{"no right", func(h *house) {
			h.azure.Register(clientID, azuretest.App{ObjectID: "oid", Subjects: []string{"system:serviceaccount:shop:web"}})
		}, codes.PermissionDenied, []string{"pod shop/web-1", clientID, `"Key Vault Secrets User"`, "az role assignment create", "ForbiddenByRbac"}},
		{"no secret", func(h *house) { h.api.put(t, classPath, strings.Replace(class, "db-password", "nope", 1)) }, codes.NotFound, []string{"lockstep secret set shop-kv/nope"}},
		{"status refused", func(h *house) {
			h.api.refuseWith(func(method, path string) *metav1.Status {
				if method == "PATCH" && path == statusPath {
					return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 403, Reason: metav1.StatusReasonForbidden, Message: "quota"}
				}
				return nil
			})
		}, codes.Unavailable, []string{"write secretproviderclasspodstatus", "quota"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			tt.breaks(h)
			for range 3 { // kubelet's retries
				err := h.publish(h.request())
				if status.Code(err) != tt.code {
					t.Fatalf("error = %v, want %v", err, tt.code)
				}
				for _, w := range tt.want {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("error lacks %q: %v", w, err)
					}
				}
			}
			if mounted, _ := volume.Mounted(h.target("u1")); mounted {
				t.Error("still mounted")
			}
			if got := h.messages(); len(got) != 2 || !strings.HasPrefix(got[1], "failed: ") {
				t.Errorf("journal holds %d events, want one start and one failure for all retries: %q", len(got), got)
			}
		})
	}
}

func TestRecovery(t *testing.T) {
	h := newHouse(t)
	h.azure.Register(clientID, azuretest.App{ObjectID: "oid", Subjects: []string{"system:serviceaccount:shop:web"}})
	if err := h.publish(h.request()); err == nil {
		t.Fatal("mounted without a right")
	}
	h.azure.Register(clientID, azuretest.App{ObjectID: "oid", Subjects: []string{"system:serviceaccount:shop:web"}, Vaults: []string{"shop-kv"}})
	h.mustPublish(h.request())
	got := h.messages()
	if last := got[len(got)-1]; !strings.HasPrefix(last, "succeeded: ") {
		t.Errorf("journal = %q", got)
	}
}

func TestRotation(t *testing.T) {
	h := newHouse(t)
	h.mustPublish(h.request())
	h.azure.Put("shop-kv", "db-password", azuretest.Secret{Value: "hunter3", Version: "v2"})
	h.clock.pass(time.Minute)
	h.mustPublish(h.request())
	if got := h.content("db-password"); got != "hunter2" {
		t.Errorf("read anew before the interval: %q", got)
	}
	h.clock.pass(90 * time.Second)
	h.mustPublish(h.request())
	if got := h.content("db-password"); got != "hunter3" {
		t.Errorf("after the interval the pod reads %q", got)
	}
	if v := h.api.get(statusPath)["status"].(map[string]any)["objects"].([]any)[0].(map[string]any)["version"]; v != "v2" {
		t.Errorf("status has version %v", v)
	}
	got := h.messages()
	if last := got[len(got)-1]; !strings.HasPrefix(last, "succeeded: rotated secret/db-password") {
		t.Errorf("journal = %q", got)
	}
	reads := h.azure.Count("secret")
	h.mustPublish(h.request())
	if h.azure.Count("secret") != reads {
		t.Error("read again right after")
	}
}

// TestOutage: a running pod keeps its last good secrets, and one event says so.
func TestOutage(t *testing.T) {
	h := newHouse(t)
	h.mustPublish(h.request())
	h.azure.Register(clientID, azuretest.App{ObjectID: "oid", Subjects: []string{"system:serviceaccount:shop:web"}})
	for range 3 {
		h.clock.pass(3 * time.Minute)
		h.mustPublish(h.request())
		if got := h.content("db-password"); got != "hunter2" {
			t.Fatalf("the pod reads %q", got)
		}
	}
	events := h.api.list("/api/v1/namespaces/shop/events/")
	if len(events) != 1 || events[0]["reason"] != "MountRotationFailed" || !strings.Contains(events[0]["message"].(string), "az role assignment create") {
		t.Errorf("events = %v", events)
	}
	h.azure.Register(clientID, azuretest.App{ObjectID: "oid", Subjects: []string{"system:serviceaccount:shop:web"}, Vaults: []string{"shop-kv"}})
	h.clock.pass(3 * time.Minute)
	h.mustPublish(h.request())
	got := h.messages()
	if len(got) != 4 || !strings.HasPrefix(got[2], "failed: not refreshed") || !strings.HasPrefix(got[3], "succeeded: secrets are up to date again") {
		t.Errorf("journal = %q", got)
	}
}

func TestRotationOff(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.RotationPollInterval = -1 })
	h.mustPublish(h.request())
	h.azure.Put("shop-kv", "db-password", azuretest.Secret{Value: "hunter3", Version: "v2"})
	h.clock.pass(time.Hour)
	h.mustPublish(h.request())
	if got := h.content("db-password"); got != "hunter2" {
		t.Errorf("rotated to %q", got)
	}
}

// TestRestart: a driver that was killed finds its mounts by the kernel's word.
func TestRestart(t *testing.T) {
	h := newHouse(t)
	h.mustPublish(h.request())
	h.azure.Put("shop-kv", "db-password", azuretest.Secret{Value: "hunter3", Version: "v2"})
	h.restart()
	h.mustPublish(h.request()) // nothing is remembered, so it is read at once
	if got := h.content("db-password"); got != "hunter3" {
		t.Errorf("after a restart the pod reads %q", got)
	}
	h.restart()
	h.unpublish()
	if _, err := os.Lstat(h.target("u1")); !os.IsNotExist(err) {
		t.Errorf("target is still there: %v", err)
	}
}

// TestKilledWhileMounting: a mount without content is done anew, and fails
// like a first one, so that no pod starts with an empty volume.
func TestKilledWhileMounting(t *testing.T) {
	h := newHouse(t)
	if err := volume.Mount(h.target("u1")); err != nil {
		t.Fatal(err)
	}
	h.api.remove(classPath)
	if err := h.publish(h.request()); status.Code(err) != codes.NotFound {
		t.Errorf("error = %v", err)
	}
	if mounted, _ := volume.Mounted(h.target("u1")); mounted {
		t.Error("still mounted after a failure")
	}
	if err := volume.Mount(h.target("u1")); err != nil {
		t.Fatal(err)
	}
	h.api.put(t, classPath, class)
	h.mustPublish(h.request())
	if got := h.content("db-password"); got != "hunter2" {
		t.Errorf("the pod reads %q", got)
	}
}

func TestOneCallPerTarget(t *testing.T) {
	h := newHouse(t)
	var aborted, ok atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			switch err := h.publish(h.request()); status.Code(err) {
			case codes.OK:
				ok.Add(1)
			case codes.Aborted:
				aborted.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ok.Load() == 0 || ok.Load()+aborted.Load() != 8 {
		t.Errorf("%d ok, %d aborted", ok.Load(), aborted.Load())
	}
	h.unpublish()
}

func TestVolumesAreBounded(t *testing.T) {
	var v volumes
	for i := range 3 * maxVolumes {
		_, release, _ := v.acquire(strings.Repeat("t", i%100) + string(rune('a'+i/100)))
		release()
	}
	if len(v.by) > maxVolumes {
		t.Errorf("%d volumes remembered", len(v.by))
	}
}

func TestSecretObjects(t *testing.T) {
	const pair = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
	h := newHouse(t)
	h.azure.Put("shop-kv", "tls", azuretest.Secret{Value: pair, Version: "t1"})
	with := strings.Replace(class, "        - |\n", "        - |\n          objectName: tls\n          objectType: secret\n        - |\n", 1) + `
  secretObjects:
    - secretName: db
      type: Opaque
      labels: {team: shop}
      data: [{objectName: db-password, key: password}]
    - secretName: cert
      type: kubernetes.io/tls
      data: [{objectName: tls, key: tls.key}, {objectName: tls, key: tls.crt}]
`
	h.api.put(t, classPath, with)
	h.mustPublish(h.request())
	db := h.api.get("/api/v1/namespaces/shop/secrets/db")
	meta, _ := db["metadata"].(map[string]any)
	if db["type"] != "Opaque" || db["data"].(map[string]any)["password"] != "aHVudGVyMg==" ||
		meta["labels"].(map[string]any)["secrets-store.csi.k8s.io/managed"] != "true" || meta["labels"].(map[string]any)["team"] != "shop" {
		t.Errorf("secret = %v", db)
	}
	if owners, _ := meta["ownerReferences"].([]any); len(owners) != 1 || owners[0].(map[string]any)["uid"] != "rs1" {
		t.Errorf("owners = %v", owners)
	}
	cert := h.api.get("/api/v1/namespaces/shop/secrets/cert")["data"].(map[string]any)
	if cert["tls.key"] == cert["tls.crt"] || cert["tls.key"] == "" {
		t.Errorf("tls Secret = %v", cert)
	}
	// A second owner joins, the value rotates.
	h.api.put(t, "/api/v1/namespaces/shop/pods/web-1", "{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, uid: u1}}")
	h.azure.Put("shop-kv", "db-password", azuretest.Secret{Value: "hunter3", Version: "v2"})
	h.clock.pass(3 * time.Minute)
	h.mustPublish(h.request())
	db = h.api.get("/api/v1/namespaces/shop/secrets/db")
	if owners, _ := db["metadata"].(map[string]any)["ownerReferences"].([]any); len(owners) != 2 || db["data"].(map[string]any)["password"] != "aHVudGVyMw==" {
		t.Errorf("secret after rotation = %v", db)
	}
	h.unpublish()
	h.api.put(t, classPath, strings.Replace(with, "objectName: db-password, key", "objectName: typo, key", 1))
	if err := h.publish(h.request()); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `no object is mounted as "typo"`) {
		t.Errorf("error = %v", err)
	}
}
