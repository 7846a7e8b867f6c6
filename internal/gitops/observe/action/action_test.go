package action

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

func clock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func parse(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return o
}

func actions(t testing.TB, config map[string]string) *Actions {
	t.Helper()
	s, warnings := settings.Parse(config, nil)
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	a, warnings := New(s, clock)
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	return a
}

// TestBuiltin runs one action: what it offers, and what it changes.
func TestBuiltin(t *testing.T) {
	a := actions(t, nil)
	for _, c := range []struct {
		object, name string
		params       map[string]string
		offers       string // the names, with ! for the disabled
		want         string // at a path of the changed object
		at           []string
		subresource  string
	}{
		{"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 2}}", "restart", nil, "pause restart resume! scale",
			"2026-01-02T03:04:05Z", []string{"spec", "template", "metadata", "annotations", "kubectl.kubernetes.io/restartedAt"}, ""},
		{"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 2}}", "scale", map[string]string{"replicas": "5"}, "", "5", []string{"spec", "replicas"}, ""},
		{"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {paused: true}}", "resume", nil, "pause! restart resume scale", "false", []string{"spec", "paused"}, ""},
		{"{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a}}", "scale", map[string]string{"replicas": "0"}, "restart scale", "0", []string{"spec", "replicas"}, ""},
		{"{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a}}", "restart", nil, "restart", "", nil, ""},
		{"{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}}", "suspend", nil, "create-job resume! suspend", "true", []string{"spec", "suspend"}, ""},
		{"{apiVersion: batch/v1, kind: Job, metadata: {name: a}, status: {conditions: [{type: Complete, status: 'True'}]}}", "suspend", nil, "resume! suspend! terminate!", "true", []string{"spec", "suspend"}, ""},
		{"{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}, status: {currentPodHash: b, stableRS: a, currentStepIndex: 0}}", "abort", nil,
			"abort pause promote-full restart resume! retry! skip-current-step", "true", []string{"status", "abort"}, "status"},
		{"{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}, status: {currentPodHash: b, stableRS: b}}", "promote-full", nil,
			"abort! pause promote-full! restart resume! retry! skip-current-step!", "true", []string{"status", "promoteFull"}, "status"},
		{"{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}, spec: {strategy: {canary: {steps: [{setWeight: 1}, {pause: {}}]}}}, status: {currentPodHash: b, stableRS: a, currentStepIndex: 1, pauseConditions: [{}]}}",
			"skip-current-step", nil, "", "2", []string{"status", "currentStepIndex"}, "status"},
		{"{apiVersion: argoproj.io/v1alpha1, kind: Workflow, metadata: {name: a}, status: {phase: Running}}", "stop", nil, "resubmit resume! stop suspend terminate", "Stop", []string{"spec", "shutdown"}, ""},
		{"{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: a}, spec: {syncPolicy: {automated: {prune: true}}}}", "toggle-auto-sync", nil, "refresh toggle-auto-sync", "false", []string{"spec", "syncPolicy", "automated", "enabled"}, ""},
		{"{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: a}, spec: {suspend: true}}", "reconcile", nil, "reconcile! resume suspend!",
			"2026-01-02T03:04:05Z", []string{"metadata", "annotations", "reconcile.fluxcd.io/requestedAt"}, ""},
		{"{apiVersion: external-secrets.io/v1, kind: ExternalSecret, metadata: {name: a}}", "refresh", nil, "refresh", "2026-01-02T03:04:05Z", []string{"metadata", "annotations", "force-sync"}, ""},
		{"{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: a, generation: 3}, status: {conditions: [{type: Ready, status: 'True'}]}}", "renew", nil, "renew", "", nil, "status"},
		{"{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, metadata: {name: a, annotations: {autoscaling.keda.sh/paused-replicas: '1'}}}", "resume", nil, "pause paused-replicas resume", "", []string{"metadata", "annotations", "autoscaling.keda.sh/paused-replicas"}, ""},
		{"{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, metadata: {name: a}, status: {instanceNames: [a-1, a-2], currentPrimary: a-1}}", "promote", nil,
			"hibernate promote reload restart resume! suspend wake!", "a-2", []string{"status", "targetPrimary"}, "status"},
		{"{apiVersion: kafka.strimzi.io/v1beta2, kind: KafkaConnector, metadata: {name: a}}", "pause", nil, "pause restart resume!", "true", []string{"metadata", "annotations", "strimzi.io/pause-reconciliation"}, ""},
	} {
		o := parse(t, c.object)
		before := o.DeepCopy()
		list, err := a.List(o)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, x := range list {
			if x.Disabled {
				x.Name += "!"
			}
			names = append(names, x.Name)
		}
		if got := strings.Join(names, " "); c.offers != "" && got != c.offers {
			t.Errorf("%s offers %q; want %q", c.object, got, c.offers)
		}
		changes, err := a.Run(o, c.name, c.params)
		if err != nil || len(changes) != 1 || changes[0].Operation != Patch || changes[0].Subresource != c.subresource {
			t.Errorf("%s %s: %+v, %v", c.object, c.name, changes, err)
			continue
		}
		if !reflect.DeepEqual(before, o) {
			t.Errorf("%s changed its object", c.name)
		}
		if c.at == nil {
			continue
		}
		data, err := yaml.Marshal(fields(changes[0].Object.Object).at(c.at...))
		if got := strings.Trim(strings.TrimSpace(string(data)), `"'`); err != nil || got != c.want && !(c.want == "" && got == "null") {
			t.Errorf("%s %s: %q; want %q", c.object, c.name, got, c.want)
		}
	}
}

