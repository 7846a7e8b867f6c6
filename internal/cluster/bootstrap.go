package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// pollEvery is the pause between two looks at something that cannot be
// watched: another process' socket or readiness page.
const pollEvery = 50 * time.Millisecond

// poll calls f until it returns true or an error, or ctx ends.
func poll(ctx context.Context, f func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if done, err := f(ctx); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// gates are what children wait for before they are started. Each component
// would also retry by itself, but slower, and with a log full of errors.
type gates struct {
	cfg    Config
	access *rest.Config
}

func newGates(cfg Config, access *rest.Config) *gates { return &gates{cfg, access} }

// etcd needs no gate: the apiserver waits for it well.
func (g *gates) etcd(context.Context) error { return nil }

// apiserver waits until requests are answered, with RBAC's default roles.
func (g *gates) apiserver(ctx context.Context) error {
	client, err := rest.HTTPClientFor(g.access)
	if err != nil {
		return fmt.Errorf("access to the cluster: %w", err)
	}
	return poll(ctx, httpOK(client, g.cfg.APIServerURL()+"/readyz"))
}

// kubelet waits for containerd and the apiserver.
func (g *gates) kubelet(ctx context.Context) error {
	if err := g.containerd(ctx); err != nil {
		return err
	}
	return g.apiserver(ctx)
}

// containerd waits for its socket to accept connections.
func (g *gates) containerd(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) (bool, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", g.cfg.layout().containerdSocket())
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
}

// httpOK asks once whether url answers 200.
func httpOK(client *http.Client, url string) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		res, err := client.Do(req)
		if err != nil {
			return false, nil
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // for the connection's reuse
		return res.StatusCode == http.StatusOK, nil
	}
}

// bootstrap brings the cluster from "processes run" to "pods run".
func (c *Cluster) bootstrap(ctx context.Context, client kubernetes.Interface) error {
	// Conditions are kept in seconds; one from before is of an earlier kubelet.
	begin := time.Now().Truncate(time.Second)
	access, err := c.RESTConfig()
	if err != nil {
		return err
	}
	g := newGates(c.cfg, access)
	if err := g.containerd(ctx); err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	if err := poll(ctx, func(ctx context.Context) (bool, error) { return c.tryPause(ctx) }); err != nil {
		return fmt.Errorf("sandbox image: %w", err)
	}
	if err := g.apiserver(ctx); err != nil {
		return fmt.Errorf("wait for kube-apiserver: %w", err)
	}
	if err := poll(ctx, func(ctx context.Context) (bool, error) { return c.tryObjects(ctx, client) }); err != nil {
		return fmt.Errorf("write system objects: %w", err)
	}
	if err := poll(ctx, httpOK(http.DefaultClient, fmt.Sprintf("http://%s:%d/ready", c.cfg.NodeAddr(), dnsReadyPort))); err != nil {
		return fmt.Errorf("wait for cluster DNS: %w", err)
	}
	if err := poll(ctx, func(ctx context.Context) (bool, error) { return nodeReady(ctx, client, c.cfg.NodeName, begin), nil }); err != nil {
		return fmt.Errorf("wait for node: %w", err)
	}
	return nil
}

// tryPause imports the sandbox image. A containerd that is only just starting
// refuses calls: that is no error yet. A missing program is.
func (c *Cluster) tryPause(ctx context.Context) (bool, error) {
	if _, err := os.Stat(c.cfg.Programs.Pause); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := c.cfg.importPause(ctx); err != nil {
		c.deps.Log.Debug("sandbox image not imported yet", "err", err)
		return false, nil
	}
	return true, nil
}

// tryObjects writes the objects of the system and reports whether it could:
// just after its start the apiserver refuses some.
func (c *Cluster) tryObjects(ctx context.Context, client kubernetes.Interface) (bool, error) {
	for _, write := range []func(context.Context, kubernetes.Interface) error{c.writeDNSRole, c.writeDNSService} {
		err := write(ctx, client)
		if apierrors.IsInvalid(err) {
			return false, err // a retry would not help
		}
		if err != nil {
			c.deps.Log.Debug("system objects not written yet", "err", err)
			return false, nil
		}
	}
	return true, nil
}

