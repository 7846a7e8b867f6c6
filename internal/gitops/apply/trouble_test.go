package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

func status(code int, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: int32(code), Reason: reason, Message: message, Details: &metav1.StatusDetails{Causes: causes}}}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		name string
		kind string
		err  error
		want []string
		not  string
	}{
		{"webhook", "ConfigMap", status(400, "", `admission webhook "policy.contoso.com" denied the request: label team is missing`), []string{"admission webhook policy.contoso.com refuses the object: label team is missing"}, ""},
		{"webhook and Secret", "Secret", status(403, metav1.StatusReasonForbidden, `admission webhook "policy.contoso.com" denied the request: password hunter2 is weak`), []string{"policy.contoso.com refuses"}, "hunter2"},
		{"dead webhook", "ConfigMap", status(500, metav1.StatusReasonInternalError, `Internal error occurred: failed calling webhook "v.contoso.com": failed to call webhook: connection refused`), []string{"v.contoso.com could not be asked", "earlier sync wave"}, ""},
		{"policy", "ConfigMap", status(422, metav1.StatusReasonInvalid, `configmaps "a" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'all' denied request: failed expression: x < 5`), []string{"ValidatingAdmissionPolicy replicas refuses", "x < 5"}, ""},
		{"immutable", "Deployment", status(422, metav1.StatusReasonInvalid, `Deployment.apps "a" is invalid: spec.selector: Invalid value: {}: field is immutable`, metav1.StatusCause{Field: "spec.selector", Message: "Invalid value: {}: field is immutable"}), []string{"spec.selector is immutable", "Force=true on the Deployment", "rename"}, ""},
		{"immutable Secret", "Secret", status(422, metav1.StatusReasonInvalid, `Secret "a" is invalid: data: Forbidden: field is immutable when hunter2`, metav1.StatusCause{Field: "data", Message: "Forbidden: field is immutable when `immutable` is set"}), []string{"data is immutable"}, "hunter2"},
		{"stateful set", "StatefulSet", status(422, metav1.StatusReasonInvalid, `x`, metav1.StatusCause{Field: "spec", Message: "Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden"}), []string{"spec is immutable"}, ""},
		{"invalid", "Deployment", status(422, metav1.StatusReasonInvalid, `spec.replicas: Invalid value: -1`), []string{"spec.replicas: Invalid value: -1"}, "immutable"},
		{"forbidden", "ConfigMap", status(403, metav1.StatusReasonForbidden, `configmaps "a" is forbidden: User "system:serviceaccount:argocd:c" cannot patch resource "configmaps" in API group "" in the namespace "ns"`), []string{"system:serviceaccount:argocd:c may not patch configmaps in namespace ns", "verb patch"}, ""},
		{"quota", "ConfigMap", status(403, metav1.StatusReasonForbidden, `configmaps "a" is forbidden: exceeded quota: q`), []string{"exceeded quota: q"}, ""},
		{"too large for etcd", "ConfigMap", status(500, metav1.StatusReasonUnknown, `etcdserver: request is too large`), []string{"too large", "1.5 MiB"}, ""},
		{"too many bytes", "ConfigMap", status(413, metav1.StatusReasonRequestEntityTooLarge, `Request entity too large: limit is 3145728`), []string{"too large"}, ""},
		{"long name", "ConfigMap", status(422, metav1.StatusReasonInvalid, `metadata.name: Too long: may not be more than 63 bytes`), []string{"63 bytes"}, "1.5 MiB"},
		{"namespace", "ConfigMap", status(403, metav1.StatusReasonForbidden, `configmaps "a" is forbidden: unable to create new content in namespace ns because it is being terminated`, metav1.StatusCause{Type: "NamespaceTerminating"}), []string{"namespace ns is being deleted", "finalizers"}, ""},
		{"overload", "ConfigMap", status(429, metav1.StatusReasonTooManyRequests, `too many`), []string{"overloaded", "patch"}, ""},
		{"duplicates", "Deployment", status(500, metav1.StatusReasonInternalError, `failed to create typed patch object: .spec.template.spec.containers[name="a"].env: duplicate entries for key [name="X"]`), []string{"two entries with one name", `name="X"`}, ""},
		{"unknown field", "Deployment", status(500, metav1.StatusReasonInternalError, `failed to create typed patch object (ns/a; apps/v1, Kind=Deployment): .spec.replicass: field not declared in schema`), []string{"an unknown field: .spec.replicass", "Validate=false"}, ""},
		{"no answer", "ConfigMap", fmt.Errorf("Patch: %w", syscall.ECONNREFUSED), []string{"did not answer"}, ""},
	} {
		got := explain("patch", object(c.kind, "a"), c.err).Error()
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q does not say %q", c.name, got, want)
			}
		}
		if c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s: %q says %q", c.name, got, c.not)
		}
	}
}