func TestCreate(t *testing.T) {
	a := actions(t, nil)
	changes, err := a.Run(parse(t, `{apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly, namespace: ns, uid: u},
		spec: {jobTemplate: {metadata: {labels: {a: b}}, spec: {template: {spec: {}}}}}}`), "create-job", nil)
	if err != nil || len(changes) != 1 || changes[0].Operation != Create {
		t.Fatalf("%+v %v", changes, err)
	}
	job := changes[0].Object
	if !strings.HasPrefix(job.GetName(), "nightly-") || job.GetNamespace() != "ns" || job.GetLabels()["a"] != "b" ||
		job.GetOwnerReferences()[0].Name != "nightly" || job.GetAnnotations()["cronjob.kubernetes.io/instantiate"] != "manual" {
		t.Errorf("%v", job.Object)
	}
	for _, kind := range []string{"WorkflowTemplate", "CronWorkflow"} {
		changes, err = a.Run(parse(t, "{apiVersion: argoproj.io/v1alpha1, kind: "+kind+", metadata: {name: "+strings.Repeat("w", 80)+", namespace: ns}}"), "create-workflow", nil)
		if err != nil || len(changes) != 1 || len(changes[0].Object.GetName()) > 63 || changes[0].Object.GetNamespace() != "ns" {
			t.Errorf("%s: %+v %v", kind, changes, err)
		}
	}
}

func TestRunFails(t *testing.T) {
	a := actions(t, nil)
	deployment := parse(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}")
	if _, err := a.Run(deployment, "explode", nil); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "pause, restart, resume, scale") {
		t.Errorf("%v", err)
	}
	for _, n := range []string{"", "-1", "x", "99999999999"} {
		if _, err := a.Run(deployment, "scale", map[string]string{"replicas": n}); err == nil {
			t.Errorf("scale to %q", n)
		}
	}
	if _, err := a.Run(parse(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: 1}"), "restart", nil); err == nil {
		t.Error("a spec that is a number")
	}
	if _, err := a.Run(parse(t, "{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, metadata: {name: a}, status: {instanceNames: [a-1], currentPrimary: a-1}}"), "promote", map[string]string{"instance": "b"}); err == nil {
		t.Error("promoted an instance that does not exist")
	}
}

