//go:build linux

package gitopstest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
)

var (
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	policies   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}
	bindings   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}
	webhooks   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
)

// eager tries again at once, so that recovery can be waited for.
const eager = "syncPolicy: {automated: {prune: true, selfHeal: true}, syncOptions: [CreateNamespace=true], retry: {limit: -1, backoff: {duration: 500ms, factor: 1, maxDuration: 500ms}}}"

// proxy stands between the engine and the API server. It counts writes by
// path, and answers what rule answers.
type proxy struct {
	mu     sync.Mutex
	rule   func(*http.Request) (*http.Response, error) // nil, nil to pass on
	writes map[string]int
}

func (p *proxy) wrap(next http.RoundTripper) http.RoundTripper { return through{p, next} }

type through struct {
	*proxy
	next http.RoundTripper
}

func (t through) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	rule := t.rule
	if r.Method != http.MethodGet && r.URL.Query().Get("dryRun") == "" {
		t.writes[r.URL.Path]++
	}
	t.mu.Unlock()
	if rule != nil {
		if res, err := rule(r); res != nil || err != nil {
			return res, err
		}
	}
	return t.next.RoundTrip(r)
}

func (p *proxy) set(rule func(*http.Request) (*http.Response, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = rule
}

// written counts the writes below a path.
func (p *proxy) written(part string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for path, writes := range p.writes {
		if strings.Contains(path, part) {
			n += writes
		}
	}
	return n
}

// answer is a Status as the API server would send it.
func answer(code int, reason, message string, header ...string) *http.Response {
	body := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
	res := &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewBufferString(body)), ContentLength: int64(len(body)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	for i := 0; i+1 < len(header); i += 2 {
		res.Header.Set(header[i], header[i+1])
	}
	return res
}

func TestBadInput(t *testing.T) {
	w := NewWorld(t)
	p := &proxy{writes: map[string]int{}}
	w.StopEngine()
	w.Wrap = p.wrap
	w.StartEngine()
	for _, s := range []struct {
		name string
		run  func(*testing.T, *World, *proxy)
	}{
		{"one bad application of a repository", oneOfMany},
		{"the kind is missing, and comes with another application", missingKind},
		{"a policy refuses", policyRefuses},
		{"a webhook that nobody serves", deadWebhook},
		{"an immutable field", immutable},
		{"a namespace that is being deleted", dyingNamespace},
		{"the API server has trouble", serverTrouble},
		{"the API server does not list", noListing},
		{"a repository vanishes and comes back", vanishing},
		{"a repository vanishes in the middle", unreadable},
		{"a force-push", forcePush},
		{"a chart that does not render", badChart},
		{"two applications claim one object", twoClaims},
		{"a manifest of 5 MB", tooLarge},
		{"an endless symbolic link", endlessLink},
		{"the project vanishes", projectVanishes},
		{"an unknown cluster", unknownCluster},
	} {
		t.Run(s.name, func(t *testing.T) {
			outer := w.T
			w.T = t
			defer func() { w.T = outer }()
			defer p.set(nil)
			start := time.Now()
			s.run(t, w, p)
			if t.Failed() {
				t.Logf("journal:\n%s", w.Trace())
			}
			t.Logf("%s", time.Since(start).Round(time.Millisecond))
		})
	}
}

// says holds when there is exactly one condition of the kind, and its message
// has all the parts.
func says(kind string, parts ...string) func(application.View) bool {
	return func(v application.View) bool {
		found := 0
		for _, c := range v.Application.Status.Conditions {
			if c.Type != kind {
				continue
			}
			found++
			for _, part := range parts {
				if !strings.Contains(c.Message, part) {
					return false
				}
			}
		}
		return found == 1
	}
}

// clean holds when the application is in sync at a commit, without conditions.
func clean(commit string) func(application.View) bool {
	return func(v application.View) bool {
		return v.Commit == commit && !v.Syncing && v.Application.Status.Sync.Status == v1alpha1.SyncSynced && len(v.Application.Status.Conditions) == 0
	}
}

func oneOfMany(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/many")
	first := r.Push(map[string]string{"bad/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: a\n", "good/a.yaml": configMap("a", "1")})
	w.Application("many-bad", r, "bad", eager)
	w.Application("many-good", r, "good", eager)
	w.Wait("many-bad", "the condition", says(v1alpha1.ConditionComparisonError, "bad/a.yaml:4"))
	w.Wait("many-good", "the good one", clean(first))
	if v, err := w.Engine.Applications().Get(t.Context(), "argocd", "many-bad"); err != nil || len(v.Application.Status.Conditions) != 1 {
		t.Errorf("conditions: %v %v", v.Application.Status.Conditions, err)
	}
	second := r.Push(map[string]string{"good/a.yaml": configMap("a", "2")})
	w.Wait("many-good", "the next commit", clean(second))
	third := r.Push(map[string]string{"bad/a.yaml": configMap("a", "1")})
	w.Wait("many-bad", "the fix", clean(third))
}

func missingKind(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/gadget")
	r.Push(map[string]string{"use/g.yaml": "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: g}\nspec: {size: 3}\n", "use/a.yaml": configMap("a", "1")})
	w.Application("gadget-use", r, "use", "")
	w.Wait("gadget-use", "the condition", says(v1alpha1.ConditionSyncError, "use/g.yaml:1", "Gadget", "CustomResourceDefinition"))
	if w.Get(configMaps, "gadget-use", "a") != nil {
		t.Error("something was written although the sync could not succeed")
	}
	second := r.Push(map[string]string{"def/crd.yaml": `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Gadget, plural: gadgets, singular: gadget, listKind: GadgetList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`})
	w.Application("gadget-def", r, "def", "")
	w.Wait("gadget-def", "the definition", clean(second))
	start := time.Now()
	w.Wait("gadget-use", "the recovery", clean(second))
	t.Logf("recovered after %s", time.Since(start).Round(time.Millisecond))
	if w.Get(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "gadgets"}, "gadget-use", "g") == nil {
		t.Error("the gadget is not in the application's namespace")
	}
}

