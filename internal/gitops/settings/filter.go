package settings

// Filter names classes of resources, on some clusters. What is left out
// matches everything. Groups and clusters are globs; a kind is one kind or "*".
type Filter struct {
	Groups   []string `json:"apiGroups,omitempty"`
	Kinds    []string `json:"kinds,omitempty"`
	Clusters []string `json:"clusters,omitempty"` // by the URL of their API server
}

func (f Filter) matches(group, kind, cluster string) bool {
	return oneOf(f.Groups, group) && (oneOf(f.Kinds, kind)) && oneOf(f.Clusters, cluster)
}

func oneOf(globs []string, s string) bool {
	for _, g := range globs {
		if Glob(g, s) {
			return true
		}
	}
	return len(globs) == 0
}

// alwaysExcluded change often, and nobody deploys them.
func alwaysExcluded(group, kind string) bool {
	switch group {
	case "events.k8s.io", "metrics.k8s.io":
		return true
	case "":
		return kind == "Event"
	case "coordination.k8s.io":
		return kind == "Lease"
	}
	return false
}

// Excluded reports whether a kind is left alone on a cluster: it is neither
// watched nor compared nor applied. An exclusion wins over an inclusion; where
// inclusions name a cluster, what they do not include there is excluded.
func (s *Settings) Excluded(group, kind, cluster string) bool {
	if alwaysExcluded(group, kind) {
		return true
	}
	for _, f := range s.Exclusions {
		if f.matches(group, kind, cluster) {
			return true
		}
	}
	limited := false
	for _, f := range s.Inclusions {
		if f.matches(group, kind, cluster) {
			return false
		}
		limited = limited || oneOf(f.Clusters, cluster)
	}
	return limited
}
