package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/lockstep-gitops/lockstep/internal/actions"
	"github.com/lockstep-gitops/lockstep/internal/actions/service"
	"github.com/lockstep-gitops/lockstep/internal/azure"
	"github.com/lockstep-gitops/lockstep/internal/bundle"
	"github.com/lockstep-gitops/lockstep/internal/cluster"
	"github.com/lockstep-gitops/lockstep/internal/csi"
	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/gateway"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/saved"
	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/registry"
	"github.com/lockstep-gitops/lockstep/internal/server"
	"github.com/lockstep-gitops/lockstep/web"
)

// forgeUser is the login of the person whose machine this is.
const forgeUser = "developer"

// issuer is the issuer of the cluster's service account tokens, in the form of
// AKS: it is the same for every platform, so that a federated credential that
// names it works on every machine.
const issuer = "https://" + Region + ".oic.prod-aks.azure.com/" + TenantID + "/6c6f636b-7374-6570-8000-636c75737465/"

// system is one platform: its boxes and what they share. Boxes that need the
// node are made while it starts.
type system struct {
	cfg     Config
	log     *slog.Logger
	journal *journal.Journal
	stop    context.CancelFunc
	started time.Time
	steps   *steps
	onReady func()
	ready   atomic.Bool

	ca       *gateway.CA
	gateway  *gateway.Gateway
	azure    *azure.Azure
	registry *registry.Registry
	attest   *image.Attester
	forge    *forge.Forge
	actions  *actions.Actions
	services *service.Service // of workflow jobs
	programs bundle.Paths     // the carried ones; empty when there are none
	jobDoor  net.Listener
	server   *server.Server

	node late // boxes that exist once the node has its network
}

// assemble makes every box that needs nothing of the node.
func (s *system) assemble(ctx context.Context) (err error) {
	if s.ca, err = gateway.OpenCA(gateway.CAConfig{Dir: s.cfg.path("ca")}); err != nil {
		return err
	}
	if err := s.ca.Bundle(s.cfg.path("ca", "bundle.pem"), os.Getenv("SSL_CERT_FILE")); err != nil {
		return err
	}
	proxy := httpproxy.FromEnvironment().ProxyFunc()
	if s.gateway, err = gateway.New(gateway.Config{}, gateway.Deps{Log: s.named("gateway"), CA: s.ca, UpstreamProxy: proxy}); err != nil {
		return err
	}
	if s.azure, err = azure.New(azure.Config{Dir: s.cfg.path("azure"), TenantID: TenantID, SubscriptionID: SubscriptionID, Region: Region},
		azure.Deps{Log: s.named("azure"), Journal: s.journal, ServiceAccountIssuer: issuer, ServiceAccountJWKS: s.serviceAccountKeys, IssuerJWKS: s.issuerKeys}); err != nil {
		return err
	}
	if s.registry, err = registry.New(registry.Config{Dir: s.cfg.path("registry"), AnonymousPull: true},
		registry.Deps{Log: s.named("registry"), Authorizer: registryUsers{s}, Tokens: nil, Registries: registries{s.azure}, Upstream: internet()}); err != nil {
		return err
	}
	if s.attest, err = s.attester(); err != nil {
		return err
	}
	// The forge hands requests about workflows to the engine, and the engine
	// reads the forge's repositories: whoever comes second is bound late.
	var workflows lateHandler
	if s.forge, err = forge.New(forge.Config{Dir: s.cfg.path("forge"), URL: s.cfg.URL("github.localhost"), User: forgeUser},
		forge.Deps{Log: s.named("forge"), Journal: s.journal, Fallback: &workflows, Review: s.reviewPush}); err != nil {
		return err
	}
	if s.programs, err = bundle.Extract(ctx, s.cfg.path("programs")); err != nil && !errors.Is(err, bundle.ErrNoPayload) {
		return err
	}
	if s.jobDoor, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("open the door of workflow jobs: %w", err)
	}
	if s.actions, err = s.newActions(); err != nil {
		return err
	}
	workflows.bind(s.actions.Handler())
	if err := s.newServer(ctx); err != nil {
		return err
	}
	return s.route()
}

// named is the logger of one box.
func (s *system) named(box string) *slog.Logger { return s.log.With("component", box) }

func (s *system) newServer(ctx context.Context) (err error) {
	token, err := s.forge.OwnerToken(ctx)
	if err != nil {
		return err
	}
	page, err := web.Files()
	if err != nil {
		return err
	}
	s.server, err = server.New(server.Config{Socket: s.cfg.Socket(), Token: token, Page: page}, server.Deps{
		Log: s.named("server"), Journal: s.journal, Platform: s.describe,
		Apps: apps{s}, Runs: runs{s.actions}, Components: components{s}, Secrets: secrets{s}, Images: images{s.registry, s.journal, s.attest, apps{s}.images}, Shutdown: s.stop,
	})
	return err
}

