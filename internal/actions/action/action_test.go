package action

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func TestParse(t *testing.T) {
	for uses, want := range map[string]Reference{
		"actions/checkout@v4":              {Kind: Repository, Repo: "actions/checkout", Rev: "v4"},
		"a/b/sub/dir@feature/x":            {Kind: Repository, Repo: "a/b", Path: "sub/dir", Rev: "feature/x"},
		"./.github/actions/x":              {Kind: Local, Path: ".github/actions/x"},
		"$/lib/x":                          {Kind: Self, Path: "lib/x"},
		"$/":                               {Kind: Self},
		"./":                               {Kind: Local, Path: "."},
		"docker://ghcr.io/a/b:1@sha256:00": {Kind: Image, Image: "ghcr.io/a/b:1@sha256:00"},
	} {
		want.Text = uses
		if got, err := Parse(uses); err != nil || got != want {
			t.Errorf("%s: %+v %v", uses, got, err)
		}
	}
	for uses, want := range map[string]string{
		"actions/checkout":                       "names no version",
		"actions/checkout@":                      "names no version",
		"checkout@v4":                            "is no action",
		"a/..@v1":                                "is no action",
		"a/b/../../c@v1":                         "is no path",
		"a/b@--upload-pack=x":                    "cannot be the name",
		"a/b@v1..v2":                             "cannot be the name",
		"a/b@v1 x":                               "cannot be the name",
		"./../x":                                 "leads out of the workspace",
		"$/../x":                                 "is no path in the repository",
		"docker://":                              "names no image",
		"docker://-v":                            "names no image",
		"a/" + strings.Repeat("b", 2000) + "@v1": "at most 1000",
	} {
		if _, err := Parse(uses); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", uses, err)
		}
	}
}

const good = `name: Everything
author: me
description: x
branding: {icon: award, color: green}
inputs:
  who to greet: {required: true, default: "${{ github.actor }}", type: string}
  count: {default: 1.50}
  plain:
outputs:
  a: {value: "${{ steps.one.outputs.a }}"}
runs:
  using: composite
  steps:
    - &step
      id: one
      name: Say
      if: inputs.count > 1
      env: {X: "${{ github.action_path }}"}
      run: |
        echo
        echo ${{ inputs.plain }}
      shell: bash
      working-directory: /tmp
      continue-on-error: true
    - uses: actions/checkout@v4
      with: {fetch-depth: 0}
`

func TestLoad(t *testing.T) {
	a, diagnostics := Load("action.yml", []byte(good))
	if a == nil || len(diagnostics) > 0 {
		t.Fatal(diagnostics)
	}
	if in := a.Input("WHO to greet"); in == nil || !in.Required || in.Default.Value != "${{ github.actor }}" || in.Line != 6 || a.Input("count").Default.Value != "1.5" {
		t.Errorf("inputs %+v", a.Inputs)
	}
	s := a.Runs.Steps
	if len(s) != 2 || s[0].Run.LineAt(6) != 21 || s[0].Line != 14 || s[1].With[0].Value.Value != "0" || a.Outputs[0].Line != 10 {
		t.Errorf("%d %d %+v %+v", s[0].Line, s[0].Run.LineAt(6), s[1], a.Outputs)
	}
	js, _ := Load("action.yml", []byte("runs: {using: NODE24, main: dist/index.js, post: post.js, post-if: success()}"))
	if js == nil || js.Runs.NodeVersion != "24" || js.Runs.PostIf.Value != "success()" {
		t.Errorf("%+v", js)
	}
}

