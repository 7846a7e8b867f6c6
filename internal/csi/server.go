package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// stopTimeout is how long calls in flight may take once the driver ends.
const stopTimeout = 5 * time.Second

// listen makes a Unix socket that only our user may use. A socket that a killed
// predecessor left is replaced.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("listen on %s: a file that is no socket is in the way; remove it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	return l, nil
}

// serve answers gRPC on l until the returned function is called.
func (d *Driver) serve(l net.Listener, register func(grpc.ServiceRegistrar)) (stop func()) {
	server := grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); err != nil {
			d.log.Error("socket ended", "socket", l.Addr().String(), "error", err)
		}
	}()
	return func() {
		force := time.AfterFunc(stopTimeout, server.Stop)
		server.GracefulStop() // closes l, which removes the socket
		force.Stop()
		<-done
	}
}

// intercept turns a panic into an error of its call, and logs what failed.
// Requests hold tokens, so only their method is named.
func (d *Driver) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			d.log.Error("call panicked", "method", info.FullMethod, "panic", r, "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "%s panicked; see Lockstep's log", info.FullMethod)
		} else if err != nil {
			d.log.Warn("call failed", "method", info.FullMethod, "error", err)
		}
	}()
	return handler(ctx, req)
}

// registerDriver adds the services that kubelet calls to mount.
func (d *Driver) registerDriver(s grpc.ServiceRegistrar) {
	csispec.RegisterIdentityServer(s, &identity{name: d.config.DriverName})
	csispec.RegisterNodeServer(s, &node{Driver: d})
}

// registerRegistration adds the service by which kubelet finds the driver.
func (d *Driver) registerRegistration(s grpc.ServiceRegistrar) {
	registration.RegisterRegistrationServer(s, &registrar{Driver: d})
}

// identity is CSI's Identity service.
type identity struct {
	csispec.UnimplementedIdentityServer
	name string
}

func (i *identity) GetPluginInfo(context.Context, *csispec.GetPluginInfoRequest) (*csispec.GetPluginInfoResponse, error) {
	return &csispec.GetPluginInfoResponse{Name: i.name, VendorVersion: "lockstep"}, nil
}

func (i *identity) GetPluginCapabilities(context.Context, *csispec.GetPluginCapabilitiesRequest) (*csispec.GetPluginCapabilitiesResponse, error) {
	return &csispec.GetPluginCapabilitiesResponse{}, nil
}

func (i *identity) Probe(context.Context, *csispec.ProbeRequest) (*csispec.ProbeResponse, error) {
	return &csispec.ProbeResponse{}, nil
}

// registrar is kubelet's plugin registration service.
type registrar struct {
	registration.UnsafeRegistrationServer
	*Driver
}

// GetInfo tells kubelet where the driver listens.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.config.DriverName,
		Endpoint: r.config.socket(), SupportedVersions: []string{"1.0.0"}}, nil
}

// NotifyRegistrationStatus hears whether kubelet took the driver. Kubelet tries
// again by itself.
func (r *registrar) NotifyRegistrationStatus(ctx context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if s.GetPluginRegistered() {
		r.log.Info("kubelet registered the CSI driver", "driver", r.config.DriverName)
		return &registration.RegistrationStatusResponse{}, nil
	}
	r.log.Error("kubelet refused the CSI driver", "driver", r.config.DriverName, "reason", s.GetError())
	r.record(ctx, journal.Event{Subject: r.config.DriverName, Status: journal.StatusFailed,
		Message: "kubelet refused the CSI driver: " + s.GetError(), Hint: "it tries again; pods with secret volumes wait meanwhile"})
	return &registration.RegistrationStatusResponse{}, nil
}
