package csi

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxSocketPath is what fits into a sockaddr_un with its final zero.
	maxSocketPath = 107

	defaultDriverName    = "secrets-store.csi.k8s.io"
	defaultAuthorityHost = "https://login.microsoftonline.com/"
	defaultVaultSuffix   = "vault.azure.net"
	defaultRotation      = 2 * time.Minute
	defaultMountTimeout  = 45 * time.Second // kubelet itself gives up after 2 minutes
	defaultParallel      = 8
)

// Config says which node the driver serves and where Azure is.
type Config struct {
	// NodeName is the name of the Node whose kubelet calls.
	NodeName string
	// KubeletDir is kubelet's --root-dir, absolute. The driver's sockets and
	// every volume lie below it, so it must be short: a socket's path may have
	// 107 bytes, and kubelet dials "<KubeletDir>/plugins_registry/<driver>-reg.sock".
	KubeletDir string
	// DriverName is the CSI driver's name, "secrets-store.csi.k8s.io".
	DriverName string
	// TenantID is the Entra tenant where a class or service account names none.
	TenantID string
	// AuthorityHost is Entra's URL, "https://login.microsoftonline.com/".
	AuthorityHost string
	// VaultDNSSuffix follows a vault's name, "vault.azure.net".
	VaultDNSSuffix string
	// RotationPollInterval is how old a mount may get before it is read anew,
	// when kubelet next asks (about once a minute); 0 is 2 minutes, negative
	// switches rotation off.
	RotationPollInterval time.Duration
	// MountTimeout bounds one mount; 0 is 45 seconds.
	MountTimeout time.Duration
	// Parallel bounds the mounts that read from a store at a time; 0 is 8.
	Parallel int
	// WebhookURL is where the apiserver reaches [Driver.WebhookHandler], an
	// https URL without a path, or "" to leave the webhook out.
	WebhookURL string
	// WebhookCA is the PEM bundle that signed the webhook's certificate.
	WebhookCA []byte
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	set := func(s *string, preset string) {
		if *s == "" {
			*s = preset
		}
	}
	set(&c.DriverName, defaultDriverName)
	set(&c.AuthorityHost, defaultAuthorityHost)
	set(&c.VaultDNSSuffix, defaultVaultSuffix)
	if c.RotationPollInterval == 0 {
		c.RotationPollInterval = defaultRotation
	}
	if c.MountTimeout == 0 {
		c.MountTimeout = defaultMountTimeout
	}
	if c.Parallel == 0 {
		c.Parallel = defaultParallel
	}
	c.KubeletDir = filepath.Clean(c.KubeletDir)
	c.AuthorityHost = strings.TrimSuffix(c.AuthorityHost, "/") + "/"
	c.WebhookURL = strings.TrimSuffix(c.WebhookURL, "/")
	return c
}

// Validate reports everything that is wrong with the Config.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("NodeName is empty"))
	}
	if !filepath.IsAbs(c.KubeletDir) {
		errs = append(errs, fmt.Errorf("KubeletDir %q is not absolute", c.KubeletDir))
	}
	for _, socket := range []string{c.socket(), c.registrationSocket()} {
		if len(socket) > maxSocketPath {
			errs = append(errs, fmt.Errorf("socket path %s has %d bytes and Linux allows %d; choose a state directory with a shorter path", socket, len(socket), maxSocketPath))
		}
	}
	if u, err := url.Parse(c.AuthorityHost); err != nil || u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("AuthorityHost %q is not an https URL", c.AuthorityHost))
	}
	if c.WebhookURL != "" {
		if u, err := url.Parse(c.WebhookURL); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" {
			errs = append(errs, fmt.Errorf("WebhookURL %q is not an https URL without a path", c.WebhookURL))
		}
		if len(c.WebhookCA) == 0 {
			errs = append(errs, errors.New("WebhookCA is empty, so the apiserver could not trust WebhookURL"))
		}
	}
	if c.MountTimeout < 0 || c.Parallel < 0 {
		errs = append(errs, errors.New("MountTimeout and Parallel must not be negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("csi: %w", err)
	}
	return nil
}

// socket is where the driver serves CSI.
func (c Config) socket() string {
	return filepath.Join(c.KubeletDir, "plugins", "csi-secrets-store", "csi.sock")
}

// registrationSocket is where kubelet looks for plugins.
func (c Config) registrationSocket() string {
	return filepath.Join(c.KubeletDir, "plugins_registry", c.DriverName+"-reg.sock")
}

func (c Config) rotates() bool { return c.RotationPollInterval > 0 }
