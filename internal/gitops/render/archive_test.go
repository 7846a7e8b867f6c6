package render

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/kustomize"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
)

func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// repository has one chart.
type repository struct {
	remote
	archive []byte
}

func (r repository) Chart(_ context.Context, repoURL, name, constraint string) ([]byte, string, error) {
	if repoURL != "https://charts.contoso.com" || name != "web" || constraint != "1.x" {
		panic(repoURL + name + constraint)
	}
	return r.archive, "1.2.3", nil
}

// TestChartOfARepository: a kustomization may name a chart that is fetched.
func TestChartOfARepository(t *testing.T) {
	packed := archive(t, map[string]string{
		"web/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.3\n", "web/values.yaml": "color: red\n",
		"web/templates/cm.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {color: {{ .Values.color }}}\n",
		"web/templates/job.yaml": "apiVersion: batch/v1\nkind: Job\nmetadata: {name: hook, annotations: {helm.sh/hook: pre-install}}\n",
		"web/crds/crd.yaml":      "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: left-out}\n",
		"../../escape.yaml":      "x",
	})
	files := rendertest.Files{"k/kustomization.yaml": `
nameSuffix: -x
helmCharts:
- {name: web, repo: "https://charts.contoso.com", version: 1.x, releaseName: rel, skipHooks: true, valuesInline: {color: blue}, namespace: shop}
`}
	res, err := New().Render(context.Background(), files.Tree(), Request{App: "app", Namespace: "ns", KubeVersion: "1.37.2", KustomizeOptions: "--enable-helm", Remote: repository{archive: packed}, Source: v1alpha1.ApplicationSource{Path: "k"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Objects) != 1 || res.Objects[0].GetName() != "rel-x" || res.Objects[0].Object["data"].(map[string]any)["color"] != "blue" {
		t.Errorf("got %v", res.Objects)
	}
	if want := (kustomize.Fetched{URL: "https://charts.contoso.com/web", Revision: "1.x", Resolved: "1.2.3"}); len(res.Fetched) != 1 || res.Fetched[0] != want {
		t.Errorf("fetched %v", res.Fetched)
	}
}

func TestUnpackIsBounded(t *testing.T) {
	if _, err := unpack(archive(t, map[string]string{"a": strings.Repeat("x", maxUnpacked+1)}), "1"); err == nil || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Errorf("got %v", err)
	}
	if _, err := unpack([]byte("no archive"), "1"); err == nil {
		t.Error("unpacked what is no archive")
	}
}
