// Package storefront carries examples/storefront through the whole loop: what
// a person does once to bring a repository to the platform, done by a command.
//
// Input: the [environment.Sheet] of a running platform and a folder. Output: a
// working copy in the folder, the Azure resources of infra/, a repository with
// its variables and secrets, a first release, the Application, and the trace of
// the commit that became ready.
//
// Invariants: everything goes over the public wires (Resource Manager, Key
// Vault, GitHub's REST API, Git, the Kubernetes API), so each step is what the
// real services would see; every step may be repeated.
//
// Start reading at [Run].
package storefront

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/progress"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
)

const (
	owner = "contoso"
	name  = "storefront"
	repo  = owner + "/" + name
)

// Traces gives the trace of a commit as the platform tells it now.
type Traces interface {
	Trace(ctx context.Context, commit string) (trace.Trace, error)
}

// Options say what to carry where.
type Options struct {
	Sheet  environment.Sheet
	Dir    string // of the working copy
	Helper string // shell command of the Git credential helper
	Traces Traces
	Out    *progress.Printer
}

// Result is what came of it.
type Result struct {
	Dir    string      `json:"dir"`    // the working copy
	Commit string      `json:"commit"` // of the working copy that was carried
	App    string      `json:"app"`    // URL of the application
	Trace  trace.Trace `json:"trace"`
}

// Run does every step that is not done yet and waits until the application is
// ready at the newest commit.
func Run(ctx context.Context, o Options) (Result, error) {
	client, err := o.Sheet.Client()
	if err != nil {
		return Result{}, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return Result{}, fmt.Errorf("folder of the example: %w", err)
	}
	r := run{
		Options: o, azure: azure{o.Sheet, client}, github: github{o.Sheet, client},
		copy: workcopy{dir: dir, helper: o.Helper}, result: Result{Dir: dir},
	}
	steps := []struct {
		name string
		work func(context.Context, func(string)) error
	}{
		{"Azure resources by Resource Manager", r.provision},
		{"secret in Key Vault", r.secret},
		{"repository " + repo, r.repository},
		{"working copy", r.workingCopy},
		{"push", r.push},
		{"workflow, image and pin", r.release},
		{"application", r.application},
		{"ready", r.ready},
	}
	for _, s := range steps {
		if err := o.Out.Step(ctx, s.name, s.work); err != nil {
			return r.result, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return r.result, nil
}

// run is the state between the steps.
type run struct {
	Options
	azure     azure
	github    github
	copy      workcopy
	resources resources
	result    Result
}

// provision creates what infra/main.tf declares, except for the cluster, which
// is there already. Terraform itself does it in a later version.
func (r *run) provision(ctx context.Context, note func(string)) (err error) {
	r.resources, err = r.azure.provision(ctx, note)
	note("resource group, registry, vault, identity, roles (as in infra/, by the same calls)")
	return err
}

func (r *run) secret(ctx context.Context, note func(string)) error {
	exists, err := r.azure.secretExists(ctx)
	if err != nil || exists {
		return err
	}
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make a payment key: %w", err)
	}
	note(vault + "/" + secret)
	return r.azure.setSecret(ctx, hex.EncodeToString(key))
}

func (r *run) repository(ctx context.Context, note func(string)) error {
	if err := r.github.ensureRepository(ctx, owner, name); err != nil {
		return err
	}
	note("variables REGISTRY and REGISTRY_USERNAME, secret REGISTRY_PASSWORD")
	return errors.Join(
		r.github.setVariable(ctx, repo, "REGISTRY", r.resources.RegistryHost),
		r.github.setVariable(ctx, repo, "REGISTRY_USERNAME", r.resources.RegistryUser),
		r.github.setSecret(ctx, repo, "REGISTRY_PASSWORD", r.resources.RegistryPassword))
}

func (r *run) workingCopy(ctx context.Context, note func(string)) error {
	note(r.copy.dir)
	return r.copy.create(ctx, r.Sheet.Forge+"/"+repo+".git", map[string]string{
		"CLIENT_ID": r.resources.ClientID, "TENANT_ID": r.Sheet.TenantID,
	})
}

func (r *run) push(ctx context.Context, note func(string)) error {
	pushed, err := r.copy.push(ctx)
	if err != nil {
		return err
	}
	if r.result.Commit, err = r.copy.head(ctx); err != nil {
		return err
	}
	if !pushed {
		note("nothing new")
		return nil
	}
	note(trace.Short(r.result.Commit) + " to " + repo)
	return nil
}

// release waits for the write-back commit that pins the first image: before
// it, the manifests name an image that does not exist.
func (r *run) release(ctx context.Context, note func(string)) error {
	return r.follow(ctx, note, func(t trace.Trace) (bool, error) {
		if t.State == trace.StateFailed && t.Failed != nil {
			return false, failure(t.Failed)
		}
		if len(t.Children) > 0 || t.Cause != "" || reached(t, journal.StageReady) {
			note("pinned by " + trace.Short(lastCommit(t)))
			return true, nil
		}
		// A run that ended without a pin has nothing new to release.
		return settledRun(t), nil
	})
}

func (r *run) application(ctx context.Context, note func(string)) error {
	manifest, err := os.ReadFile(filepath.Join(r.copy.dir, "argocd", "application.yaml"))
	if err != nil {
		return err
	}
	var object unstructured.Unstructured
	if err := yaml.Unmarshal(manifest, &object.Object); err != nil {
		return fmt.Errorf("argocd/application.yaml: %w", err)
	}
	client, err := r.kubernetes()
	if err != nil {
		return err
	}
	note("argocd/application.yaml")
	_, err = client.Resource(applications).Namespace(object.GetNamespace()).
		Apply(ctx, object.GetName(), &object, metav1.ApplyOptions{FieldManager: "lockstep-example", Force: true})
	return err
}

func (r *run) ready(ctx context.Context, note func(string)) error {
	err := r.follow(ctx, note, func(t trace.Trace) (bool, error) {
		if t.State == trace.StateFailed && t.Failed != nil {
			return false, failure(t.Failed)
		}
		return t.State == trace.StateReady, nil
	})
	if err != nil {
		return err
	}
	if r.result.App, err = r.appURL(ctx); err != nil {
		return err
	}
	// The workflow has pushed its pin: the next push starts from there.
	if err := r.copy.pull(ctx); err != nil {
		return err
	}
	note(r.result.App)
	return nil
}

// follow asks for the commit's trace until done says so.
func (r *run) follow(ctx context.Context, note func(string), done func(trace.Trace) (bool, error)) error {
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		t, err := r.Traces.Trace(ctx, r.result.Commit)
		if err == nil {
			r.result.Trace = t
			note(t.Now)
			end, err := done(t)
			if err != nil || end {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting: %s; `lockstep trace %s` shows more: %w", r.result.Trace.Now, trace.Short(r.result.Commit), ctx.Err())
		}
	}
}

var (
	applications = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "applications"}
	services     = schema.GroupVersionResource{Version: "v1", Resource: "services"}
)

