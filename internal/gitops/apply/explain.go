package apply

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Refusal is a refusal by the API server in words that say what to do. It
// wraps the server's error.
type Refusal struct {
	What string
	Try  string
	err  error
}

func (e *Refusal) Error() string {
	if e.Try == "" {
		return e.What
	}
	return e.What + "; " + e.Try
}

func (e *Refusal) Unwrap() error { return e.err }

var (
	webhookDenied = regexp.MustCompile(`(?s)admission webhook "([^"]*)" denied the request(?: without explanation)?:? ?(.*)`)
	webhookFailed = regexp.MustCompile(`(?s)failed calling webhook "([^"]*)": (.*)`)
	policyDenied  = regexp.MustCompile(`(?s)ValidatingAdmissionPolicy '([^']*)' with binding '[^']*' denied request: (.*)`)
	cannot        = regexp.MustCompile(`User "([^"]*)" cannot (\S+) resource "([^"]*)"`)
	unchangeable  = regexp.MustCompile(`(?i)immutable|may not be (changed|modified|updated)|cannot be changed|cannot change|updates to \S+ spec for fields other than|field can not be modified|pod updates may not change fields`)
	oversized     = regexp.MustCompile(`etcdserver: request is too large|trying to send message larger than max|Request entity too large|request entity too large|request body too large|metadata\.annotations: Too long|Too long: [a-z ]*1048576`)
)

// explain turns a refusal into one that says what to do. Of the server's
// errors about Secrets only what cannot show values stays.
func explain(verb string, o *unstructured.Unstructured, err error) error {
	var status apierrors.APIStatus
	if err == nil {
		return nil
	}
	if !errors.As(err, &status) {
		if unreachable(err) {
			return &Refusal{fmt.Sprintf("the API server did not answer: %v", err), "the next attempt may succeed: check that it runs", err}
		}
		return err
	}
	secret := o.GetKind() == "Secret"
	r := reason(verb, o, err, status.Status(), secret)
	err = discreet(o, err)
	if r == nil {
		return err
	}
	r.err = err
	return r
}

func reason(verb string, o *unstructured.Unstructured, err error, s metav1.Status, secret bool) *Refusal {
	say := func(format string, args ...any) string {
		if secret {
			return " (the message is left out because it may show values)"
		}
		return ": " + strings.TrimSpace(fmt.Sprintf(format, args...))
	}
	text := err.Error()
	if m := webhookDenied.FindStringSubmatch(text); m != nil {
		return &Refusal{What: fmt.Sprintf("the admission webhook %s refuses the object%s", m[1], say("%s", m[2])), Try: "change the manifest to what the webhook asks for"}
	}
	if m := policyDenied.FindStringSubmatch(text); m != nil {
		return &Refusal{What: fmt.Sprintf("the ValidatingAdmissionPolicy %s refuses the object%s", m[1], say("%s", m[2])), Try: "change the manifest to what the policy asks for"}
	}
	if m := webhookFailed.FindStringSubmatch(text); m != nil {
		return &Refusal{What: fmt.Sprintf("the admission webhook %s could not be asked%s", m[1], say("%s", m[2])),
			Try: "check that the service behind it runs; if it is part of this application, put it in an earlier sync wave"}
	}
	switch {
	case tooLarge(err):
		return &Refusal{What: "the object is too large for the API server" + say("%s", text),
			Try: "split it, or leave large data out: etcd takes 1.5 MiB, a ConfigMap or Secret 1 MiB, all annotations 256 KiB"}
	case namespaceEnds(err):
		return &Refusal{What: fmt.Sprintf("namespace %s is being deleted, nothing can be made in it", o.GetNamespace()),
			Try: "when it stays, look for finalizers in `kubectl get namespace " + o.GetNamespace() + " -o yaml`"}
	case apierrors.IsForbidden(err):
		if m := cannot.FindStringSubmatch(text); m != nil {
			return &Refusal{What: fmt.Sprintf("%s may not %s %s%s", m[1], m[2], m[3], where(o)), Try: fmt.Sprintf("give it the verb %s on %s by a Role or ClusterRole", m[2], m[3])}
		}
	case apierrors.IsInvalid(err):
		return invalid(o, s, text, secret)
	case apierrors.IsTooManyRequests(err), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), apierrors.IsServiceUnavailable(err):
		return &Refusal{What: fmt.Sprintf("the API server is overloaded or not ready (%s, after %d attempts to %s)", s.Reason, attempts, verb), Try: "the next attempt may succeed"}
	}
	if m := undeclared.FindString(text); m != "" && !secret {
		return &Refusal{What: "an unknown field: " + m, Try: "look for a typing error; with Validate=false the field is left out"}
	}
	if strings.Contains(text, "duplicate entries for key") {
		return &Refusal{What: "a list has two entries with one name" + say("%s", text), Try: "remove one: server-side apply merges lists by name"}
	}
	return nil
}

