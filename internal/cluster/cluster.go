// Package cluster is the box "AKS": the real Kubernetes of this machine.
//
// Input: a [Config] with the programs of package bundle. Output: a one-node
// Kubernetes at https://10.S.0.2:6443 ([Cluster.RESTConfig]) whose pods pull
// from the local registry and resolve Azure's names to this machine.
//
// Everything of the node runs inside its own network namespace, joined to the
// host by one veth pair; the host routes 10.S.0.0/16 there. Nothing of the
// host but that pair, one route, one control group and two folders is used.
//
// Invariants: the state folder has one supervisor at a time; the children's
// configuration is written anew at each start from Config alone; what is not
// in the state folder can be removed by [Down] without a supervisor, and after
// a SIGKILL of the supervisor the next Run takes over running pods.
//
// Start reading at [Cluster.Run].
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/process"
)

// Deps is what the cluster needs from its surroundings.
type Deps struct {
	Log *slog.Logger
	// Journal receives the unexpected ends of children; may be nil.
	Journal journal.Appender
}

// Cluster is the Kubernetes of one platform.
type Cluster struct {
	cfg   Config
	deps  Deps
	board *board
	ready chan struct{}
}

// New checks the configuration. It has no side effects.
func New(cfg Config, deps Deps) (*Cluster, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Cluster{cfg: cfg, deps: deps, board: newBoard(cfg.layout()), ready: make(chan struct{})}, nil
}

// Ready is closed when the node is Ready, cluster DNS answers and pods can be
// made.
func (c *Cluster) Ready() <-chan struct{} { return c.ready }

// Components lists the children with their states.
func (c *Cluster) Components() []Component { return c.board.all() }

// KubeconfigPath is the file with the administrator's access. It is there
// once Run has begun.
func (c *Cluster) KubeconfigPath() string { return c.cfg.adminKubeconfig() }

// NetNS is the path of the network namespace of the node.
func (c *Cluster) NetNS() string { return c.cfg.NetNS() }

// KubeletDir is where kubelet keeps its pods; a CSI driver registers in
// plugins_registry below it.
func (c *Cluster) KubeletDir() string { return c.cfg.layout().kubelet() }

// ContainerdSocket is the path of containerd's socket.
func (c *Cluster) ContainerdSocket() string { return c.cfg.layout().containerdSocket() }

// RESTConfig returns the administrator's access for client-go. Its rate
// limits suit a local apiserver.
func (c *Cluster) RESTConfig() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.KubeconfigPath())
	if err != nil {
		return nil, fmt.Errorf("access to the cluster: %w", err)
	}
	cfg.QPS, cfg.Burst = 500, 1000
	return cfg, nil
}

// ServiceAccountJWKS returns the public keys of the service account issuer as
// a JSON Web Key Set, for whoever serves the issuer's discovery documents. The
// key is made if there is none yet.
func (c *Cluster) ServiceAccountJWKS() ([]byte, error) {
	key, err := ensureServiceAccountKey(c.cfg.layout())
	if err != nil {
		return nil, fmt.Errorf("service account keys: %w", err)
	}
	return jwks(key)
}

// Run starts the node and keeps it running until ctx ends; then it stops and
// removes everything but the state and returns nil. It returns earlier, with
// an error that says what to do, when the machine cannot carry a node.
func (c *Cluster) Run(ctx context.Context) (err error) {
	for _, f := range Preflight(c.cfg) {
		if f.Fatal {
			return fmt.Errorf("%s: %s; %s", f.What, f.Why, f.Fix)
		}
		c.deps.Log.Warn(f.What, "why", f.Why, "fix", f.Fix)
	}
	unlock, err := lockState(c.cfg)
	if err != nil {
		return err
	}
	defer unlock()
	// An orderly end must not be cut short by the context that asked for it.
	final := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, cleanUp(final, c.cfg)) }()
	if err := c.prepare(ctx); err != nil {
		return fmt.Errorf("prepare node: %w", err)
	}
	return c.runChildren(ctx)
}

// prepare makes everything that the children read, in parallel where it takes
// time, and ends what a killed supervisor left.
func (c *Cluster) prepare(ctx context.Context) error {
	if err := endLeftovers(c.cfg); err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 3)
	wg.Go(func() { errs[0] = c.cfg.ensurePKI(time.Now()) })
	wg.Go(func() { errs[1] = SetupNetwork(ctx, c.cfg) })
	wg.Go(func() {
		groups, err := detectCgroups(cgroupMount)
		if err == nil {
			err = groups.create(c.cfg.CgroupRoot())
		}
		errs[2] = errors.Join(err, c.cfg.writeContainerd(), c.cfg.writeNode())
	})
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.cfg.writeKubeconfigs()
}

// child is a supervised process with what it waits for.
type child struct {
	spec  process.Spec
	after func(context.Context) error // nil: starts at once
}

// stages are the children in the order in which they are stopped, last first.
func (c *Cluster) stages(g *gates) [][]child {
	return [][]child{
		{{c.cfg.etcd(), nil}, {c.cfg.containerd(), nil}},
		{{c.cfg.apiserver(), g.etcd}},
		{
			{c.cfg.kubelet(), g.kubelet},
			{c.cfg.controllerManager(), g.apiserver},
			{c.cfg.scheduler(), g.apiserver},
			{c.cfg.proxy(), g.apiserver},
			{c.cfg.coredns(), g.apiserver},
		},
	}
}

// runChildren supervises the children until ctx ends or one cannot be started.
func (c *Cluster) runChildren(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	access, err := c.RESTConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return fmt.Errorf("access to the cluster: %w", err)
	}
	base := context.WithoutCancel(ctx)
	var stops []func()
	for _, stage := range c.stages(newGates(c.cfg, access)) {
		stops = append(stops, c.startStage(base, stage, fail))
	}
	stops = append(stops, c.startHelpers(base, client, fail))
	<-ctx.Done()
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
		if i == len(stops)-2 { // kubelet is gone, containerd is still there
			if err := removePods(base, c.cfg.layout().containerdSocket()); err != nil {
				c.deps.Log.Warn("pods were not removed in order", "err", err)
			}
		}
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// startStage begins to supervise children; the returned function stops them
// and waits for their end.
func (c *Cluster) startStage(ctx context.Context, stage []child, fail context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, ch := range stage {
		wg.Go(func() {
			if err := c.supervise(ctx, ch); err != nil {
				fail(err)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

func (c *Cluster) supervise(ctx context.Context, ch child) error {
	name := ch.spec.Name
	defer c.board.stopped(name)
	if ch.after != nil {
		if err := ch.after(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	return process.Supervise(ctx, ch.spec, process.Deps{
		Log: c.deps.Log, Journal: c.deps.Journal,
		OnStart:   func(pid int) { c.board.running(name, pid) },
		OnRestart: func(r process.Restart) { c.board.ended(name, r) },
	})
}

// startHelpers runs what this process itself does for the cluster.
func (c *Cluster) startHelpers(ctx context.Context, client kubernetes.Interface, fail context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	begin := time.Now()
	wg.Go(func() {
		if err := c.bootstrap(ctx, client); err != nil {
			if ctx.Err() == nil {
				fail(err)
			}
			return
		}
		c.deps.Log.Info("node is ready", "node", c.cfg.NodeName, "seconds", time.Since(begin).Seconds())
		close(c.ready)
		if err := runLoadBalancer(ctx, client, c.cfg.LoadBalancerRange(), c.deps.Log); err != nil {
			fail(err)
		}
	})
	return func() { cancel(); wg.Wait() }
}
