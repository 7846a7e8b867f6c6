// Package azure fetches the objects of a SecretProviderClass from Azure Key
// Vault, as the pod that mounts them.
//
// Input: the class's parameters (keyvaultName, tenantId, clientID, objects …)
// and the pod's service account token. Output: files and object versions.
//
// Invariants: every read is authorised by the pod's own identity; no value is
// kept or shown; a failure says who asked, for what, which right is missing and
// the command that mends it, with Azure's own error code.
//
// Start reading at [Provider.Mount].
package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"golang.org/x/sync/errgroup"

	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
)

const (
	parallelReads = 4       // objects of one volume that are read at a time
	maxResponse   = 4 << 20 // bytes of one HTTP response
)

// Config is where Azure is.
type Config struct {
	// TenantID is used where class and service account name none.
	TenantID string
	// AuthorityHost is Entra's URL, "https://login.microsoftonline.com/".
	AuthorityHost string
	// VaultDNSSuffix follows the vault's name, "vault.azure.net".
	VaultDNSSuffix string
}

// Accounts returns the annotations of a service account.
type Accounts func(ctx context.Context, namespace, name string) (map[string]string, error)

// Deps are what a Provider works with.
type Deps struct {
	// Transport reaches the vaults and Entra.
	Transport http.RoundTripper
	Accounts  Accounts
	Now       func() time.Time
}

// Provider reads secrets from Key Vault. It is safe for concurrent use.
type Provider struct {
	config     Config
	transport  http.RoundTripper
	accounts   Accounts
	now        func() time.Time
	identities identityCache
}

var _ provider.Provider = (*Provider)(nil)

// New makes a Provider.
func New(config Config, deps Deps) *Provider {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &Provider{config: config, transport: deps.Transport, accounts: deps.Accounts, now: deps.Now}
}

// Mount implements [provider.Provider].
func (p *Provider) Mount(ctx context.Context, req provider.Request) (provider.Result, error) {
	params, err := parseParameters(req.Attributes)
	if err != nil {
		return provider.Result{}, invalid("%v", err)
	}
	id, err := p.identify(ctx, params, req)
	if err != nil {
		return provider.Result{}, err
	}
	client, err := azsecrets.NewClient("https://"+params.vault+"."+p.config.VaultDNSSuffix+"/", id,
		&azsecrets.ClientOptions{ClientOptions: p.options()})
	if err != nil {
		return provider.Result{}, invalid("key vault %q: %v", params.vault, err)
	}
	result := provider.Result{
		Files:    make([]volume.File, len(params.objects)),
		Versions: make(map[string]string, len(params.objects)),
		Source:   fmt.Sprintf("key vault %q as client id %s", params.vault, id.clientID),
		Warnings: params.warnings,
	}
	versions := make([]string, len(params.objects))
	// The first read alone brings the challenge and the access token; the
	// others then share them.
	read := func(ctx context.Context, i int) error {
		o := params.objects[i]
		content, version, err := readSecret(ctx, client, o)
		if err != nil {
			return p.explain(err, params.vault, o, id)
		}
		mode, err := o.mode(req.Mode)
		if err != nil {
			return invalid("%v", err)
		}
		result.Files[i] = volume.File{Path: o.file(), Mode: mode, Data: content}
		versions[i] = version
		return nil
	}
	if err := guard(func() error { return read(ctx, 0) }); err != nil {
		return provider.Result{}, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelReads)
	for i := 1; i < len(params.objects); i++ {
		group.Go(func() error { return guard(func() error { return read(groupCtx, i) }) })
	}
	if err := group.Wait(); err != nil {
		return provider.Result{}, err
	}
	for i, o := range params.objects {
		result.Versions[o.id()] = versions[i]
	}
	return result, nil
}

// guard turns a panic of a client library, which reads what a server sent,
// into an error of this one mount.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("reading from Azure panicked: %v", r)
		}
	}()
	return f()
}

// readSecret reads one object; version "" means the latest.
func readSecret(ctx context.Context, client *azsecrets.Client, o object) (content []byte, version string, err error) {
	resp, err := client.GetSecret(ctx, o.Name, o.Version, nil)
	if err != nil {
		return nil, "", err
	}
	if resp.Value == nil || resp.ID == nil {
		return nil, "", errors.New("the vault answered without a value")
	}
	if resp.KID != nil && resp.ContentType != nil && *resp.ContentType == "application/x-pkcs12" && !strings.EqualFold(o.Format, "pfx") {
		return nil, "", invalid("%s belongs to a certificate in PFX form, and turning that into PEM is not supported yet; set objectFormat: pfx to mount it as it is, or issue the certificate as PEM", o.Name)
	}
	content, err = o.decode(*resp.Value)
	if err != nil {
		return nil, "", invalid("%v", err)
	}
	return content, resp.ID.Version(), nil
}

// options are what every Azure client here shares.
func (p *Provider) options() azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: p.config.AuthorityHost, Services: map[cloud.ServiceName]cloud.ServiceConfiguration{}},
		Transport: &boundedClient{http.Client{Transport: p.transport, CheckRedirect: noRedirect}},
		Telemetry: policy.TelemetryOptions{ApplicationID: "lockstep-csi"},
		// Retry-After is honoured; kubelet tries again when these are used up.
		Retry: policy.RetryOptions{MaxRetries: 3, RetryDelay: 500 * time.Millisecond, MaxRetryDelay: 8 * time.Second},
	}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// boundedClient is an HTTP client whose responses end at maxResponse.
type boundedClient struct{ http.Client }

func (c *boundedClient) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxResponse), resp.Body}
	return resp, nil
}
