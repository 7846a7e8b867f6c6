package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// A small API server in memory: it is the RoundTripper of a real client. It
// keeps what is written, in the order in which it was, and gives every object
// the health that its script says.

type resource struct {
	group, name, kind string
	cluster           bool
}

var resources = []resource{
	{"", "namespaces", "Namespace", true}, {"", "configmaps", "ConfigMap", false}, {"", "secrets", "Secret", false},
	{"", "serviceaccounts", "ServiceAccount", false}, {"", "services", "Service", false}, {"", "resourcequotas", "ResourceQuota", false},
	{"", "pods", "Pod", false}, {"apps", "deployments", "Deployment", false}, {"batch", "jobs", "Job", false},
	{"example.com", "widgets", "Widget", false}, {"admissionregistration.k8s.io", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", true},
}

func apiVersion(group string) string {
	if group == "" {
		return "v1"
	}
	return group + "/v1"
}

// write is one line of the server's log.
type write struct {
	verb   string // create, patch, update, delete, finalizer
	key    plan.Key
	unwell []string // what was not healthy, or not gone, at that moment
}

func (w write) String() string { return w.verb + " " + w.key.String() }

type script struct {
	ticks int  // until the health is known
	fails bool // Degraded then
}

type fataler interface {
	Helper()
	Fatal(...any)
}

type server struct {
	mu      sync.Mutex
	objects map[plan.Key]*unstructured.Unstructured
	scripts map[plan.Key]script
	left    map[plan.Key]int
	log     []write
	count   int64
	fault   func(r *http.Request, body []byte) *http.Response // nil for none
	watches map[chan event]plan.Key
	ticker  sync.WaitGroup
}

type event struct {
	Type   string         `json:"type"`
	Object map[string]any `json:"object"`
}

func newServer() *server {
	return &server{
		objects: map[plan.Key]*unstructured.Unstructured{}, scripts: map[plan.Key]script{}, left: map[plan.Key]int{}, watches: map[chan event]plan.Key{},
	}
}

func (s *server) config() *rest.Config {
	return &rest.Config{Host: "http://server", Transport: s, QPS: -1}
}

func (s *server) writer(t fataler, mapper *observe.Mapper, parallel int) *Writer {
	t.Helper()
	client, err := dynamic.NewForConfig(s.config())
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(client, mapper, "argocd-controller", parallel)
	w.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return w
}

func newMapper(t testing.TB) *observe.Mapper {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(newServer().config())
	if err != nil {
		t.Fatal(err)
	}
	return observe.NewMapper(d, time.Now)
}

func reply(r *http.Request, code int, v any) *http.Response {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(data)), Request: r}
}

func refuse(r *http.Request, code int, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) *http.Response {
	return reply(r, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: reason, Message: message, Code: int32(code),
		Details: &metav1.StatusDetails{Causes: causes},
	})
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if res := s.discover(r); res != nil {
		return res, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		if res := s.fault(r, body); res != nil {
			return res, nil
		}
	}
	key := keyOf(r.URL.Path)
	switch r.Method {
	case http.MethodGet:
		return s.get(r, key), nil
	case http.MethodPost:
		o := decode(body)
		key.Name = o.GetName()
		if s.objects[key] != nil {
			return refuse(r, http.StatusConflict, metav1.StatusReasonAlreadyExists, key.String()+" already exists"), nil
		}
		return s.store(r, "create", key, o), nil
	case http.MethodPatch:
		return s.patch(r, key, body), nil
	case http.MethodPut:
		return s.store(r, "update", key, decode(body)), nil
	case http.MethodDelete:
		return s.remove(r, key, body), nil
	}
	return refuse(r, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, r.Method), nil
}

func decode(body []byte) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(body); err != nil {
		panic(fmt.Sprintf("%v: %s", err, body))
	}
	return o
}

func (s *server) discover(r *http.Request) *http.Response {
	list := func(group string) *http.Response {
		out := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: apiVersion(group)}
		for _, x := range resources {
			if x.group == group {
				out.APIResources = append(out.APIResources, metav1.APIResource{Name: x.name, Kind: x.kind, Namespaced: !x.cluster, Verbs: metav1.Verbs{"get", "patch"}})
			}
		}
		return reply(r, http.StatusOK, out)
	}
	switch p := strings.Trim(r.URL.Path, "/"); p {
	case "api":
		return reply(r, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case "api/v1":
		return list("")
	case "apis":
		groups := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, x := range resources {
			if x.group != "" && !slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == x.group }) {
				v := metav1.GroupVersionForDiscovery{GroupVersion: apiVersion(x.group), Version: "v1"}
				groups.Groups = append(groups.Groups, metav1.APIGroup{Name: x.group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
			}
		}
		return reply(r, http.StatusOK, groups)
	default:
		if parts := strings.Split(p, "/"); len(parts) == 3 && parts[0] == "apis" {
			return list(parts[1])
		}
	}
	return nil
}