func (r *run) kubernetes() (dynamic.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", r.Sheet.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the platform's kubeconfig: %w", err)
	}
	// The cluster is on this machine; a proxy of the shell is not for it.
	config.Proxy = http.ProxyURL(nil)
	// The apiserver's advice about Argo CD's own finalizer helps nobody here.
	config.WarningHandler = rest.NoWarnings{}
	return dynamic.NewForConfig(config)
}

// appURL is where the storefront's Service answers.
func (r *run) appURL(ctx context.Context) (string, error) {
	client, err := r.kubernetes()
	if err != nil {
		return "", err
	}
	service, err := client.Resource(services).Namespace(name).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	ingress, _, _ := unstructured.NestedSlice(service.Object, "status", "loadBalancer", "ingress")
	if len(ingress) == 0 {
		return "", errors.New("the Service has no address yet")
	}
	first, _ := ingress[0].(map[string]any)
	ip, _ := first["ip"].(string)
	return "http://" + ip, nil
}

// failure turns the trace's reason into an error for people.
func failure(reason *trace.Reason) error {
	where := reason.Subject
	if reason.File != "" {
		where = fmt.Sprintf("%s: %s:%d", where, reason.File, reason.Line)
	}
	text := fmt.Sprintf("%s failed at %s: %s", reason.Stage, where, reason.Message)
	if reason.Hint != "" {
		text += "; " + reason.Hint
	}
	return errors.New(text)
}

// lastCommit is the newest commit of the chain.
func lastCommit(t trace.Trace) string {
	for len(t.Children) > 0 {
		t = t.Children[len(t.Children)-1]
	}
	return t.Commit
}

// reached reports whether any commit of the chain has a span in the stage.
func reached(t trace.Trace, stage journal.Stage) bool {
	for _, lane := range t.Lanes {
		if lane.Stage == stage && len(lane.Spans) > 0 {
			return true
		}
	}
	for _, child := range t.Children {
		if reached(child, stage) {
			return true
		}
	}
	return false
}

// settledRun reports whether every run of the commit has ended well.
func settledRun(t trace.Trace) bool {
	for _, lane := range t.Lanes {
		if lane.Stage != journal.StageRun {
			continue
		}
		for _, span := range lane.Spans {
			if span.Open() {
				return false
			}
		}
		return true
	}
	return false
}
