package generate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/scm"
)

// allowed holds an API address against what the operator allows. The address
// "" is that of the public service.
func (r *run) allowed(api string) error {
	r.result.Remote = true
	if api == "" || len(r.AllowedSCMProviders) == 0 || slices.Contains(r.AllowedSCMProviders, api) {
		return nil
	}
	return fmt.Errorf("the API %q is not among the allowed ones: %s", api, strings.Join(r.AllowedSCMProviders, ", "))
}

// secret reads a key of a Secret beside the ApplicationSet; "" without ref.
func (r *run) secret(ctx context.Context, ref *v1alpha1.SecretRef) (string, error) {
	if ref == nil {
		return "", nil
	}
	data, err := r.Objects.Secret(ctx, r.set.Namespace, ref.SecretName)
	if err != nil {
		return "", fmt.Errorf("tokenRef: %w", err)
	}
	v, ok := data[ref.Key]
	if !ok {
		return "", fmt.Errorf("tokenRef: the Secret %s/%s has no key %q", r.set.Namespace, ref.SecretName, ref.Key)
	}
	return strings.TrimSpace(v), nil
}

// client is the shared one, or one with other rules about certificates.
func (r *run) client(ctx context.Context, insecure bool, ca *v1alpha1.ConfigMapRef) (*http.Client, error) {
	if !insecure && ca == nil {
		return r.HTTP, nil
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if t, own := r.HTTP.Transport.(*http.Transport); own {
		transport, ok = t, true
	}
	if !ok {
		return nil, errors.New("insecure and caRef cannot be used with this HTTP client")
	}
	transport = transport.Clone()
	transport.DisableKeepAlives = true                                                                  // it is used for one generation
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12} //nolint:gosec // asked for by the field insecure
	if ca != nil {
		data, err := r.Objects.ConfigMap(ctx, r.set.Namespace, ca.ConfigMapName)
		if err != nil {
			return nil, fmt.Errorf("caRef: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(data[ca.Key])) {
			return nil, fmt.Errorf("caRef: the ConfigMap %s/%s has no certificate at %q", r.set.Namespace, ca.ConfigMapName, ca.Key)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: transport, Timeout: r.HTTP.Timeout}, nil
}

// github signs in by token, by GitHub App, or not at all.
func (r *run) github(ctx context.Context, api string, ref *v1alpha1.SecretRef, appSecret string) (*scm.GitHub, error) {
	if err := r.allowed(api); err != nil {
		return nil, err
	}
	token, err := r.secret(ctx, ref)
	if err != nil {
		return nil, err
	}
	if appSecret != "" {
		// As Argo CD: the credentials of apps are in the engine's namespace.
		data, err := r.Objects.Secret(ctx, r.Namespace, appSecret)
		if err != nil {
			return nil, fmt.Errorf("appSecretName: %w", err)
		}
		app := scm.App{ID: data["githubAppID"], Installation: data["githubAppInstallationID"], Key: []byte(data["githubAppPrivateKey"])}
		if app.ID == "" || app.Installation == "" || len(app.Key) == 0 {
			return nil, fmt.Errorf("appSecretName: the Secret %s/%s needs githubAppID, githubAppInstallationID and githubAppPrivateKey", r.Namespace, appSecret)
		}
		if token, err = scm.AppToken(ctx, r.HTTP, api, app, time.Now()); err != nil {
			return nil, err
		}
	}
	return scm.NewGitHub(r.HTTP, api, scm.Bearer(token)), nil
}

func shorten(s string, n int) string { return s[:min(len(s), n)] }

func unsupportedProvider(name string) error {
	return fmt.Errorf("the provider %q is not carried out; github, gitlab and gitea are", name)
}
