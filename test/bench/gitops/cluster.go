//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
)

var (
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// startCluster starts a fresh control plane with the namespaces of the
// applications.
func (b *bench) startCluster(ctx context.Context, name string) (*plane.Cluster, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	c, err := plane.Start(ctx, plane.Options{Program: b.program, Dir: dir, Controllers: b.controllers})
	if err != nil {
		return nil, err
	}
	for _, n := range append(b.repo.namespaces(), home) {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": n}}}
		if _, err := c.Client.Resource(namespaces).Create(ctx, o, metav1.CreateOptions{}); err != nil {
			c.Stop()
			return nil, err
		}
	}
	return c, calm(ctx, c)
}

// calm returns when a control plane uses next to no CPU, or after half a
// minute: what it does after its start is not what is measured.
func calm(ctx context.Context, c *plane.Cluster) error {
	for last, n := cpuOf(c), 0; n < 60; n++ {
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		now := cpuOf(c)
		if now-last < 0.03 {
			return nil
		}
		last = now
	}
	return nil
}

func accessTo(c *plane.Cluster) access { return access{c.Config.Host, c.Config.BearerToken} }

// createApplications installs the kinds and creates all Applications.
func (b *bench) createApplications(ctx context.Context) error {
	crds, err := v1alpha1.CRDs()
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if _, err := b.cluster.Client.Resource(definitions).Create(ctx, crd, metav1.CreateOptions{FieldManager: "argocd-controller"}); err != nil {
			return err
		}
	}
	client := b.cluster.Client.Resource(v1alpha1.ApplicationResource).Namespace(home)
	if err := served(ctx, func() error {
		_, err := client.List(ctx, metav1.ListOptions{Limit: 1})
		return err
	}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.parallel)
	for _, a := range b.repo.apps {
		g.Go(func() error {
			_, err := client.Create(ctx, &unstructured.Unstructured{Object: a.application()}, metav1.CreateOptions{FieldManager: "kubectl-create"})
			return err
		})
	}
	return g.Wait()
}

// served returns when a kind that was just installed is served.
func served(ctx context.Context, try func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := try()
		if err == nil || !apierrors.IsNotFound(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// checkLive makes sure that every object of every application exists.
func (b *bench) checkLive(ctx context.Context) error {
	client, err := metadata.NewForConfig(b.cluster.Config)
	if err != nil {
		return err
	}
	var errs []error
	for kind, resource := range resources {
		list, err := client.Resource(resource).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for _, o := range list.Items {
			have[o.Namespace+"/"+o.Name] = true
		}
		var missing []string
		for _, a := range b.repo.apps {
			if !have[a.namespace+"/"+a.object()] {
				missing = append(missing, a.name)
			}
		}
		if len(missing) > 0 {
			errs = append(errs, fmt.Errorf("%d applications are Synced without their %s: %s …", len(missing), kind, strings.Join(missing[:min(3, len(missing))], ", ")))
		}
	}
	return errors.Join(errs...)
}

// planeCPU is what the engine's control plane used, in seconds.
func (b *bench) planeCPU() float64 { return cpuOf(b.cluster) }

func cpuOf(c *plane.Cluster) float64 {
	var total float64
	for _, pid := range c.Processes() {
		total += processCPU(pid)
	}
	return total
}
