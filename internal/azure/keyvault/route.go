package keyvault

import (
	"net/url"
	"regexp"
	"strings"
)

// route is a parsed request path.
type route struct {
	Collection string // "secrets", "deletedsecrets", "keys", …; "" for the root
	Name       string
	Version    string // 32 hex digits, "" for the latest
	Verb       string // "versions", "backup", "recover", "restore", ""
}

var (
	nameForm    = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)
	versionForm = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
)

// parseRoute reads an escaped URL path. Repeated and trailing slashes do not
// matter: clients send "//secrets", and "/secrets/name/" for the latest version.
func parseRoute(escaped string) (route, error) {
	var segs []string
	for s := range strings.SplitSeq(escaped, "/") {
		if s == "" {
			continue
		}
		u, err := url.PathUnescape(s)
		if err != nil {
			return route{}, badParameter("The path holds a malformed escape.")
		}
		segs = append(segs, u)
	}
	var r route
	if len(segs) == 0 {
		return r, nil
	}
	r.Collection = strings.ToLower(segs[0])
	if r.Collection == "secrets" && len(segs) == 2 && strings.EqualFold(segs[1], "restore") {
		r.Verb = "restore" // also a legal name; which is meant, the method says
		r.Name = segs[1]
		return r, nil
	}
	if len(segs) > 1 {
		if r.Name = segs[1]; !nameForm.MatchString(r.Name) {
			return route{}, badParameter("The request URI contains an invalid name: %q. A name has 1 to 127 letters, digits and '-'.", clip(r.Name))
		}
	}
	if len(segs) > 2 {
		switch verb := strings.ToLower(segs[2]); {
		case verb == "versions" || verb == "backup" || verb == "recover":
			r.Verb = verb
		case versionForm.MatchString(segs[2]):
			r.Version = strings.ToLower(segs[2])
		default:
			return route{}, badParameter("The request URI contains an invalid version: %q. A version has 32 hexadecimal digits.", clip(segs[2]))
		}
	}
	if len(segs) > 3 {
		return route{}, badParameter("The request URI has too many parts.")
	}
	return r, nil
}

// clip bounds what an error quotes.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
