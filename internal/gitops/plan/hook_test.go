package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

func annotated(kind string, pairs ...string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": "o", "namespace": "ns"}}}
	annotations := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		annotations[pairs[i]] = pairs[i+1]
	}
	o.SetAnnotations(annotations)
	return o
}

func TestHooks(t *testing.T) {
	const argo, helm = v1alpha1.AnnotationHook, "helm.sh/hook"
	for _, c := range []struct {
		annotations []string
		want        string // "plain", "never", or phases, policies and wave
		warning     string
	}{
		{nil, "plain", ""},
		{[]string{argo, "PreSync"}, "[PreSync] [BeforeHookCreation] 0", ""},
		{[]string{argo, "PreSync, PostSync,PreSync"}, "[PreSync PostSync] [BeforeHookCreation] 0", ""},
		{[]string{argo, "PreDelete,PostDelete,SyncFail,Sync"}, "[PreDelete PostDelete SyncFail Sync] [BeforeHookCreation] 0", ""},
		{[]string{argo, "Skip"}, "never", ""},
		{[]string{argo, "Skip,Sync"}, "[Sync] [BeforeHookCreation] 0", ""},
		{[]string{argo, "presync"}, "never", `there is no hook "presync"`},
		{[]string{argo, "nonsense", helm, "pre-install"}, "never", `there is no hook "nonsense"`},
		{[]string{argo, "PostSync", helm, "pre-install"}, "[PostSync] [BeforeHookCreation] 0", ""},
		{[]string{helm, "pre-install,pre-upgrade"}, "[PreSync] [BeforeHookCreation] 0", ""},
		{[]string{helm, "post-install,pre-upgrade"}, "[PostSync PreSync] [BeforeHookCreation] 0", ""},
		{[]string{helm, "pre-delete", "helm.sh/hook-weight", "-5"}, "[PreDelete] [BeforeHookCreation] -5", ""},
		{[]string{helm, "post-delete", "helm.sh/hook-weight", "-5", v1alpha1.AnnotationSyncWave, "3"}, "[PostDelete] [BeforeHookCreation] 3", ""},
		{[]string{helm, "crd-install"}, "plain", ""},
		{[]string{helm, "test"}, "never", ""},
		{[]string{helm, "test-success,post-rollback"}, "never", ""},
		{[]string{helm, "post-install", "helm.sh/hook-delete-policy", "hook-succeeded, before-hook-creation"}, "[PostSync] [HookSucceeded BeforeHookCreation] 0", ""},
		{[]string{argo, "Sync", v1alpha1.AnnotationHookDelete, "HookFailed,HookSucceeded"}, "[Sync] [HookFailed HookSucceeded] 0", ""},
		{[]string{argo, "Sync", v1alpha1.AnnotationHookDelete, "Later"}, "[Sync] [BeforeHookCreation] 0", `there is no hook-delete-policy "Later"`},
		{[]string{argo, "Sync", v1alpha1.AnnotationHookDelete, "Never"}, "[Sync] [Never] 0", ""},
		{[]string{argo, "Sync", v1alpha1.AnnotationSyncWave, "x", "helm.sh/hook-weight", "4"}, "[Sync] [BeforeHookCreation] 4", "wave 4 is used"},
		{[]string{argo, "Sync", v1alpha1.AnnotationSyncOptions, "Nonsense=true"}, "[Sync] [BeforeHookCreation] 0", "Nonsense=true is not carried out"},
	} {
		o := annotated("Job", c.annotations...)
		got := "plain"
		var warnings []Warning
		if IsHook(o) {
			var h *Hook
			got = "never"
			if h, warnings = parseHook(manifest.Object{Unstructured: o}); h != nil {
				got = fmt.Sprintf("%v %v %d", h.Phases, h.Delete, h.Wave)
			}
		}
		if got != c.want {
			t.Errorf("%v: %s, not %s", c.annotations, got, c.want)
		}
		if text := fmt.Sprint(warnings); c.warning == "" && len(warnings) > 0 || !strings.Contains(text, c.warning) {
			t.Errorf("%v: warnings %s", c.annotations, text)
		}
	}
}

func TestOptions(t *testing.T) {
	o, warnings := ParseOptions([]string{
		"CreateNamespace=true", "Prune=confirm", "Delete=false", "PruneLast=true", "PrunePropagationPolicy=orphan", "ApplyOutOfSyncOnly=true",
		"ServerSideApply=true", "ClientSideApplyMigration=false", "Replace=true", "Validate=false", "SkipDryRunOnMissingResource=true",
		"RespectIgnoreDifferences=true", "FailOnSharedResource=true",
	})
	want := Options{
		ObjectOptions:   ObjectOptions{Prune: "confirm", Delete: "false", PruneLast: true, ServerSideApply: true, Replace: true, SkipValidation: true, SkipMissingDryRun: true},
		CreateNamespace: true, PrunePropagation: "orphan", OnlyOutOfSync: true, KeepClientSide: true, RespectIgnoreDifferences: true, FailOnSharedResource: true,
	}
	if o != want || warnings != nil {
		t.Errorf("%+v %v", o, warnings)
	}
	for _, c := range []struct{ entry, warning string }{
		{"Magic=true", "not an option"}, {"Prune=never", "true, false and confirm"}, {"Replace=yes", "true and false"}, {"Force=true", "single objects"},
		{"PrunePropagationPolicy=all", "foreground"}, {"ServerSideApply=false", "always written by server-side apply"}, {"CreateNamespace", "true and false"},
	} {
		if _, w := ParseOptions([]string{c.entry}); len(w) != 1 || !strings.Contains(w[0].Message, c.warning) || !strings.Contains(w[0].Message, c.entry) {
			t.Errorf("%s: %v", c.entry, w)
		}
	}
}

