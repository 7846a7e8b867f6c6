package csi

import (
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// controller answers the calls by which the suite asks for volumes; ours come
// with their pods.
type controller struct {
	csispec.UnimplementedControllerServer
	context map[string]string
	volumes map[string]bool
}

func (c *controller) CreateVolume(_ context.Context, req *csispec.CreateVolumeRequest) (*csispec.CreateVolumeResponse, error) {
	if req.GetName() == "" || len(req.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "name or capabilities missing")
	}
	c.volumes[req.GetName()] = true
	return &csispec.CreateVolumeResponse{Volume: &csispec.Volume{VolumeId: req.GetName(), VolumeContext: c.context}}, nil
}

func (c *controller) DeleteVolume(_ context.Context, req *csispec.DeleteVolumeRequest) (*csispec.DeleteVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "id missing")
	}
	return &csispec.DeleteVolumeResponse{}, nil
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, req *csispec.ValidateVolumeCapabilitiesRequest) (*csispec.ValidateVolumeCapabilitiesResponse, error) {
	switch {
	case req.GetVolumeId() == "" || len(req.GetVolumeCapabilities()) == 0:
		return nil, status.Error(codes.InvalidArgument, "id or capabilities missing")
	case !c.volumes[req.GetVolumeId()]:
		return nil, status.Error(codes.NotFound, "no such volume")
	}
	return &csispec.ValidateVolumeCapabilitiesResponse{Confirmed: &csispec.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: req.GetVolumeCapabilities()}}, nil
}

func (c *controller) ControllerGetCapabilities(context.Context, *csispec.ControllerGetCapabilitiesRequest) (*csispec.ControllerGetCapabilitiesResponse, error) {
	return &csispec.ControllerGetCapabilitiesResponse{Capabilities: []*csispec.ControllerServiceCapability{{
		Type: &csispec.ControllerServiceCapability_Rpc{Rpc: &csispec.ControllerServiceCapability_RPC{Type: csispec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}}}}}, nil
}

// TestSanity runs the suite of kubernetes-csi with real mounts. As upstream
// does, it skips what needs a controller of volumes.
func TestSanity(t *testing.T) {
	h := newHouse(t)
	address := filepath.Join(h.config.KubeletDir, "controller.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	req := h.request()
	csispec.RegisterControllerServer(server, &controller{context: req.VolumeContext, volumes: map[string]bool{}})
	csispec.RegisterIdentityServer(server, &identity{name: "controller"})
	go func() { _ = server.Serve(l) }()
	defer server.Stop()

	if err := os.MkdirAll(filepath.Join(h.config.KubeletDir, "pods"), 0o750); err != nil { // as kubelet has
		t.Fatal(err)
	}
	config := sanity.NewTestConfig()
	config.Address = "unix://" + h.config.socket()
	config.ControllerAddress = "unix://" + address
	config.TargetPath = filepath.Join(h.config.KubeletDir, "pods", "sanity")
	config.StagingPath = filepath.Join(h.config.KubeletDir, "staging")
	config.IdempotentCount = 0 // needs CreateVolume of the driver itself
	// The suite cannot ask for read-only volumes, nor send kubelet's tokens.
	published := 0
	config.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, r, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if publish, ok := r.(*csispec.NodePublishVolumeRequest); ok {
				published++
				publish.Readonly = true
				publish.Secrets = maps.Clone(req.Secrets)
			}
			return invoke(ctx, method, r, reply, cc, opts...)
		})}
	sanity.Test(t, config)
	if published == 0 || h.azure.Count("secret") == 0 {
		t.Errorf("%d volumes published, %d secrets read: the suite did not reach the driver", published, h.azure.Count("secret"))
	}
}