func keyOf(path string) plan.Key {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	k := plan.Key{}
	if parts[0] == "apis" {
		k.Group, parts = parts[1], parts[3:]
	} else {
		parts = parts[2:]
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		k.Namespace, parts = parts[1], parts[2:]
	}
	for _, x := range resources {
		if x.group == k.Group && x.name == parts[0] {
			k.Kind = x.kind
		}
	}
	if len(parts) > 1 {
		k.Name = parts[1]
	}
	return k
}

func (s *server) get(r *http.Request, key plan.Key) *http.Response {
	if r.URL.Query().Get("watch") != "" {
		_, key.Name, _ = strings.Cut(r.URL.Query().Get("fieldSelector"), "=")
		return s.watch(r, key)
	}
	if o := s.objects[key]; o != nil {
		return reply(r, http.StatusOK, o.Object)
	}
	return refuse(r, http.StatusNotFound, metav1.StatusReasonNotFound, key.String()+" not found")
}

func (s *server) watch(r *http.Request, key plan.Key) *http.Response {
	events := make(chan event, 16)
	if s.objects[key] == nil {
		events <- event{"DELETED", map[string]any{"apiVersion": apiVersion(key.Group), "kind": key.Kind, "metadata": map[string]any{"name": key.Name}}}
	}
	s.watches[events] = key
	in, out := io.Pipe()
	go func() {
		enc := json.NewEncoder(out)
		for {
			select {
			case e := <-events:
				if enc.Encode(e) != nil {
					return
				}
			case <-r.Context().Done():
				_ = out.Close()
				return
			}
		}
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: in, Request: r}
}

func (s *server) note(verb string, key plan.Key) {
	w := write{verb: verb, key: key}
	for k, o := range s.objects {
		if o.GetDeletionTimestamp() != nil {
			w.unwell = append(w.unwell, k.String()+" is being deleted")
		} else if s.left[k] > 0 {
			w.unwell = append(w.unwell, k.String()+" is progressing")
		} else if s.scripts[k].fails {
			w.unwell = append(w.unwell, k.String()+" is degraded")
		}
	}
	s.log = append(s.log, w)
}

func (s *server) store(r *http.Request, verb string, key plan.Key, o *unstructured.Unstructured) *http.Response {
	old := s.objects[key]
	s.note(verb, key)
	s.count++
	o.SetResourceVersion(strconv.FormatInt(s.count, 10))
	if old == nil {
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", s.count)))
		o.SetGeneration(1)
		o.SetCreationTimestamp(metav1.NewTime(time.Now()))
	} else {
		o.SetUID(old.GetUID())
		o.SetGeneration(old.GetGeneration() + 1)
		o.SetCreationTimestamp(old.GetCreationTimestamp())
	}
	s.objects[key] = o
	s.left[key] = s.scripts[key].ticks
	return reply(r, http.StatusCreated, o.Object)
}

func (s *server) patch(r *http.Request, key plan.Key, body []byte) *http.Response {
	old := s.objects[key]
	if r.Header.Get("Content-Type") == string(types.ApplyPatchType) {
		return s.store(r, "patch", key, decode(body))
	}
	if old == nil {
		return refuse(r, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
	}
	var p struct {
		Metadata struct{ Finalizers []string }
	}
	if err := json.Unmarshal(body, &p); err != nil {
		panic(err)
	}
	o := old.DeepCopy()
	o.SetFinalizers(p.Metadata.Finalizers)
	s.count++
	o.SetResourceVersion(strconv.FormatInt(s.count, 10))
	s.objects[key] = o
	s.log = append(s.log, write{verb: "finalizer", key: key})
	s.sweep(key)
	return reply(r, http.StatusOK, o.Object)
}

func (s *server) remove(r *http.Request, key plan.Key, body []byte) *http.Response {
	o := s.objects[key]
	var options metav1.DeleteOptions
	if err := json.Unmarshal(body, &options); err != nil {
		panic(err)
	}
	if o == nil {
		return refuse(r, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
	}
	if p := options.Preconditions; p != nil && p.UID != nil && *p.UID != o.GetUID() {
		return refuse(r, http.StatusConflict, metav1.StatusReasonConflict, "the UID in the precondition does not match")
	}
	s.note("delete", key)
	now := metav1.NewTime(time.Now())
	o = o.DeepCopy()
	o.SetDeletionTimestamp(&now)
	s.objects[key] = o
	s.left[key] = s.scripts[key].ticks
	s.sweep(key)
	return reply(r, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Success"})
}

// sweep removes an object that is being deleted and has no finalizers.
func (s *server) sweep(key plan.Key) {
	o := s.objects[key]
	if o == nil || o.GetDeletionTimestamp() == nil || len(o.GetFinalizers()) > 0 {
		return
	}
	delete(s.objects, key)
	delete(s.left, key)
	for c, k := range s.watches {
		if k == key {
			c <- event{"DELETED", o.Object}
		}
	}
}