func TestObjectOptions(t *testing.T) {
	app, _ := ParseOptions([]string{"Replace=true", "Prune=confirm"})
	got, warnings := objectOptions(annotated("ConfigMap", v1alpha1.AnnotationSyncOptions, "Replace=false, Force=true,Prune=false"), app)
	if want := (ObjectOptions{Prune: "false", Force: true}); got != want || warnings != nil {
		t.Errorf("%+v %v", got, warnings)
	}
	if got, _ := objectOptions(annotated("Secret", "helm.sh/resource-policy", "keep"), app); got.Prune != "false" || got.Delete != "false" {
		t.Errorf("resource-policy keep: %+v", got)
	}
	for _, entry := range []string{"CreateNamespace=true", "ApplyOutOfSyncOnly=true", "PrunePropagationPolicy=orphan", "RespectIgnoreDifferences=true", "FailOnSharedResource=true", "ClientSideApplyMigration=false"} {
		if _, w := objectOptions(annotated("Secret", v1alpha1.AnnotationSyncOptions, entry), app); len(w) != 1 || !strings.Contains(w[0].Message, "option of an application") {
			t.Errorf("%s: %v", entry, w)
		}
	}
}

func TestDeletion(t *testing.T) {
	definition := annotated("CustomResourceDefinition")
	definition.SetAPIVersion("apiextensions.k8s.io/v1")
	for _, c := range []struct {
		o       *unstructured.Unstructured
		stays   bool
		confirm bool
	}{
		{annotated("ConfigMap"), false, false},
		{annotated("ConfigMap", v1alpha1.AnnotationSyncOptions, "Delete=false"), true, false},
		{annotated("ConfigMap", v1alpha1.AnnotationSyncOptions, "Delete=confirm"), false, true},
		{annotated("ConfigMap", "helm.sh/resource-policy", "keep"), true, false},
		{definition, true, false},
	} {
		if stays, confirm := Deletion(c.o, Options{}); (stays != "") != c.stays || confirm != c.confirm {
			t.Errorf("%v: %q %v", c.o.Object, stays, confirm)
		}
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	for at, want := range map[string]bool{"": false, "yes": false, "2026-01-02T03:04:04Z": false, "2026-01-02T03:04:05Z": true, "2026-01-02T05:04:05+01:00": true} {
		if got := Confirmed(map[string]string{v1alpha1.AnnotationDeletionOK: at}, since); got != want {
			t.Errorf("confirmed by %q: %v", at, got)
		}
	}
	a, b, c := annotated("A", v1alpha1.AnnotationSyncWave, "-1"), annotated("B", v1alpha1.AnnotationSyncWave, "2"), annotated("C", v1alpha1.AnnotationSyncWave, "2")
	if got := LastWave([]*unstructured.Unstructured{a, b, c}); !slices.Equal(got, []*unstructured.Unstructured{b, c}) {
		t.Errorf("last wave: %v", got)
	}
	if got := LastWave([]*unstructured.Unstructured{a}); len(got) != 1 {
		t.Errorf("last wave: %v", got)
	}
}

// TestSteps shows that what others need comes no later than they.
func TestSteps(t *testing.T) {
	source := `
{apiVersion: v1, kind: Namespace, metadata: {name: ns, annotations: {argocd.argoproj.io/sync-wave: "5"}}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: widgets.example.com, annotations: {argocd.argoproj.io/sync-wave: "3"}}, spec: {group: example.com, names: {kind: Widget}}}
---
{apiVersion: example.com/v1, kind: Widget, metadata: {name: w, annotations: {argocd.argoproj.io/sync-wave: "1"}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: j, annotations: {argocd.argoproj.io/hook: "PreSync,SyncFail"}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}
`
	in := Input{Instance: "app", Desired: parse(t, "app.yaml", []byte(source), true)}
	describe := func(waves [][]Step) string {
		var b strings.Builder
		for _, w := range waves {
			fmt.Fprintf(&b, "%s %d:", w[0].Phase, w[0].Wave)
			for _, s := range w {
				fmt.Fprintf(&b, " %s", s.Key().Kind)
			}
			b.WriteString("\n")
		}
		return b.String()
	}
	p := Make(in)
	if got, want := describe(p.Steps(true, nil)), "PreSync 0: Namespace Job\nSync 0: ConfigMap\nSync 1: CustomResourceDefinition Widget\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := describe(p.Steps(false, func(k Key) bool { return k.Kind != "Widget" })), "Sync 0: Namespace ConfigMap\nSync 3: CustomResourceDefinition\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