func policyRefuses(t *testing.T, w *World, _ *proxy) {
	w.Create(policies, `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-evil}
spec:
  failurePolicy: Fail
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}]}
  validations: [{expression: "!has(object.data) || !('v' in object.data) || object.data.v != 'evil'", message: "evil is not wanted here"}]
`)
	w.Create(bindings, "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: no-evil}\nspec: {policyName: no-evil, validationActions: [Deny]}\n")
	w.Create(namespaces, "apiVersion: v1\nkind: Namespace\nmetadata: {name: policy-probe}\n")
	w.Eventually("the policy to count", func() bool {
		_, err := w.Client.Resource(configMaps).Namespace("policy-probe").Create(context.Background(), object(t, configMap("probe", "evil")), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
	r := w.NewRepo("contoso/policy")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "good"), "k8s/b.yaml": configMap("b", "good")})
	w.Application("policy", r, "k8s", eager)
	w.Wait("policy", "the first sync", clean(first))
	second := r.Push(map[string]string{"k8s/b.yaml": configMap("b", "evil")})
	w.Wait("policy", "the condition", says(v1alpha1.ConditionSyncError, "ConfigMap policy/b", "k8s/b.yaml:1", "ValidatingAdmissionPolicy no-evil", "evil is not wanted here"))
	if err := w.Client.Resource(bindings).Delete(context.Background(), "no-evil", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Wait("policy", "the recovery without a commit", clean(second))
}

func deadWebhook(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/webhook")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Application("webhook", r, "k8s", eager)
	w.Wait("webhook", "the first sync", clean(first))
	w.Create(webhooks, `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: dead}
webhooks:
- name: dead.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  clientConfig: {url: "https://127.0.0.1:1/"}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: webhook}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: ["*"], resources: [configmaps]}]
`)
	w.Eventually("the webhook to count", func() bool {
		_, err := w.Client.Resource(configMaps).Namespace("webhook").Create(context.Background(), object(t, configMap("probe", "1")), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
	second := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "2")})
	w.Wait("webhook", "the condition", says(v1alpha1.ConditionSyncError, "ConfigMap webhook/a", "k8s/a.yaml:1", "dead.example.com"))
	if err := w.Client.Resource(webhooks).Delete(context.Background(), "dead", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Wait("webhook", "the recovery", clean(second))
}

func migration(image, options string) string {
	return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: j\n  annotations: {argocd.argoproj.io/sync-options: %q}\nspec:\n  template:\n    spec: {restartPolicy: Never, containers: [{name: m, image: %s}]}\n", options, image)
}

func immutable(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/fixed")
	first := r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:1"), "k8s/j.yaml": migration("m:1", "")})
	w.Application("fixed", r, "k8s", eager)
	w.Wait("fixed", "the first sync", clean(first))
	other := strings.ReplaceAll(deployment("d", "web:1"), "app: d", "app: other")
	r.Push(map[string]string{"k8s/d.yaml": other})
	w.Wait("fixed", "the selector to be named", says(v1alpha1.ConditionSyncError, "Deployment fixed/d", "k8s/d.yaml:1", "spec.selector", "Force=true"))
	third := r.Push(map[string]string{"k8s/d.yaml": strings.Replace(other, "  name: d\n", "  name: d\n  annotations: {argocd.argoproj.io/sync-options: 'Replace=true,Force=true'}\n", 1)})
	w.Wait("fixed", "the deployment to be made anew", clean(third))
	r.Push(map[string]string{"k8s/j.yaml": migration("m:2", "")})
	w.Wait("fixed", "the template to be named", says(v1alpha1.ConditionSyncError, "Job fixed/j", "k8s/j.yaml:1", "spec.template"))
	fifth := r.Push(map[string]string{"k8s/j.yaml": migration("m:2", "Force=true")})
	w.Wait("fixed", "the job to be made anew", clean(fifth))
}

func dyingNamespace(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/dying")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Application("dying", r, "k8s", eager)
	w.Wait("dying", "the first sync", clean(first))
	w.Create(configMaps, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: holds, namespace: dying, finalizers: [example.com/hold]}\n")
	if err := w.Client.Resource(namespaces).Delete(context.Background(), "dying", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the object to go", func() bool { return w.Get(configMaps, "dying", "a") == nil })
	w.Wait("dying", "the message", func(v application.View) bool {
		s := v.Application.Status.OperationState
		return strings.Contains(v.Waiting, "namespace dying") || s != nil && strings.Contains(s.Message, "namespace dying") || says(v1alpha1.ConditionSyncError, "namespace dying", "being deleted")(v)
	})
	patch(t, w, configMaps, "dying", "holds", `{"metadata":{"finalizers":null}}`)
	w.Wait("dying", "the recovery", clean(first))
	w.Eventually("the object in the new namespace", func() bool { return w.Get(configMaps, "dying", "a") != nil })
}

func serverTrouble(t *testing.T, w *World, p *proxy) {
	r := w.NewRepo("contoso/busy")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "other/a.yaml": configMap("a", "1")})
	w.Application("busy", r, "k8s", eager)
	w.Application("calm", r, "other", eager)
	w.Wait("busy", "the first sync", clean(first))
	w.Wait("calm", "the other", clean(first))
	ours := func(r *http.Request) bool {
		return r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/namespaces/busy/configmaps")
	}
	commit, n := first, 1
	for _, kind := range []struct {
		name string
		res  func() (*http.Response, error)
	}{
		{"429", func() (*http.Response, error) {
			return answer(429, "TooManyRequests", "too many requests", "Retry-After", "1"), nil
		}},
		{"500", func() (*http.Response, error) { return answer(500, "InternalError", "etcd went away"), nil }},
		{"503", func() (*http.Response, error) { return answer(503, "ServiceUnavailable", "not ready"), nil }},
		{"no answer", func() (*http.Response, error) { return nil, context.DeadlineExceeded }},
		{"a broken connection", func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }},
		{"a page of a proxy", func() (*http.Response, error) {
			return &http.Response{StatusCode: 502, Header: http.Header{"Content-Type": {"text/html"}}, Body: io.NopCloser(strings.NewReader("<html>bad gateway</html>"))}, nil
		}},
	} {
		var mu sync.Mutex
		failures := 2
		p.set(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if !ours(r) || failures == 0 {
				return nil, nil
			}
			failures--
			return kind.res()
		})
		n++
		commit = r.Push(map[string]string{"k8s/a.yaml": configMap("a", fmt.Sprint(n)), "other/a.yaml": configMap("a", fmt.Sprint(n))})
		start := time.Now()
		w.Wait("calm", "the other application not to be held up", clean(commit))
		w.Wait("busy", "recovery from "+kind.name, clean(commit))
		t.Logf("%s: recovered after %s", kind.name, time.Since(start).Round(time.Millisecond))
	}
	// Trouble that stays becomes a condition.
	p.set(func(r *http.Request) (*http.Response, error) {
		if ours(r) {
			return answer(500, "InternalError", "etcd went away"), nil
		}
		return nil, nil
	})
	n++
	commit = r.Push(map[string]string{"k8s/a.yaml": configMap("a", fmt.Sprint(n))})
	w.Wait("busy", "the condition", says(v1alpha1.ConditionSyncError, "ConfigMap busy/a", "k8s/a.yaml:1", "etcd went away"))
	p.set(nil)
	w.Wait("busy", "the recovery", clean(commit))
	// The status of the Application itself cannot be written.
	p.set(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/applications/busy") && r.Method == http.MethodPatch {
			return answer(500, "InternalError", "etcd went away"), nil
		}
		return nil, nil
	})
	n++
	commit = r.Push(map[string]string{"k8s/a.yaml": configMap("a", fmt.Sprint(n))})
	w.Eventually("the object all the same", func() bool { v, _, _ := unstructuredString(w, "busy", "a"); return v == fmt.Sprint(n) })
	p.set(nil)
	w.Wait("busy", "the status", func(v application.View) bool {
		return clean(commit)(v) && v.Application.Status.Sync.Revision == commit
	})
}