func where(o *unstructured.Unstructured) string {
	if ns := o.GetNamespace(); ns != "" {
		return " in namespace " + ns
	}
	return ""
}

// invalid explains an object that validation refuses, if it is for a field
// that cannot change.
func invalid(o *unstructured.Unstructured, s metav1.Status, text string, secret bool) *Refusal {
	fields := immutableFields(s, text)
	if fields == nil {
		return nil
	}
	what := strings.Join(fields, ", ") + " is immutable: the live object keeps its value"
	if len(fields) > 1 {
		what = strings.Join(fields, ", ") + " are immutable: the live object keeps their values"
	}
	if !secret {
		what += " (" + clip(text, 300) + ")"
	}
	return &Refusal{What: what, Try: fmt.Sprintf(
		"set the annotation argocd.argoproj.io/sync-options: Force=true on the %s to have it deleted and made anew, or rename it", o.GetKind())}
}

func immutableFields(s metav1.Status, text string) []string {
	var out []string
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			if unchangeable.MatchString(c.Message) && !slices.Contains(out, c.Field) {
				out = append(out, c.Field)
			}
		}
	}
	if out == nil && unchangeable.MatchString(text) {
		out = []string{"a field"}
	}
	return out
}

// isImmutable reports whether an update was refused for a field that cannot
// change.
func isImmutable(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && apierrors.IsInvalid(err) && (immutableFields(status.Status(), err.Error()) != nil || wasImmutable(err))
}

func wasImmutable(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && strings.Contains(r.What, "immutable: the live object keeps")
}

func tooLarge(err error) bool {
	return apierrors.IsRequestEntityTooLargeError(err) || oversized.MatchString(err.Error())
}

// namespaceEnds reports whether an object was refused because its namespace is
// being deleted.
func namespaceEnds(err error) bool {
	return apierrors.HasStatusCause(err, "NamespaceTerminating")
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + " …"
}

// discreet takes the server's words out of an error about a Secret: they may
// show its values.
func discreet(o *unstructured.Unstructured, err error) error {
	var status apierrors.APIStatus
	if err == nil || o.GetKind() != "Secret" || !errors.As(err, &status) {
		return err
	}
	s := status.Status()
	switch s.Reason {
	case metav1.StatusReasonNotFound, metav1.StatusReasonAlreadyExists, metav1.StatusReasonConflict, metav1.StatusReasonTooManyRequests,
		metav1.StatusReasonUnauthorized, metav1.StatusReasonTimeout, metav1.StatusReasonServerTimeout, metav1.StatusReasonServiceUnavailable:
		return err
	case metav1.StatusReasonForbidden:
		if cannot.MatchString(s.Message) || namespaceEnds(err) || strings.Contains(s.Message, "exceeded quota") {
			return err
		}
	}
	s.Message = fmt.Sprintf("the API server refused the Secret (%s, %d); its message is left out because it may show values: try `kubectl apply --dry-run=server` on the manifest", s.Reason, s.Code)
	s.Details = nil
	return &apierrors.StatusError{ErrStatus: s}
}
