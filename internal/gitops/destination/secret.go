package destination

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

// Secret is what is needed of a cluster Secret.
type Secret struct {
	Namespace, Name     string
	Version             string // uid and resourceVersion
	Labels, Annotations map[string]string
	Data                map[string][]byte // decoded
}

func (s Secret) key() string { return s.Namespace + "/" + s.Name }

// maxSecret bounds what is read of a Secret, in bytes; Kubernetes stores no more.
const maxSecret = 1 << 20

// SecretOf reads a Secret as the API server returns it. It returns false when
// it is none of a cluster.
func SecretOf(o *unstructured.Unstructured) (Secret, bool) {
	if o.GetKind() != "Secret" || o.GetLabels()[SecretTypeLabel] != SecretTypeCluster {
		return Secret{}, false
	}
	s := Secret{
		Namespace: o.GetNamespace(), Name: o.GetName(), Version: string(o.GetUID()) + "/" + o.GetResourceVersion(),
		Labels: o.GetLabels(), Annotations: maps.Clone(o.GetAnnotations()), Data: map[string][]byte{},
	}
	delete(s.Annotations, "kubectl.kubernetes.io/last-applied-configuration") // it holds the config
	data, _, _ := unstructured.NestedMap(o.Object, "data")
	for key, value := range data {
		text, _ := value.(string)
		if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
			s.Data[key] = decoded
		}
	}
	return s, true
}

// Parse reads a cluster Secret: name, server, config, namespaces,
// clusterResources and project; shard is ignored, for there are no shards.
// local is what the own cluster is reached with when its Secret has no
// credentials; it may be nil. Errors name fields, never values of config.
func Parse(s Secret, local *rest.Config) (*Cluster, error) {
	size := 0
	for _, v := range s.Data {
		size += len(v)
	}
	if size > maxSecret {
		return nil, fmt.Errorf("it has %d bytes; at most %d are read", size, maxSecret)
	}
	c := &Cluster{
		Name: strings.TrimSpace(string(s.Data["name"])), Server: trimServer(string(s.Data["server"])), Project: strings.TrimSpace(string(s.Data["project"])),
		Labels: s.Labels, Annotations: s.Annotations, Secret: s.key(), Version: s.Version, ClusterResources: string(s.Data["clusterResources"]) == "true",
	}
	if err := checkServer(c.Server); err != nil {
		return nil, err
	}
	for n := range strings.SplitSeq(string(s.Data["namespaces"]), ",") {
		if n = strings.TrimSpace(n); n != "" {
			c.Namespaces = append(c.Namespaces, n)
		}
	}
	config, err := parseConfig(s.Data["config"])
	if err != nil {
		return nil, err
	}
	if c.IsLocal() && config.anonymous() {
		if local == nil {
			return nil, errors.New("the own cluster must not be a destination (cluster.inClusterEnabled), and the Secret has no credentials")
		}
		c.Config = local
		return c, nil
	}
	c.Config, err = config.rest(c.Server)
	return c, err
}

func checkServer(server string) error {
	u, err := url.Parse(server)
	switch {
	case server == "":
		return errors.New("server is missing; write the address of the API server, such as https://10.0.0.1:6443")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("server is not an address such as https://10.0.0.1:6443")
	case u.User != nil:
		return errors.New("server must not have credentials in it; write them into config")
	}
	return nil
}