// noListing: a kind that cannot be listed holds up only those that use it.
func noListing(t *testing.T, w *World, p *proxy) {
	r := w.NewRepo("contoso/list")
	first := r.Push(map[string]string{"k8s/l.yaml": "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l}\nspec: {limits: [{type: Pod, max: {cpu: '4'}}]}\n", "other/a.yaml": configMap("a", "1")})
	p.set(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/limitranges") {
			return answer(500, "InternalError", "cannot list"), nil
		}
		return nil, nil
	})
	w.Application("list", r, "k8s", eager)
	w.Application("list-other", r, "other", eager)
	w.Wait("list-other", "the other", clean(first))
	p.set(nil)
	w.Wait("list", "the recovery", clean(first))
}

func vanishing(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/vanish")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Application("vanish", r, "k8s", eager)
	w.Wait("vanish", "the first sync", clean(first))
	version := w.Get(configMaps, "vanish", "a").GetResourceVersion()
	w.mu.Lock()
	delete(w.repos, r.Name)
	w.mu.Unlock()
	if err := w.Engine.Applications().Refresh(t.Context(), "argocd", "vanish", false); err != nil {
		t.Fatal(err)
	}
	w.Wait("vanish", "the condition", says(v1alpha1.ConditionComparisonError, "contoso/vanish"))
	if o := w.Get(configMaps, "vanish", "a"); o == nil || o.GetResourceVersion() != version {
		t.Error("the live object was touched")
	}
	w.mu.Lock()
	w.repos[r.Name] = r
	w.mu.Unlock()
	w.Wait("vanish", "the recovery without a push", clean(first))
}

