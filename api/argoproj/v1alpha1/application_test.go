package v1alpha1

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestCRDsAreWhole(t *testing.T) {
	crds, err := CRDs()
	if err != nil || len(crds) != 3 {
		t.Fatal(crds, err)
	}
	for i, want := range []string{"applications.argoproj.io", "applicationsets.argoproj.io", "appprojects.argoproj.io"} {
		if crds[i].GetName() != want {
			t.Errorf("CRD %d is %s", i, crds[i].GetName())
		}
	}
	short, _, _ := unstructured.NestedStringSlice(crds[0].Object, "spec", "names", "shortNames")
	if len(short) != 2 || short[0] != "app" || short[1] != "apps" {
		t.Errorf("short names: %v", short)
	}
}

func TestDecodeReadsWhatPeopleWrite(t *testing.T) {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(`
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: web, namespace: argocd}
spec:
  project: default
  source:
    repoURL: https://github.com/contoso/storefront
    path: k8s
    targetRevision: main
    kustomize: {images: ["a=b:1"], replicas: [{name: web, count: 3}, {name: api, count: "2"}]}
    helm: {valueFiles: [x.yaml]}
  destination: {server: https://kubernetes.default.svc, namespace: web}
  syncPolicy:
    automated: {prune: true, selfHeal: true, enabled: false}
    retry: {limit: 3, backoff: {duration: 5s, factor: 2, maxDuration: 3m}}
operation: {sync: {revision: abc, prune: true}, initiatedBy: {username: ada}}
`), &o.Object); err != nil {
		t.Fatal(err)
	}
	var app Application
	if err := Decode(o, &app); err != nil {
		t.Fatal(err)
	}
	k := app.Spec.Source.Kustomize
	if k.Replicas[0].Count.IntValue() != 3 || k.Replicas[1].Count.IntValue() != 2 || app.Spec.Source.Helm == nil {
		t.Errorf("source: %+v", app.Spec.Source)
	}
	if a := app.Spec.SyncPolicy.Automated; !a.Prune || a.Enabled == nil || *a.Enabled {
		t.Errorf("automated: %+v", a)
	}
	if app.Operation.Sync.Revision != "abc" || app.Operation.InitiatedBy.Username != "ada" || *app.Spec.SyncPolicy.Retry.Backoff.Factor != 2 {
		t.Errorf("operation: %+v", app.Operation)
	}
}
