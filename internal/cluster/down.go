package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/lockstep-gitops/lockstep/internal/process"
)

// Limits of an orderly end.
const (
	podStop    = 5 * time.Second  // for containers, from SIGTERM to SIGKILL
	podsRemove = 15 * time.Second // for all pods together
	sweepLimit = 15 * time.Second // for the control groups to become empty
)

// legacyLogLinks is where kubelet puts links to container logs, whatever it is told.
const legacyLogLinks = "/var/log/containers"

// children lists every child; later ones need earlier ones.
func children() []string {
	return []string{"etcd", "containerd", "kube-apiserver", "coredns", "kube-proxy", "kube-controller-manager", "kube-scheduler", "kubelet"}
}

// Down removes everything of the platform's node from this machine but its
// state: children, pods, mounts, network, control groups, sockets. It works
// whether or not a supervisor ran or was killed, and may be called again. A
// supervisor that still runs is an error.
func Down(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	unlock, err := lockState(cfg)
	if err != nil {
		return err
	}
	defer unlock()
	return cleanUp(ctx, cfg)
}

// cleanUp is Down for who holds the lock.
func cleanUp(ctx context.Context, cfg Config) error {
	l := cfg.layout()
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	// Those that would start pods again go first, containerd stays for a while.
	note(endLeftovers(cfg, "containerd"))
	if _, err := os.Stat(l.containerdSocket()); err == nil {
		// Best effort: what is left is swept below.
		_ = removePods(ctx, l.containerdSocket())
	}
	note(endLeftovers(cfg))
	note(endProcesses(cfg))
	groups, err := detectCgroups(cgroupMount)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, sweepLimit)
		err = groups.remove(ctx, cfg.CgroupRoot())
		cancel()
	}
	note(err)
	unmounted := unmountBelow(cfg.StateDir, cfg.RunDir)
	note(unmounted)
	note(removeNetwork(cfg))
	note(removeLogLinks(legacyLogLinks, l.podLogs()))
	if unmounted == nil { // never delete through a mount that is still there
		note(os.RemoveAll(cfg.RunDir))
	}
	_ = os.Remove(filepath.Dir(cfg.RunDir)) // when no other platform is up
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bring down platform %s: %w", cfg.Name, err)
	}
	return nil
}

// endLeftovers ends the children that pid files name, except those to keep.
func endLeftovers(cfg Config, keep ...string) error {
	var wg sync.WaitGroup
	names := children()
	errs := make([]error, len(names))
	for i, name := range names {
		if len(keep) > 0 && name == keep[0] {
			continue
		}
		wg.Go(func() { errs[i] = process.EndLeftover(cfg.layout().pidFile(name)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// endProcesses kills what still runs inside the platform's network namespace:
// shims, pods on the node's network, and children whose pid file was lost.
func endProcesses(cfg Config) error {
	ns := netNSInode(cfg.NetNS())
	if ns == "" {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if in, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/net")); err == nil && in == ns {
			if err := process.End(pid, 0); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// removePods stops all containers in an orderly way and removes the pods.
func removePods(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, podsRemove)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to containerd: %w", err)
	}
	defer conn.Close()
	runtime := cri.NewRuntimeServiceClient(conn)
	containers, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	pods, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var stops sync.WaitGroup
	for _, c := range containers.Containers {
		stops.Go(func() {
			_, _ = runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.Id, Timeout: int64(podStop.Seconds())})
		})
	}
	stops.Wait()
	errs := make([]error, len(pods.Items))
	var removes sync.WaitGroup
	for i, pod := range pods.Items {
		removes.Go(func() {
			if _, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
				errs[i] = fmt.Errorf("stop pod %s: %w", pod.GetMetadata().GetName(), err)
				return
			}
			if _, err := runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
				errs[i] = fmt.Errorf("remove pod %s: %w", pod.GetMetadata().GetName(), err)
			}
		})
	}
	removes.Wait()
	return errors.Join(errs...)
}

// removeLogLinks removes the links in dir that lead below target, and the
// folder when it is empty then.
func removeLogLinks(dir, target string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove log links: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		to, err := os.Readlink(path)
		if err == nil && strings.HasPrefix(to, target+"/") {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove log links: %w", err)
			}
		}
	}
	_ = os.Remove(dir) // not empty: others use it
	return nil
}
