package lfs

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

func pointer(content string) string {
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid %s\nsize %d\n", blobs.Digest([]byte(content)), len(content))
}

// fixed are files at the root, by name.
type fixed map[string]string

func (f fixed) ReadDir(_ context.Context, dir string) ([]git.Entry, error) {
	if dir != "" {
		return nil, git.ErrNotFound
	}
	var out []git.Entry
	for name := range f {
		out = append(out, git.Entry{Name: name, Mode: "100644", Kind: git.KindBlob, ID: name})
	}
	return out, nil
}

func (f fixed) Object(_ context.Context, id string) ([]byte, error) { return []byte(f[id]), nil }

func TestContent(t *testing.T) {
	contents := map[string]string{}
	for _, c := range []string{"large content", "wrong", "elsewhere", "lost"} {
		contents[strings.TrimPrefix(blobs.Digest([]byte(c)), "sha256:")] = c
	}
	batches, foreign := 0, "unset"
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		foreign = r.Header.Get("Authorization")
		fmt.Fprint(w, "elsewhere")
	}))
	defer other.Close()
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != "hunter2" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		if oid, ok := strings.CutPrefix(r.URL.Path, "/get/"); ok {
			if c := contents[oid]; c != "wrong" {
				fmt.Fprint(w, c)
			} else {
				fmt.Fprint(w, "other")
			}
			return
		}
		batches++
		var req struct{ Objects []struct{ OID string } }
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != "/o/r.git/info/lfs/objects/batch" || r.Header.Get("Accept") != mediaType {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		oid := req.Objects[0].OID
		switch contents[oid] {
		case "lost", "":
			fmt.Fprintf(w, `{"objects":[{"oid":%q,"error":{"code":404,"message":"gone"}}]}`, oid)
		case "elsewhere":
			fmt.Fprintf(w, `{"objects":[{"oid":%q,"actions":{"download":{"href":%q}}}]}`, oid, other.URL+"/x")
		default:
			fmt.Fprintf(w, `{"objects":[{"oid":%q,"actions":{"download":{"href":%q}}}]}`, oid, server.URL+"/get/"+oid)
		}
	}))
	defer server.Close()
	clients := credential.NewClients(nil)
	defer clients.Close()
	s := Server{RepoURL: server.URL + "/o/r", Credential: credential.Credential{Username: "u", Password: "hunter2"}, Clients: clients, Kept: blobs.New(t.TempDir(), 1<<20)}
	base := fixed{"plain": "hello", "big": pointer("large content"), "bad": pointer("wrong"), "away": pointer("elsewhere"), "lost": pointer("lost"),
		"huge": fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 99999999999\n", 1)}
	tree := source.NewTreeOf(Of(base, s), "c")
	for p, want := range map[string]string{"plain": "hello", "big": "large content", "away": "elsewhere"} {
		if got, err := tree.ReadFile(t.Context(), p); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", p, got, err)
		}
	}
	if tree.Inputs()["big"] != "big" {
		t.Errorf("the identity is not that of the pointer: %v", tree.Inputs())
	}
	if foreign != "" {
		t.Errorf("another host saw %q", foreign)
	}
	before := batches
	if _, err := source.NewTreeOf(Of(base, s), "c").ReadFile(t.Context(), "big"); err != nil || batches != before {
		t.Errorf("a second time: %v, asked %d times", err, batches-before)
	}
	for p, says := range map[string]string{"bad": "other content", "lost": "404: gone", "huge": "more than 64 MiB"} {
		if _, err := tree.ReadFile(t.Context(), p); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", p, err)
		}
	}
	s.Credential = credential.Credential{}
	s.Kept = blobs.New(t.TempDir(), 1<<20)
	if _, err := Of(base, s).Object(t.Context(), "big"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without credentials: %v", err)
	}
	s.RepoURL = "git@h:o/r.git"
	if _, err := Of(base, s).Object(t.Context(), "big"); err == nil || !strings.Contains(err.Error(), "SSH") {
		t.Errorf("over SSH: %v", err)
	}
	base[".lfsconfig"] = "[lfs]\n\turl = " + server.URL + "/o/r.git/info/lfs\n"
	if _, err := Of(base, s).Object(t.Context(), "big"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("the server of .lfsconfig: %v", err)
	}
}

func FuzzPointer(f *testing.F) {
	f.Add([]byte(pointer("x")))
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\noid sha256:zz\nsize -1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, ok := ParsePointer(data); ok && (len(p.OID) != 64 || p.Size < 0) {
			t.Errorf("%+v", p)
		}
	})
}
