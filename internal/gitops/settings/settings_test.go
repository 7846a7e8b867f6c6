package settings

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func TestDefault(t *testing.T) {
	s, warnings := Parse(nil, nil)
	if len(warnings) > 0 {
		t.Error(warnings)
	}
	if diff := cmp.Diff(Default(), s, cmp.Comparer(func(a, b []Override) bool { return len(a) == len(b) })); diff != "" {
		t.Error(diff)
	}
	if !s.IgnoresStatus("", "Pod") || s.Excluded("apps", "Deployment", "x") || !s.Excluded("", "Event", "x") {
		t.Error("the defaults of status and exclusions")
	}
}

func TestParse(t *testing.T) {
	s, warnings := Parse(map[string]string{
		"url":                                                       "https://cd.example.com",
		"resource.compareoptions":                                   "ignoreAggregatedRoles: true\nignoreResourceStatusField: off\n",
		"resource.ignoreResourceUpdatesEnabled":                     "false",
		"resource.sensitive.mask.annotations":                       "a.example.com/token, api-key",
		"application.instanceLabelKey":                              "example.com/app",
		"application.resourceTrackingMethod":                        "annotation+label",
		"installationID":                                            "one",
		"kustomize.buildOptions":                                    "--enable-helm --load-restrictor LoadRestrictionsNone",
		"kustomize.buildOptions.v4.5.7":                             "--enable-helm",
		"helm.valuesFileSchemes":                                    "https, s3",
		"timeout.reconciliation":                                    "5m",
		"timeout.reconciliation.jitter":                             "0",
		"globalProjects":                                            "- projectName: base\n  labelSelector:\n    matchLabels: {team: a}\n",
		"application.sync.impersonation.enabled":                    "true",
		"lockstep.genericHealth":                                    "example.com/*, *.example.org/Thing",
		"accounts.alice":                                            "login",
		"users.anonymous.enabled":                                   "true",
		"resource.customizations.knownTypeFields.example.com_Thing": "- field: spec.podSpec\n  type: core/v1/PodSpec\n",
	}, map[string]string{
		"controller.diff.server.side":          "true",
		"application.namespaces":               "team-*, other",
		"controller.self.heal.timeout.seconds": "7",
		"controller.status.processors":         "50",
		"redis.server":                         "x:1",
	})
	var warned []string
	for _, w := range warnings {
		warned = append(warned, w.Key)
	}
	if slices.Sort(warned); !slices.Equal(warned, []string{"application.resourceTrackingMethod", "installationID"}) {
		t.Errorf("warnings: %v", warnings)
	}
	want := Default()
	want.URL, want.IgnoreAggregatedRoles, want.IgnoreStatusField = "https://cd.example.com", true, StatusOfNone
	want.IgnoreResourceUpdatesEnabled = false
	want.MaskedAnnotations = []string{"a.example.com/token", "api-key"}
	want.InstanceLabelKey, want.TrackingMethod, want.InstallationID = "example.com/app", TrackAnnotationAndLabel, "one"
	want.KustomizeBuildOptions = "--enable-helm --load-restrictor LoadRestrictionsNone"
	want.KustomizeVersionOptions = map[string]string{"v4.5.7": "--enable-helm"}
	want.HelmValuesSchemes = []string{"https", "s3"}
	want.Reconciliation, want.ReconciliationJitter = 5*time.Minute, 0
	want.Impersonation, want.ServerSideDiff = true, true
	want.GenericHealth = []Pattern{{"example.com", "*"}, {"*.example.org", "Thing"}}
	want.ApplicationNamespaces = []string{"team-*", "other"}
	want.SelfHealTimeout, want.StatusProcessors = 7*time.Second, 50
	want.GlobalProjects = s.GlobalProjects
	want.Overrides = s.Overrides
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if len(s.GlobalProjects) != 1 || s.GlobalProjects[0].Selector.MatchLabels["team"] != "a" {
		t.Errorf("global projects: %+v", s.GlobalProjects)
	}
	if got := s.KnownTypeFieldsFor("example.com", "Thing"); len(got) != 1 || got[0].Type != "core/v1/PodSpec" {
		t.Errorf("known type fields: %+v", got)
	}
	if flags, ok := s.BuildOptions("v4.5.7"); !ok || len(flags) != 1 {
		t.Errorf("build options: %v %v", flags, ok)
	}
	if _, ok := s.BuildOptions("v9"); ok {
		t.Error("a version that no key names is known")
	}
	if got := s.Pause(0.5); got != 5*time.Minute {
		t.Errorf("pause %v", got)
	}
}

