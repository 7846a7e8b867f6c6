package platform

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lockstep-gitops/lockstep/internal/actions"
	"github.com/lockstep-gitops/lockstep/internal/bundle"
	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cluster"
	"github.com/lockstep-gitops/lockstep/internal/durable"
	"github.com/lockstep-gitops/lockstep/internal/gateway"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/saved"
	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/image/baseimage"
)

// starter runs a part of the platform until the platform ends.
type starter func(what string, run func(context.Context) error)

// late holds the boxes that are made while the platform starts.
type late struct {
	mu     sync.Mutex
	node   *cluster.Cluster
	images *image.Builder
	engine *gitops.Engine
}

func (l *late) set(change func(*late)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func (l *late) cluster() *cluster.Cluster {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.node
}

func (l *late) builder() *image.Builder {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.images
}

func (l *late) gitops() *gitops.Engine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.engine
}

// bringUp starts everything that needs the node, in the order of what they need,
// and declares the platform ready.
func (s *system) bringUp(ctx context.Context, start starter) error {
	programs := s.programs
	if err := s.step(ctx, "programs", func(context.Context) (string, error) {
		switch {
		case programs.Dir != "":
			return "", nil
		case s.cfg.Kubeconfig != "":
			return "none carried: images cannot be built here", nil
		}
		return "", bundle.ErrNoPayload
	}); err != nil {
		return err
	}
	seeded := make(chan []baseimage.Image, 1)
	start("base images", func(ctx context.Context) error {
		seeded <- s.seed(ctx)
		return nil
	})
	if err := s.await(ctx, "git host", s.forge.Ready(), s.cfg.URL("github.localhost")); err != nil {
		return err
	}
	up := s.bringUpNode
	if s.cfg.Kubeconfig != "" {
		up = s.bringUpExisting
	}
	if err := up(ctx, start, programs); err != nil {
		return err
	}
	if err := s.step(ctx, "base images", func(ctx context.Context) (string, error) {
		select {
		case images := <-seeded:
			start("warm-up", func(ctx context.Context) error { s.warm(ctx, images); return nil })
			return describeImages(images), nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}); err != nil {
		return err
	}
	s.ready.Store(true)
	if s.onReady != nil {
		s.onReady()
	}
	return nil
}

// bringUpNode runs a cluster of its own.
func (s *system) bringUpNode(ctx context.Context, start starter, programs bundle.Paths) error {
	subnet, err := cluster.PickSubnet(s.cfg.path("cluster"))
	if err != nil {
		return err
	}
	config := clusterConfig(s.cfg, subnet)
	config.Programs = programs
	node, err := cluster.New(config, cluster.Deps{Log: s.named("cluster"), Journal: s.journal})
	if err != nil {
		return err
	}
	if err := s.step(ctx, "network", func(ctx context.Context) (string, error) {
		return subnet.String(), cluster.SetupNetwork(ctx, config)
	}); err != nil {
		return err
	}
	s.node.set(func(l *late) { l.node = node })
	start("node", node.Run)

	host := config.HostAddr()
	builder, err := s.newImage(programs.Buildkitd, programs.Runc, config.NetNS(), host.String()+":80", "http://"+host.String()+":80")
	if err != nil {
		return err
	}
	s.node.set(func(l *late) { l.images = builder })
	start("image builder", builder.Run)

	if err := s.step(ctx, "Kubernetes API", func(ctx context.Context) (string, error) {
		return config.APIServerURL(), awaitAPI(ctx, node)
	}); err != nil {
		return err
	}
	driver, err := s.newCSI(node, host)
	if err != nil {
		return err
	}
	if err := s.gateway.Route([]string{host.String()}, s.nodeDoor(driver.WebhookHandler())); err != nil {
		return err
	}
	for _, door := range []struct {
		port    uint16
		options gateway.Options
	}{{80, gateway.Options{Node: true, Proxy: true}}, {443, gateway.Options{Node: true, TLS: true}}} {
		l, err := nodeListener(host, door.port)
		if err != nil {
			return err
		}
		start("door of the node", func(ctx context.Context) error { return s.gateway.Serve(ctx, l, door.options) })
	}
	start("secrets driver", driver.Run)
	access, err := node.RESTConfig()
	if err != nil {
		return err
	}
	engine, err := s.startEngine(ctx, access, start)
	if err != nil {
		return err
	}
	if err := s.leaveSheet(ctx, node.KubeconfigPath()); err != nil {
		return err
	}
	if err := s.await(ctx, "node Ready", node.Ready(), "Kubernetes "+kubernetesVersion); err != nil {
		return err
	}
	if err := s.await(ctx, "secrets driver", driver.Ready(), ""); err != nil {
		return err
	}
	if err := s.await(ctx, "GitOps engine", engine.Ready(), ""); err != nil {
		return err
	}
	if s.cfg.UserKubeconfig == "" {
		return nil
	}
	return s.step(ctx, "kubeconfig", func(ctx context.Context) (string, error) {
		name, err := cluster.MergeContext(ctx, config, s.cfg.UserKubeconfig)
		return "context " + name, err
	})
}

// bringUpExisting uses a cluster that somebody else runs.
func (s *system) bringUpExisting(ctx context.Context, start starter, programs bundle.Paths) error {
	access, err := clientcmd.BuildConfigFromFlags("", s.cfg.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.cfg.Kubeconfig, err)
	}
	if programs.Buildkitd != "" {
		door := "127.0.0.1:" + portOf(s.cfg)
		builder, err := s.newImage(programs.Buildkitd, programs.Runc, "", door, "http://"+door)
		if err != nil {
			return err
		}
		s.node.set(func(l *late) { l.images = builder })
		start("image builder", builder.Run)
	}
	engine, err := s.startEngine(ctx, access, start)
	if err != nil {
		return err
	}
	if err := s.leaveSheet(ctx, s.cfg.Kubeconfig); err != nil {
		return err
	}
	return s.await(ctx, "GitOps engine", engine.Ready(), access.Host)
}