// unreadable takes the files of a repository away under the engine.
func unreadable(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/unreadable")
	first := r.Push(map[string]string{"k8s/Chart.yaml": "apiVersion: v2\nname: c\nversion: 0.1.0\n", "k8s/templates/a.yaml": configMap("a", "1")})
	w.Application("unreadable", r, "k8s", eager)
	w.Wait("unreadable", "the first sync", clean(first))
	objects := r.git.Dir() + "/objects"
	if err := os.Rename(objects, objects+".gone"); err != nil {
		t.Fatal(err)
	}
	r.git.Reset()
	if err := w.Engine.Applications().Refresh(t.Context(), "argocd", "unreadable", true); err != nil {
		t.Fatal(err)
	}
	v := w.Wait("unreadable", "the condition", says(v1alpha1.ConditionComparisonError))
	t.Log(v.Application.Status.Conditions[0].Message)
	if w.Get(configMaps, "unreadable", "a") == nil {
		t.Error("the live object was pruned")
	}
	if err := os.Rename(objects+".gone", objects); err != nil {
		t.Fatal(err)
	}
	r.git.Reset()
	w.Wait("unreadable", "the recovery without a push", clean(first))
	second := r.Push(map[string]string{"k8s/templates/a.yaml": configMap("a", "2")})
	w.Wait("unreadable", "the next commit", clean(second))
}

