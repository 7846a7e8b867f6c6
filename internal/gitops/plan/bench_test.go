package plan

import (
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// benchPair is a Deployment with everything that it may have, and what the
// server made of it.
func benchPair(b testing.TB) (manifest.Object, *unstructured.Unstructured) {
	b.Helper()
	data, err := os.ReadFile("testdata/bench/live.json")
	if err != nil {
		b.Fatal(err)
	}
	live := &unstructured.Unstructured{}
	if err := live.UnmarshalJSON(data); err != nil {
		b.Fatal(err)
	}
	data, err = os.ReadFile("testdata/server/built-in.yaml")
	if err != nil {
		b.Fatal(err)
	}
	objects := parse(b, "built-in.yaml", data, true)
	desired := objects[0]
	desired.SetNamespace("default")
	annotations := desired.GetAnnotations()
	annotations["argocd.argoproj.io/tracking-id"] = live.GetAnnotations()["argocd.argoproj.io/tracking-id"]
	desired.SetAnnotations(annotations)
	return desired, live
}

func BenchmarkInSync(b *testing.B) {
	desired, live := benchPair(b)
	key := KeyOf(live)
	in := Input{Instance: "app", Manager: "argocd-controller", Desired: []manifest.Object{desired}, Live: map[Key]*unstructured.Unstructured{key: live}}
	if p := Make(in); !p.InSync() {
		b.Fatal(p.Changes)
	}
	b.ReportAllocs()
	for b.Loop() {
		Make(in)
	}
}

func BenchmarkHash(b *testing.B) {
	desired, _ := benchPair(b)
	b.ReportAllocs()
	for b.Loop() {
		Hash(desired.Unstructured)
	}
}
