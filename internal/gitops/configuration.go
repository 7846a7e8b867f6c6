package gitops

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/destination"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/project"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

// The ConfigMaps of Argo CD that the engine reads, in its home namespace.
const (
	mapSettings   = "argocd-cm"
	mapParameters = "argocd-cmd-params-cm"
	mapKeys       = "argocd-gpg-keys-cm"
	mapHosts      = "argocd-ssh-known-hosts-cm"
	mapTLS        = "argocd-tls-certs-cm"
)

var (
	secretResource    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	configMapResource = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

// configuration watches what administrators set: ConfigMaps of Argo CD and
// labelled Secrets of the home namespace. Each change makes what is derived
// anew, and puts it in place at once.
type configuration struct {
	*Engine
	secrets, maps cache.SharedIndexInformer

	mu       sync.Mutex
	settings map[string]map[string]string // data of the ConfigMaps last taken in
}

func newConfiguration(e *Engine) (*configuration, error) {
	c := &configuration{Engine: e, settings: map[string]map[string]string{}}
	labelled := func(o *metav1.ListOptions) { o.LabelSelector = destination.SecretTypeLabel }
	c.secrets = dynamicinformer.NewFilteredDynamicInformer(e.client, secretResource, e.cfg.Namespace, 0, cache.Indexers{}, labelled).Informer()
	ours := func(o *metav1.ListOptions) { o.LabelSelector = "app.kubernetes.io/part-of=argocd" }
	c.maps = dynamicinformer.NewFilteredDynamicInformer(e.client, configMapResource, e.cfg.Namespace, 0, cache.Indexers{}, ours).Informer()
	for _, i := range []cache.SharedIndexInformer{c.secrets, c.maps} {
		if err := i.SetTransform(func(obj any) (any, error) {
			if o, ok := obj.(*unstructured.Unstructured); ok {
				o.SetManagedFields(nil)
			}
			return obj, nil
		}); err != nil {
			return nil, fmt.Errorf("gitops: watch the configuration: %w", err)
		}
	}
	return c, nil
}

// run watches until ctx ends. It returns when the first configuration is in
// place, and calls ended for its goroutines.
func (c *configuration) run(ctx context.Context, wg *sync.WaitGroup) error {
	for _, i := range []cache.SharedIndexInformer{c.secrets, c.maps} {
		wg.Go(func() { i.RunWithContext(ctx) })
	}
	if !cache.WaitForCacheSync(ctx.Done(), c.secrets.HasSynced, c.maps.HasSynced) {
		return context.Cause(ctx)
	}
	c.take(true)
	changed := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.take(false) }, DeleteFunc: func(any) { c.take(false) },
		UpdateFunc: func(old, obj any) {
			if !reflect.DeepEqual(old.(*unstructured.Unstructured).Object["data"], obj.(*unstructured.Unstructured).Object["data"]) ||
				!reflect.DeepEqual(old.(*unstructured.Unstructured).GetLabels(), obj.(*unstructured.Unstructured).GetLabels()) {
				c.take(false)
			}
		},
	}
	for _, i := range []cache.SharedIndexInformer{c.secrets, c.maps} {
		if _, err := i.AddEventHandler(changed); err != nil {
			return fmt.Errorf("gitops: watch the configuration: %w", err)
		}
	}
	return nil
}

// take puts what the cluster says now in place.
func (c *configuration) take(first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clusters, repositories := c.readSecrets()
	c.clusters.set(destination.NewSet(c.deps.Rest, clusters))
	data := map[string]map[string]string{}
	for _, name := range []string{mapSettings, mapParameters, mapKeys, mapHosts, mapTLS} {
		data[name] = c.data(name)
	}
	if c.sources.Service != nil {
		store := credential.NewStore(credential.Input{Secrets: repositories, KnownHosts: data[mapHosts]["ssh_known_hosts"], TLSCerts: data[mapTLS]})
		for _, err := range store.Problems() {
			c.deps.Log.Warn("a repository Secret cannot be used as it is", "error", err)
		}
		c.sources.SetCredentials(store)
	}
	if first || !reflect.DeepEqual(data, c.settings) {
		c.settings = data
		c.apply(data)
	} else {
		c.controller.EnqueueAll() // a cluster or repository may have come
	}
}

// apply makes policies of the ConfigMaps' data.
func (c *configuration) apply(data map[string]map[string]string) {
	s, warnings := settings.Parse(data[mapSettings], data[mapParameters])
	assessor, more := health.New(s)
	for _, w := range append(warnings, more...) {
		c.deps.Log.Warn("a setting of Argo CD's ConfigMaps is not carried out as it says", "key", w.Key, "why", w.Message)
	}
	for _, key := range withoutEffect(s) {
		c.deps.Log.Warn("a setting of Argo CD's ConfigMaps has no effect on this engine", "key", key)
	}
	p := &application.Policies{Settings: s, Plan: plan.PolicyOf(s)}
	var errs []error
	p.Keyring, errs = project.ParseKeyring(data[mapKeys])
	for _, err := range errs {
		c.deps.Log.Warn("a signing key is left out", "error", err)
	}
	p.Globals, p.Problem = project.ParseGlobals(data[mapSettings]["globalProjects"])
	c.assess.Store(assessor)
	c.clusters.reassess()
	c.controller.PoliciesChanged(p)
}

// withoutEffect names the settings that are understood and not carried out.
func withoutEffect(s *settings.Settings) []string {
	usual := settings.Default()
	var out []string
	for _, of := range []struct {
		key string
		set bool
	}{
		{"timeout.reconciliation", s.Reconciliation != usual.Reconciliation || s.ReconciliationJitter != usual.ReconciliationJitter},
		{"helm.valuesFileSchemes", !slices.Equal(s.HelmValuesSchemes, usual.HelmValuesSchemes)},
		{"kustomize.buildOptions.<version>", len(s.KustomizeVersionOptions) > 0},
		{"controller.self.heal.timeout.seconds", s.SelfHealTimeout != usual.SelfHealTimeout || s.SelfHealFactor != usual.SelfHealFactor || s.SelfHealCap != usual.SelfHealCap},
		{"controller.sync.timeout.seconds", s.SyncTimeout != usual.SyncTimeout},
		{"controller.status.processors", s.StatusProcessors != usual.StatusProcessors},
		{"controller.operation.processors", s.OperationProcessors != usual.OperationProcessors},
		{"application.namespaces", len(s.ApplicationNamespaces) > 0}, // sourceNamespaces of projects decide
	} {
		if of.set {
			out = append(out, of.key)
		}
	}
	return out
}

func (c *configuration) data(name string) map[string]string {
	obj, ok, err := c.maps.GetStore().GetByKey(c.cfg.Namespace + "/" + name)
	if err != nil || !ok {
		return nil
	}
	data, _, err := unstructured.NestedStringMap(obj.(*unstructured.Unstructured).Object, "data")
	if err != nil {
		return nil
	}
	return data
}

// readSecrets returns the Secrets of clusters, and those of repositories.
func (c *configuration) readSecrets() (clusters []destination.Secret, repositories []credential.Secret) {
	for _, obj := range c.secrets.GetStore().List() {
		o := obj.(*unstructured.Unstructured)
		if s, ok := destination.SecretOf(o); ok {
			clusters = append(clusters, s)
			continue
		}
		switch o.GetLabels()[destination.SecretTypeLabel] {
		case "repository", "repo-creds":
			repositories = append(repositories, credential.Secret{Name: o.GetName(), Labels: o.GetLabels(), Data: secretData(o)})
		}
	}
	return clusters, repositories
}
