package observe

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var configMapKind = schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}

// server is a model of what the API server has of one kind.
type server struct {
	version int
	uids    int
	objects map[string]*unstructured.Unstructured
	log     []event // everything that a watch from the start would bring
}

type event struct {
	object *unstructured.Unstructured
	gone   bool
}

func versionOf(o *unstructured.Unstructured) int {
	n, err := strconv.Atoi(o.GetResourceVersion())
	if err != nil {
		panic(err)
	}
	return n
}

// write creates or changes an object, and returns it as the server answers.
func (s *server) write(name, instance string, owner types.UID) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetGroupVersionKind(configMapKind)
	o.SetNamespace("ns-" + name[:1])
	o.SetName(name)
	if old := s.objects[name]; old != nil {
		o.SetUID(old.GetUID())
		o.SetDeletionTimestamp(old.GetDeletionTimestamp())
		o.SetFinalizers(old.GetFinalizers())
	} else {
		s.uids++
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", s.uids)))
	}
	if instance != "" {
		o.SetAnnotations(map[string]string{"argocd.argoproj.io/tracking-id": instance + ":/ConfigMap:" + o.GetNamespace() + "/" + name})
	}
	if owner != "" {
		o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "any", UID: owner}})
	}
	return s.store(o)
}

func (s *server) store(o *unstructured.Unstructured) *unstructured.Unstructured {
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	s.objects[o.GetName()] = o
	s.log = append(s.log, event{object: o})
	return o.DeepCopy()
}

// remove deletes an object; with a finalizer it only begins to.
func (s *server) remove(name string, finalizer bool) {
	o := s.objects[name].DeepCopy()
	if finalizer && o.GetDeletionTimestamp() == nil {
		now := metav1.NewTime(time.Unix(1, 0))
		o.SetDeletionTimestamp(&now)
		s.store(o)
		return
	}
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	delete(s.objects, name)
	s.log = append(s.log, event{o, true})
}

// at is a listing as of a version.
func (s *server) at(version int) []any {
	have := map[string]*unstructured.Unstructured{}
	for _, e := range s.log {
		switch {
		case versionOf(e.object) > version:
		case e.gone:
			delete(have, e.object.GetName())
		default:
			have[e.object.GetName()] = e.object
		}
	}
	var out []any
	for _, name := range slices.Sorted(maps.Keys(have)) {
		out = append(out, have[name].DeepCopy())
	}
	return out
}

// cacheOf is a cache that watches config maps, without a watch.
func cacheOf(changed func(string)) (*Cache, *scope) {
	c := New(Deps{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now, Changed: changed})
	k := &kind{Cache: c, resource: Resource{Kind: configMapKind, Namespaced: true}, objects: map[string]*Object{}, waiting: map[string]bool{}}
	k.scopes = []*scope{{kind: k}}
	c.kinds[configMapKind.GroupKind()] = k
	return c, k.scopes[0]
}

