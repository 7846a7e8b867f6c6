// Package csi is the Secrets Store CSI driver of one node, with its Azure
// provider and the workload identity webhook, in the supervisor's process.
//
// Input: kubelet's calls on a Unix socket, SecretProviderClass objects, pods on
// their way through admission. Output: tmpfs volumes with secrets in them, a
// SecretProviderClassPodStatus for each, Kubernetes Secrets where a class asks
// for them, and pods with what the Azure SDKs need to sign in.
//
// Invariants: a pod starts only with all of its secrets; a secret is read with
// the right of the pod that mounts it; a volume once mounted keeps its last good
// content when a store fails; after kill -9 the kernel's mounts are the truth,
// nothing else is remembered; values appear in volumes and Secrets only.
//
// Start reading at [Driver.Run], then (*node).NodePublishVolume in node.go.
package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/lockstep-gitops/lockstep/internal/csi/azure"
	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
	"github.com/lockstep-gitops/lockstep/internal/csi/workloadidentity"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// fieldManager owns what the driver applies to the cluster.
const fieldManager = "lockstep-csi"

// Deps are what the driver works with.
type Deps struct {
	Log     *slog.Logger
	Journal journal.Appender
	// Kube and Dynamic reach the apiserver with the rights of an administrator.
	Kube    kubernetes.Interface
	Dynamic dynamic.Interface
	// Azure reaches https://<vault>.<VaultDNSSuffix> and AuthorityHost.
	Azure http.RoundTripper
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Driver is the CSI driver of one node.
type Driver struct {
	config    Config
	log       *slog.Logger
	journal   journal.Appender
	kube      kubernetes.Interface
	dynamic   dynamic.Interface
	now       func() time.Time
	providers map[string]provider.Provider // by SecretProviderClass.spec.provider
	webhook   http.Handler
	volumes   volumes
	slots     chan struct{} // one per mount that reads from a store
	ready     chan struct{}
}

// New makes a driver. Nothing happens before [Driver.Run].
func New(config Config, deps Deps) (*Driver, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil || deps.Journal == nil || deps.Kube == nil || deps.Dynamic == nil || deps.Azure == nil {
		return nil, errors.New("csi: Deps needs Log, Journal, Kube, Dynamic and Azure")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	config = config.withDefaults()
	d := &Driver{
		config: config, log: deps.Log, journal: deps.Journal, kube: deps.Kube, dynamic: deps.Dynamic, now: deps.Now,
		slots: make(chan struct{}, config.Parallel), ready: make(chan struct{}),
	}
	d.providers = map[string]provider.Provider{
		"azure": azure.New(
			azure.Config{TenantID: config.TenantID, AuthorityHost: config.AuthorityHost, VaultDNSSuffix: config.VaultDNSSuffix},
			azure.Deps{Transport: deps.Azure, Accounts: d.accountAnnotations, Now: deps.Now}),
	}
	d.webhook = workloadidentity.New(
		workloadidentity.Config{TenantID: config.TenantID, AuthorityHost: config.AuthorityHost},
		workloadidentity.Deps{Log: deps.Log, Accounts: d.accountAnnotations})
	return d, nil
}

// Run installs the driver's objects in the cluster, serves kubelet and returns
// nil when ctx ends. Volumes stay mounted: they belong to their pods.
func (d *Driver) Run(ctx context.Context) error {
	driver, err := listen(ctx, d.config.socket())
	if err != nil {
		return fmt.Errorf("csi: %w", err)
	}
	stopDriver := d.serve(driver, d.registerDriver)
	defer stopDriver()
	// Kubelet hears of the driver only now, so that its first mount already
	// finds the CSIDriver object that says what a mount needs.
	if !d.installUntilDone(ctx) {
		return nil
	}
	registration, err := listen(ctx, d.config.registrationSocket())
	if err != nil {
		return fmt.Errorf("csi: %w", err)
	}
	stopRegistration := d.serve(registration, d.registerRegistration)
	defer stopRegistration()
	close(d.ready)
	<-ctx.Done()
	return nil
}

// Ready is closed when the cluster holds the driver's objects and kubelet can
// find the driver. Kubelet itself registers it within a second or so.
func (d *Driver) Ready() <-chan struct{} { return d.ready }

// WebhookHandler answers the apiserver's admission reviews of pods at
// [workloadidentity.Path]. It works without Run.
func (d *Driver) WebhookHandler() http.Handler { return d.webhook }

// accountAnnotations reads a service account, live: a pod may follow its
// account within milliseconds.
func (d *Driver) accountAnnotations(ctx context.Context, namespace, name string) (map[string]string, error) {
	account, err := d.kube.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return account.Annotations, nil
}

// record leaves an event; a journal that fails must not fail a mount.
func (d *Driver) record(ctx context.Context, e journal.Event) {
	e.Stage = journal.StageSecret
	if _, err := d.journal.Append(context.WithoutCancel(ctx), e); err != nil {
		d.log.Error("journal refused an event", "subject", e.Subject, "error", err)
	}
}