// TestTrouble: what passes by itself is tried again, a bounded number of times.
func TestTrouble(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		attempts int
	}{
		{"429", status(429, metav1.StatusReasonTooManyRequests, ""), attempts},
		{"503", status(503, metav1.StatusReasonServiceUnavailable, ""), attempts},
		{"timeout", status(504, metav1.StatusReasonTimeout, ""), attempts},
		{"refused", fmt.Errorf("dial: %w", syscall.ECONNREFUSED), attempts},
		{"cut off", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), attempts},
		{"500", status(500, metav1.StatusReasonInternalError, "oops"), attemptsRefused},
		{"conflict", status(409, metav1.StatusReasonConflict, "the object has been modified"), attemptsRefused},
		{"too large", status(500, metav1.StatusReasonInternalError, "etcdserver: request is too large"), 1},
		{"invalid", status(422, metav1.StatusReasonInvalid, ""), 1},
		{"forbidden", status(403, metav1.StatusReasonForbidden, ""), 1},
	} {
		w := newServer().writer(t, nil, 1)
		var pauses []time.Duration
		w.pause = func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil }
		n := 0
		err := w.repeat(t.Context(), func() error { n++; return c.err })
		if n != c.attempts || !errors.Is(err, c.err) {
			t.Errorf("%s: %d attempts, %v", c.name, n, err)
		}
		for i, d := range pauses {
			if d <= 0 || d > 2*longestPause || i > 0 && d > 8*pauses[i-1] {
				t.Errorf("%s: pauses %v", c.name, pauses)
			}
		}
	}
	w := newServer().writer(t, nil, 1)
	ctx, cancel := context.WithCancel(t.Context())
	w.pause = pause
	n := 0
	if err := w.repeat(ctx, func() error { n++; cancel(); return status(429, metav1.StatusReasonTooManyRequests, "") }); n != 1 || err == nil {
		t.Errorf("after the context's end: %d attempts, %v", n, err)
	}
}

func TestPartialFailure(t *testing.T) {
	s := newScene(t, object("ConfigMap", "bad"), object("Deployment", "web"), object("ConfigMap", "later", v1alpha1.AnnotationSyncWave, "1"))
	s.server.fault = func(r *http.Request, _ []byte) *http.Response {
		if strings.HasSuffix(r.URL.Path, "/bad") {
			return refuse(r, 422, metav1.StatusReasonInvalid, "data: Invalid value")
		}
		return nil
	}
	err := s.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ConfigMap ns/bad (a.yaml:1): data: Invalid value") || s.log() != "patch Deployment ns/web" {
		t.Errorf("%v %s", err, s.log())
	}
	if !strings.Contains(s.records(), `Sync SyncFailed  "data: Invalid value" Failed`) {
		t.Error(s.records())
	}
}

func BenchmarkWrite(b *testing.B) {
	s := newServer()
	w := s.writer(b, newMapper(b), 4)
	o := object("Deployment", "web")
	o.Object["spec"] = map[string]any{"replicas": int64(0), "selector": map[string]any{"matchLabels": map[string]any{"app": "web"}}, "template": map[string]any{
		"metadata": map[string]any{"labels": map[string]any{"app": "web"}},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "web", "image": "web:1", "ports": []any{map[string]any{"containerPort": int64(8080)}}, "env": []any{map[string]any{"name": "A", "value": "1"}}}}},
	}}
	c := plan.Change{Key: plan.KeyOf(o), Action: plan.Create, Desired: o}
	data, err := encode(o.Object)
	if err != nil {
		b.Fatal(err)
	}
	s.fault = func(r *http.Request, _ []byte) *http.Response {
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(data))), Request: r}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Write(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	o := object("Deployment", "web")
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = encode(o.Object)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = json.Marshal(o.Object)
		}
	})
}