// TestCacheModel plays a server whose changes come late, again, or by a new
// listing, while answers to this process's own writes come at any time.
func TestCacheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &server{objects: map[string]*unstructured.Unstructured{}}
		c, k := cacheOf(func(string) {})
		next := 0 // of the log, for the watch
		var answers []*unstructured.Unstructured
		own := map[string]int{} // name → the youngest version of its own that the cache was told of
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		deliver := func(e event) {
			if e.gone {
				if err := k.Delete(e.object.DeepCopy()); err != nil {
					t.Fatal(err)
				}
				return
			}
			if err := k.Update(e.object.DeepCopy()); err != nil {
				t.Fatal(err)
			}
		}
		write := func(t *rapid.T) *unstructured.Unstructured {
			owners := []types.UID{"", "", "uid-1", "uid-2"}
			return s.write(name.Draw(t, "name"), rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "instance"), rapid.SampledFrom(owners).Draw(t, "owner"))
		}
		answered := func(i int) {
			o := answers[i]
			answers = slices.Delete(answers, i, i+1)
			c.Wrote(o)
			own[o.GetName()] = max(own[o.GetName()], versionOf(o))
		}
		t.Repeat(map[string]func(*rapid.T){
			"others write": func(t *rapid.T) { write(t) },
			"own write":    func(t *rapid.T) { answers = append(answers, write(t)) },
			"answer": func(t *rapid.T) {
				if len(answers) == 0 {
					t.Skip("none is under way")
				}
				answered(rapid.IntRange(0, len(answers)-1).Draw(t, "which"))
			},
			"delete": func(t *rapid.T) {
				n := name.Draw(t, "name")
				if s.objects[n] == nil {
					t.Skip("not there")
				}
				s.remove(n, rapid.Bool().Draw(t, "finalizer"))
			},
			"own delete": func(t *rapid.T) {
				n := name.Draw(t, "name")
				live := s.objects[n]
				if live == nil {
					t.Skip("not there")
				}
				s.remove(n, rapid.Bool().Draw(t, "finalizer"))
				c.Deleted(live)
			},
			"watch": func(t *rapid.T) {
				if next == len(s.log) {
					t.Skip("nothing new")
				}
				deliver(s.log[next])
				next++
			},
			"the watch begins anew a little earlier": func(t *rapid.T) {
				if next == 0 {
					t.Skip("nothing yet")
				}
				for _, e := range s.log[rapid.IntRange(max(0, next-1), next-1).Draw(t, "from"):next] {
					if !e.gone { // the reflector goes on from the last version: only that one may come again
						deliver(e)
					}
				}
			},
			"list": func(t *rapid.T) {
				seen := 0
				if next > 0 {
					seen = versionOf(s.log[next-1].object)
				}
				version := rapid.IntRange(seen, s.version).Draw(t, "version")
				if err := k.Replace(s.at(version), strconv.Itoa(version)); err != nil {
					t.Fatal(err)
				}
				for next < len(s.log) && versionOf(s.log[next].object) <= version {
					next++
				}
			},
			"": func(t *rapid.T) {
				consistent(t, c, k)
				for n, version := range own {
					have := c.Lookup(plan.Key{Kind: "ConfigMap", Namespace: "ns-" + n, Name: n})
					switch {
					case have != nil && newerThan(strconv.Itoa(version), have.ResourceVersion):
						t.Fatalf("%s went back from the own write %d to %s", n, version, have.ResourceVersion)
					case have == nil && !s.goneAfter(n, version):
						t.Fatalf("%s is not there although this process wrote %d", n, version)
					}
				}
			},
		})
		for len(answers) > 0 {
			answered(0)
		}
		for ; next < len(s.log); next++ {
			deliver(s.log[next])
		}
		consistent(t, c, k)
		same(t, s, k)
	})
}

// goneAfter reports whether an object was deleted after a version.
func (s *server) goneAfter(name string, version int) bool {
	return slices.ContainsFunc(s.log, func(e event) bool { return e.gone && e.object.GetName() == name && versionOf(e.object) > version })
}

// same checks that the cache has what the server has.
func same(t *rapid.T, s *server, k *scope) {
	for _, o := range s.objects {
		have := k.objects[o.GetNamespace()+"/"+o.GetName()]
		if have == nil {
			t.Fatalf("%s is missing in the cache", o.GetName())
		}
		if have.ResourceVersion != o.GetResourceVersion() || have.UID != o.GetUID() || have.Deleting != (o.GetDeletionTimestamp() != nil) {
			t.Fatalf("%s: the cache has %s %s deleting=%v, the server %s %s deleting=%v", o.GetName(),
				have.UID, have.ResourceVersion, have.Deleting, o.GetUID(), o.GetResourceVersion(), o.GetDeletionTimestamp() != nil)
		}
	}
	for name := range k.objects {
		if s.objects[name[len("ns-a/"):]] == nil {
			t.Fatalf("%s is in the cache, but not on the server", name)
		}
	}
}

// consistent checks that every index has exactly the objects that it should.
func consistent(t *rapid.T, c *Cache, k *scope) {
	tracked, owned, loose := 0, 0, 0
	for _, o := range k.objects {
		if o.Instance != "" {
			tracked++
			if c.byInstance[o.Instance][o.Key] != o {
				t.Fatalf("%s is not under its application %s", o.Key, o.Instance)
			}
		}
		for _, ref := range o.Owners {
			owned++
			if n := len(slices.DeleteFunc(slices.Clone(c.byOwner[ref.UID]), func(x *Object) bool { return x != o })); n != 1 {
				t.Fatalf("%s is %d times under its owner", o.Key, n)
			}
		}
		if o.Instance == "" && len(o.Owners) == 0 {
			loose++
			if c.loose[o.Key.Namespace][o.Key] != o {
				t.Fatalf("%s is not among those that nobody tracks", o.Key)
			}
		}
	}
	for _, m := range c.byInstance {
		tracked -= len(m)
	}
	for _, list := range c.byOwner {
		owned -= len(list)
	}
	for _, m := range c.loose {
		loose -= len(m)
	}
	if tracked != 0 || owned != 0 || loose != 0 {
		t.Fatalf("an index has objects that the cache has not: %d %d %d", tracked, owned, loose)
	}
}