func TestOverrides(t *testing.T) {
	s, warnings := Parse(map[string]string{
		"resource.customizations": `
apps/Deployment:
  health.lua: |
    return {status = "Healthy"}
  ignoreDifferences: |
    jsonPointers: [/spec/replicas]
"*.example.com/*":
  health.lua: "return {}"
  health.lua.useOpenLibs: true
`,
		"resource.customizations.health.apps_Deployment":                                                      "return {status = 'Degraded'}",
		"resource.customizations.health.Pod":                                                                  "return {}",
		"resource.customizations.useOpenLibs.Pod":                                                             "true",
		"resource.customizations.health._.example.org__":                                                      "return {}",
		"resource.customizations.ignoreDifferences.all":                                                       "managedFieldsManagers: [rancher]",
		"resource.customizations.ignoreDifferences.admissionregistration.k8s.io_MutatingWebhookConfiguration": "jqPathExpressions: ['.webhooks[].clientConfig.caBundle']",
		"resource.customizations.ignoreResourceUpdates.all":                                                   "jsonPointers: [/metadata/resourceVersion]",
		"resource.customizations.actions.batch_CronJob":                                                       "mergeBuiltinActions: true\ndiscovery.lua: return {}\ndefinitions:\n- name: go\n  action.lua: return obj\n",
	}, nil)
	for _, w := range warnings {
		t.Error(w)
	}
	first := func(group, kind string) Override { return s.OverridesFor(group, kind)[0] }
	if o := first("apps", "Deployment"); o.HealthLua != "return {status = 'Degraded'}" || len(o.IgnoreDifferences.JSONPointers) != 1 {
		t.Errorf("the small key did not win over the large one: %+v", o)
	}
	if o := first("", "Pod"); !o.UseOpenLibs || o.HealthLua == "" {
		t.Errorf("Pod: %+v", o)
	}
	if o := first("a.example.com", "Any"); !o.UseOpenLibs {
		t.Errorf("wildcard: %+v", o)
	}
	if o := first("b.example.org", "Any"); o.Pattern != (Pattern{"*.example.org", "*"}) {
		t.Errorf("wildcard in a key: %+v", o)
	}
	if a := first("batch", "CronJob").Actions; a == nil || !a.MergeBuiltinActions || len(a.Definitions) != 1 || a.Definitions[0].Lua != "return obj" {
		t.Errorf("actions: %+v", a)
	}
	want := []v1alpha1.IgnoreDifferences{
		{Group: "apps", Kind: "Deployment", JSONPointers: []string{"/spec/replicas"}},
		{Group: "apps", Kind: "Deployment", ManagedFieldsManagers: []string{"rancher"}},
		{Group: "apps", Kind: "Deployment", JSONPointers: []string{"/status"}},
	}
	if diff := cmp.Diff(want, s.IgnoreDifferencesFor("apps", "Deployment")); diff != "" {
		t.Error(diff)
	}
	if got := s.IgnoreUpdatesFor("apps", "Deployment"); len(got) != 3 {
		t.Errorf("updates: %+v", got)
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"resource.customizations", "a: [", "is not read"},
		{"resource.customizations", "a/b/c: {health.lua: x}", "does not name a kind"},
		{"resource.customizations", "a/B: {helth.lua: x}", "not known"},
		{"resource.customizations.helth.apps_Deployment", "x", "not a kind of customization"},
		{"resource.customizations.health", "x", "does not end with group_Kind"},
		{"resource.customizations.health.a_b_c", "x", "not group_Kind"},
		{"resource.customizations.useOpenLibs.Pod", "maybe", "neither true nor false"},
		{"resource.customizations.ignoreDifferences.Pod", "jsonPointers: [spec/replicas]", "does not start with /"},
		{"resource.customizations.actions.Pod", "definitions: [{name: x}]", "needs name and action.lua"},
		{"resource.exclusions", "- apiGroup: [x]", "not known"},
		{"resource.compareoptions", "ignoreResourceStatusField: some", "none of all, crd and none"},
		{"application.resourceTrackingMethod", "labels", "not a method of tracking"},
		{"timeout.reconciliation", "soon", "not a duration"},
		{"kustomize.version.v3", "/bin/kustomize3", "Kustomize is built in"},
		{"resource.respectRBAC", "strict", "is not carried out"},
		{"resource.exclusion", "x", "did you mean resource.exclusions?"},
		{"no.such.key", "x", "is not known"},
	} {
		_, warnings := Parse(map[string]string{c.key: c.value}, nil)
		if len(warnings) != 1 || !strings.HasPrefix(warnings[0].Key, c.key) || !strings.Contains(warnings[0].Message, c.want) {
			t.Errorf("%s = %q: got %v; want %q", c.key, c.value, warnings, c.want)
		}
	}
	_, warnings := Parse(nil, map[string]string{"controler.status.processors": "1", "reposerver.allow.oob.symlinks": "true"})
	if len(warnings) != 2 {
		t.Errorf("params: %v", warnings)
	}
}

