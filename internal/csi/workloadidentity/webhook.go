// Package workloadidentity is Azure's workload identity webhook: it gives pods
// that ask for it what the Azure SDKs need to sign in as a managed identity.
//
// Input: an admission review (admission.k8s.io/v1) of a pod that is created,
// and the annotations of its service account. Output: a JSON patch with the
// environment and the projected token that upstream's webhook (v1.6) injects.
//
// Invariants: nothing that the pod sets itself is changed; the same pod gets
// the same patch; a pod that was patched already gets none; fields that this
// program does not know survive, for only additions are patched.
//
// Start reading at (*webhook).ServeHTTP, then patchFor in patch.go.
package workloadidentity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Path is where the webhook listens.
	Path = "/mutate-v1-pod"
	// UseLabel on a pod, with the value "true", asks for workload identity.
	UseLabel = "azure.workload.identity/use"

	maxReview     = 4 << 20 // bytes; an apiserver's object has at most 3 MiB
	lookupTimeout = 5 * time.Second
)

// Config is what pods are told.
type Config struct {
	// TenantID is for service accounts that name no tenant.
	TenantID string
	// AuthorityHost is Entra's URL with a final slash.
	AuthorityHost string
}

// Deps are what the webhook works with.
type Deps struct {
	Log *slog.Logger
	// Accounts returns the annotations of a service account.
	Accounts func(ctx context.Context, namespace, name string) (map[string]string, error)
}

type webhook struct {
	config   Config
	log      *slog.Logger
	accounts func(ctx context.Context, namespace, name string) (map[string]string, error)
}

// New makes the handler of [Path].
func New(config Config, deps Deps) http.Handler {
	w := &webhook{config: config, log: deps.Log, accounts: deps.Accounts}
	mux := http.NewServeMux()
	mux.Handle("POST "+Path, w)
	return mux
}

// ServeHTTP answers one admission review.
func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if err != nil {
		http.Error(w, "read admission review: "+err.Error(), http.StatusBadRequest)
		return
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		http.Error(w, "admission review is not JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	if review.Request == nil || review.APIVersion != admissionv1.SchemeGroupVersion.String() {
		http.Error(w, fmt.Sprintf("want an AdmissionReview of %s with a request, got apiVersion %q", admissionv1.SchemeGroupVersion, review.APIVersion), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookupTimeout)
	defer cancel()
	answer := admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: h.review(ctx, review.Request)}
	answer.Response.UID = review.Request.UID
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		h.log.Warn("the apiserver did not hear the webhook's answer", "error", err)
	}
}

// review decides about one pod.
func (h *webhook) review(ctx context.Context, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if req.Operation != admissionv1.Create || req.Resource.Resource != "pods" || req.SubResource != "" {
		return &admissionv1.AdmissionResponse{Allowed: true}
	}
	patch, err := h.mutate(ctx, req)
	if err != nil {
		h.log.Warn("pod refused", "namespace", req.Namespace, "name", req.Name, "error", err)
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Status: metav1.StatusFailure,
			Message: err.Error(), Reason: metav1.StatusReasonBadRequest, Code: http.StatusBadRequest}}
	}
	if len(patch) == 0 {
		return &admissionv1.AdmissionResponse{Allowed: true}
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Status: metav1.StatusFailure, Message: err.Error(), Code: http.StatusInternalServerError}}
	}
	jsonPatch := admissionv1.PatchTypeJSONPatch
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: text, PatchType: &jsonPatch}
}

// mutate finds the pod's identity and builds its patch.
func (h *webhook) mutate(ctx context.Context, req *admissionv1.AdmissionRequest) ([]operation, error) {
	var pod corev1.Pod
	if err := json.Unmarshal(req.Object.Raw, &pod); err != nil {
		return nil, fmt.Errorf("read pod: %w", err)
	}
	if pod.Labels[UseLabel] != "true" {
		return nil, nil
	}
	if _, ok := pod.Annotations[annotationProxy]; ok {
		return nil, errors.New("annotation " + annotationProxy + " is not supported: Lockstep has no proxy sidecar; use an Azure SDK with workload identity (DefaultAzureCredential) and remove the annotation")
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	annotations, err := h.accounts(ctx, req.Namespace, account)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("service account %s/%s does not exist; create it before the pod", req.Namespace, account)
	case err != nil:
		return nil, fmt.Errorf("read service account %s/%s: %w", req.Namespace, account, err)
	}
	id, err := h.identityOf(&pod, annotations)
	if err != nil {
		return nil, fmt.Errorf("service account %s/%s: %w", req.Namespace, account, err)
	}
	return patchFor(&pod, id), nil
}
