package image_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/image/attest"
	"github.com/lockstep-gitops/lockstep/internal/image/sbom"
)

func (w *world) attester(t *testing.T) image.Attester {
	t.Helper()
	key, err := attest.OpenKey(image.KeyFile(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	return image.Attester{Transport: w.registry.Transport(), Key: key, Tool: "lockstep-test", TmpDir: t.TempDir()}
}

func TestEveryOptionOfABuildAndItsAttestations(t *testing.T) {
	w := newWorld(t)
	b, _ := w.builder(t, nil)
	w.seed(t, "")
	shared := buildContext(t, map[string]string{"shared.txt": "from elsewhere"})
	dir := buildContext(t, map[string]string{
		"Dockerfile": `FROM busybox AS work
RUN --mount=type=secret,id=token test "$(wc -c < /run/secrets/token)" = 6
RUN mkdir -p /out/node_modules/left && echo '{"name":"left","version":"1.2.3"}' > /out/node_modules/left/package.json
FROM scratch
COPY --from=work /out/ /app/
COPY --from=shared shared.txt /
`})
	tag, tarball := acr+"/web:v1", filepath.Join(t.TempDir(), "image.tar")
	request := image.Request{
		Repo: "contoso/storefront", Commit: strings.Repeat("a", 40), ContextDir: dir, Tags: []string{tag}, Push: true, Credentials: ci,
		Secrets: map[string][]byte{"token": []byte("s3cret")}, Contexts: map[string]string{"shared": shared}, Provenance: "mode=max",
		CacheTo: []string{"type=registry,ref=" + acr + "/web:cache,mode=max"}, CacheFrom: []string{"type=registry,ref=" + acr + "/web:cache"},
		Annotations: []string{"org.opencontainers.image.title=web"}, Exports: []image.Export{{Type: "oci", Dest: tarball}},
	}
	var out bytes.Buffer
	res, err := b.Build(t.Context(), request, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if info, err := os.Stat(tarball); err != nil || info.Size() == 0 {
		t.Errorf("the OCI export: %v", err)
	}
	if strings.Contains(out.String()+res.Metadata, "s3cret") {
		t.Error("the secret is in the output")
	}
	if cache := w.pull(t, acr+"/web:cache"); cache == nil {
		t.Error("no cache in the registry")
	}

	a, ref := w.attester(t), acr+"/web"
	build := attest.Build{Type: attest.BuildType, Repository: "git+http://github.localhost/contoso/storefront", Commit: request.Commit}
	for range 2 { // a repetition adds nothing that says otherwise
		if err := a.Attest(t.Context(), ref, res.Digest, build); err != nil {
			t.Fatal(err)
		}
	}
	got, err := a.Attestations(t.Context(), ref, res.Digest)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v: %+v", err, got)
	}
	documents := map[string]json.RawMessage{}
	for _, one := range got {
		if one.Unverified != nil {
			t.Errorf("%s: %v", one.PredicateType, one.Unverified)
		}
		documents[one.PredicateType] = one.Predicate
	}
	if !strings.Contains(string(documents[sbom.PredicateType]), `pkg:npm/left@1.2.3`) {
		t.Errorf("SBOM: %s", documents[sbom.PredicateType])
	}
	if !strings.Contains(string(documents[attest.ProvenanceType]), request.Commit) {
		t.Errorf("provenance: %s", documents[attest.ProvenanceType])
	}
}