// route connects host names with boxes.
func (s *system) route() error {
	routes := []struct {
		hosts   []string
		handler http.Handler
	}{
		{[]string{"github.localhost", "api.github.localhost", "uploads.github.localhost"}, s.forge.Handler()},
		{[]string{service.ResultsHost}, s.services.Handler()},
		{[]string{service.IssuerHost}, s.services.OIDC()},
		{[]string{"localhost", "127.0.0.1", "lockstep.localhost"}, s.page()},
		{[]string{"*.azurecr.io"}, s.registry.Handler()},
	}
	for host, handler := range s.azure.Hosts() {
		routes = append(routes, struct {
			hosts   []string
			handler http.Handler
		}{[]string{host}, handler})
	}
	for _, r := range routes {
		if err := s.gateway.Route(r.hosts, r.handler); err != nil {
			return err
		}
	}
	return nil
}

// page serves the status page and the API, and below /v2/ the registry.
func (s *system) page() http.Handler {
	page, images := s.server.Handler(), s.registry.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/") || strings.HasPrefix(r.URL.Path, "/oauth2/") {
			images.ServeHTTP(w, r)
			return
		}
		if engine := s.node.gitops(); engine != nil && r.URL.Path == "/api/webhook" {
			engine.Webhook().ServeHTTP(w, r) // it proves who sent it by itself
			return
		}
		page.ServeHTTP(w, r)
	})
}

// nodeDoor answers what the node and its pods ask of 10.S.0.1 itself: images
// for the kubelet, and the apiserver's webhook.
func (s *system) nodeDoor(webhook http.Handler) http.Handler {
	images := s.registry.NodeHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !gateway.FromNode(r.Context()):
			http.Error(w, "this address is for the node", http.StatusForbidden)
		case strings.HasPrefix(r.URL.Path, "/v2/") || r.URL.Path == "/v2":
			images.ServeHTTP(w, r)
		case webhook != nil:
			webhook.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

func frontDoorOptions() gateway.Options { return gateway.Options{Proxy: true, Tunnel: true} }

// serviceAccountKeys are the public keys of the cluster's tokens.
func (s *system) serviceAccountKeys(context.Context) ([]byte, error) {
	node := s.node.cluster()
	if node == nil {
		return nil, errors.New("the cluster is still starting")
	}
	return node.ServiceAccountJWKS()
}

// clusterConfig is the node's configuration.
func clusterConfig(cfg Config, subnet netip.Prefix) cluster.Config {
	c := cluster.Config{
		Name: cfg.Name, StateDir: cfg.path("cluster"), Subnet: subnet, NodeName: nodeName(cfg),
		ServiceAccountIssuer: issuer, DNS: map[string]netip.Addr{},
	}
	for _, name := range []string{"*.vault.azure.net", "management.azure.com", "login.microsoftonline.com", "graph.microsoft.com",
		"*.azurecr.io", "*.oic.prod-aks.azure.com", "github.localhost", "api.github.localhost", "token.actions.githubusercontent.com"} {
		c.DNS[name] = c.HostAddr()
	}
	return c
}

func nodeName(cfg Config) string {
	if cfg.Name == DefaultName {
		return "lockstep-node"
	}
	return "lockstep-" + cfg.Name
}

// newImage makes the builder, in the node's network where there is a node.
func (s *system) newImage(buildkitd, runc, netns, mirror, proxy string) (*image.Builder, error) {
	return image.New(image.Config{
		Dir: s.cfg.path("image"), Buildkitd: buildkitd, Runc: runc, NetNS: netns,
		RegistryMirror: mirror, Proxy: proxy, CAFile: s.cfg.path("ca", "ca.crt"), GoBuildCache: s.cfg.goBuildCache(),
	}, image.Deps{Log: s.named("image"), Journal: s.journal, Attester: s.attest})
}

// newCSI makes the Secrets Store driver of the node.
func (s *system) newCSI(node *cluster.Cluster, host netip.Addr) (*csi.Driver, error) {
	clients, err := newClients(node)
	if err != nil {
		return nil, err
	}
	return csi.New(csi.Config{
		NodeName: nodeName(s.cfg), KubeletDir: node.KubeletDir(), TenantID: TenantID,
		WebhookURL: fmt.Sprintf("https://%s", host), WebhookCA: s.ca.PEM(),
	}, csi.Deps{Log: s.named("csi"), Journal: s.journal, Kube: clients.typed, Dynamic: clients.dynamic, Azure: s.gateway.Transport()})
}

// newGitOps makes the engine for a cluster. Its remote sources go by the front
// door: what this machine stands for answers here.
func (s *system) newGitOps(access gitopsAccess, renders *saved.Store) (*gitops.Engine, error) {
	transport, ok := s.gateway.Transport().(*http.Transport)
	if !ok {
		return nil, errors.New("the gateway's transport is of another kind")
	}
	return gitops.New(gitops.Config{}, gitops.Deps{
		Log: s.named("gitops"), Journal: s.journal, Rest: access.config, Repositories: repositories{s.forge},
		StateDir: s.cfg.path("gitops"), Transport: transport, Saved: renders, Forge: ownForge{s.pullForge()},
	})
}