func TestExcluded(t *testing.T) {
	const here, there = "https://kubernetes.default.svc", "https://there.local:6443"
	s, warnings := Parse(map[string]string{
		"resource.exclusions": "- apiGroups: ['*.example.com']\n  kinds: [Snapshot]\n  clusters: ['*.local*']\n- kinds: [Secret]\n  apiGroups: ['']\n",
		"resource.inclusions": "- apiGroups: [apps, '']\n  kinds: ['*']\n  clusters: ['" + here + "']\n",
	}, nil)
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	for _, c := range []struct {
		group, kind, cluster string
		want                 bool
	}{
		{"a.example.com", "Snapshot", there, true},
		{"a.example.com", "Other", there, false},
		{"example.com", "Snapshot", there, false},
		{"", "Secret", there, true},
		{"", "Secret", here, true}, // an exclusion wins
		{"apps", "Deployment", here, false},
		{"batch", "Job", here, true}, // not among the inclusions of this cluster
		{"batch", "Job", there, false},
		{"coordination.k8s.io", "Lease", there, true},
	} {
		if got := s.Excluded(c.group, c.kind, c.cluster); got != c.want {
			t.Errorf("%s/%s on %s: %v", c.group, c.kind, c.cluster, got)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"*", "a/b.c", true}, {"a*c", "abbc", true}, {"a*c", "abb", false},
		{"?b", "ab", true}, {"?", "", false}, {"*.{x,y}.io", "a.y.io", true}, {"*.{x,y}.io", "a.z.io", false},
		{"*a*b*", "xxaxxbxx", true}, {"{", "{", true}, {"a", "ab", false},
	} {
		if got := Glob(c.pattern, c.s); got != c.want {
			t.Errorf("Glob(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("resource.customizations", "apps/Deployment: {health.lua: x}")
	f.Add("resource.customizations.actions.batch_CronJob", "definitions: [{name: a, action.lua: b}]")
	f.Add("resource.compareoptions", "ignoreResourceStatusField: off")
	f.Add("timeout.reconciliation", "1d2h")
	f.Add("resource.customizations.health._.a__", "x{,}")
	f.Fuzz(func(t *testing.T, key, value string) {
		s, _ := Parse(map[string]string{key: value}, map[string]string{key: value})
		s.IgnoreDifferencesFor("apps", "Deployment")
		s.Excluded("apps", "Deployment", "x")
		if s.Pause(0.9) < 0 {
			t.Error("a pause below zero")
		}
	})
}
