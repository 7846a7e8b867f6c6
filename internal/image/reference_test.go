package image

import (
	"strings"
	"testing"
)

func TestParseRef(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for in, want := range map[string]string{
		"busybox":                     "docker.io/library/busybox:latest",
		"golang:1.26":                 "docker.io/library/golang:1.26",
		"bitnami/redis":               "docker.io/bitnami/redis:latest",
		"ghcr.io/o/r:v1":              "ghcr.io/o/r:v1",
		"x.azurecr.io/w@" + digest:    "x.azurecr.io/w@" + digest,
		"x.azurecr.io/w:v1@" + digest: "x.azurecr.io/w:v1@" + digest,
		"localhost:5000/x":            "localhost:5000/x:latest",
		"localhost/x:1":               "localhost/x:1",
		"a.io/b__c/d-e.f:T_1.x-y":     "a.io/b__c/d-e.f:T_1.x-y",
		"":                            "", "UPPER": "", "a b": "", "x:": "", "x@sha256:1": "", "x:a/b:c d": "", "-a.io/x": "",
		"a..b": "", "a/": "", "/a": "", "x:" + strings.Repeat("t", 129): "", strings.Repeat("a", 300): "",
	} {
		got, err := parseRef(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("parseRef(%q) = %v, %v; want %q", in, got, err, want)
		}
	}
	if r, err := parseRef("docker.io/library/golang:1"); err != nil || r.short() != "golang:1" {
		t.Errorf("short = %q, %v", r.short(), err)
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"busybox", "a.io:5/b:c@sha256:0", "x@y", "localhost/a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRef(s)
		if err != nil {
			return
		}
		again, err := parseRef(r.String())
		if err != nil || again != r {
			t.Errorf("parseRef(%q) = %v, but %v, %v for its own text", s, r, again, err)
		}
	})
}
