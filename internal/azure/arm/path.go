package arm

import (
	"strings"
)

// path is a parsed request path. Its parts keep the client's case.
//
//	{Scope}/providers/{Namespace}/{type}/{name}/{type}/{name}…
//
// Scope is a subscription, a group, a resource or "" (the tenant). Without
// "providers" there is no Namespace, and Scope is the whole path.
type path struct {
	Scope        string // "/subscriptions/…" or ""
	Subscription string // of the scope, "" for the tenant
	Group        string // resource group of the scope, "" without one
	Rest         []string
	Namespace    string
	Types, Names []string // an instance has as many names as types, a collection or action one type more
}

// maxPath bounds what is parsed at all.
const maxPath = 2048

// parsePath reads a URL path, or a resource id. ok is false for what can be
// neither. Repeated and trailing slashes do not matter.
func parsePath(text string) (p path, ok bool) {
	if len(text) > maxPath || strings.ContainsAny(text, "\x00\\?#") {
		return path{}, false
	}
	segs := strings.FieldsFunc(text, func(r rune) bool { return r == '/' })
	for _, s := range segs {
		if s == "." || s == ".." || strings.TrimSpace(s) != s {
			return path{}, false
		}
	}
	scope := segs
	for i := len(segs) - 1; i >= 0; i-- {
		if strings.EqualFold(segs[i], "providers") && i%2 == 0 {
			scope = segs[:i]
			rest := segs[i+1:]
			if len(rest) > 0 {
				p.Namespace = rest[0]
				for j, s := range rest[1:] {
					if j%2 == 0 {
						p.Types = append(p.Types, s)
					} else {
						p.Names = append(p.Names, s)
					}
				}
			} else {
				p.Rest = segs[i:]
			}
			break
		}
	}
	if p.Namespace == "" && p.Rest == nil {
		p.Rest = segs
	}
	if len(scope) > 0 && strings.EqualFold(scope[0], "subscriptions") && len(scope) > 1 {
		p.Subscription = scope[1]
		if len(scope) > 3 && strings.EqualFold(scope[2], "resourcegroups") {
			p.Group = scope[3]
		}
	}
	if len(scope) > 0 {
		p.Scope = "/" + strings.Join(scope, "/")
	}
	return p, true
}

// instance reports whether the path names one resource.
func (p path) instance() bool {
	return p.Namespace != "" && len(p.Types) > 0 && len(p.Types) == len(p.Names)
}

// typeKey is the lower-case resource type: "microsoft.keyvault/vaults".
func (p path) typeKey() string {
	return strings.ToLower(p.Namespace + "/" + strings.Join(p.Types, "/"))
}

// parent is the path without its last type and name.
func (p path) parent() path {
	n := max(len(p.Types)-1, 0)
	p.Types, p.Names = p.Types[:n], p.Names[:min(n, len(p.Names))]
	return p
}

// id writes the resource id of an instance.
func (p path) id() string {
	var b strings.Builder
	b.WriteString(p.Scope)
	if p.Namespace != "" {
		b.WriteString("/providers/" + p.Namespace)
	}
	for i, t := range p.Types {
		b.WriteString("/" + t)
		if i < len(p.Names) {
			b.WriteString("/" + p.Names[i])
		}
	}
	return b.String()
}

// key is how an id is stored and compared.
func key(id string) string { return strings.ToLower(strings.TrimRight(id, "/")) }

// within reports whether the resource with key k is at scope or below it.
func within(k, scope string) bool {
	return scope == "" || scope == "/" || k == scope || strings.HasPrefix(k, scope+"/")
}
