package cluster

import (
	"fmt"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfigUsers are the identities that get a kubeconfig file of their own;
// each is the name of its certificate too.
func kubeconfigUsers() []string {
	return []string{"admin", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns"}
}

// writeKubeconfigs writes one kubeconfig per identity. They refer to the
// certificates by path, so that a renewal needs nothing more; only admin's
// holds everything within, for people copy it.
func (c Config) writeKubeconfigs() error {
	l := c.layout()
	for _, user := range kubeconfigUsers() {
		cfg := api.NewConfig()
		cfg.Clusters["lockstep"] = &api.Cluster{Server: c.APIServerURL(), CertificateAuthority: l.pki(clusterCA + ".crt")}
		cfg.AuthInfos[user] = &api.AuthInfo{ClientCertificate: l.pki(user + ".crt"), ClientKey: l.pki(user + ".key")}
		cfg.Contexts["lockstep"] = &api.Context{Cluster: "lockstep", AuthInfo: user}
		cfg.CurrentContext = "lockstep"
		if user == "admin" {
			if err := api.FlattenConfig(cfg); err != nil {
				return fmt.Errorf("kubeconfig of %s: %w", user, err)
			}
		}
		body, err := clientcmd.Write(*cfg)
		if err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", user, err)
		}
		if err := writeFile(l.kubeconfig(user), body, 0o600); err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", user, err)
		}
	}
	return nil
}

// contextName is the name of the platform's context in the user's kubeconfig.
func (c Config) contextName() string {
	if c.Name == "lockstep" {
		return "lockstep"
	}
	return "lockstep-" + c.Name
}

// adminKubeconfig is the file that holds the administrator's access.
func (c Config) adminKubeconfig() string { return filepath.Clean(c.layout().kubeconfig("admin")) }
