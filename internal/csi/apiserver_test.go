package csi

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// apiServer is the least of an apiserver: objects by their URL path.
type apiServer struct {
	mu      sync.Mutex
	objects map[string]map[string]any
	refuse  func(method, path string) *metav1.Status // nil lets all pass
	applied []string                                 // "path manager"
	n       int

	kube    kubernetes.Interface
	dynamic dynamic.Interface
}

func newAPIServer(t testing.TB) *apiServer {
	a := &apiServer{objects: map[string]map[string]any{}}
	server := httptest.NewServer(a)
	config := &rest.Config{Host: server.URL, QPS: 1000, Burst: 1000, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	transport := &http.Transport{}
	config.Transport = transport
	a.kube = kubernetes.NewForConfigOrDie(config)
	a.dynamic = dynamic.NewForConfigOrDie(config)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
	})
	return a
}

// put stores an object given as YAML.
func (a *apiServer) put(t testing.TB, path, text string) {
	t.Helper()
	var obj map[string]any
	if err := yaml.Unmarshal([]byte(text), &obj); err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[path] = obj
}

// get returns an object, nil when there is none.
func (a *apiServer) get(path string) map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.objects[path]
}

// list returns the objects below a path.
func (a *apiServer) list(prefix string) []map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []map[string]any
	for path, obj := range a.objects {
		if strings.HasPrefix(path, prefix) {
			all = append(all, obj)
		}
	}
	return all
}

func (a *apiServer) remove(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.objects, path)
}

func (a *apiServer) refuseWith(f func(method, path string) *metav1.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = f
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		if s := a.refuse(r.Method, r.URL.Path); s != nil {
			answer(w, int(s.Code), s)
			return
		}
	}
	switch {
	case r.URL.Path == "/version":
		answer(w, 200, map[string]any{"major": "1", "minor": "37+", "gitVersion": "v1.37.2"})
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") != "":
		_, name, _ := strings.Cut(r.URL.Query().Get("fieldSelector"), "metadata.name=")
		if obj := a.objects[r.URL.Path+"/"+name]; obj != nil {
			answer(w, 200, map[string]any{"type": "ADDED", "object": obj})
		}
	case r.Method == http.MethodGet:
		if obj := a.objects[r.URL.Path]; obj != nil {
			answer(w, 200, obj)
			return
		}
		answer(w, 404, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404, Message: r.URL.Path + " not found"})
	case r.Method == http.MethodPost, r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		a.write(w, r)
	default:
		answer(w, 405, map[string]any{"kind": "Status", "message": r.Method + " is not built"})
	}
}

func (a *apiServer) write(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var obj map[string]any
	if err := yaml.Unmarshal(body, &obj); err != nil {
		answer(w, 400, map[string]any{"kind": "Status", "message": err.Error()})
		return
	}
	path := r.URL.Path
	if r.Method == http.MethodPost {
		a.n++
		path += fmt.Sprintf("/%d", a.n)
	} else {
		a.applied = append(a.applied, path+" "+r.URL.Query().Get("fieldManager"))
	}
	if old := a.objects[path]; old != nil {
		obj = merge(old, obj)
	}
	if obj["kind"] == "CustomResourceDefinition" {
		obj["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Established", "status": "True"}}}
	}
	a.objects[path] = obj
	answer(w, 200, obj)
}

// merge is as much of server-side apply as these tests need: maps merge, lists
// are replaced, but owners add up.
func merge(old, more map[string]any) map[string]any {
	out := maps.Clone(old)
	for k, v := range more {
		oldMap, ok1 := out[k].(map[string]any)
		newMap, ok2 := v.(map[string]any)
		oldList, ok3 := out[k].([]any)
		newList, ok4 := v.([]any)
		switch {
		case ok1 && ok2:
			out[k] = merge(oldMap, newMap)
		case k == "ownerReferences" && ok3 && ok4:
			for _, owner := range newList {
				if !hasOwner(oldList, owner.(map[string]any)["uid"]) {
					oldList = append(oldList, owner)
				}
			}
			out[k] = oldList
		default:
			out[k] = v
		}
	}
	return out
}

func hasOwner(list []any, uid any) bool {
	for _, o := range list {
		if o.(map[string]any)["uid"] == uid {
			return true
		}
	}
	return false
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away
}
