package project

import (
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

type account struct {
	server, namespace matcher
	name              string // "name" or "namespace:name"
}

func (c *compiler) account(i int, from v1alpha1.DestinationServiceAccount) account {
	at := fmt.Sprintf("destinationServiceAccounts[%d].", i)
	name := strings.TrimSpace(from.DefaultServiceAccount)
	namespace, short, two := strings.Cut(name, ":")
	switch {
	case name == "" || strings.ContainsAny(name, `!*[]{}\/`):
		c.bad(at+"defaultServiceAccount", `%q is not a name, or "namespace:name"`, from.DefaultServiceAccount)
	case two && (namespace == "" || short == "" || strings.Contains(short, ":")):
		c.bad(at+"defaultServiceAccount", `%q is not "namespace:name"`, from.DefaultServiceAccount)
	}
	for field, value := range map[string]string{"server": from.Server, "namespace": from.Namespace} {
		if strings.HasPrefix(value, "!") {
			c.bad(at+field, `%q: a pattern here cannot deny`, value)
		}
	}
	return account{c.glob(at+"server", from.Server, 0), c.glob(at+"namespace", from.Namespace, 0), name}
}

// Impersonates reports whether the project names accounts for its syncs.
func (p *Project) Impersonates() bool { return len(p.accounts) > 0 }

// ServiceAccount returns the user that a sync to a destination acts as,
// "system:serviceaccount:<namespace>:<name>": that of the first entry that
// matches. appNamespace stands in where the destination has no namespace. It
// is an error when no entry matches: then the sync has no rights.
func (p *Project) ServiceAccount(cluster Cluster, namespace, appNamespace string) (string, error) {
	home := namespace
	if home == "" {
		home = appNamespace
	}
	for _, a := range p.accounts {
		if !a.server.match(cluster.Server) || !a.namespace.match(namespace) {
			continue
		}
		if ns, name, ok := strings.Cut(a.name, ":"); ok {
			return "system:serviceaccount:" + ns + ":" + name, nil
		}
		return "system:serviceaccount:" + home + ":" + a.name, nil
	}
	return "", fmt.Errorf("AppProject %s names no service account for namespace %q of %s (destinationServiceAccounts); add an entry that matches", p.Name, namespace, cluster.Server)
}
