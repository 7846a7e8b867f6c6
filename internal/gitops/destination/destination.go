// Package destination knows the clusters that Applications may name.
//
// Input: cluster Secrets in Argo CD's format (label
// argocd.argoproj.io/secret-type: cluster) and the configuration of the
// cluster that Lockstep runs on. Output: [Set], which finds the [Cluster] that
// a destination means, by server or by name.
//
// Invariants: a Secret that cannot be understood takes nobody else's cluster
// away: its own name and server are found with the error that says why. No
// error and no printed Cluster shows what is in config.
//
// Start reading at [NewSet], then [Parse].
package destination

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sort"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// The cluster that Lockstep runs on, as destinations name it.
const (
	LocalName   = "in-cluster"
	LocalServer = "https://kubernetes.default.svc"
)

// Labels of cluster Secrets.
const (
	SecretTypeLabel   = "argocd.argoproj.io/secret-type"
	SecretTypeCluster = "cluster"
)

// Cluster is one registered cluster. Labels and Annotations are those of its
// Secret, for the generators of ApplicationSets.
type Cluster struct {
	Name        string
	Server      string // without a trailing slash
	Project     string // that it is scoped to, "" for all
	Labels      map[string]string
	Annotations map[string]string
	// Namespaces are those that may be watched and written; none means all.
	Namespaces []string
	// ClusterResources says that cluster-scoped objects are handled although
	// Namespaces are named.
	ClusterResources bool
	Secret           string // "namespace/name" of the Secret, "" for the local cluster without one
	Version          string // changes when the Secret does; "" for none
	// Config is how to reach it, without rate limits. It holds credentials and
	// must not be printed or changed.
	Config *rest.Config
}

// IsLocal reports whether it is the cluster that Lockstep runs on.
func (c *Cluster) IsLocal() bool { return c.Server == LocalServer }

// Permits reports whether objects of a namespace ("" for cluster-scoped ones)
// are handled in this cluster.
func (c *Cluster) Permits(namespace string) bool {
	if len(c.Namespaces) == 0 {
		return true
	}
	if namespace == "" {
		return c.ClusterResources
	}
	return slices.Contains(c.Namespaces, namespace)
}

// String is the cluster for people, without credentials.
func (c *Cluster) String() string {
	if c.Name == "" || c.Name == c.Server {
		return c.Server
	}
	return c.Name + " (" + c.Server + ")"
}

// GoString keeps %#v from printing credentials.
func (c *Cluster) GoString() string { return "destination.Cluster{" + c.String() + "}" }

// LogValue implements slog.LogValuer.
func (c *Cluster) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Set is the clusters of one moment. It never changes and is safe for
// concurrent use.
type Set struct {
	clusters []*Cluster // by server
	servers  map[string]*Cluster
	names    map[string][]*Cluster
	broken   []*Problem
}

// Problem is a Secret that could not be understood.
type Problem struct {
	Secret       string // "namespace/name"
	Name, Server string // as far as they could be read
	Err          error
}

// Error implements error.
func (p *Problem) Error() string { return fmt.Sprintf("cluster Secret %s: %v", p.Secret, p.Err) }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// NewSet makes a set from the cluster Secrets, in any order. local is the
// configuration of the own cluster; nil where it must not be used
// (cluster.inClusterEnabled: "false").
func NewSet(local *rest.Config, secrets []Secret) *Set {
	s := &Set{servers: map[string]*Cluster{}, names: map[string][]*Cluster{}}
	secrets = slices.Clone(secrets)
	sort.Slice(secrets, func(i, j int) bool { return secrets[i].key() < secrets[j].key() })
	for _, secret := range secrets {
		c, err := Parse(secret, local)
		if err == nil {
			if other := s.servers[c.Server]; other != nil {
				err = fmt.Errorf("the Secret %s has the same server %s; remove one of them", other.Secret, c.Server)
			}
		}
		if err != nil {
			s.broken = append(s.broken, &Problem{secret.key(), string(secret.Data["name"]), trimServer(string(secret.Data["server"])), err})
			continue
		}
		s.add(c)
	}
	if local != nil && s.servers[LocalServer] == nil && s.brokenAt("", LocalServer) == nil {
		s.add(&Cluster{Name: LocalName, Server: LocalServer, Config: local})
	}
	sort.Slice(s.clusters, func(i, j int) bool { return s.clusters[i].Server < s.clusters[j].Server })
	return s
}

func (s *Set) add(c *Cluster) {
	s.clusters = append(s.clusters, c)
	s.servers[c.Server] = c
	if c.Name != "" {
		s.names[c.Name] = append(s.names[c.Name], c)
	}
}

// Find returns the cluster that a destination names.
func (s *Set) Find(d v1alpha1.Destination) (*Cluster, error) {
	switch {
	case d.Name != "" && d.Server != "":
		return nil, fmt.Errorf("spec.destination names a cluster twice, by name %s and by server %s; keep one of them", d.Name, shown(d.Server))
	case d.Server != "":
		return s.byServer(trimServer(d.Server))
	case d.Name != "":
		return s.byName(d.Name)
	}
	return nil, errors.New("spec.destination names no cluster; set name (such as in-cluster) or server (such as " + LocalServer + ")")
}

func (s *Set) byServer(server string) (*Cluster, error) {
	if c := s.servers[server]; c != nil {
		return c, nil
	}
	if p := s.brokenAt("", server); p != nil {
		return nil, p
	}
	return nil, fmt.Errorf("spec.destination.server: there is no cluster %s; create a Secret for it with the label %s: %s", shown(server), SecretTypeLabel, SecretTypeCluster)
}

func (s *Set) byName(name string) (*Cluster, error) {
	found := s.names[name]
	if len(found) == 0 && name == LocalName && s.servers[LocalServer] != nil { // its Secret has another name
		found = []*Cluster{s.servers[LocalServer]}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if p := s.brokenAt(name, ""); p != nil {
			return nil, p
		}
		return nil, fmt.Errorf("spec.destination.name: there is no cluster named %s; create a Secret for it with the label %s: %s", name, SecretTypeLabel, SecretTypeCluster)
	}
	var servers []string
	for _, c := range found {
		servers = append(servers, c.Server)
	}
	sort.Strings(servers)
	return nil, fmt.Errorf("spec.destination.name: %d clusters are named %s (%s); write the server instead", len(found), name, strings.Join(servers, ", "))
}

func (s *Set) brokenAt(name, server string) *Problem {
	for _, p := range s.broken {
		if name != "" && p.Name == name || server != "" && p.Server == server {
			return p
		}
	}
	return nil
}

// All returns the clusters by server, with the local one.
func (s *Set) All() []*Cluster { return slices.Clone(s.clusters) }

// Problems returns the Secrets that could not be understood.
func (s *Set) Problems() []*Problem { return slices.Clone(s.broken) }

func trimServer(server string) string {
	return strings.TrimRight(strings.TrimSpace(server), "/")
}

// shown is an address without what may be a password in it.
func shown(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return "(not an address)"
	}
	return u.Redacted()
}