// exists drops the error of creating what is there already.
func exists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (c *Cluster) writeDNSRole(ctx context.Context, client kubernetes.Interface) error {
	name := meta.ObjectMeta{Name: "system:coredns", Labels: map[string]string{"app.kubernetes.io/managed-by": "lockstep"}}
	watch := []string{"list", "watch"}
	_, err := client.RbacV1().ClusterRoles().Create(ctx, &rbac.ClusterRole{ObjectMeta: name, Rules: []rbac.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"endpoints", "services", "pods", "namespaces"}, Verbs: watch},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
	}}, meta.CreateOptions{})
	_, bindErr := client.RbacV1().ClusterRoleBindings().Create(ctx, &rbac.ClusterRoleBinding{
		ObjectMeta: name,
		Subjects:   []rbac.Subject{{Kind: rbac.UserKind, APIGroup: rbac.GroupName, Name: "system:coredns"}},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "system:coredns"},
	}, meta.CreateOptions{})
	return errors.Join(exists(err), exists(bindErr))
}

// writeDNSService makes the Service kube-dns, for programs that look it up.
// Pods themselves ask the node's address.
func (c *Cluster) writeDNSService(ctx context.Context, client kubernetes.Interface) error {
	labels := map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
	udp, tcp := core.ProtocolUDP, core.ProtocolTCP
	var ports []core.ServicePort
	var slicePorts []discovery.EndpointPort
	for name, proto := range map[string]core.Protocol{"dns": udp, "dns-tcp": tcp} {
		ports = append(ports, core.ServicePort{Name: name, Port: 53, Protocol: proto, TargetPort: intstr.FromInt32(53)})
		port := int32(53)
		slicePorts = append(slicePorts, discovery.EndpointPort{Name: &name, Port: &port, Protocol: &proto})
	}
	services := client.CoreV1().Services(meta.NamespaceSystem)
	_, err := services.Get(ctx, "kube-dns", meta.GetOptions{})
	if apierrors.IsNotFound(err) { // Create of one that is there complains of its address
		_, err = services.Create(ctx, &core.Service{
			ObjectMeta: meta.ObjectMeta{Name: "kube-dns", Labels: labels},
			Spec:       core.ServiceSpec{ClusterIP: c.cfg.addr(128, 10).String(), Ports: ports},
		}, meta.CreateOptions{})
	}
	sliceLabels := map[string]string{discovery.LabelServiceName: "kube-dns", discovery.LabelManagedBy: "lockstep"}
	_, sliceErr := client.DiscoveryV1().EndpointSlices(meta.NamespaceSystem).Create(ctx, &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Name: "kube-dns-lockstep", Labels: sliceLabels},
		AddressType: discovery.AddressTypeIPv4,
		Endpoints:   []discovery.Endpoint{{Addresses: []string{c.cfg.NodeAddr().String()}}},
		Ports:       slicePorts,
	}, meta.CreateOptions{})
	return errors.Join(exists(err), exists(sliceErr))
}

// nodeReady reports whether pods can be placed and started: the node is Ready
// by the word of this kubelet (not before since), without the taint of a new node, and service
// accounts are there.
func nodeReady(ctx context.Context, client kubernetes.Interface, name string, since time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	node, err := client.CoreV1().Nodes().Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return false
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == core.TaintNodeNotReady || taint.Key == core.TaintNodeUnreachable {
			return false
		}
	}
	for _, cond := range node.Status.Conditions {
		fresh := !cond.LastHeartbeatTime.Time.Before(since)
		if cond.Type == core.NodeReady && cond.Status == core.ConditionTrue && fresh {
			_, err := client.CoreV1().ServiceAccounts(meta.NamespaceDefault).Get(ctx, "default", meta.GetOptions{})
			return err == nil
		}
	}
	return false
}
