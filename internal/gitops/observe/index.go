package observe

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// link puts an object into the indexes. c.mu is held.
func (c *Cache) link(o *Object) {
	if o.Instance != "" {
		m := c.byInstance[o.Instance]
		if m == nil {
			m = map[plan.Key]*Object{}
			c.byInstance[o.Instance] = m
		}
		m[o.Key] = o
	}
	if o.Instance == "" && len(o.Owners) == 0 && o.Key.Namespace != "" {
		m := c.loose[o.Key.Namespace]
		if m == nil {
			m = map[plan.Key]*Object{}
			c.loose[o.Key.Namespace] = m
		}
		m[o.Key] = o
	}
	for _, ref := range o.Owners {
		c.byOwner[ref.UID] = append(c.byOwner[ref.UID], o)
	}
}

// unlink takes it out of them. c.mu is held.
func (c *Cache) unlink(o *Object) {
	if m := c.byInstance[o.Instance]; m != nil && m[o.Key] == o {
		delete(m, o.Key)
		if len(m) == 0 {
			delete(c.byInstance, o.Instance)
		}
	}
	if m := c.loose[o.Key.Namespace]; m != nil && m[o.Key] == o {
		delete(m, o.Key)
		if len(m) == 0 {
			delete(c.loose, o.Key.Namespace)
		}
	}
	for _, ref := range o.Owners {
		list := c.byOwner[ref.UID]
		for i := range list {
			if list[i] == o {
				list[i] = list[len(list)-1]
				list[len(list)-1] = nil
				list = list[:len(list)-1]
				break
			}
		}
		if len(list) == 0 {
			delete(c.byOwner, ref.UID)
		} else {
			c.byOwner[ref.UID] = list
		}
	}
}

// concerned returns the applications that a change is news for. c.mu is held.
func (c *Cache) concerned(objects ...*Object) (told []string) {
	for _, o := range objects {
		if o == nil {
			continue
		}
		if instance := c.instanceOf(o, 0); instance != "" && (len(told) == 0 || told[0] != instance) {
			told = append(told, instance)
		}
	}
	return told
}

// instanceOf finds the application of an object, by its tracking annotation
// or that of an owner. c.mu is held.
func (c *Cache) instanceOf(o *Object, depth int) string {
	if o.Instance != "" || depth > 4 {
		return o.Instance
	}
	for _, ref := range o.Owners {
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			continue
		}
		k := c.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}]
		if k == nil {
			continue
		}
		owner := k.objects[o.Key.Namespace+"/"+ref.Name]
		if owner == nil {
			owner = k.objects["/"+ref.Name]
		}
		if owner == nil || owner.UID != ref.UID {
			continue
		}
		if instance := c.instanceOf(owner, depth+1); instance != "" {
			return instance
		}
	}
	return ""
}
