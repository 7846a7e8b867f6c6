package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// loadBalancer gives Services of type LoadBalancer an address of a range that
// the host routes to the node; kube-proxy does the rest. What it gave is in
// the Services' status and nowhere else.
type loadBalancer struct {
	client   kubernetes.Interface
	services listers.ServiceLister
	pool     netip.Prefix
	log      *slog.Logger
}

// runLoadBalancer works until ctx ends.
func runLoadBalancer(ctx context.Context, client kubernetes.Interface, pool netip.Prefix, log *slog.Logger) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trimService))
	informer := factory.Core().V1().Services()
	wake := make(chan struct{}, 1)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default: // one look at all Services is already due
		}
	}
	if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
	}); err != nil {
		return fmt.Errorf("watch Services: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		return nil
	}
	lb := &loadBalancer{client: client, services: informer.Lister(), pool: pool, log: log}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
		if err := lb.reconcile(ctx); err != nil && ctx.Err() == nil {
			log.Warn("load balancer addresses", "err", err)
			time.AfterFunc(time.Second, poke)
		}
	}
}

// trimService keeps of a Service what the controller looks at.
func trimService(obj any) (any, error) {
	if s, ok := obj.(*core.Service); ok {
		s.ManagedFields, s.Annotations = nil, nil
	}
	return obj, nil
}

// reconcile gives every Service that should have an address one, and takes it
// from those that should not. Services that have one keep it.
func (lb *loadBalancer) reconcile(ctx context.Context) error {
	services, err := lb.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	taken := map[netip.Addr]bool{}
	for _, s := range services {
		if a := ingressAddr(s); wantsAddress(s) && lb.pool.Contains(a) {
			taken[a] = true
		}
	}
	for _, s := range services {
		have := ingressAddr(s)
		switch {
		case wantsAddress(s) && !lb.pool.Contains(have):
			addr, err := lb.choose(s, taken)
			if err != nil {
				return err
			}
			taken[addr] = true
			if err := lb.write(ctx, s, addr); err != nil {
				return err
			}
		case !wantsAddress(s) && have.IsValid() && lb.pool.Contains(have):
			if err := lb.write(ctx, s, netip.Addr{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// wantsAddress: a Service with a class belongs to another controller.
func wantsAddress(s *core.Service) bool {
	return s.Spec.Type == core.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
}

func ingressAddr(s *core.Service) netip.Addr {
	for _, i := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(i.IP); err == nil {
			return a
		}
	}
	return netip.Addr{}
}

// choose honours spec.loadBalancerIP where it can and takes the first free
// address otherwise. The first address of the pool stays unused.
func (lb *loadBalancer) choose(s *core.Service, taken map[netip.Addr]bool) (netip.Addr, error) {
	if a, err := netip.ParseAddr(s.Spec.LoadBalancerIP); err == nil && lb.pool.Contains(a) && !taken[a] {
		return a, nil
	}
	for a := lb.pool.Addr().Next(); lb.pool.Contains(a); a = a.Next() {
		if !taken[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address left in %s for Service %s/%s; delete a Service of type LoadBalancer", lb.pool, s.Namespace, s.Name)
}

// write sets the address in the status; an invalid one removes it.
func (lb *loadBalancer) write(ctx context.Context, s *core.Service, addr netip.Addr) error {
	patch := fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q},"status":{"loadBalancer":{"ingress":null}}}`, s.ResourceVersion)
	if addr.IsValid() {
		patch = fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q},"status":{"loadBalancer":{"ingress":[{"ip":%q}]}}}`, s.ResourceVersion, addr)
	}
	_, err := lb.client.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, "application/merge-patch+json", patch, meta.PatchOptions{FieldManager: "lockstep"}, "status")
	if err != nil {
		return fmt.Errorf("write address of Service %s/%s: %w", s.Namespace, s.Name, err)
	}
	lb.log.Info("load balancer address", "service", s.Namespace+"/"+s.Name, "address", addr)
	return nil
}