func TestLoadRefuses(t *testing.T) {
	step := "runs:\n  using: composite\n  steps:\n    - "
	for content, want := range map[string]string{
		"":                                    "1: the file is empty",
		"a: [":                                "1: the file is no YAML",
		"- a":                                 "1: an action must be a mapping",
		"name: x":                             "1: the action has no `runs`",
		"runs: {main: x}":                     "1: `runs` has no `using`",
		"runs:\n  using: node8\n  main: x":    "2: `using: node8` is not known",
		"runs:\n  using: node20":              "1: a JavaScript action needs `main`",
		"runs: {using: node20, main: /etc/x}": "must be a path in the action's folder",
		"runs: {using: docker}":               "1: a Docker action needs `image`",
		"runs: {using: composite}":            "1: a composite action needs `steps`",
		"runs: {using: composite, steps: {}}": "1: steps must be a list",
		step + "run: x":                       "4: a `run` step of a composite action needs `shell`",
		step + "name: x":                      "4: a step needs `run` or `uses`",
		step + "{run: x, shell: sh, uses: a/b@v1}":                                  "4: a step has `run` or `uses`, not both",
		step + "uses: nonsense":                                                     "4: \"nonsense\" names no version",
		step + "uses: a/b@${{ inputs.x }}":                                          "4: `uses` cannot hold an expression",
		step + "{shell: sh, run: '${{ secrets.X }}'}":                               `4: context "secrets" is not available here`,
		step + "{shell: sh, run: 'a ${{ 1 + }}'}":                                   "4: bad expression",
		step + "{shell: sh, run: x, if: vars.X}":                                    `4: context "vars" is not available here`,
		step + "{shell: sh, run: x, timeout-minutes: 1}":                            "cannot be used in a composite action",
		step + "{id: a, shell: sh, run: x}\n    - {id: A, shell: sh, run: x}":       `5: two steps have the id "A"`,
		"inputs: {a: {default: '${{ inputs.b }}'}}\nruns: {using: node20, main: x}": `1: context "inputs" is not available`,
		"inputs: {a: {}, A: {}}\nruns: {using: node20, main: x}":                    `1: "A" is there twice`,
		strings.Repeat("#", MaxSize+1):                                              "at most",
	} {
		a, diagnostics := Load("action.yml", []byte(content))
		err := FirstFatal(diagnostics)
		if a != nil || err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%.60q: %v", content, err)
		}
	}
}