func forcePush(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/force")
	r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/b.yaml": configMap("b", "1"), "same/a.yaml": configMap("a", "1")})
	second := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "2")})
	w.Application("force", r, "k8s", eager)
	w.Application("force-same", r, "same", eager)
	w.Wait("force", "the first sync", clean(second))
	w.Wait("force-same", "the other", clean(second))
	before := w.Get(v1alpha1.ApplicationResource, "argocd", "force-same").GetResourceVersion()
	third := r.ForcePush(map[string]string{"k8s/a.yaml": configMap("a", "other history"), "k8s/b.yaml": ""})
	w.Wait("force", "the other history", clean(third))
	w.Eventually("b to go", func() bool { return w.Get(configMaps, "force", "b") == nil })
	if v, _, _ := unstructuredString(w, "force", "a"); v != "other history" {
		t.Errorf("a is %q", v)
	}
	w.Wait("force-same", "the commit to be noted", func(v application.View) bool { return v.Commit == third })
	if got := w.Get(v1alpha1.ApplicationResource, "argocd", "force-same").GetResourceVersion(); got != before {
		t.Error("the unaffected application was written")
	}
}

func badChart(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/chart")
	chart := "apiVersion: v2\nname: c\nversion: 0.1.0\n"
	first := r.Push(map[string]string{"c/Chart.yaml": chart, "c/templates/a.yaml": configMap("a", "1"), "d/Chart.yaml": chart, "d/templates/a.yaml": configMap("a", "1")})
	w.Application("chart", r, "c", eager)
	w.Application("chart-other", r, "d", eager)
	w.Wait("chart", "the first sync", clean(first))
	second := r.Push(map[string]string{"c/templates/a.yaml": configMap("a", "1") + "---\n{{ required \"size is needed\" .Values.size }}\n", "d/templates/a.yaml": configMap("a", "2")})
	v := w.Wait("chart", "the condition", says(v1alpha1.ConditionComparisonError, "c/templates/a.yaml:", "size is needed"))
	t.Log(v.Application.Status.Conditions[0].Message)
	w.Wait("chart-other", "the other", clean(second))
	if v, _, _ := unstructuredString(w, "chart", "a"); v != "1" {
		t.Errorf("a is %q", v)
	}
	third := r.Push(map[string]string{"c/values.yaml": "size: 3\n", "c/templates/a.yaml": configMap("a", "{{ .Values.size }}")})
	w.Wait("chart", "the fix", clean(third))
}

func twoClaims(t *testing.T, w *World, p *proxy) {
	r := w.NewRepo("contoso/claims")
	shared := func(v string) string { return configMap("shared", v, "  namespace: claims\n") }
	first := r.Push(map[string]string{"one/a.yaml": shared("one"), "two/a.yaml": shared("two")})
	w.Application("claims", r, "one", eager)
	w.Wait("claims", "the first", clean(first))
	w.Application("claims-two", r, "two", eager)
	w.Eventually("the warning of the one that does not have it", func() bool {
		for _, name := range []string{"claims", "claims-two"} {
			if v, err := w.Engine.Applications().Get(t.Context(), "argocd", name); err == nil && says(v1alpha1.ConditionSharedResource, "ConfigMap claims/shared")(v) {
				return true
			}
		}
		return false
	})
	time.Sleep(500 * time.Millisecond)
	before, statuses := p.written("/configmaps/shared"), p.written("/applications/claims")
	const watch = 5 * time.Second
	time.Sleep(watch)
	writes, statusWrites := p.written("/configmaps/shared")-before, p.written("/applications/claims")-statuses
	t.Logf("in %s: %d writes of the object, %d of the statuses", watch, writes, statusWrites)
	if writes > 4 || statusWrites > 16 {
		t.Errorf("the two fight: %d writes of the object and %d of the statuses in %s", writes, statusWrites, watch)
	}
	second := r.Push(map[string]string{"two/a.yaml": configMap("own", "two")})
	w.Wait("claims-two", "the end of the claim", clean(second))
	w.Wait("claims", "the first again", clean(second))
	w.Eventually("the object as the first wants it", func() bool { v, _, _ := unstructuredString(w, "claims", "shared"); return v == "one" })
}

