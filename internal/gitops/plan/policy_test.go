package plan

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

// TestScalarsThatMeanTheSame compares one field, as a kind and the settings say.
func TestScalarsThatMeanTheSame(t *testing.T) {
	s, warnings := settings.Parse(map[string]string{
		"resource.customizations.knownTypeFields.example.com_Widget": `
- {field: spec.size, type: core/Quantity}
- {field: spec.every, type: meta/v1/Duration}
- {field: spec.items.pod, type: core/v1/PodSpec}
`,
	}, nil)
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	policy := PolicyOf(s)
	if bad := policy.Check(); len(bad) > 0 {
		t.Fatal(bad)
	}
	for _, c := range []struct {
		kind, desired, live string
		same                bool
	}{
		{"Widget", "{size: 1000m}", `{size: "1"}`, true},
		{"Widget", "{size: 1000m}", `{size: "2"}`, false},
		{"Widget", "{other: 1000m}", `{other: "1"}`, false},
		{"Widget", "{every: 60m}", `{every: 1h0m0s}`, true},
		{"Widget", "{every: 61m}", `{every: 1h0m0s}`, false},
		{"Widget", "{resources: {limits: {cpu: 1000m}}}", `{resources: {limits: {cpu: "1"}}}`, true},
		{"Widget", "{items: [{pod: {overhead: {}, volumes: [{name: a, emptyDir: {sizeLimit: 1024Mi}}]}}]}", `{items: [{pod: {overhead: {}, volumes: [{name: a, emptyDir: {sizeLimit: 1Gi}}]}}]}`, true},
		{"Widget", "{volumes: [{name: a, emptyDir: {sizeLimit: 1024Mi}}]}", `{volumes: [{name: a, emptyDir: {sizeLimit: 1Gi}}]}`, false},
		{"Widget", "{a: 1}", "{a: 1.0}", true},
		{"Widget", `{a: "1"}`, "{a: 1}", false},
		{"Widget", `{a: "", b: false, c: 0}`, "{}", false},
		{"Pod", `{hostname: "", hostNetwork: false, terminationGracePeriodSeconds: 0}`, "{}", true},
		{"Pod", "{volumes: [{name: a, emptyDir: {}}]}", "{volumes: [{name: a, hostPath: {path: /}}]}", false},
		{"Pod", "{nodeSelector: {}, tolerations: []}", "{}", true},
		{"Pod", "{containers: [{name: a, env: [{name: X, value: 1}]}]}", `{containers: [{name: a, env: [{name: X, value: "1"}]}]}`, false},
	} {
		desired, live := thingOf(t, c.kind, c.desired), thingOf(t, c.kind, c.live)
		key := KeyOf(desired.Unstructured)
		in := Input{Instance: "app", Manager: "m", Policy: policy, Desired: []manifest.Object{desired}, Live: map[Key]*unstructured.Unstructured{key: live.Unstructured}}
		if got := Make(in).InSync(); got != c.same {
			t.Errorf("%s: desired %s, live %s: in sync is %v", c.kind, c.desired, c.live, got)
		}
	}
}

func thingOf(t *testing.T, kind, spec string) manifest.Object {
	t.Helper()
	version := "v1"
	if kind == "Widget" {
		version = "example.com/v1"
	}
	return parse(t, "x.yaml", []byte("apiVersion: "+version+"\nkind: "+kind+"\nmetadata: {name: x, namespace: ns}\nspec: "+spec+"\n"), true)[0]
}

func TestHash(t *testing.T) {
	a := thingOf(t, "Widget", "{a: 1, b: [x, y], c: {d: true, e: null}}")
	same := thingOf(t, "Widget", "{c: {e: null, d: true}, b: [x, y], a: 1.0}")
	if Hash(a.Unstructured) != Hash(same.Unstructured) {
		t.Error("the order of fields changes the hash")
	}
	for _, other := range []string{"{a: 2, b: [x, y], c: {d: true, e: null}}", `{a: "1", b: [x, y], c: {d: true, e: null}}`, "{a: 1, b: [y, x], c: {d: true, e: null}}", "{a: 1, b: [x, y], c: {d: true}}", "{a: 1, b: [xy], c: {d: true, e: null}}"} {
		if Hash(a.Unstructured) == Hash(thingOf(t, "Widget", other).Unstructured) {
			t.Errorf("%s has the same hash", other)
		}
	}
}

func TestMakeChangesNothingItWasGiven(t *testing.T) {
	data := []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: ns, creationTimestamp: null}\nstringData: {a: b}\ndata: {c: eA==, d: null}\nstatus: {}\n")
	desired := parse(t, "x.yaml", data, true)
	live := parse(t, "x.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: ns}\ndata: {c: eQ==, gone: eA==}\n"), false)
	before, liveBefore := Hash(desired[0].Unstructured), Hash(live[0].Unstructured)
	in := Input{Instance: "app", Manager: "m", Desired: desired, Live: byKey(live), Options: Options{RespectIgnoreDifferences: true}}
	c := Make(in).Changes[0]
	if _, err := c.Text(); err != nil {
		t.Fatal(err)
	}
	if Hash(desired[0].Unstructured) != before || Hash(live[0].Unstructured) != liveBefore {
		t.Error("an object that was given was changed")
	}
	if _, has := c.Desired.Object["stringData"]; has || c.Desired.Object["data"].(map[string]any)["a"] != "Yg==" {
		t.Errorf("not normalized: %v", c.Desired.Object)
	}
}
