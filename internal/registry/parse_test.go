package registry

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for path, want := range map[string]target{
		"/v2":                              {kind: base},
		"/v2/":                             {kind: base},
		"/v2/_catalog":                     {kind: catalog},
		"/v2/a/b/manifests/v1":             {kind: manifests, repo: "a/b", reference: "v1"},
		"/v2/a/manifests/x/manifests/v1":   {kind: manifests, repo: "a/manifests/x", reference: "v1"},
		"/v2/a/blobs/sha256:00":            {kind: blobs, repo: "a", reference: "sha256:00"},
		"/v2/a/blobs/uploads/":             {kind: uploads, repo: "a"},
		"/v2/a/blobs/uploads":              {kind: uploads, repo: "a"},
		"/v2/a/b/blobs/uploads/id":         {kind: uploads, repo: "a/b", reference: "id"},
		"/v2/a/tags/list":                  {kind: tagList, repo: "a"},
		"/v2/a/referrers/sha256:00":        {kind: referrers, repo: "a", reference: "sha256:00"},
		"/v2/../a/manifests/v1":            {},
		"/v2/a//manifests/v1":              {},
		"/v2/manifests/v1":                 {},
		"/v3/a/manifests/v1":               {},
		"/v2/a/b":                          {},
		"/v2/a/blobs/uploads/manifests/v1": {kind: manifests, repo: "a/blobs/uploads", reference: "v1"},
	} {
		if got := parseTarget(&http.Request{URL: &url.URL{Path: path}}); got != want {
			t.Errorf("parseTarget(%s) = %+v, want %+v", path, got, want)
		}
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"localhost:5000": DefaultHost, "127.0.0.1:8080": DefaultHost, "[::1]:80": DefaultHost, "10.77.0.1": DefaultHost,
		"lockstep.localhost": DefaultHost, "": DefaultHost,
		"index.docker.io": "docker.io", "registry-1.docker.io": "docker.io",
		"StoreFront.azurecr.io:443": "storefront.azurecr.io", "ghcr.io.": "ghcr.io",
		"..": "", "a/b": "", "-a.io": "", "a..b": "", strings.Repeat("a", 254): "",
	} {
		got, err := parseHost(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("parseHost(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseScopes(t *testing.T) {
	got := parseScopes([]string{"repository:a/b:pull,push repository:c:*", "registry:catalog:*", "nonsense", "repository:x", "repository:y:fly"})
	want := []access{{"a/b", "pull"}, {"a/b", "push"}, {"c", "pull"}, {"c", "push"}, {"c", "delete"}, {"", "catalog"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parseScopes = %v, want %v", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/v2/a/blobs/uploads/x", "repository:a:pull", "ghcr.io:443")
	f.Add("/v2/a/b/manifests/sha256:00", "registry:catalog:*", "[::1]:5000")
	f.Fuzz(func(t *testing.T, path, scope, host string) {
		got := parseTarget(&http.Request{URL: &url.URL{Path: path}})
		for _, p := range strings.Split(got.repo, "/") {
			if got.repo != "" && (p == "" || p == "." || p == "..") {
				t.Errorf("%q: repository %q has a bad part", path, got.repo)
			}
		}
		if len(parseScopes([]string{scope})) > maxScopes+2 {
			t.Errorf("%d-byte scope: too many", len(scope))
		}
		if name, err := parseHost(host); err == nil {
			if strings.ContainsAny(name, "/\\\x00") || strings.HasPrefix(name, ".") {
				t.Errorf("parseHost(%q) = %q", host, name)
			}
			if again, err := parseHost(name); err != nil || again != name {
				t.Errorf("parseHost is not stable: %q, %q, %v", name, again, err)
			}
		}
	})
}
