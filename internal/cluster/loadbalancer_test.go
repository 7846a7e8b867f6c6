package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestLoadBalancer(t *testing.T) {
	pool := netip.MustParsePrefix("10.200.64.0/30") // .1, .2 and .3
	class := "other"
	service := func(name string, change func(*core.Service)) *core.Service {
		s := &core.Service{
			ObjectMeta: meta.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "1"},
			Spec:       core.ServiceSpec{Type: core.ServiceTypeLoadBalancer},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	with := func(ip string) func(*core.Service) {
		return func(s *core.Service) { s.Status.LoadBalancer.Ingress = []core.LoadBalancerIngress{{IP: ip}} }
	}
	client := fake.NewClientset(
		service("has", with("10.200.64.1")),
		service("new", nil),
		service("asks", func(s *core.Service) { s.Spec.LoadBalancerIP = "10.200.64.3" }),
		service("stale", func(s *core.Service) { with("10.200.64.2")(s); s.Spec.Type = core.ServiceTypeClusterIP }),
		service("foreign", func(s *core.Service) { s.Spec.LoadBalancerClass = &class }),
		service("plain", func(s *core.Service) { s.Spec.Type = core.ServiceTypeNodePort }),
	)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runLoadBalancer(ctx, client, pool, slog.New(slog.DiscardHandler)) }()
	want := map[string]string{"has": "10.200.64.1", "new": "10.200.64.2", "asks": "10.200.64.3", "stale": "", "foreign": "", "plain": ""}
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := map[string]string{}
		list, err := client.CoreV1().Services("default").List(ctx, meta.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range list.Items {
			got[s.Name] = ""
			if a := ingressAddr(&list.Items[i]); a.IsValid() {
				got[s.Name] = a.String()
			}
		}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("addresses %v, want %v", got, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("runLoadBalancer = %v, want nil", err)
	}
}

func TestNodeReady(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	node := func(status core.ConditionStatus, beat time.Time, taints ...core.Taint) *core.Node {
		return &core.Node{
			ObjectMeta: meta.ObjectMeta{Name: "n"}, Spec: core.NodeSpec{Taints: taints},
			Status: core.NodeStatus{Conditions: []core.NodeCondition{{Type: core.NodeReady, Status: status, LastHeartbeatTime: meta.NewTime(beat)}}},
		}
	}
	account := &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Namespace: "default", Name: "default"}}
	for _, tc := range []struct {
		name string
		node *core.Node
		want bool
	}{
		{"ready", node(core.ConditionTrue, start), true},
		{"not ready", node(core.ConditionFalse, start), false},
		{"ready before the restart", node(core.ConditionTrue, start.Add(-time.Second)), false},
		{"tainted", node(core.ConditionTrue, start, core.Taint{Key: core.TaintNodeNotReady}), false},
	} {
		if got := nodeReady(t.Context(), fake.NewClientset(tc.node, account), "n", start); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	if nodeReady(t.Context(), fake.NewClientset(node(core.ConditionTrue, start)), "n", start) {
		t.Error("ready without a service account to run pods as")
	}
}