func tooLarge(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/large")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1"), "k8s/large.yaml": configMap("large", "1")})
	w.Application("large", r, "k8s", eager)
	w.Wait("large", "the first sync", clean(first))
	r.Push(map[string]string{"k8s/large.yaml": configMap("large", strings.Repeat("0123456789abcdef", 5<<20/16))})
	v := w.Wait("large", "the condition", func(v application.View) bool {
		for _, c := range v.Application.Status.Conditions {
			if strings.Contains(c.Message, "k8s/large.yaml") && strings.Contains(c.Message, "too large") {
				return true
			}
		}
		return false
	})
	for _, c := range v.Application.Status.Conditions {
		t.Log(c.Type, c.Message)
		if len(c.Message) > 2000 {
			t.Errorf("a message of %d bytes", len(c.Message))
		}
	}
	third := r.Push(map[string]string{"k8s/large.yaml": configMap("large", "3")})
	w.Wait("large", "the fix", clean(third))
}

func endlessLink(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/link")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Application("link", r, "k8s", eager)
	w.Wait("link", "the first sync", clean(first))
	r.Push(map[string]string{"k8s/b.yaml": "-> c.yaml", "k8s/c.yaml": "-> b.yaml"})
	v := w.Wait("link", "the condition", says(v1alpha1.ConditionComparisonError, "k8s/b.yaml"))
	t.Log(v.Application.Status.Conditions[0].Message)
	third := r.Push(map[string]string{"k8s/b.yaml": "", "k8s/c.yaml": "", "k8s/self": "-> .", "k8s/away": "-> ../../../etc/passwd"})
	v = w.Wait("link", "the links of directories", func(v application.View) bool { return v.Commit == third && !v.Syncing })
	t.Log(v.Application.Status.Sync.Status, v.Application.Status.Conditions)
	r.Push(map[string]string{"k8s/self": "", "k8s/away": "", "k8s/kustomization.yaml": "resources: [loop]\n", "k8s/loop": "-> ../k8s"})
	v = w.Wait("link", "the kustomization", says(v1alpha1.ConditionComparisonError))
	t.Log(v.Application.Status.Conditions[0].Message)
	fifth := r.Push(map[string]string{"k8s/kustomization.yaml": "", "k8s/loop": ""})
	w.Wait("link", "the fix", clean(fifth))
}

func projectVanishes(t *testing.T, w *World, _ *proxy) {
	project := "apiVersion: argoproj.io/v1alpha1\nkind: AppProject\nmetadata: {name: fleeting, namespace: argocd}\nspec: {sourceRepos: ['*'], destinations: [{server: '*', namespace: '*'}], clusterResourceWhitelist: [{group: '*', kind: '*'}]}\n"
	w.Create(v1alpha1.AppProjectResource, project)
	r := w.NewRepo("contoso/fleeting")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Create(v1alpha1.ApplicationResource, `apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: fleeting, namespace: argocd}
spec: {project: fleeting, source: {repoURL: https://github.com/contoso/fleeting, path: k8s}, destination: {server: https://kubernetes.default.svc, namespace: fleeting}, `+eager+`}
`)
	w.Wait("fleeting", "the first sync", clean(first))
	if err := w.in(v1alpha1.AppProjectResource, "argocd").Delete(context.Background(), "fleeting", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Wait("fleeting", "the condition", says(v1alpha1.ConditionInvalidSpecError, "spec.project", "fleeting"))
	second := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "2")})
	w.Create(v1alpha1.AppProjectResource, project)
	w.Wait("fleeting", "the recovery", clean(second))
}

func unknownCluster(t *testing.T, w *World, _ *proxy) {
	r := w.NewRepo("contoso/where")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	w.Application("where", r, "k8s", eager)
	w.Wait("where", "the first sync", clean(first))
	patch(t, w, v1alpha1.ApplicationResource, "argocd", "where", `{"spec":{"destination":{"server":"https://192.0.2.1:6443"}}}`)
	w.Wait("where", "the condition", says(v1alpha1.ConditionInvalidSpecError, "spec.destination", "https://192.0.2.1:6443"))
	patch(t, w, v1alpha1.ApplicationResource, "argocd", "where", `{"spec":{"destination":{"server":"https://kubernetes.default.svc"}}}`)
	w.Wait("where", "the recovery", clean(first))
}