// gitopsAccess is how the engine reaches its cluster.
type gitopsAccess struct{ config *rest.Config }

func (s *system) startEngine(ctx context.Context, access *rest.Config, start starter) (*gitops.Engine, error) {
	if err := os.MkdirAll(s.cfg.path("gitops"), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the GitOps engine: %w", err)
	}
	renders, err := saved.Open(ctx, s.cfg.path("gitops", "renders.db"), s.named("gitops"))
	if err != nil {
		return nil, err
	}
	engine, err := s.newGitOps(gitopsAccess{access}, renders)
	if err != nil {
		return nil, errors.Join(err, renders.Close())
	}
	start("saved renders", func(ctx context.Context) error { return errors.Join(renders.Run(ctx), renders.Close()) })
	s.node.set(func(l *late) { l.engine = engine })
	start("GitOps engine", engine.Run)
	start("pull requests", s.newPulls(engine).Run)
	return engine, nil
}

// leaveSheet writes the addresses and credentials for the user's commands.
func (s *system) leaveSheet(ctx context.Context, kubeconfig string) error {
	token, err := s.forge.OwnerToken(ctx)
	if err != nil {
		return err
	}
	owner := s.azure.OwnerCredentials()
	sheet := environment.Sheet{
		Name: s.cfg.Name, Context: s.cfg.Context(), Page: s.cfg.URL("localhost"),
		Forge: s.cfg.URL("github.localhost"), ForgeAPI: s.cfg.URL("api.github.localhost"),
		Registry: "localhost:" + portOf(s.cfg), Proxy: s.cfg.Proxy(), CABundle: s.cfg.path("ca", "bundle.pem"),
		Kubeconfig: kubeconfig, TenantID: TenantID, SubscriptionID: SubscriptionID, Region: Region,
		ClientID: owner.ClientID, ClientSecret: owner.ClientSecret, OIDCIssuer: issuer,
		ForgeUser: forgeUser, ForgeToken: token,
	}
	data, err := sheet.Encode()
	if err != nil {
		return err
	}
	return durable.WriteFile(s.cfg.path(environment.FileName), data, 0o600)
}

// seed makes the base images that builds start from. A machine that cannot make
// them still runs; builds then say which image is missing.
func (s *system) seed(ctx context.Context) []baseimage.Image {
	log := s.named("base images")
	goroot := ""
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		goroot = strings.TrimSpace(string(out))
	}
	images, err := baseimage.Seed(ctx, baseimage.Config{Dir: s.cfg.path("base-images"), GOROOT: goroot},
		baseimage.Deps{Log: log, Transport: s.registry.Transport()})
	if err != nil && ctx.Err() == nil {
		log.Warn("not every base image could be made", "error", err)
	}
	return images
}

func describeImages(images []baseimage.Image) string {
	var names []string
	for _, made := range images {
		if len(made.Tags) > 0 {
			names = append(names, made.Tags[0])
		}
	}
	return strings.Join(names, ", ")
}

// quiet is how long no workflow may have run before the machine counts as idle.
const quiet = time.Minute

// warm brings Go's standard library into the build cache, so that the first
// build of a Go program takes seconds. Where it is not there compiled, that
// waits until the machine is idle.
func (s *system) warm(ctx context.Context, images []baseimage.Image) {
	log := s.named("base images")
	for since := time.Now(); s.cfg.goBuildCache() == "" && time.Since(since) < quiet; {
		if active, err := s.actions.Runs(ctx, actions.Filter{NotEnded: true, Limit: 1}); err != nil || len(active) > 0 {
			since = time.Now()
		}
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return
		}
	}
	builder := s.node.builder()
	for _, made := range images {
		if builder == nil || len(made.Tags) == 0 || !strings.Contains(made.Tags[0], "/golang:") {
			continue
		}
		reference := made.Tags[0][:strings.LastIndex(made.Tags[0], ":")] + "@" + made.Digest
		if err := builder.Warm(ctx, reference); err != nil && ctx.Err() == nil {
			log.Warn("the build cache was not warmed up; the first build takes longer", "error", err)
		}
	}
}

// awaitAPI waits until the apiserver answers that it is ready. What answers
// before ours was started is what a killed supervisor left, about to end.
func awaitAPI(ctx context.Context, node *cluster.Cluster) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if clients, err := newClients(node); err == nil && started(node, "kube-apiserver") {
			probe, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, err = clients.typed.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(probe)
			cancel()
			if err == nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(errors.New("the apiserver did not become ready; see `lockstep logs kube-apiserver`"), ctx.Err())
		}
	}
}

// started reports whether this supervisor has started the component.
func started(node *cluster.Cluster, name string) bool {
	for _, c := range node.Components() {
		if c.Name == name {
			return c.State == cluster.StateRunning
		}
	}
	return false
}

type clients struct {
	typed   kubernetes.Interface
	dynamic dynamic.Interface
}

func newClients(node *cluster.Cluster) (clients, error) {
	access, err := node.RESTConfig()
	if err != nil {
		return clients{}, err
	}
	access.Proxy = http.ProxyURL(nil) // the cluster is on this machine
	typed, err := kubernetes.NewForConfig(access)
	if err != nil {
		return clients{}, err
	}
	untyped, err := dynamic.NewForConfig(access)
	return clients{typed, untyped}, err
}
