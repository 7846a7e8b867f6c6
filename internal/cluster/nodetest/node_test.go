//go:build linux

// Package nodetest boots a real node and uses it. It needs root and the
// programs that `go run ./internal/bundle/build` leaves in bin/payload.
package nodetest

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/lockstep-gitops/lockstep/internal/bundle"
	"github.com/lockstep-gitops/lockstep/internal/cluster"
)

var (
	programs = flag.String("programs", "../../../bin/payload", "folder with the node's programs")
	hold     = flag.Duration("hold", 0, "keep the node up for so long after it is ready, to look at it")
	keepDir  = flag.String("state", "", "state folder to use and keep, instead of a new one")
)

// node is a booted cluster under test.
type node struct {
	*cluster.Cluster
	cfg    cluster.Config
	client kubernetes.Interface
	stop   context.CancelFunc
	done   chan error
}

// config returns the configuration of a node for tests, or skips.
func config(t *testing.T) cluster.Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a node makes network namespaces and mounts")
	}
	paths, err := bundle.InDir(*programs)
	if err != nil {
		t.Skipf("needs the node's programs: %v", err)
	}
	state := *keepDir
	if state == "" {
		state = t.TempDir()
	}
	subnet, err := cluster.PickSubnet(state)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("nodetest-%d", os.Getpid())
	if *keepDir != "" {
		name = "nodetest-" + filepath.Base(*keepDir)
	}
	return cluster.Config{
		Name: name, StateDir: state, RunDir: "/run/lockstep/" + name, Subnet: subnet, Programs: paths,
		DNS: map[string]netip.Addr{
			"management.azure.com": netip.AddrFrom4([4]byte{10, subnet.Addr().As4()[1], 0, 1}),
			"*.vault.azure.net":    netip.AddrFrom4([4]byte{10, subnet.Addr().As4()[1], 0, 1}),
		},
	}
}

// boot starts a node and waits until it is ready.
func boot(t *testing.T, cfg cluster.Config) *node {
	t.Helper()
	c, err := cluster.New(cfg, cluster.Deps{Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Cluster: c, cfg: cfg, stop: cancel, done: make(chan error, 1)}
	begin := time.Now()
	go func() { n.done <- c.Run(ctx) }()
	t.Cleanup(func() { n.shutdown(t) })
	select {
	case <-c.Ready():
	case err := <-n.done:
		n.done <- err
		t.Fatalf("node ended before it was ready: %v", err)
	case <-time.After(90 * time.Second):
		for _, part := range c.Components() {
			t.Logf("%+v", part)
		}
		keepLogs(t, cfg)
		t.Fatal("node is not ready after 90 s")
	}
	t.Logf("ready after %.1f s", time.Since(begin).Seconds())
	if err := n.connect(); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) connect() error {
	access, err := n.RESTConfig()
	if err != nil {
		return err
	}
	n.client, err = kubernetes.NewForConfig(access)
	return err
}

// shutdown stops the node; the second time it does nothing.
func (n *node) shutdown(t *testing.T) {
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	begin := time.Now()
	if err := <-n.done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	t.Logf("down after %.1f s", time.Since(begin).Seconds())
}

// keepLogs copies the children's logs to where the test's artifacts are kept.
func keepLogs(t *testing.T, cfg cluster.Config) {
	files, _ := filepath.Glob(filepath.Join(cfg.StateDir, "log", "*.log"))
	for _, file := range files {
		if body, err := os.ReadFile(file); err == nil {
			_ = os.WriteFile(filepath.Join(t.ArtifactDir(), filepath.Base(file)), body, 0o600)
		}
	}
}

func TestHold(t *testing.T) {
	if *hold == 0 {
		t.Skip("-hold is not set")
	}
	boot(t, config(t))
	time.Sleep(*hold)
}
