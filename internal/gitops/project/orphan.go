package project

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Key names a live object.
type Key struct {
	Group, Kind, Namespace, Name string
}

type orphanRules struct {
	warn   bool
	ignore []ignoredOrphan
}

type ignoredOrphan struct{ group, kind, name matcher }

func (c *compiler) orphans(from *v1alpha1.OrphanedResources) *orphanRules {
	if from == nil {
		return nil
	}
	o := &orphanRules{warn: from.Warn != nil && *from.Warn}
	anything := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	for i, item := range from.Ignore {
		at := fmt.Sprintf("orphanedResources.ignore[%d].", i)
		o.ignore = append(o.ignore, ignoredOrphan{c.glob(at+"group", item.Group, 0), c.glob(at+"kind", anything(item.Kind), 0), c.glob(at+"name", anything(item.Name), 0)})
	}
	return o
}

// Monitored reports whether the project wants to know of orphans, and whether
// they are worth a condition on its Applications.
func (p *Project) Monitored() (look, warn bool) {
	return p.orphans != nil, p.orphans != nil && p.orphans.warn
}

// Orphans returns which of the live objects belong to nobody, in their order.
// live are the objects of the destination namespace that have no owner;
// owned reports whether an Application holds one. Kinds that the project does
// not permit, what every namespace has of itself and what the project ignores
// are no orphans.
func (p *Project) Orphans(live []Key, owned func(Key) bool) []Key {
	if p.orphans == nil {
		return nil
	}
	var out []Key
	for _, k := range live {
		if k.Namespace == "" || p.kindDenied(schema.GroupKind{Group: k.Group, Kind: k.Kind}, true, k.Name) != "" || inherent(k) || p.orphans.ignores(k) || owned(k) {
			continue
		}
		out = append(out, k)
	}
	return out
}

// inherent reports whether Kubernetes itself makes the object.
func inherent(k Key) bool {
	return slices.Contains([]Key{
		{"", "Service", "default", "kubernetes"}, {"", "ServiceAccount", k.Namespace, "default"}, {"", "ConfigMap", k.Namespace, "kube-root-ca.crt"},
	}, k)
}

// ignores: an empty group is the core group, an empty kind or name is any.
func (o *orphanRules) ignores(k Key) bool {
	return slices.ContainsFunc(o.ignore, func(i ignoredOrphan) bool {
		return i.kind.match(k.Kind) && i.group.match(k.Group) && i.name.match(k.Name)
	})
}