const cronJobActions = `
mergeBuiltinActions: true
discovery.lua: |
  local actions = {}
  actions["go"] = {["disabled"] = obj.spec.suspend == true, ["displayName"] = "Go", ["iconClass"] = "fa fa-play", ["params"] = {{["name"] = "n", ["default"] = "1"}}}
  actions["suspend"] = {["disabled"] = true}
  return actions
definitions:
- name: go
  action.lua: |
    obj.metadata.annotations = {n = actionParams["n"]}
    return obj
- name: two
  action.lua: |
    local job = {apiVersion = "batch/v1", kind = "Job", metadata = {name = obj.metadata.name .. "-1"}}
    obj.spec.suspend = true
    return {{operation = "create", resource = job}, {operation = "patch", resource = obj}}
- name: other
  action.lua: |
    obj.metadata.name = "other"
    return obj
- name: bad
  action.lua: return {{operation = "delete", resource = obj}}
- name: text
  action.lua: return "x"
- name: error
  action.lua: error("no")
`

func TestLua(t *testing.T) {
	a := actions(t, map[string]string{
		"resource.customizations.actions.batch_CronJob":   cronJobActions,
		"resource.customizations.actions.apps_Deployment": "discovery.lua: return {}\n",
	})
	o := parse(t, "{apiVersion: batch/v1, kind: CronJob, metadata: {name: a, namespace: n}, spec: {empty: {}, list: [], jobTemplate: {spec: {x: {}}}}}")
	list, err := a.List(o)
	if err != nil || len(list) != 4 || list[1].Name != "go" || list[1].DisplayName != "Go" || list[1].Params[0] != (Param{"n", "1"}) || list[3].Name != "suspend" || !list[3].Disabled {
		t.Errorf("%+v %v", list, err)
	}
	changes, err := a.Run(o, "go", map[string]string{"n": "7"})
	if err != nil || changes[0].Object.GetAnnotations()["n"] != "7" {
		t.Fatalf("%+v %v", changes, err)
	}
	// Empty maps stay maps, and empty lists stay lists.
	if !reflect.DeepEqual(changes[0].Object.Object["spec"], o.Object["spec"]) {
		t.Errorf("the spec became %v", changes[0].Object.Object["spec"])
	}
	changes, err = a.Run(o, "two", nil)
	if err != nil || len(changes) != 2 || changes[0].Operation != Create || changes[0].Object.GetName() != "a-1" || changes[1].Operation != Patch {
		t.Errorf("%+v %v", changes, err)
	}
	if _, err := a.Run(o, "create-job", nil); err != nil {
		t.Errorf("the built-in action is gone: %v", err)
	}
	for name, want := range map[string]string{"other": "only its own object", "bad": "neither patch nor create", "text": "neither an object nor", "error": "no"} {
		if _, err := a.Run(o, name, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
	d := parse(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}")
	if list, err := a.List(d); err != nil || len(list) != 0 {
		t.Errorf("without mergeBuiltinActions the built-in ones stay: %v %v", list, err)
	}
	if _, err := a.Run(d, "restart", nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
}

func TestBrokenScript(t *testing.T) {
	s, _ := settings.Parse(map[string]string{"resource.customizations.actions.Pod": "discovery.lua: 'return ('\ndefinitions: [{name: a, action.lua: 'x x'}]"}, nil)
	if _, warnings := New(s, nil); len(warnings) != 2 {
		t.Errorf("%v", warnings)
	}
}

// FuzzRun runs every built-in action of every kind on objects of any form.
func FuzzRun(f *testing.F) {
	a, _ := New(nil, clock)
	f.Add([]byte("{metadata: 1, spec: {template: []}, status: {conditions: [1]}}"))
	f.Add([]byte("{metadata: {name: a}, spec: {paused: true, strategy: {canary: {steps: [1]}}}, status: {currentStepIndex: 9, instanceNames: [1]}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := &unstructured.Unstructured{}
		if json, err := yaml.YAMLToJSON(data); err != nil || yaml.Unmarshal(json, &o.Object) != nil || o.Object == nil {
			return
		}
		for _, gk := range Kinds() {
			x := parse(t, "{apiVersion: v1, kind: "+gk.Kind+"}")
			for k, v := range o.DeepCopy().Object {
				x.Object[k] = v
			}
			x.Object["apiVersion"], x.Object["kind"] = gk.Group+"/v1", gk.Kind
			list, err := a.List(x)
			if err != nil {
				t.Fatal(err)
			}
			for _, y := range list {
				_, _ = a.Run(x, y.Name, map[string]string{"replicas": "1"})
			}
		}
	})
}
