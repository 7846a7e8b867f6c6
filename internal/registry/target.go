package registry

import (
	"net/http"
	"strings"
)

type targetKind int

const (
	notFound targetKind = iota
	base                // /v2/
	catalog             // /v2/_catalog
	manifests
	blobs
	uploads
	tagList
	referrers
)

// target is what a request under /v2/ is about.
type target struct {
	kind      targetKind
	repo      string
	reference string // tag, digest or upload id
	from      string // repository of a cross-repository mount
}

// parseTarget reads the path. It only has to be strict enough that nothing
// passes the authorization as another repository than Distribution will serve:
// a repository's name ends at the last of the words that may follow it.
func parseTarget(req *http.Request) target {
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok {
		if req.URL.Path == "/v2" {
			return target{kind: base}
		}
		return target{}
	}
	switch path {
	case "":
		return target{kind: base}
	case "_catalog":
		return target{kind: catalog}
	}
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		if p == "" || p == "." || p == ".." {
			return target{}
		}
	}
	n := len(parts)
	t := target{from: req.URL.Query().Get("from")}
	switch {
	case n >= 3 && parts[n-2] == "tags" && parts[n-1] == "list":
		t.kind, t.repo = tagList, strings.Join(parts[:n-2], "/")
	case n >= 3 && parts[n-2] == "manifests":
		t.kind, t.repo, t.reference = manifests, strings.Join(parts[:n-2], "/"), parts[n-1]
	case n >= 4 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		t.kind, t.repo, t.reference = uploads, strings.Join(parts[:n-3], "/"), parts[n-1]
	case n >= 3 && parts[n-2] == "blobs":
		t.kind, t.repo, t.reference = blobs, strings.Join(parts[:n-2], "/"), parts[n-1]
		if parts[n-1] == "uploads" {
			t.kind, t.reference = uploads, ""
		}
	case n >= 3 && parts[n-2] == "referrers":
		t.kind, t.repo, t.reference = referrers, strings.Join(parts[:n-2], "/"), parts[n-1]
	}
	return t
}

// actions are what a request needs to be allowed, each on its repository.
func (t target) actions(method string) []access {
	switch t.kind {
	case base:
		return nil
	case catalog:
		return []access{{"", ActionCatalog}}
	}
	var need []access
	switch method {
	case http.MethodGet, http.MethodHead:
		need = append(need, access{t.repo, ActionPull})
	case http.MethodDelete:
		if t.kind == uploads {
			need = append(need, access{t.repo, ActionPush})
			break
		}
		need = append(need, access{t.repo, ActionDelete})
	default:
		need = append(need, access{t.repo, ActionPull}, access{t.repo, ActionPush})
		if t.from != "" {
			need = append(need, access{t.from, ActionPull})
		}
	}
	return need
}

// access is one action on one repository.
type access struct{ repo, action string }
