package workloadidentity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// accounts of the namespace shop.
var accounts = map[string]map[string]string{
	"web":     {annotationClientID: "client-web"},
	"tenant":  {annotationClientID: "client-t", annotationTenantID: "tenant-t", annotationExpiration: "7200"},
	"default": nil,
	"bad":     {annotationExpiration: "60"},
}

func newWebhook(t *testing.T) http.Handler {
	t.Helper()
	return New(Config{TenantID: "tenant-1", AuthorityHost: "https://login.microsoftonline.com/"}, Deps{Log: slog.New(slog.DiscardHandler),
		Accounts: func(_ context.Context, namespace, name string) (map[string]string, error) {
			if name == "broken" {
				return nil, errors.New("no route to host")
			}
			a, ok := accounts[name]
			if !ok || namespace != "shop" {
				return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccounts"}, name)
			}
			return a, nil
		}})
}

// review sends a pod through the webhook, as the apiserver would.
func review(t *testing.T, h http.Handler, pod []byte, change func(*admissionv1.AdmissionRequest)) *admissionv1.AdmissionResponse {
	t.Helper()
	r := admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{UID: "uid-1", Namespace: "shop", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: pod}}}
	r.APIVersion, r.Kind = "admission.k8s.io/v1", "AdmissionReview"
	r.Request.Resource.Version, r.Request.Resource.Resource = "v1", "pods"
	if change != nil {
		change(r.Request)
	}
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path+"?timeout=10s", bytes.NewReader(body)))
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if answer.APIVersion != "admission.k8s.io/v1" || answer.Kind != "AdmissionReview" || answer.Response.UID != "uid-1" {
		t.Fatalf("answer = %s", w.Body)
	}
	return answer.Response
}

// TestGolden compares testdata/<name>.yaml, after its patch, with
// testdata/<name>.want.yaml. Fields that Go does not know must survive.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, input := range inputs {
		if strings.HasSuffix(input, ".want.yaml") {
			continue
		}
		n++
		t.Run(filepath.Base(input), func(t *testing.T) {
			pod := readJSON(t, input)
			got := patched(t, pod)
			want := readJSON(t, strings.TrimSuffix(input, ".yaml")+".want.yaml")
			if diff := cmp.Diff(decode(t, want), decode(t, got)); diff != "" {
				text, _ := yaml.JSONToYAML(got)
				t.Errorf("-want +got:\n%s\ngot:\n%s", diff, text)
			}
			if again := patched(t, got); !bytes.Equal(again, got) {
				t.Errorf("a second review changes the pod:\n%s", cmp.Diff(decode(t, got), decode(t, again)))
			}
		})
	}
	if n < 4 {
		t.Errorf("only %d golden pods", n)
	}
}

func patched(t *testing.T, pod []byte) []byte {
	t.Helper()
	resp := review(t, newWebhook(t), pod, nil)
	if !resp.Allowed {
		t.Fatalf("refused: %s", resp.Result.Message)
	}
	if resp.Patch == nil {
		return pod
	}
	if *resp.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Errorf("patch type %s", *resp.PatchType)
	}
	patch, err := jsonpatch.DecodePatch(resp.Patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(pod)
	if err != nil {
		t.Fatalf("%v\n%s", err, resp.Patch)
	}
	return out
}

func readJSON(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// pod is a pod of one container, with the given metadata and account.
func pod(metadata, account string) []byte {
	return []byte(`{"metadata":{"name":"p","labels":{"azure.workload.identity/use":"true"},` + metadata + `},"spec":{"serviceAccountName":"` + account + `","containers":[{"name":"c"}]}}`)
}

func TestRefusals(t *testing.T) {
	expiry := func(s string) string { return `"annotations":{"` + annotationExpiration + `":"` + s + `"}` }
	tests := map[string]struct {
		pod  []byte
		want string
	}{
		"too short":         {pod(expiry("3599"), "web"), `token expiration "3599" not valid`},
		"too long":          {pod(expiry("86401"), "web"), "between 3600 and 86400"},
		"no number":         {pod(expiry("1h"), "web"), `"1h" not valid`},
		"account's expiry":  {pod(`"annotations":{}`, "bad"), "service account shop/bad: annotation"},
		"no account":        {pod(`"annotations":{}`, "gone"), "service account shop/gone does not exist"},
		"apiserver is down": {pod(`"annotations":{}`, "broken"), "no route to host"},
		"proxy":             {pod(`"annotations":{"`+annotationProxy+`":"true"}`, "web"), "no proxy sidecar"},
		"not a pod":         {[]byte(`{"spec":7}`), "read pod"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			resp := review(t, newWebhook(t), tt.pod, nil)
			if resp.Allowed || !strings.Contains(resp.Result.Message, tt.want) || resp.Result.Code != 400 {
				t.Errorf("response = %+v, want %q", resp, tt.want)
			}
		})
	}
	if resp := review(t, newWebhook(t), pod(expiry("3600"), "bad"), nil); !resp.Allowed {
		t.Errorf("the pod's expiry does not win over its account's: %+v", resp.Result)
	}
}

func TestNotOurs(t *testing.T) {
	for name, change := range map[string]func(*admissionv1.AdmissionRequest){
		"update":      func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update },
		"deployment":  func(r *admissionv1.AdmissionRequest) { r.Resource.Resource = "deployments" },
		"subresource": func(r *admissionv1.AdmissionRequest) { r.SubResource = "ephemeralcontainers" },
		"no label": func(r *admissionv1.AdmissionRequest) {
			r.Object.Raw = []byte(`{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if resp := review(t, newWebhook(t), pod(`"annotations":{}`, "web"), change); !resp.Allowed || resp.Patch != nil {
				t.Errorf("response = %+v", resp)
			}
		})
	}
}

func TestBadReviews(t *testing.T) {
	for name, tt := range map[string]struct {
		method, path, body string
		want               int
	}{
		"empty":        {"POST", Path, "", 400},
		"not JSON":     {"POST", Path, "{", 400},
		"no request":   {"POST", Path, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 400},
		"v1beta1":      {"POST", Path, `{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"1"}}`, 400},
		"too long":     {"POST", Path, strings.Repeat(" ", maxReview+1), 400},
		"other method": {"GET", Path, "", 405},
		"other path":   {"POST", "/", "{}", 404},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			newWebhook(t).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body)))
			if w.Code != tt.want {
				t.Errorf("status %d, want %d: %s", w.Code, tt.want, w.Body)
			}
		})
	}
}

func FuzzReview(f *testing.F) {
	f.Add(pod(`"annotations":{}`, "web"))
	f.Add([]byte(`{"metadata":{"labels":{"azure.workload.identity/use":"true"},"annotations":{"azure.workload.identity/skip-containers":"a;b"}},"spec":{"initContainers":[{"env":[null]}],"containers":[null,{"volumeMounts":[]}],"volumes":[{}]}}`))
	f.Fuzz(func(t *testing.T, pod []byte) {
		if !json.Valid(pod) {
			return
		}
		resp := review(t, newWebhook(t), pod, nil)
		if resp.Patch == nil {
			return
		}
		patch, err := jsonpatch.DecodePatch(resp.Patch)
		if err != nil {
			t.Fatal(err)
		}
		// A list of nulls or a duplicate key would fail in the apiserver, too;
		// the patch itself must be well-formed.
		for _, op := range patch {
			if op.Kind() != "add" {
				t.Errorf("operation %s", op.Kind())
			}
		}
	})
}
