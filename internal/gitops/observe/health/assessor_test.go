package health

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

func assessor(t testing.TB, config map[string]string) (*Assessor, []settings.Warning) {
	t.Helper()
	s, warnings := settings.Parse(config, nil)
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	return New(s)
}

func TestPrecedence(t *testing.T) {
	a, warnings := assessor(t, map[string]string{
		"resource.customizations.health.apps_Deployment":       "return {status = 'Degraded', message = obj.metadata.name}",
		"resource.customizations.health.cert-manager.io__":     "return {status = 'Suspended'}",
		"resource.customizations.health.example.com__":         "return {status = 'Healthy', aggregateAs = 'Degraded'}",
		"resource.customizations.health.example.com_Bad":       "return {status = 'Wonderful'}",
		"resource.customizations.health.example.com_Error":     "return obj.a.b",
		"resource.customizations.health.example.com_Text":      "return 'Healthy'",
		"resource.customizations.health.example.com_Broken":    "return (",
		"resource.customizations.health.example.com_Open":      "return {status = 'Healthy', message = string.upper('x')}",
		"resource.customizations.useOpenLibs.example.com_Open": "true",
		"lockstep.genericHealth":                               "example.org/*",
	})
	if len(warnings) != 1 || !strings.Contains(warnings[0].Key, "Broken") {
		t.Errorf("warnings: %v", warnings)
	}
	for _, c := range []struct{ object, code, message string }{
		{"{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}", "Degraded", "web"},
		{"{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web, generation: 1}}", "Progressing", "observed"},
		{"{apiVersion: cert-manager.io/v1, kind: Certificate}", "Suspended", ""},
		{"{apiVersion: acme.cert-manager.io/v1, kind: Order}", "Progressing", ""},
		{"{apiVersion: example.com/v1, kind: Any}", "Healthy", ""},
		{"{apiVersion: example.com/v1, kind: Bad}", "Unknown", "Wonderful"},
		{"{apiVersion: example.com/v1, kind: Error}", "Unknown", "example.com/Error"},
		{"{apiVersion: example.com/v1, kind: Text}", "Unknown", "no table"},
		{"{apiVersion: example.com/v1, kind: Broken}", "Unknown", "compile"},
		{"{apiVersion: example.com/v1, kind: Open}", "Healthy", "X"},
		{"{apiVersion: other.io/v1, kind: Any, status: {conditions: [{type: Ready, status: 'False'}]}}", "", ""},
		{"{apiVersion: example.org/v1, kind: Any, status: {conditions: [{type: Ready, status: 'False', reason: R, message: m}]}}", "Degraded", "R: m"},
		{"{apiVersion: example.org/v1, kind: Any, status: {conditions: [{type: Ready, status: 'True'}, {type: Stalled, status: 'True', message: s}]}}", "Degraded", "s"},
		{"{apiVersion: example.org/v1, kind: Any, status: {conditions: [{type: Reconciling, status: 'True', message: r}]}}", "Progressing", "r"},
		{"{apiVersion: example.org/v1, kind: Any, metadata: {generation: 2}, status: {observedGeneration: 1}}", "Progressing", "generation 2"},
		{"{apiVersion: example.org/v1, kind: Any, metadata: {generation: 2}, status: {conditions: [{type: Available, status: 'True', observedGeneration: 1}]}}", "Progressing", "generation 2"},
		{"{apiVersion: example.org/v1, kind: Any, status: {conditions: [{type: Available, status: 'True'}]}}", "Healthy", ""},
		{"{apiVersion: example.org/v1, kind: Any}", "", ""},
	} {
		got, ok := a.Of(parse(t, c.object))
		if ok != (c.code != "") || string(got.Code) != c.code || !strings.Contains(got.Message, c.message) {
			t.Errorf("%s: got %v %q; want %v with %q", c.object, got.Code, got.Message, c.code, c.message)
		}
	}
	if s, _ := a.Of(parse(t, "{apiVersion: example.com/v1, kind: Any}")); s.Counts() != v1alpha1.HealthDegraded {
		t.Errorf("counts as %v", s.Counts())
	}
	if a.Known(schema.GroupKind{Group: "other.io", Kind: "Any"}) || !a.Known(schema.GroupKind{Kind: "Pod"}) {
		t.Error("the kinds that have health")
	}
}

func TestApplicationOverride(t *testing.T) {
	a, _ := assessor(t, map[string]string{"resource.customizations.health.argoproj.io_Application": "return {status = 'Healthy', message = 'lua'}"})
	if s, _ := a.Of(parse(t, "{apiVersion: argoproj.io/v1alpha1, kind: Application}")); s.Message != "lua" {
		t.Errorf("got %+v", s)
	}
}

func TestBadRules(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{"{match: a/B, checks: [{when: {path: x}, health: Healthy}]}", "path goes together"},
		{"{match: a/B, checks: [{when: {reason: x}, health: Healthy}]}", "need a condition"},
		{"{match: a/B, checks: [{when: {path: 'a..b', is: x}, health: Healthy}]}", "empty part"},
		{"{match: a/B, checks: [{when: {path: 'a[x', is: x}, health: Healthy}]}", "not closed"},
		{"{match: a/B, checks: [{when: {path: a, below: true}, health: Healthy}]}", "neither a number"},
		{"{match: a/B, checks: [{when: {condition: x}, health: Fine}]}", "Fine"},
		{"{match: a/B, otherwise: {health: Healthy, message: '{a'}}", "without }"},
		{"{match: a/B, observed: maybe}", "maybe"},
		{"{match: a/B, function: none}", "no \"none\""},
		{"{match: a/b/c}", "does not name a kind"},
	} {
		var spec ruleSpec
		if err := yaml.UnmarshalStrict([]byte(c.rule), &spec); err != nil {
			t.Fatal(err)
		}
		if _, err := compile(spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.rule, err, c.want)
		}
	}
}