func TestAliasesCannotBlowUp(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'j'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	bomb += "runs: {using: composite, steps: *i}\n"
	start := time.Now()
	if a, _ := Load("action.yml", []byte(bomb)); a != nil || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %s", a, time.Since(start))
	}
	steps := "x: &s {run: x, shell: sh}\nruns:\n  using: composite\n  steps: [" + strings.Repeat("*s,", 40_000) + "]\n"
	if a, diagnostics := Load("action.yml", []byte(steps)); a != nil || !strings.Contains(FirstFatal(diagnostics).Error(), "too large") {
		t.Error("a list of 40,000 steps was read")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("runs: {using: docker, image: Dockerfile, args: ['${{ inputs.a }}'], env: {A: b}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		a, diagnostics := Load("action.yml", content)
		if (a == nil) == (FirstFatal(diagnostics) == nil) {
			t.Errorf("action %v with %v", a, diagnostics)
		}
		for _, d := range diagnostics {
			if d.Line < 1 || d.Message == "" {
				t.Errorf("diagnostic %+v", d)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a/b@v1", "./x", "docker://a", "a/b/c@x/y", "a/b/../c@v"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uses string) {
		r, err := Parse(uses)
		if err != nil {
			return
		}
		if r.Kind == Self {
			r = r.Of("a/b", "v1")
		}
		if r.Kind != Image && r.Path != "" && !fs.ValidPath(r.Path) || strings.HasPrefix(r.Rev, "-") || strings.Contains(r.Rev, "..") {
			t.Errorf("%q: %+v", uses, r)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(&tar.Header{Name: "a/b", Typeflag: tar.TypeReg, Mode: 0o755}, &tar.Header{Name: "l", Linkname: "/etc", Typeflag: tar.TypeSymlink}, &tar.Header{Name: "l/x", Typeflag: tar.TypeReg}))
	f.Add(archive(&tar.Header{Name: "../x", Typeflag: tar.TypeReg}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		_ = Unpack(bytes.NewReader(data), root, "in/side")
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 1 {
			t.Errorf("%v %v", entries, err)
		}
	})
}

func archive(headers ...*tar.Header) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		_ = w.WriteHeader(h)
	}
	_ = w.Close()
	return out.Bytes()
}

func TestUnpackStaysInside(t *testing.T) {
	outside := t.TempDir()
	for _, h := range [][]*tar.Header{
		{{Name: "../x", Typeflag: tar.TypeReg}},
		{{Name: "/etc/x", Typeflag: tar.TypeReg}},
		{{Name: "a/../../x", Typeflag: tar.TypeReg}},
		{{Name: "l", Linkname: outside, Typeflag: tar.TypeSymlink}, {Name: "l/x", Typeflag: tar.TypeReg}},
		{{Name: "l", Linkname: "../..", Typeflag: tar.TypeSymlink}, {Name: "l/x", Typeflag: tar.TypeReg}},
	} {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unpack(bytes.NewReader(archive(h...)), root, "in/side"); err == nil {
			t.Errorf("%s was unpacked", h[len(h)-1].Name)
		}
		_ = root.Close()
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside has %v", left)
	}
	// A file that replaces a link does not write through it.
	dir := t.TempDir()
	target := filepath.Join(outside, "victim")
	if err := os.WriteFile(target, []byte("safe"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := Unpack(bytes.NewReader(archive(&tar.Header{Name: "f", Linkname: target, Typeflag: tar.TypeSymlink}, &tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644})), root, "x"); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(target); string(got) != "safe" {
		t.Errorf("the victim holds %q", got)
	}
}

// remote is a folder of repositories that stands for github.com.
type remote struct {
	t     *testing.T
	dir   string
	clock time.Time
}

func (r *remote) git(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, append(git.Env(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *remote) commit(repo, content string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, repo)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.git(dir, "init", "--quiet", "--initial-branch=main")
	r.git(dir, "config", "uploadpack.allowAnySHA1InWant", "true")
	if err := os.WriteFile(filepath.Join(dir, "action.yml"), []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.git(dir, "add", "--all")
	r.git(dir, "commit", "--quiet", "--allow-empty", "-m", content)
	r.git(dir, "tag", "--force", "-a", "v1", "-m", "v1")
	return r.git(dir, "rev-parse", "HEAD")
}

// Repository implements Repositories: the forge is empty.
func (r *remote) Repository(context.Context, string) (*git.Repository, error) {
	return nil, git.ErrNotFound
}

func TestRemoteIsMirroredAndMayGoAway(t *testing.T) {
	r := &remote{t: t, dir: t.TempDir(), clock: time.Now()}
	first := r.commit("acme/x", "runs: {using: node20, main: one.js}")
	mirror := t.TempDir()
	start := func() *Resolver {
		res := NewResolver(Config{Mirror: mirror, Remote: "file://" + r.dir, Now: func() time.Time { return r.clock }}, r)
		t.Cleanup(res.Close)
		return res
	}
	resolve := func(res *Resolver, uses string) (Source, error) {
		ref, err := Parse(uses)
		if err != nil {
			t.Fatal(err)
		}
		return res.Resolve(t.Context(), ref)
	}
	res := start()
	s, err := resolve(res, "acme/x@v1")
	if err != nil || s.Commit != first || s.Stale != "" {
		t.Fatalf("%+v %v", s, err)
	}
	if a, _, err := s.Load(t.Context()); err != nil || a.Runs.Main != "one.js" || a.File != "acme/x/action.yml" {
		t.Errorf("%+v %v", a, err)
	}
	// The tag moves: it is believed for a minute, then asked for again.
	second := r.commit("acme/x", "runs: {using: node20, main: two.js}")
	if s, _ = resolve(res, "acme/x@v1"); s.Commit != first {
		t.Error("asked again at once")
	}
	r.clock = r.clock.Add(2 * time.Minute)
	if s, _ = resolve(res, "acme/x@v1"); s.Commit != second {
		t.Error("the moved tag was not seen")
	}
	if a, _, err := s.Load(t.Context()); err != nil || a.Runs.Main != "two.js" {
		t.Errorf("%+v %v", a, err)
	}
	if s, err = resolve(res, "acme/x@"+first); err != nil || s.Commit != first {
		t.Errorf("by commit: %v", err)
	}
	for uses, want := range map[string]string{"acme/x@v9": `has no branch, tag or commit "v9"`, "acme/none@v1": "neither the forge nor"} {
		var e *Error
		if _, err := resolve(res, uses); !errors.As(err, &e) || !strings.Contains(e.Msg, want) {
			t.Errorf("%s: %v", uses, err)
		}
	}
	// Another process, without the remote.
	offline := NewResolver(Config{Mirror: mirror, Remote: "http://127.0.0.1:1", Timeout: time.Second, Now: func() time.Time { return r.clock }}, r)
	defer offline.Close()
	if s, err = resolve(offline, "acme/x@v1"); err != nil || s.Commit != second || s.Stale == "" {
		t.Errorf("offline: %+v %v", s, err)
	}
	if s, err = resolve(offline, "acme/x@"+first); err != nil || s.Stale != "" {
		t.Errorf("a commit needs no remote: %v", err)
	}
	var e *Error
	if _, err := resolve(offline, "acme/y@v1"); !errors.As(err, &e) || !strings.Contains(e.Msg, "cannot be reached") || !strings.Contains(e.Hint, "lockstep action import acme/y@v1") {
		t.Errorf("offline: %v", err)
	}
}