// anything draws any JSON, with the field names that the rules look at.
func anything(depth int) *rapid.Generator[any] {
	leaf := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.SampledFrom([]string{"", "True", "False", "Ready", "Running", "Failed", "Pending", "Always", "Never", "LoadBalancer", "ErrX"}), func(s string) any { return s }),
	}
	if depth == 0 {
		return rapid.OneOf(leaf...)
	}
	name := rapid.SampledFrom([]string{"metadata", "spec", "status", "conditions", "type", "reason", "message", "observedGeneration", "generation", "phase",
		"containerStatuses", "state", "lastState", "waiting", "terminated", "exitCode", "annotations", "replicas", "parents", "loadBalancer", "ingress", "health", "sync", "suspend"})
	inner := rapid.Deferred(func() *rapid.Generator[any] { return anything(depth - 1) })
	return rapid.OneOf(append(leaf,
		rapid.Map(rapid.SliceOfN(inner, 0, 4), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(name, inner, 0, 6), func(m map[string]any) any { return m }))...)
}

// TestNeverPanics judges objects of every kind with random content.
func TestNeverPanics(t *testing.T) {
	a, _ := assessor(t, map[string]string{"lockstep.genericHealth": "*", "resource.customizations.health.lua.io_Kind": "return {status = obj.status.phase, message = obj.status.message}"})
	kinds := []schema.GroupKind{{Group: "lua.io", Kind: "Kind"}, {Group: "unknown.io", Kind: "Kind"}, {Group: "s3.aws.upbound.io", Kind: "Bucket"}}
	for gk := range a.exact {
		kinds = append(kinds, gk)
	}
	rapid.Check(t, func(t *rapid.T) {
		gk := rapid.SampledFrom(kinds).Draw(t, "kind")
		o, _ := anything(5).Draw(t, "object").(map[string]any)
		if o == nil {
			o = map[string]any{}
		}
		for _, part := range []string{"metadata", "spec", "status"} {
			o[part] = anything(4).Draw(t, part)
		}
		o["apiVersion"], o["kind"] = gk.Group+"/v1", gk.Kind
		if s, ok := a.Of(&unstructured.Unstructured{Object: o}); ok && !known(s.Code) {
			t.Errorf("the code %q", s.Code)
		}
	})
	a.Of(nil)
	a.Of(&unstructured.Unstructured{})
}

func FuzzOf(f *testing.F) {
	a, _ := New(nil)
	f.Add([]byte("{apiVersion: apps/v1, kind: Deployment, status: {conditions: [1, null, {type: Progressing}]}}"))
	f.Add([]byte("{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, status: {parents: [{conditions: x}]}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var o map[string]any
		if yaml.Unmarshal(data, &o) == nil {
			a.Of(&unstructured.Unstructured{Object: o})
		}
	})
}

func BenchmarkOf(b *testing.B) {
	a, _ := assessor(b, map[string]string{
		"resource.customizations.health.example.com_Thing":     "local hs = {} if obj.status ~= nil then for i, c in ipairs(obj.status.conditions) do if c.type == 'Ready' and c.status == 'True' then hs.status = 'Healthy' hs.message = c.message return hs end end end hs.status = 'Progressing' return hs",
		"resource.customizations.health.example.com_Open":      "return {status = 'Healthy', message = string.format('%d', obj.metadata.generation)}",
		"resource.customizations.useOpenLibs.example.com_Open": "true",
	})
	for _, c := range []struct{ name, object string }{
		{"Deployment", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 2}, spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, updatedReplicas: 2, availableReplicas: 2, conditions: [{type: Available, status: 'True'}, {type: Progressing, status: 'True', reason: NewReplicaSetAvailable}]}}"},
		{"ConfigMap", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {a: b}}"},
		{"UnknownKind", "{apiVersion: other.io/v1, kind: Other, metadata: {name: a}}"},
		{"Pod", "{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {phase: Running, conditions: [{type: PodScheduled, status: 'True'}, {type: Ready, status: 'True'}], containerStatuses: [{name: a, state: {running: {}}}]}}"},
		{"Rule", "{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: a, generation: 1}, status: {conditions: [{type: Ready, status: 'True', message: Certificate is up to date}]}}"},
		{"RulePattern", "{apiVersion: s3.aws.upbound.io/v1, kind: Bucket, metadata: {name: a}, status: {conditions: [{type: Synced, status: 'True'}, {type: Ready, status: 'True'}]}}"},
		{"Lua", "{apiVersion: example.com/v1, kind: Thing, metadata: {name: a, labels: {a: b, c: d}}, spec: {a: {b: [c, d, e], f: 1}}, status: {conditions: [{type: Other, status: 'False'}, {type: Ready, status: 'True', message: m}]}}"},
		{"LuaOpenLibs", "{apiVersion: example.com/v1, kind: Open, metadata: {name: a, generation: 3}}"},
	} {
		o := parse(b, c.object)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.Of(o)
			}
		})
	}
}

// TestNoAllocation: every change of 50,000 watched objects is judged.
func TestNoAllocation(t *testing.T) {
	a, _ := New(nil)
	for _, text := range []string{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "{apiVersion: other.io/v1, kind: Other, metadata: {name: a}}",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {generation: 1}, spec: {replicas: 1}, status: {observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1}}"} {
		o := parse(t, text)
		if n := testing.AllocsPerRun(100, func() { a.Of(o) }); n > 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}
